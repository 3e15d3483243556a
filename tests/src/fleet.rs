//! A crowd of writers as real agents are: each sends batches, sends a batch again until it is
//! acknowledged, sometimes repeats an old one, and now and then gives one up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::now_secs;
use crate::oracle::{Oracle, Sample, tags_json};
use crate::server::write;

const HOUR_US: i64 = 3_600_000_000;

/// How the writers behave.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Writers, each a thread.
    pub writers: u64,
    /// Samples per batch.
    pub rows: i64,
    /// The longest pause between two batches, ms.
    pub pause_ms_max: u64,
    /// Every choice follows from it.
    pub seed: u64,
}

/// Writers at work.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    /// Other answers than 503 that only say that none came from the server.
    gateway: &'static [u16],
    /// The first µs of the oldest window written to; all windows are closed.
    base_us: i64,
    urls: RwLock<Vec<String>>,
    stop: AtomicBool,
    acked: AtomicU64,
    retried: AtomicU64,
    oracle: Mutex<Oracle>,
}

impl Fleet {
    /// Starts the writers; they wait until [`Fleet::point_at`] names a server.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        Self::start_behind(&[], plan)
    }

    /// As [`Fleet::start`], for servers behind a gateway that answers with one of `gateway` when a
    /// server does not, or may not, answer itself.
    #[must_use]
    pub fn start_behind(gateway: &'static [u16], plan: Plan) -> Self {
        let hour = now_secs().div_euclid(3600) * HOUR_US;
        let shared = Arc::new(Shared {
            plan,
            gateway,
            base_us: hour - 8 * HOUR_US,
            urls: RwLock::default(),
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            oracle: Mutex::default(),
        });
        let spawn = |writer| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run(writer))
        };
        Self {
            threads: (0..plan.writers).map(spawn).collect(),
            shared,
        }
    }

    /// Where to send from now on; with several servers each request picks one.
    pub fn point_at(&self, urls: &[&str]) {
        let urls = urls.iter().map(|u| (*u).to_owned()).collect();
        *self
            .shared
            .urls
            .write()
            .unwrap_or_else(PoisonError::into_inner) = urls;
    }

    /// Batches acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::SeqCst)
    }

    /// Requests that got no answer, or one that asks to try again.
    #[must_use]
    pub fn retried(&self) -> u64 {
        self.shared.retried.load(Ordering::SeqCst)
    }

    /// What is known at this moment.
    #[must_use]
    pub fn oracle(&self) -> Oracle {
        self.shared.oracle().clone()
    }

    /// Waits until `more` further batches are acknowledged.
    ///
    /// # Errors
    /// When that takes longer than 60 s.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let goal = self.acked() + more;
        for _ in 0..6000 {
            if self.acked() >= goal {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "only {} of {goal} batches acknowledged after 60 s",
            self.acked()
        )
    }

    /// Lets every writer finish its batch and returns what is known in the end.
    ///
    /// # Errors
    /// When a server answered something that is neither success nor worth a retry.
    pub fn finish(self) -> Result<Oracle> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            match thread.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let oracle = self.shared.oracle().clone();
        Ok(oracle)
    }
}

impl Shared {
    fn oracle(&self) -> std::sync::MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, writer: u64) -> Result<()> {
        let mut random = StdRng::seed_from_u64(self.plan.seed * 1000 + writer);
        let mut sent: Vec<Vec<Sample>> = Vec::new();
        let mut number = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let again = !sent.is_empty() && random.random_ratio(1, 8);
            let batch = if again {
                sent[random.random_range(0..sent.len())].clone()
            } else {
                number += 1;
                self.batch(writer, number, &mut random)
            };
            self.deliver(&batch, &mut random)?;
            if !again {
                sent.push(batch);
            }
            let pause = random.random_range(0..=self.plan.pause_ms_max);
            std::thread::sleep(Duration::from_millis(pause));
        }
        Ok(())
    }

    /// A new batch: most rows follow the writer's last ones, some are late, some repeat a row of
    /// another batch with the same or another value.
    fn batch(&self, writer: u64, number: i64, random: &mut StdRng) -> Vec<Sample> {
        let host = format!("host {writer}");
        let step = 1_700_000 + i64::try_from(writer).unwrap_or(0);
        let row = |i: i64| {
            let metric =
                ["kill.int", "kill.decimal", "kill.float"][(i % 3).unsigned_abs() as usize];
            let late = random.random_ratio(1, 40);
            let at = number * self.plan.rows + i;
            let at = if late {
                random.random_range(0..=at)
            } else {
                at
            };
            // Six hours of windows, over and over with another phase.
            let offset = (at * step).rem_euclid(6 * HOUR_US);
            let value = match i % 3 {
                0 => f64::from(random.random_range(-50..100_i32)),
                1 => f64::from(random.random_range(0..10_000_i32)) / 100.0,
                _ => random.random::<f64>() * 1e6 - 3e5,
            };
            let tags = tags_json(&[
                ("host", &host),
                ("zone", if i % 2 == 0 { "a" } else { "b,=" }),
            ]);
            Sample {
                series: (metric.to_owned(), tags),
                ts_us: self.base_us + offset,
                value,
            }
        };
        (0..self.plan.rows).map(row).collect()
    }

    fn deliver(&self, batch: &[Sample], random: &mut StdRng) -> Result<()> {
        let body = line_protocol(batch);
        self.oracle().submit(batch);
        let give_up = random.random_ratio(1, 30);
        loop {
            let url = {
                let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner);
                let some = (!urls.is_empty()).then(|| random.random_range(0..urls.len()));
                some.map(|i| urls[i].clone())
            };
            let Some(url) = url else {
                if self.stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            match write(&url, &body) {
                Ok(reply) if reply.status == 204 || reply.status == 200 => {
                    if reply.receipt.is_none() {
                        bail!("acknowledged without a receipt: {reply:?}");
                    }
                    self.oracle().ack(batch);
                    self.acked.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                Ok(reply) if reply.status != 503 && !self.gateway.contains(&reply.status) => {
                    bail!("refused: {reply:?}")
                }
                Ok(_) | Err(_) => {
                    self.retried.fetch_add(1, Ordering::SeqCst);
                    if give_up || self.stop.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

/// Line protocol with timestamps in µs. The metric `a.b` is field `b` of measurement `a`.
#[must_use]
pub fn line_protocol(batch: &[Sample]) -> String {
    let escape = |text: &str| {
        let text = text.replace(',', "\\,").replace('=', "\\=");
        text.replace(' ', "\\ ")
    };
    let mut body = String::new();
    for sample in batch {
        let (metric, tags) = &sample.series;
        let (measurement, field) = metric.rsplit_once('.').unwrap_or((metric, "value"));
        body.push_str(&escape(measurement));
        let tags: serde_json::Map<_, _> = serde_json::from_str(tags).expect("made by tags_json");
        for (name, value) in &tags {
            let value = value.as_str().expect("tag values are texts");
            body.push_str(&format!(",{}={}", escape(name), escape(value)));
        }
        let (field, value) = (escape(field), sample.value);
        body.push_str(&format!(" {field}={value:?} {}\n", sample.ts_us));
    }
    body
}
