//! Whether tiers are equal, and what one lacks of another.

use std::collections::BTreeSet;

use stele_model::{TenantId, TierId};
use stele_store::Tier;
use stele_table::TableLog;

use super::{MigrateError, Migration, Missing, Result, tenants_of, usable};
use crate::equal::{Depth, Difference, Relation, Side, Wrong, compare};
use crate::prove::{Lacking, Proof, ProofOptions, Proven, prove};

/// Differences that are named.
const EXAMPLES: usize = 20;

impl Missing {
    fn note(&mut self, tenant: Option<&TenantId>, difference: &Difference) {
        self.total += 1;
        if self.examples.len() < EXAMPLES {
            let tenant = tenant.map_or("control", TenantId::as_str);
            self.examples.push(format!("{tenant}: {difference}"));
        }
    }

    /// What is in the way of a proof: more than is named, where there is very much of it.
    fn of(lacking: &[Lacking]) -> Self {
        let mut missing = Self::default();
        for one in lacking {
            for difference in &one.differences {
                missing.note(one.tenant.as_ref(), difference);
            }
            missing.total += one.differences_total - one.differences.len() as u64;
            if let Relation::Diverged { version } = one.relation {
                missing.note(one.tenant.as_ref(), &diverged(version));
            }
        }
        missing
    }
}

impl Migration {
    /// Compares every byte that a tier holds with the primary, both ways. What moves meanwhile is
    /// no difference.
    ///
    /// # Errors
    /// When either cannot be read.
    pub async fn compare(&self, id: &TierId) -> Result<Missing> {
        let now = self.now().await?;
        let (primary, other) = (now.primary()?, now.member(id)?);
        let (first, second) = (usable(primary)?, usable(other)?);
        let sides = [Side::First, Side::Second];
        self.unequal(first, second, &sides, async || Ok(())).await
    }

    /// What differs on these sides now and, after `between`, still does.
    pub(super) async fn unequal(
        &self,
        first: &Tier,
        second: &Tier,
        sides: &[Side],
        between: impl AsyncFn() -> Result<()>,
    ) -> Result<Missing> {
        let mut suspects = Vec::new();
        for tenant in tenants_of(first, second).await? {
            let (a, b) = (self.log_of(first, &tenant), self.log_of(second, &tenant));
            let found = differences(&a, &b, sides, Depth::Bytes).await?;
            suspects.push((tenant, found));
        }
        between().await?;
        let mut missing = Missing::default();
        for (tenant, suspects) in &suspects {
            if suspects.is_empty() {
                continue;
            }
            let (a, b) = (self.log_of(first, tenant), self.log_of(second, tenant));
            let still = differences(&a, &b, sides, Depth::Names).await?;
            let still: BTreeSet<&str> = still.iter().map(|d| d.key.as_str()).collect();
            for suspect in suspects {
                let is_moving = suspect.wrong == Wrong::Missing;
                if !is_moving || still.contains(suspect.key.as_str()) {
                    missing.note(Some(tenant), suspect);
                }
            }
        }
        Ok(missing)
    }

    /// Looks for all that `from` holds at `to`: the proof, or what is in its way.
    pub(super) async fn held(
        &self,
        from: &Tier,
        to: &Tier,
    ) -> Result<std::result::Result<Box<Proof>, Missing>> {
        let options = ProofOptions {
            log: &|store| self.log(store),
            marker_keep_us: self.options.marker_keep_us,
        };
        let proven = prove(from, to, &options, &|_| {}).await;
        match proven.map_err(|source| MigrateError::Compare(Box::new(source)))? {
            Proven::Lacking(lacking) => Ok(Err(Missing::of(&lacking))),
            Proven::Proof(proof) => Ok(Ok(proof)),
        }
    }
}

async fn differences(
    first: &TableLog,
    second: &TableLog,
    sides: &[Side],
    depth: Depth,
) -> Result<Vec<Difference>> {
    let compared = compare(first, second, depth).await;
    let compared = compared.map_err(|source| MigrateError::Compare(Box::new(source)))?;
    let mut found = compared.differences;
    found.retain(|difference| sides.contains(&difference.side));
    if let Relation::Diverged { version } = compared.relation {
        found.push(diverged(version));
    }
    Ok(found)
}

/// The entry of which the logs hold two.
fn diverged(version: u64) -> Difference {
    Difference {
        side: Side::Second,
        key: stele_store::keys::log_entry(version),
        wrong: Wrong::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_in_the_way_of_a_proof_is_counted_and_the_first_are_named() {
        let difference = |n: usize| Difference {
            side: Side::Second,
            key: format!("key {n}"),
            wrong: Wrong::Missing,
        };
        let lacking = |relation, named: usize, total| Lacking {
            tenant: None,
            relation,
            differences: (0..named).map(difference).collect(),
            differences_total: total,
        };
        let all = [
            lacking(Relation::Same, 3, 3),
            lacking(Relation::Diverged { version: 7 }, 4, 4),
            lacking(Relation::SecondIsPrefix, 1_000, 1_234),
        ];
        let missing = Missing::of(&all);
        assert_eq!(missing.total, 3 + 4 + 1 + 1_234);
        assert_eq!(missing.examples.len(), EXAMPLES);
        let entry = stele_store::keys::log_entry(7);
        assert!(missing.examples[7].contains(&entry), "{missing}");
        let shown = missing.examples[0].as_str();
        assert_eq!(shown, "control: key 0 is missing in the second tier");
    }
}
