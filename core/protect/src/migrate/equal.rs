//! Whether tiers are equal, and what one lacks of another.

use std::collections::BTreeSet;

use stele_model::{Digest, TenantId, TierId};
use stele_store::Tier;
use stele_table::TableLog;

use super::{MigrateError, Migration, Missing, Result, tenants_of, usable};
use crate::equal::{Depth, Difference, Relation, Side, Wrong, compare};
use crate::prove::{ProofOptions, Proven, prove};

/// Differences that are named.
const EXAMPLES: usize = 20;

/// What `prove` came to.
pub(super) struct Held {
    pub missing: Missing,
    pub tenants: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Over every key with its digest.
    pub hash: Digest,
}

impl Missing {
    fn note(&mut self, tenant: Option<&TenantId>, difference: &Difference) {
        self.total += 1;
        if self.examples.len() < EXAMPLES {
            let tenant = tenant.map_or("control", TenantId::as_str);
            self.examples.push(format!("{tenant}: {difference}"));
        }
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

    /// Looks for all that `from` holds at `to`.
    pub(super) async fn held(&self, from: &Tier, to: &Tier) -> Result<Held> {
        let options = ProofOptions {
            log: &|store| self.log(store),
            marker_keep_us: self.options.marker_keep_us,
        };
        let proven = prove(from, to, &options, &|_| {}).await;
        let mut held = Held {
            missing: Missing::default(),
            tenants: 0,
            objects: 0,
            bytes: 0,
            hash: Digest::default(),
        };
        match proven.map_err(|source| MigrateError::Compare(Box::new(source)))? {
            Proven::Lacking(lacking) => {
                for one in &lacking {
                    for difference in &one.differences {
                        held.missing.note(one.tenant.as_ref(), difference);
                    }
                    let named = one.differences.len() as u64;
                    held.missing.total += one.differences_total - named;
                    if let Relation::Diverged { version } = one.relation {
                        held.missing.note(one.tenant.as_ref(), &diverged(version));
                    }
                }
            }
            Proven::Proof(proof) => {
                held.tenants = proof.tenants.len() as u64;
                (held.objects, held.bytes) = (proof.objects, proof.bytes);
                held.hash = proof.hash;
            }
        }
        Ok(held)
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
