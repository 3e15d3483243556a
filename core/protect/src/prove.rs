//! The proof that a tier may go: everything it holds is in another, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use stele_format::content_digest;
use stele_model::{Digest, TenantId, sabotaged};
use stele_store::{TenantStore, Tier, keys};
use stele_table::TableLog;

use crate::equal::{Comparison, Depth, Difference, Relation, Side, Wrong, check, relation};
use crate::holdings::Holdings;
use crate::replicate::ReplicateError;

type Result<T, E = ReplicateError> = std::result::Result<T, E>;

/// What was proved of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantProof {
    /// The tenant.
    pub tenant: TenantId,
    /// The newest version of the tier that may go; `None` without a table.
    pub retiring_version: Option<u64>,
    /// The newest version of the other, the same or a later one of the same log.
    pub survivor_version: Option<u64>,
    /// Objects that the one holds and the other has.
    pub objects: u64,
    /// Bytes read of the other.
    pub bytes: u64,
    /// Sample rows of the one's newest version.
    pub rows: u64,
    /// What identifies them: every key with its digest.
    pub hash: Digest,
}

/// That everything one tier holds is in another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Where the tier is that may go.
    pub retiring: String,
    /// Where the other is.
    pub survivor: String,
    /// The survivor's clock before anything was read, µs.
    pub made_us: i64,
    /// Every tenant, in order.
    pub tenants: Vec<TenantProof>,
    /// Objects of all tenants.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their sample rows.
    pub rows: u64,
    /// What identifies the two tiers and all that the one holds: the same whenever it is proved, as
    /// long as nothing is written there.
    pub hash: Digest,
}

/// What is in the way of a proof, for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The tenant; `None` for what belongs to the whole tier.
    pub tenant: Option<TenantId>,
    /// How the logs are related: the first is the tier that is to go.
    pub relation: Relation,
    /// What is missing or different at the survivor, the second; the first thousand.
    pub differences: Vec<Difference>,
    /// How many there are.
    pub differences_total: u64,
}

/// What became of an attempt at a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proven {
    /// The tier may go.
    Proof(Box<Proof>),
    /// Not yet: the survivor lacks these.
    Lacking(Vec<Lacking>),
}

/// What it takes to prove.
pub struct ProofOptions<'a> {
    /// Opens the log of a tenant in a store.
    pub log: &'a (dyn Fn(TenantStore) -> Arc<TableLog> + Sync),
    /// How long markers of idempotency keys are kept, µs.
    pub marker_keep_us: i64,
}

/// Looks for everything that `retiring` holds live, pinned or not absorbed at `survivor`, reading
/// every byte there, and for its settings, markers and tokens. The survivor may be ahead: what its
/// own log has superseded since may be gone there. Nobody may write to `retiring` any more.
///
/// # Errors
/// The stores' and the tables': what cannot be read cannot be proved.
pub async fn prove(
    retiring: &Tier,
    survivor: &Tier,
    options: &ProofOptions<'_>,
    progress: &(dyn Fn(&TenantProof) + Sync),
) -> Result<Proven> {
    let made_us = survivor.now_us().await?;
    let mut lacking = Vec::new();
    let differences = lacking_tokens(retiring, survivor).await?;
    if !differences.is_empty() {
        lacking.push(Lacking {
            tenant: None,
            relation: Relation::Same,
            differences_total: differences.len() as u64,
            differences,
        });
    }
    let mut tenants = Vec::new();
    for tenant in retiring.tenants().await? {
        let from = (options.log)(retiring.tenant(&tenant));
        let to = (options.log)(survivor.tenant(&tenant));
        match prove_tenant(&from, &to, options.marker_keep_us).await? {
            Ok(proof) => {
                progress(&proof);
                tenants.push(proof);
            }
            Err(found) => lacking.push(found),
        }
    }
    if !lacking.is_empty() {
        return Ok(Proven::Lacking(lacking));
    }
    let (from, to) = (retiring.url().to_owned(), survivor.url().to_owned());
    let mut text = format!("{from} to {to}\n");
    for proof in &tenants {
        let version = proof.retiring_version;
        text += &format!("{} {version:?} {}\n", proof.tenant, proof.hash);
    }
    let sum = |of: fn(&TenantProof) -> u64| tenants.iter().map(of).sum();
    Ok(Proven::Proof(Box::new(Proof {
        retiring: from,
        survivor: to,
        made_us,
        objects: sum(|proof| proof.objects),
        bytes: sum(|proof| proof.bytes),
        rows: sum(|proof| proof.rows),
        hash: content_digest(text.as_bytes()),
        tenants,
    })))
}

async fn prove_tenant(
    from: &TableLog,
    to: &TableLog,
    marker_keep_us: i64,
) -> Result<std::result::Result<TenantProof, Lacking>> {
    let (needed, there) = (Holdings::of(from).await?, Holdings::of(to).await?);
    let version = |held: &Holdings| held.state.exists().then_some(held.state.version);
    let mut found = Comparison {
        first_version: version(&needed),
        second_version: version(&there),
        relation: relation(from, &needed.state, to, &there.state).await?,
        objects: 0,
        bytes: 0,
        differences: lacking_settings(from.store(), to.store(), marker_keep_us).await?,
        differences_total: 0,
    };
    found.differences_total = found.differences.len() as u64;
    let is_ahead = found.relation == Relation::FirstIsPrefix;
    let second = Side::Second;
    let depth = match sabotaged!(ProofByNames) {
        true => Depth::Names,
        false => Depth::Bytes,
    };
    check(
        (&needed, from),
        to,
        second,
        &there,
        is_ahead,
        depth,
        &mut found,
    )
    .await?;
    let is_whole = matches!(found.relation, Relation::Same | Relation::FirstIsPrefix);
    let tenant = from.store().tenant().clone();
    if !is_whole || found.differences_total > 0 {
        return Ok(Err(Lacking {
            tenant: Some(tenant),
            relation: found.relation,
            differences: found.differences,
            differences_total: found.differences_total,
        }));
    }
    let mut text = String::new();
    for (key, held) in &needed.objects {
        text += &format!("{key} {}\n", held.digest);
    }
    needed
        .l0
        .iter()
        .for_each(|name| text += &format!("{name}\n"));
    Ok(Ok(TenantProof {
        tenant,
        retiring_version: found.first_version,
        survivor_version: found.second_version,
        objects: found.objects,
        bytes: found.bytes,
        rows: needed.rows(),
        hash: content_digest(text.as_bytes()),
    }))
}

fn missing(key: String) -> Difference {
    let (side, wrong) = (Side::Second, Wrong::Missing);
    Difference { side, key, wrong }
}

/// Settings that the survivor lacks or holds otherwise, and young markers that it lacks.
async fn lacking_settings(
    from: &TenantStore,
    to: &TenantStore,
    marker_keep_us: i64,
) -> Result<Vec<Difference>> {
    let mut lacking = Vec::new();
    for chain in ["rollups", "retention"] {
        for link in from.list(&format!("{}/{chain}", keys::CONTROL)).await? {
            let (ours, theirs) = (from.get(&link.key).await?, to.get_opt(&link.key).await?);
            match theirs.map(|bytes| content_digest(&bytes)) {
                None => lacking.push(missing(link.key)),
                Some(found) => {
                    let expected = content_digest(&ours);
                    if found != expected {
                        let wrong = Wrong::Differs { expected, found };
                        let (side, key) = (Side::Second, link.key);
                        lacking.push(Difference { side, key, wrong });
                    }
                }
            }
        }
    }
    let markers = from.list(keys::IDEM).await?;
    if markers.is_empty() {
        return Ok(lacking);
    }
    let now_us = from.tier().now_us().await?;
    let there = to.list(keys::IDEM).await?;
    let there: BTreeMap<String, u64> = there.into_iter().map(|o| (o.key, o.size_bytes)).collect();
    let young = markers.into_iter().filter(|marker| {
        let is_young = marker.modified_us.saturating_add(marker_keep_us) > now_us;
        is_young && there.get(&marker.key) != Some(&marker.size_bytes)
    });
    lacking.extend(young.map(|marker| missing(marker.key)));
    Ok(lacking)
}

/// Tokens and revocations that the survivor lacks, by name: they are create-only.
async fn lacking_tokens(from: &Tier, to: &Tier) -> Result<Vec<Difference>> {
    let there = to.control().list("tokens").await?;
    let there: BTreeSet<String> = there.into_iter().map(|object| object.key).collect();
    let ours = from.control().list("tokens").await?.into_iter();
    let lacking = ours.filter(|object| !there.contains(&object.key));
    Ok(lacking.map(|object| missing(object.key)).collect())
}
