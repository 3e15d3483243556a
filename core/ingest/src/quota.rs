//! A tenant's quotas: samples per second and active series.
//!
//! They sit between decoding and encoding, so a request over its quota costs no PUT. They are
//! kept in the memory of one process: an all-in-one server applies them, functions do not.
//!
//! What a request takes is checked and reserved in one step, before it is stored. A request that
//! then fails to store, and one whose samples were stored before, has taken it all the same.
//!
//! Memory per tenant: at most 40 bytes for each series of the limit (half as much again while the
//! table grows), and at most 64 KiB for counting tag values.

mod distinct;
mod rate;
mod series;

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};

use stele_model::{ErrorKind, Positions, Rejections, Rows, TenantId};

use distinct::Explosion;
use rate::Bucket;
use series::{ActiveSeries, Asked};

/// The quotas of every tenant. `None`: no quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaOptions {
    /// Samples accepted per second, with a burst of one second. A request of more samples than
    /// that is accepted when the burst is untouched, and the tenant then waits for as long as its
    /// samples take at this rate: no request is too large for ever.
    pub samples_per_sec: Option<u64>,
    /// Series that may be active at once.
    pub series_active_max: Option<u64>,
    /// How long a series stays active after its last accepted sample, hours.
    pub series_active_hours: u32,
}

impl Default for QuotaOptions {
    fn default() -> Self {
        Self {
            samples_per_sec: None,
            series_active_max: None,
            series_active_hours: 1,
        }
    }
}

/// The tag whose values make the most of a tenant's new series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MostDistinct {
    /// The tag's name; `None` for the metric name itself.
    pub tag: Option<String>,
    /// About how many values it had, within a tenth.
    pub values: u64,
}

impl fmt::Display for MostDistinct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "tag {tag:?} has")?,
            None => f.write_str("the metric name has")?,
        }
        let values = self.values;
        write!(
            f,
            " the most distinct values among new series, about {values}"
        )
    }
}

/// A request of which nothing is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// Too many samples per second.
    #[error(
        "{samples} samples are over the quota of {limit} samples per second (samples_per_sec); \
         nothing is stored, send them again in {wait_secs} s"
    )]
    SamplesPerSec {
        /// The samples of the request.
        samples: u64,
        /// The quota.
        limit: u64,
        /// When the same request will be accepted, if no other comes first, s.
        wait_secs: u64,
    },
    /// Every sample is of a new series, and there is no room for one.
    #[error(
        "all {samples} samples are of new series, over the quota of {limit} active series \
         (series_active_max): {most}; nothing is stored"
    )]
    SeriesActive {
        /// The samples of the request.
        samples: u64,
        /// The quota.
        limit: u64,
        /// What makes them new.
        most: MostDistinct,
    },
}

impl QuotaError {
    /// Always [`ErrorKind::Throttled`].
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SamplesPerSec { .. } | Self::SeriesActive { .. } => ErrorKind::Throttled,
        }
    }

    /// After how many seconds the request is worth sending again.
    #[must_use]
    pub fn retry_after_secs(&self) -> u64 {
        match self {
            Self::SamplesPerSec { wait_secs, .. } => *wait_secs,
            Self::SeriesActive { .. } => series::SWEEP_SECS,
        }
    }
}

/// The quotas of all tenants of one process.
#[derive(Debug)]
pub struct Quotas {
    options: QuotaOptions,
    /// Keyed with randomness of its own: a sender cannot choose series that hash alike.
    hasher: RandomState,
    tenants: Mutex<HashMap<TenantId, Arc<Mutex<Usage>>>>,
}

#[derive(Debug)]
struct Usage {
    bucket: Bucket,
    series: ActiveSeries,
    explosion: Explosion,
}

impl Quotas {
    /// Quotas of which nothing is used yet.
    #[must_use]
    pub fn new(options: QuotaOptions) -> Self {
        Self {
            options,
            hasher: RandomState::new(),
            tenants: Mutex::default(),
        }
    }

    /// The quotas.
    #[must_use]
    pub fn options(&self) -> QuotaOptions {
        self.options
    }

    /// How many series of `tenant` count as active; one that stopped may still count.
    #[must_use]
    pub fn series_active(&self, tenant: &TenantId) -> u64 {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = tenants.get(tenant).map(Arc::clone);
        drop(tenants);
        usage.map_or(0, |usage| {
            let usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
            usage.series.len()
        })
    }

    /// Takes the samples of one request received at `now_us` from the quotas of `tenant`. Samples
    /// of new series over the quota are removed from `rows` and named in `rejections`; samples of
    /// known series stay.
    ///
    /// # Errors
    /// [`QuotaError`] when nothing is accepted; nothing is then taken.
    pub fn admit(
        &self,
        tenant: &TenantId,
        rows: &mut Rows,
        positions: &Positions,
        rejections: &mut Rejections,
        now_us: i64,
    ) -> Result<(), QuotaError> {
        if rows.is_empty() {
            return Ok(());
        }
        let asked = self.options.series_active_max.map(|limit| {
            let asked = Asked::of(rows, &self.hasher);
            (limit, asked)
        });
        let usage = self.usage(tenant, now_us);
        let mut usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = &mut *usage;
        let mut refused = None;
        if let Some((limit, mut asked)) = asked {
            let hours = self.options.series_active_hours;
            usage.series.judge(&mut asked, limit, hours, now_us);
            usage
                .explosion
                .observe(rows, &asked, &self.hasher, hours, now_us);
            refused = Some((limit, asked));
        }
        let over = refused.as_ref().map_or(0, |(_, asked)| asked.rows_refused);
        let kept = rows.len() as u64 - over;
        if let Some((limit, _)) = &refused
            && kept == 0
        {
            return Err(QuotaError::SeriesActive {
                samples: over,
                limit: *limit,
                most: usage.explosion.most(),
            });
        }
        if let Some(limit) = self.options.samples_per_sec {
            let taken = usage.bucket.take(kept, limit, now_us);
            taken.map_err(|wait_secs| QuotaError::SamplesPerSec {
                samples: kept,
                limit,
                wait_secs,
            })?;
        }
        if let Some((limit, asked)) = &refused {
            usage.series.reserve(asked, now_us);
            if over > 0 {
                remove(
                    rows,
                    positions,
                    rejections,
                    asked,
                    *limit,
                    &usage.explosion.most(),
                );
            }
        }
        Ok(())
    }

    fn usage(&self, tenant: &TenantId, now_us: i64) -> Arc<Mutex<Usage>> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = tenants.get(tenant) {
            return Arc::clone(usage);
        }
        let usage = Usage {
            bucket: Bucket::full(self.options.samples_per_sec.unwrap_or(0), now_us),
            series: ActiveSeries::default(),
            explosion: Explosion::new(now_us),
        };
        let usage = Arc::new(Mutex::new(usage));
        tenants.insert(tenant.clone(), Arc::clone(&usage));
        usage
    }
}

/// Removes the samples of refused series, and names them where they stood.
fn remove(
    rows: &mut Rows,
    positions: &Positions,
    rejections: &mut Rejections,
    asked: &Asked,
    limit: u64,
    most: &MostDistinct,
) {
    let (series, mut row) = (&rows.series, 0);
    rows.rows.retain(|sample| {
        let position = positions.of(row);
        row += 1;
        let keep = !asked.is_refused(sample.series);
        if !keep {
            rejections.push(position, || {
                let series = &series[sample.series as usize];
                let name: String = format!("{} {}", series.metric, series.tags);
                let name: String = name.chars().take(80).collect();
                format!(
                    "series {name:?} is new, over the quota of {limit} active series \
                     (series_active_max): {most}"
                )
            });
        }
        keep
    });
    rejections.named.sort_by_key(|rejection| rejection.position);
}

#[cfg(test)]
mod tests;
