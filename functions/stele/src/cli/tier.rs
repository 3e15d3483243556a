//! `stele tier`: the stores that hold the same data.

use clap::{Args, Subcommand, ValueEnum};
use stele_model::TierId;

/// `stele tier`.
#[derive(Debug, Args)]
#[command(after_help = "\
To move to another store while everything runs:
  stele tier init --name old --store s3://old/metrics     # once
  stele tier add new s3://new/metrics                     # batches go to both from now on
  stele tier sync                                         # copies history; new is a mirror then
  stele tier verify
  stele tier promote new                                  # compaction and reads move to it
  stele tier drain old                                    # no more batches to the old one
  stele tier retire old                                   # prints the proof, or what is missing

Every command can be interrupted and given again. A command that waits says for what: no process may
act on the set before this one when the next step is taken.")]
pub struct TierArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TierAction,
    /// Any store of the set that can be read: a directory, file:///… or s3://bucket/prefix
    /// [default: ./stele-data].
    #[arg(long, value_name = "STORE", global = true)]
    pub store: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do with tiers.
#[derive(Debug, Subcommand)]
pub enum TierAction {
    /// Make a store the first tier, and the primary.
    Init(TierInit),
    /// The tiers, and how far each is behind the primary.
    List,
    /// Add an empty store. New batches go to it at once; `sync` copies the history.
    Add {
        /// Its name: 1 to 20 of a-z, 0-9, _ and -; never used again for another.
        name: TierId,
        /// The store; s3://bucket/prefix?region=NAME when it is in another region than the others.
        url: String,
        /// A backup follows by `sync` alone, and is never promoted.
        #[arg(long, value_enum, default_value_t = RoleArg::Mirror)]
        role: RoleArg,
    },
    /// Say which tiers must hold a batch before it is acknowledged.
    Policy {
        /// All of them, or the primary: then it notes what a mirror lacks, and `sync` brings it.
        #[arg(value_enum)]
        policy: PolicyArg,
    },
    /// Bring every tier to where the primary is; a tier that joins becomes a mirror.
    Sync {
        /// Copy at most so many MiB of history per second.
        #[arg(long, value_name = "MIB")]
        rate: Option<u32>,
    },
    /// Compare every object of a tier with the primary's, by digest, both ways.
    Verify {
        /// Only this tier [default: all].
        name: Option<TierId>,
    },
    /// Make a mirror the primary.
    Promote {
        /// The mirror.
        name: TierId,
        /// The primary is lost and will not come back as it was.
        #[arg(long)]
        force: bool,
    },
    /// Send a tier no more batches.
    Drain {
        /// The tier, which is not the primary.
        name: TierId,
    },
    /// Prove that the primary holds all that a drained tier holds; with --plan, give that up.
    Retire {
        /// The tier.
        name: TierId,
        /// The hash that the same command without it prints.
        #[arg(long, value_name = "HASH")]
        plan: Option<String>,
    },
}

/// `stele tier init`.
#[derive(Debug, Args)]
pub struct TierInit {
    /// The name of the first tier.
    #[arg(long, value_name = "NAME")]
    pub name: TierId,
    /// How long a process may act on a tier set that it has read: each change waits so long.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = super::duration_us)]
    pub lease: i64,
    /// The longest that one request may take; each change waits for that, too.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = super::duration_us)]
    pub request: i64,
    /// State that no server and no function writes to the store now: then nothing is waited for.
    #[arg(long)]
    pub nobody_writes: bool,
}

/// What a tier is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Complete at any instant.
    Mirror,
    /// As of the last sync.
    Backup,
}

/// Which tiers must hold a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// Every tier but backups.
    All,
    /// The primary.
    Primary,
}
