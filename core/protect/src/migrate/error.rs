//! Why tiers could not be worked on.

use stele_model::{ErrorKind, TenantId, TierId};
use stele_store::{TierSetError, TierState, Trouble};

use crate::replicate::ReplicateError;

/// What keeps a tier from being promoted or retired.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missing {
    /// The first of them: tenant, key and what is wrong.
    pub examples: Vec<String>,
    /// How many there are.
    pub total: u64,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} objects: {}", self.total, self.examples.join("; "))?;
        let shown = self.examples.len() as u64;
        match self.total > shown {
            true => write!(f, "; and {} more", self.total - shown),
            false => Ok(()),
        }
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A store failed.
    #[error("an object store failed")]
    Store(#[from] stele_store::Error),
    /// A table failed.
    #[error("a table failed")]
    Table(#[from] stele_table::Error),
    /// Copying failed.
    #[error("tenant {tenant} could not be copied to tier {id}")]
    Replicate {
        /// The tier.
        id: TierId,
        /// The tenant.
        tenant: TenantId,
        /// Why.
        #[source]
        source: Box<ReplicateError>,
    },
    /// What all tenants share could not be copied.
    #[error("the tokens could not be copied to tier {id}")]
    Control {
        /// The tier.
        id: TierId,
        /// Why.
        #[source]
        source: Box<ReplicateError>,
    },
    /// The tiers could not be compared.
    #[error("the tiers could not be compared")]
    Compare(#[source] Box<ReplicateError>),
    /// A change that the rules of tier sets forbid.
    #[error(transparent)]
    Set(#[from] TierSetError),
    /// There is no tier set.
    #[error("the store has no tier set: `stele tier init` makes one")]
    NoSet,
    /// Somebody else published the next tier set meanwhile.
    #[error("the tier set of epoch {epoch} was replaced meanwhile: ask again")]
    Replaced {
        /// The epoch of the set that this began with.
        epoch: u64,
    },
    /// There is a tier set already.
    #[error("{url} holds a tier set already, of epoch {epoch}")]
    HasSet {
        /// The store.
        url: String,
        /// The epoch of its set.
        epoch: u64,
    },
    /// Only an empty store can join.
    #[error("{url} holds tenant {tenant}: only an empty store can be added")]
    NotEmpty {
        /// The store.
        url: String,
        /// A tenant there.
        tenant: TenantId,
    },
    /// The tier is retired or lost.
    #[error("tier {id} is no part of the set any more")]
    Over {
        /// The tier.
        id: TierId,
    },
    /// The tier cannot be used.
    #[error("tier {id}: {trouble}")]
    Unreadable {
        /// The tier.
        id: TierId,
        /// Why.
        trouble: Trouble,
    },
    /// A promotion before this one has not come to its end.
    #[error(
        "the promotion of tier {id} is not finished: `stele tier promote {id}` goes on with it"
    )]
    Unfinished {
        /// The tier that is being promoted.
        id: TierId,
    },
    /// Batches were acknowledged that the tier does not hold.
    #[error("tier {id} lacks {open} acknowledged objects: `stele tier sync` brings them")]
    Intents {
        /// The tier.
        id: TierId,
        /// Open repair intents.
        open: u64,
    },
    /// The tier lacks something, or holds something else.
    #[error("tier {id} is not equal to {with}: {missing}")]
    Unequal {
        /// The tier.
        id: TierId,
        /// The other tier.
        with: TierId,
        /// What.
        missing: Missing,
    },
    /// The survivor lacks something of the tier that is to go.
    #[error("tier {id} ({}) holds what tier {survivor} lacks: {missing}", state.as_str())]
    Needed {
        /// The tier that is to go.
        id: TierId,
        /// Its state.
        state: TierState,
        /// The tier that would have to hold all of it.
        survivor: TierId,
        /// What it lacks.
        missing: Missing,
    },
    /// The primary can be read: it need not be given up.
    #[error("the primary, tier {primary}, can be read: promote without force")]
    PrimaryThere {
        /// The primary.
        primary: TierId,
    },
    /// Another mirror knows more.
    #[error("tier {other} is ahead of tier {id} for tenant {tenant}: promote that")]
    Ahead {
        /// The tier.
        id: TierId,
        /// The tier that is ahead.
        other: TierId,
        /// The tenant.
        tenant: TenantId,
    },
    /// The plan is not the one that was confirmed.
    #[error("the plan is {plan}, not the confirmed {confirmed}: look at it again")]
    OtherPlan {
        /// The hash of the plan.
        plan: stele_model::Digest,
        /// The hash that was confirmed.
        confirmed: stele_model::Digest,
    },
}

impl MigrateError {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(source) => source.kind(),
            Self::Table(source) => source.kind(),
            Self::Replicate { source, .. }
            | Self::Control { source, .. }
            | Self::Compare(source) => source.kind(),
            Self::Unreadable { .. } | Self::Replaced { .. } => ErrorKind::Unavailable,
            Self::Set(_)
            | Self::NoSet
            | Self::HasSet { .. }
            | Self::NotEmpty { .. }
            | Self::Over { .. }
            | Self::Unfinished { .. }
            | Self::Intents { .. }
            | Self::Unequal { .. }
            | Self::Needed { .. }
            | Self::PrimaryThere { .. }
            | Self::Ahead { .. }
            | Self::OtherPlan { .. } => ErrorKind::Conflict,
        }
    }
}
