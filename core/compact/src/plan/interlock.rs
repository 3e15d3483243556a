//! Which expiry goes on by itself, and which asks first.
//!
//! Expiry is the one way in which live bytes leave the table for good. The period that comes due
//! today, and yesterday's, expire unattended whatever their share is: that is what a retention
//! means. More than that at once is due only after a retention was shortened, a clock went wrong,
//! or expiry stood still: then it asks when it would take more than a twentieth of what is live.

use std::fmt;

use serde::{Deserialize, Serialize};
use stele_format::content_digest;
use stele_model::{Day, Digest, Month, Resolution, TenantId};
use stele_table::{Expired, FileKind, TableState};

use super::expire::{ExpirePlan, ExpireRules, whole};

/// Live bytes that may expire beyond the newest periods without being confirmed: a twentieth.
const SHARE_MAX_PERMILLE: u64 = 50;
/// Periods that expire by themselves: the one that came due, and the one before.
const ROUTINE_PERIODS: i32 = 2;

/// What is due to expire, all resolutions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// What will have expired then.
    pub before: Expired,
    /// Bytes of live files that would leave the table.
    pub bytes: u64,
    /// Bytes of all live files.
    pub live_bytes: u64,
    /// The version of the last restore in place; 0 when there was none.
    pub restore: u64,
}

/// An expiry that waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpireAsks {
    /// What it is confirmed with: the digest of the tenant and of the days.
    pub hash: Digest,
    /// What would have expired then.
    pub before: Expired,
    /// Bytes of live files that would leave the table.
    pub bytes: u64,
    /// Bytes of all live files.
    pub live_bytes: u64,
    /// The share of them, in thousandths.
    pub permille: u64,
    /// The version of the last restore in place, which brings back what had expired; 0 when there
    /// was none.
    pub restore: u64,
}

impl fmt::Display for ExpireAsks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, live) = (self.bytes, self.live_bytes);
        let percent = self.permille / 10;
        write!(
            f,
            "{bytes} of {live} live bytes ({percent} %) would expire, more than {} %: confirm {}",
            SHARE_MAX_PERMILLE / 10,
            self.hash
        )
    }
}

/// Everything past its retention now.
#[must_use]
pub fn due_in_all(state: &TableState, rules: &ExpireRules) -> Due {
    let all = [
        Resolution::Raw,
        Resolution::S60,
        Resolution::M15,
        Resolution::M60,
    ];
    let live_bytes = state.files.values().map(|file| file.stats.size_bytes).sum();
    let mut due = Due {
        before: Expired::default(),
        bytes: 0,
        live_bytes,
        restore: last_restore(state),
    };
    let mut finer = Day(i32::MAX);
    for resolution in all {
        let Some(past) = rules.past(resolution) else {
            break;
        };
        finer = past.min(finer);
        due.before = due.before.with(resolution, whole(resolution, finer));
        let files = state.files_of(FileKind::Sealed(resolution));
        let gone = files.filter(|file| due.before.holds_file(file));
        due.bytes += gone.map(|file| file.stats.size_bytes).sum::<u64>();
    }
    due
}

/// What was confirmed before a restore in place brought days back is not confirmed for them.
fn last_restore(state: &TableState) -> u64 {
    state.revoked.last().map_or(0, |last| last.before)
}

impl Due {
    /// Whether a plan asks first; small tables, of less than `bytes_min`, never do.
    #[must_use]
    pub fn asks(&self, plan: &ExpirePlan, tenant: &TenantId, bytes_min: u64) -> Option<ExpireAsks> {
        let permille = self.bytes.saturating_mul(1000) / self.live_bytes.max(1);
        let is_small = self.live_bytes < bytes_min || permille <= SHARE_MAX_PERMILLE;
        if is_small || self.is_routine(plan) {
            return None;
        }
        Some(ExpireAsks {
            hash: self.hash(tenant),
            before: self.before,
            bytes: self.bytes,
            live_bytes: self.live_bytes,
            permille,
            restore: self.restore,
        })
    }

    /// Whether a plan removes nothing before the two newest periods that are due.
    fn is_routine(&self, plan: &ExpirePlan) -> bool {
        let Some(past) = self.before.before(plan.resolution) else {
            return false;
        };
        let least = match plan.resolution {
            Resolution::M60 => {
                let month = Month(past.month().0 - ROUTINE_PERIODS);
                Day::of(month.start_us())
            }
            _ => Day(past.0 - ROUTINE_PERIODS),
        };
        let days = plan.remove.iter();
        let mut days = days.filter_map(|file| file.windows.days().next());
        days.all(|day| day >= least)
    }

    /// The digest of the tenant and the days: what is confirmed is that nothing before them is
    /// kept, whichever files hold it by then.
    fn hash(&self, tenant: &TenantId) -> Digest {
        let day = |r| self.before.before(r).map_or(String::new(), Day::period);
        let text = format!(
            "expire {tenant} after restore {}: raw before {}, 60s before {}, 15m before {}, \
             60m before {}\n",
            self.restore,
            day(Resolution::Raw),
            day(Resolution::S60),
            day(Resolution::M15),
            day(Resolution::M60)
        );
        content_digest(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use stele_model::time::DAY_US;
    use stele_table::Retention;

    use super::super::expire::{ExpireStep, expire};
    use super::super::fixtures::{file, state};
    use super::*;

    const RAW: FileKind = FileKind::Sealed(Resolution::Raw);

    /// Whether the first expire of a table of `days` equal days asks, when raw is kept `kept`.
    fn asks(days: i32, kept: u32, now_day: i64, bytes_min: u64) -> bool {
        let files = (0..days).map(|day| file(RAW, &format!("d{day}"), &[24 * day], 10));
        let table = state(&files.collect::<Vec<_>>());
        let rules = ExpireRules {
            now_us: now_day * DAY_US,
            retention: Retention {
                raw_days: Some(kept),
                ..Retention::default()
            },
        };
        let ExpireStep::Expire(plan) = expire(&table, &[], &rules) else {
            panic!("nothing is due");
        };
        let due = due_in_all(&table, &rules);
        let asks = due.asks(&plan, &TenantId::default(), bytes_min);
        assert!(asks.as_ref().is_none_or(|asks| asks.bytes > 0));
        asks.is_some()
    }

    #[test]
    fn a_day_that_comes_due_and_the_one_before_never_ask() {
        // Kept 7 days: a day is a seventh of all.
        assert!(!asks(10, 7, 10, 0), "one day is due");
        assert!(!asks(10, 7, 11, 0), "two days are due");
        assert!(asks(10, 7, 12, 0), "three days are due");
    }

    #[test]
    fn a_retention_that_is_shortened_asks_beyond_a_twentieth_of_the_live_bytes() {
        assert!(!asks(100, 90, 97, 0), "5 of 100 days are due");
        assert!(asks(100, 90, 98, 0), "6 of 100 days are due");
        assert!(!asks(100, 7, 100, 1_001), "a table of 1000 bytes is small");
        assert!(asks(100, 7, 100, 1_000), "and this one is not");
    }
}
