//! The seams through which time and randomness enter. Only `stele-runtime` (and tests) implement
//! them, so a simulation owns both.

/// Reads the current time.
pub trait Clock: Send + Sync {
    /// µs since the epoch, UTC.
    fn now_us(&self) -> i64;

    /// µs since some instant of this process, never less than before: for durations, which the wall
    /// clock can tell wrong when it is set. A clock that is never set may answer its time.
    fn steady_us(&self) -> i64 {
        self.now_us()
    }
}

/// Makes names that no one has used.
pub trait Ids: Send + Sync {
    /// A fresh operation id: 32 lower-case hex digits.
    fn operation_id(&self) -> String;
}

/// Makes bits that nobody can guess.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` from a cryptographically secure source.
    ///
    /// # Errors
    /// When the source fails: `bytes` must not be used.
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()>;
}
