//! All tenants of a tier, one after the other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use stele_model::TenantId;
use stele_store::{TenantStore, Tier, keys};
use stele_table::TableLog;

use super::{
    L0Report, ReplicateError, ReplicateOptions, ReplicateReport, Result, SettingsReport,
    copy_control, copy_l0, copy_settings, replicate,
};
use crate::restore::CopyProgress;

/// How far copying a tier has come. The totals are what the target lacked when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierProgress {
    /// Tenants done.
    pub tenants: u64,
    /// Of so many.
    pub tenants_total: u64,
    /// Objects done.
    pub objects: u64,
    /// Of about so many.
    pub objects_total: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of about so many.
    pub bytes_total: u64,
}

/// What became of one tenant.
#[derive(Debug)]
pub struct TenantCopied {
    /// The tenant.
    pub tenant: TenantId,
    /// What was copied, or why not all of it was.
    pub copied: Result<(ReplicateReport, L0Report, SettingsReport)>,
}

/// What copying a tier did.
#[derive(Debug, Default)]
pub struct TierReport {
    /// Tokens and their revocations.
    pub control: SettingsReport,
    /// Every tenant, in order.
    pub tenants: Vec<TenantCopied>,
}

impl TierReport {
    /// The first tenant that could not be copied whole, and why.
    #[must_use]
    pub fn first_error(&self) -> Option<(&TenantId, &ReplicateError)> {
        let mut failed = self.tenants.iter();
        failed.find_map(|done| Some((&done.tenant, done.copied.as_ref().err()?)))
    }
}

/// What it takes to copy a tier beside how to copy.
pub struct TierOptions<'a> {
    /// Opens the log of a tenant in a store; the same one for the same store again, if it can.
    pub log: &'a (dyn Fn(TenantStore) -> Arc<TableLog> + Sync),
    /// How long markers of idempotency keys are kept, µs.
    pub marker_keep_us: i64,
    /// How to copy.
    pub replicate: &'a ReplicateOptions,
}

/// Copies everything but epochs from `source` to `target`: tokens, and of every tenant its
/// settings, its markers, its table and its L0. One tenant that fails does not hold up the others.
///
/// # Errors
/// When the tenants cannot be listed or the tokens not be copied.
pub async fn replicate_tier(
    source: &Tier,
    target: &Tier,
    options: &TierOptions<'_>,
    progress: &(dyn Fn(TierProgress) + Sync),
) -> Result<TierReport> {
    let mut report = TierReport {
        control: copy_control(source, target).await?,
        ..TierReport::default()
    };
    let tenants = source.tenants().await?;
    let mut total = TierProgress {
        tenants_total: tenants.len() as u64,
        ..TierProgress::default()
    };
    for tenant in &tenants {
        let (objects, bytes) = lacking(&source.tenant(tenant), &target.tenant(tenant)).await?;
        total.objects_total += objects;
        total.bytes_total += bytes;
    }
    let done = Mutex::new(total);
    progress(total);
    for tenant in tenants {
        let of_tenant = Mutex::new(CopyProgress::default());
        let tell = |now: CopyProgress| {
            let mut before = of_tenant.lock().unwrap_or_else(PoisonError::into_inner);
            let mut total = done.lock().unwrap_or_else(PoisonError::into_inner);
            total.objects += now.objects.saturating_sub(before.objects);
            total.bytes += now.bytes.saturating_sub(before.bytes);
            *before = now;
            progress(*total);
        };
        let from = (options.log)(source.tenant(&tenant));
        let to = (options.log)(target.tenant(&tenant));
        let copied = copy_tenant(&from, &to, options, &tell).await;
        let mut total = done.lock().unwrap_or_else(PoisonError::into_inner);
        total.tenants += 1;
        progress(*total);
        drop(total);
        report.tenants.push(TenantCopied { tenant, copied });
    }
    Ok(report)
}

async fn copy_tenant(
    from: &TableLog,
    to: &TableLog,
    options: &TierOptions<'_>,
    tell: &(dyn Fn(CopyProgress) + Sync),
) -> Result<(ReplicateReport, L0Report, SettingsReport)> {
    let keep_us = options.marker_keep_us;
    let settings = copy_settings(from.store(), to.store(), keep_us).await?;
    // L0 first: what is absorbed and swept meanwhile comes with the log.
    let l0 = copy_l0(from, to).await?;
    let table = replicate(from, to, options.replicate, tell).await?;
    Ok((table, l0, settings))
}

/// Data files, ledger and log that the target does not hold.
async fn lacking(from: &TenantStore, to: &TenantStore) -> Result<(u64, u64)> {
    let (mut objects, mut bytes) = (0, 0);
    for prefix in ["table", keys::LEDGER] {
        let there = to.list(prefix).await?;
        let there: BTreeSet<String> = there.into_iter().map(|object| object.key).collect();
        for object in from.list(prefix).await? {
            let is_shortcut = keys::head_version(&object.key).is_some();
            if !is_shortcut && !there.contains(&object.key) {
                objects += 1;
                bytes += object.size_bytes;
            }
        }
    }
    Ok((objects, bytes))
}
