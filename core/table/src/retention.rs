//! How long each resolution is kept: a chain of create-only objects under `control/retention/`,
//! the last of which counts.

use std::fmt;

use serde::{Deserialize, Serialize};
use stele_model::time::{DAY_US, MINUTE_US};
use stele_model::{RawRetention, Resolution};
use stele_store::TenantStore;

use crate::chain::{Chain, Link};
use crate::error::{Error, Result};

const CHAIN: Chain = Chain("retention");

/// Longer than any timestamp that is accepted is old.
const DAYS_MAX: u32 = 36_500;
/// A setting younger than this has expired nothing: expiry waits twice as long.
const YOUNG_US: i64 = 30 * MINUTE_US;

/// Days that each resolution is kept; `None` for ever, which is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Raw samples.
    #[serde(default)]
    pub raw_days: Option<u32>,
    /// 60 s rollups.
    #[serde(default)]
    pub s60_days: Option<u32>,
    /// 15 min rollups.
    #[serde(default)]
    pub m15_days: Option<u32>,
    /// 60 min rollups.
    #[serde(default)]
    pub m60_days: Option<u32>,
}

impl Retention {
    /// Days that `resolution` is kept; `None` for ever.
    #[must_use]
    pub fn days(&self, resolution: Resolution) -> Option<u32> {
        match resolution {
            Resolution::Raw => self.raw_days,
            Resolution::S60 => self.s60_days,
            Resolution::M15 => self.m15_days,
            Resolution::M60 => self.m60_days,
        }
    }

    /// Whether everything is kept for ever.
    #[must_use]
    pub fn is_for_ever(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it may be set.
    ///
    /// # Errors
    /// [`Error::RetentionDays`] for less than a day or more than 36,500 days,
    /// [`Error::RetentionOrder`] for a resolution that would be forgotten before a finer one.
    pub fn check(&self) -> Result<()> {
        let all = [
            Resolution::Raw,
            Resolution::S60,
            Resolution::M15,
            Resolution::M60,
        ];
        for resolution in all {
            if let Some(days) = self.days(resolution)
                && !(1..=DAYS_MAX).contains(&days)
            {
                return Err(Error::RetentionDays {
                    resolution: resolution.partition(),
                    days,
                    days_max: DAYS_MAX,
                });
            }
        }
        for pair in all.windows(2) {
            let (finer_kept, kept) = (Kept(self.days(pair[0])), Kept(self.days(pair[1])));
            if kept.days() < finer_kept.days() {
                return Err(Error::RetentionOrder {
                    resolution: pair[1].partition(),
                    kept,
                    finer: pair[0].partition(),
                    finer_kept,
                });
            }
        }
        Ok(())
    }
}

/// How long something is kept: some days, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept(pub Option<u32>);

impl Kept {
    /// For ever is longer than any number of days.
    fn days(self) -> u32 {
        self.0.unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("for ever"),
            Some(1) => f.write_str("1 day"),
            Some(days) => write!(f, "{days} days"),
        }
    }
}

/// The retention in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionInForce {
    /// How long each resolution is kept.
    pub retention: Retention,
    /// Since when, µs by the store's clock; 0 when it was never set.
    pub since_us: i64,
    /// Samples before this instant may have expired under an earlier, shorter retention, µs.
    pub expired_before_us: Option<i64>,
}

impl RetentionInForce {
    /// What ingest must know of it.
    #[must_use]
    pub fn raw(&self) -> RawRetention {
        RawRetention {
            days: self.retention.raw_days,
            expired_before_us: self.expired_before_us,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    retention: Retention,
    since_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expired_before_us: Option<i64>,
}

/// How long each resolution is kept.
///
/// # Errors
/// The store's, and [`Error::Corrupt`] for a damaged setting.
pub async fn retention(store: &TenantStore) -> Result<RetentionInForce> {
    let last: Option<Link<Setting>> = CHAIN.last(store).await?;
    Ok(
        last.map_or_else(RetentionInForce::default, |link| RetentionInForce {
            retention: link.value.retention,
            since_us: link.value.since_us.max(link.modified_us),
            expired_before_us: link.value.expired_before_us,
        }),
    )
}

/// Sets how long each resolution is kept. A shorter retention takes effect after an hour, so a
/// slip can be undone; a longer one brings nothing back, and samples that may have expired before
/// are refused from now on.
///
/// # Errors
/// [`Error::RetentionDays`] and [`Error::RetentionOrder`] for values that may not be set; the store's, [`Error::Corrupt`] for a
/// damaged setting, [`Error::Contended`] when others kept taking the next link.
pub async fn set_retention(store: &TenantStore, retention: Retention) -> Result<()> {
    retention.check()?;
    let now_us = store.tier().now_us().await?;
    CHAIN
        .append(store, |last: Option<&Link<Setting>>| {
            let last = last.map(|link| (link.value, link.value.since_us.max(link.modified_us)));
            if last.map(|(last, _)| last.retention).unwrap_or_default() == retention {
                return None;
            }
            let expired = last.and_then(|(last, since_us)| {
                let days = last.retention.raw_days?;
                let was_young = now_us.saturating_sub(since_us) < YOUNG_US;
                (!was_young).then(|| now_us.saturating_sub(i64::from(days) * DAY_US))
            });
            let before = last.and_then(|(last, _)| last.expired_before_us);
            Some(Setting {
                retention,
                since_us: now_us,
                expired_before_us: before.max(expired),
            })
        })
        .await
}
