//! Deliberate defects, to prove that the tests would see them.
//!
//! Code asks `sabotaged!(Name)` where a rule is kept. Without the cargo feature `sabotage`, which no
//! crate turns on for another, that is the constant `false` and nothing of this file is compiled.
//! With it, one defect at a time is on, chosen at run time by a test; none is at the start.

/// Whether the named [`Sabotage`](crate::sabotage::Sabotage) is on.
#[cfg(feature = "sabotage")]
#[macro_export]
macro_rules! sabotaged {
    ($name:ident) => {
        $crate::sabotage::is_on($crate::sabotage::Sabotage::$name)
    };
}

/// Whether a deliberate defect is on: never without the feature `sabotage`.
#[cfg(not(feature = "sabotage"))]
#[macro_export]
macro_rules! sabotaged {
    ($name:ident) => {
        false
    };
}

#[cfg(feature = "sabotage")]
pub use on::{Guard, Sabotage, begin, is_on};

#[cfg(feature = "sabotage")]
mod on {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    /// The defect that is on, as its number; 0 is none.
    static ON: AtomicU8 = AtomicU8::new(0);
    /// How often the one that is on has been asked for.
    static REACHED: AtomicU64 = AtomicU64::new(0);

    /// A deliberate defect.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Sabotage {
        /// Ingest acknowledges whatever became of its PUT.
        AckBeforePut = 1,
        /// "Already exists" is taken for the writer's own success, and nothing is read back.
        ExistsIsSuccess,
        /// Under policy `all`, a mirror that failed does not count.
        MirrorIgnored,
        /// Ingest does not look at its lease of the tier set after the writes.
        LeaseIgnored,
        /// What is absorbed is told by the time of the last commit, and not by the ledger.
        WatermarkForLedger,
        /// A view does not leave out what the ledger knows.
        LedgerIgnored,
        /// Absorb does not ask the ledger which batches are known.
        LedgerUnasked,
        /// Absorb loses the last row of each batch, and its counts say nothing of it.
        DropLastRow,
        /// Absorb loses a row, and the checks of job and commit before the log are left out.
        Unconserved,
        /// A commit that lost its race is made again as it was.
        RetryUnplanned,
        /// A job whose commit has an unknown outcome deletes its files.
        CleanUpAmbiguous,
        /// A view reads the log first, and then lists L0.
        LogBeforeL0,
        /// A head is believed without its entry.
        HeadTrusted,
        /// Sweep does not wait for the grace.
        NoGrace,
        /// Sweep does not know of pins.
        PinsIgnored,
        /// A pin is acknowledged without being read again and judged.
        PinUnread,
        /// Sweep asks no other tier.
        WitnessesUnasked,
        /// Raw samples expire without a look at their rollups.
        RollupsUnproven,
        /// Replication puts an entry whatever the one before it is.
        CopyUnchained,
        /// Replication puts the entry before what it names.
        LogBeforeData,
        /// The proof before a tier is retired compares names and sizes, not bytes.
        ProofByNames,
        /// A restore copies without comparing digests.
        RestoreUnchecked,
    }

    /// Keeps a defect on.
    #[derive(Debug)]
    pub struct Guard(());

    impl Guard {
        /// How often code asked for the defect while it was on.
        #[must_use]
        pub fn reached(&self) -> u64 {
            REACHED.load(Ordering::SeqCst)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            ON.store(0, Ordering::SeqCst);
        }
    }

    /// Turns one defect on, for the whole process, until the guard goes. One at a time.
    #[must_use]
    pub fn begin(one: Sabotage) -> Guard {
        REACHED.store(0, Ordering::SeqCst);
        ON.store(one as u8, Ordering::SeqCst);
        Guard(())
    }

    /// Whether `one` is on.
    #[must_use]
    pub fn is_on(one: Sabotage) -> bool {
        let is_on = ON.load(Ordering::SeqCst) == one as u8;
        if is_on {
            REACHED.fetch_add(1, Ordering::SeqCst);
        }
        is_on
    }
}
