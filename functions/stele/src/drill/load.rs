//! What is written during a drill, and what must be readable afterwards.
//!
//! Values are whole numbers, so that sums do not depend on the order of addition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use stele_model::Resolution;
use stele_model::time::SECOND_US;
use tower::ServiceExt;

/// Series that are written.
pub const SERIES: u32 = 8;
/// From one sample of a series to the next, µs.
pub const STEP_US: i64 = 60 * SECOND_US;
/// Steps of one request while the load is steady, and while it catches up.
const STEADY_STEPS: i64 = 2;
const FAST_STEPS: i64 = 120;
/// Between two requests of the steady load.
const PAUSE: Duration = Duration::from_millis(40);

/// Series and time.
type Key = (u32, i64);

/// What was acknowledged.
#[derive(Default)]
struct Acked {
    samples: BTreeMap<Key, i64>,
    requests: u64,
    retries: u64,
    /// The longest that a request went without an acknowledgement.
    waited: Duration,
}

/// A sender that repeats each request until it is acknowledged, as agents do.
pub struct Load {
    ingest: Router,
    acked: Mutex<Acked>,
    /// The time of the next sample, µs.
    next_us: AtomicI64,
    /// The time up to which to write without a pause, µs.
    fast_until_us: AtomicI64,
    /// Samples sent, acknowledged or not yet.
    sent: AtomicU64,
    is_over: AtomicBool,
}

/// One aggregate as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bin {
    /// Samples.
    pub count: i64,
    /// Their sum.
    pub sum: i64,
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

/// The value that a sample has: another for each.
fn value(series: u32, ts_us: i64) -> i64 {
    ts_us / STEP_US % 10_000 + i64::from(series) * 10_000
}

impl Load {
    pub fn new(ingest: Router, first_us: i64) -> Arc<Self> {
        Arc::new(Self {
            ingest,
            acked: Mutex::default(),
            next_us: AtomicI64::new(first_us),
            fast_until_us: AtomicI64::new(first_us),
            sent: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        })
    }

    fn acked(&self) -> std::sync::MutexGuard<'_, Acked> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until [`Load::stop`].
    pub async fn run(self: Arc<Self>) {
        while !self.is_over.load(Ordering::SeqCst) {
            let from_us = self.next_us.load(Ordering::SeqCst);
            let is_fast = from_us < self.fast_until_us.load(Ordering::SeqCst);
            let steps = if is_fast { FAST_STEPS } else { STEADY_STEPS };
            let to_us = from_us + steps * STEP_US;
            self.send(from_us, to_us).await;
            self.next_us.store(to_us, Ordering::SeqCst);
            if !is_fast {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// One request, again and again until it is acknowledged.
    async fn send(&self, from_us: i64, to_us: i64) {
        let times = (from_us..to_us).step_by(usize::try_from(STEP_US).unwrap_or(1));
        let samples = times.flat_map(|ts| (0..SERIES).map(move |s| ((s, ts), value(s, ts))));
        let samples: Vec<(Key, i64)> = samples.collect();
        let lines = samples.iter().map(|((series, ts_us), value)| {
            format!("drill_{series} value={value} {}\n", ts_us / SECOND_US)
        });
        let body: String = lines.collect();
        self.sent.fetch_add(samples.len() as u64, Ordering::SeqCst);
        let began = Instant::now();
        loop {
            let request = Request::post("/write?precision=s");
            // Neither the URL nor the body can be malformed.
            let Ok(request) = request.body(Body::from(body.clone())) else {
                return;
            };
            let answer = self.ingest.clone().oneshot(request).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            self.acked().retries += 1;
            tokio::time::sleep(PAUSE).await;
        }
        let mut acked = self.acked();
        acked.requests += 1;
        acked.waited = acked.waited.max(began.elapsed());
        acked.samples.extend(samples);
    }

    /// Writes without a pause until the samples are of `until_us`.
    pub async fn catch_up(&self, until_us: i64) {
        self.fast_until_us.store(until_us, Ordering::SeqCst);
        while self.next_us.load(Ordering::SeqCst) < until_us {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The time of the next sample, µs.
    pub fn next_us(&self) -> i64 {
        self.next_us.load(Ordering::SeqCst)
    }

    /// Lets [`Load::run`] end after the request that is under way.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Samples acknowledged until now.
    pub fn acked_samples(&self) -> u64 {
        self.acked().samples.len() as u64
    }

    /// Samples sent until now, acknowledged or not.
    pub fn sent_samples(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Requests acknowledged, attempts that were not, and the longest wait for one.
    pub fn requests(&self) -> (u64, u64, Duration) {
        let acked = self.acked();
        (acked.requests, acked.retries, acked.waited)
    }

    /// What was acknowledged, by series and time.
    pub fn samples(&self) -> BTreeMap<Key, i64> {
        self.acked().samples.clone()
    }

    /// What a resolution must hold of what was acknowledged.
    pub fn bins(&self, resolution: Resolution) -> BTreeMap<Key, Bin> {
        let width_us = resolution.bin_us().unwrap_or(1);
        let mut bins: BTreeMap<Key, Bin> = BTreeMap::new();
        for ((series, ts_us), value) in &self.acked().samples {
            let value = *value;
            let of = (*series, ts_us - ts_us.rem_euclid(width_us));
            let bin = bins.entry(of).or_insert(Bin {
                count: 0,
                sum: 0,
                min: value,
                max: value,
            });
            bin.count += 1;
            bin.sum += value;
            bin.min = bin.min.min(value);
            bin.max = bin.max.max(value);
        }
        bins
    }
}
