//! Which failures freeze deletion, durably and for every process, until an operator resumes it.
//!
//! What is stored contradicts itself, or a job does not add up: then what else deletion rests on
//! is in doubt, too. What passes by itself (a store that does not answer, a race, a clock that is
//! wrong on this machine) ends the run and freezes nothing.

use stele_model::chain;
use stele_table::set_deletion_frozen;

use crate::compactor::Compactor;
use crate::error::{Error, Result};

/// Whether a failure freezes deletion. Damaged bytes can be a passing fault of a read: a caller
/// that can, looks twice.
pub(crate) fn freezes(error: &Error) -> bool {
    use stele_table::Error as Table;
    match error {
        Error::Table(Table::Refused { refusal, .. }) => {
            matches!(refusal, stele_table::Refusal::Conservation { .. })
        }
        Error::Table(Table::Corrupt { .. } | Table::FutureVersion { .. })
        | Error::NotDisjoint { .. }
        | Error::NotConserved { .. }
        | Error::Unproven { .. }
        | Error::Live { .. } => true,
        Error::Table(_)
        | Error::Store(_)
        | Error::Gone { .. }
        | Error::Format(_)
        | Error::Object { .. }
        | Error::OtherPlan { .. }
        | Error::NothingAsked
        | Error::Contended { .. }
        | Error::Skew { .. } => false,
    }
}

impl Compactor {
    /// Freezes deletion for a failure. When that fails, too, the failure still ends this run, and
    /// comes again in the next.
    pub(crate) async fn freeze(&self, error: &Error) {
        self.freeze_for(&chain(error)).await;
    }

    pub(crate) async fn freeze_for(&self, reason: &str) {
        let tenant = self.store.tenant();
        tracing::error!(%tenant, reason, "deletion is frozen");
        let set = set_deletion_frozen(&self.store, Some(reason), self.clock.now_us());
        if let Err(error) = set.await {
            tracing::error!(%tenant, %error, "deletion cannot be frozen");
        }
    }

    /// Passes the outcome of absorb, seal and consolidate on; rows that are not conserved freeze
    /// deletion.
    pub(crate) async fn watched<T>(&self, outcome: Result<T>) -> Result<T> {
        let adds_up = |error: &&Error| match error {
            Error::Table(stele_table::Error::Refused { .. }) => !freezes(error),
            error => !matches!(
                error,
                Error::NotConserved { .. } | Error::NotDisjoint { .. }
            ),
        };
        if let Some(error) = outcome.as_ref().err().filter(|error| !adds_up(error)) {
            self.freeze(error).await;
        }
        outcome
    }
}
