//! Reading during a drill: at every moment the same history, and everything acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Map, Value};
use stele_model::Resolution;
use stele_model::time::rfc3339;
use tower::ServiceExt;

use super::load::Load;

/// Between two rounds of queries.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What reading came to.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// Queries answered.
    pub answered: u64,
    /// Of them, by a mirror.
    pub by_mirror: u64,
    /// Queries that failed.
    pub failed: u64,
    /// The longest time between an answer and the next, when a query between them failed.
    pub longest_gap: Duration,
    /// Answers that missed samples while a store had lost objects that nothing knew of yet.
    pub short: u64,
    /// Answers that were wrong: the first of them.
    pub wrong: Option<String>,
    /// The last failure.
    pub last_failure: Option<String>,
}

/// Asks the same things again and again.
pub struct Reader {
    sql: Router,
    load: Arc<Load>,
    /// Where the history that is asked for ends, µs, and what it holds: samples and their sum.
    history: (i64, i64, i64),
    began: Instant,
    reads: Mutex<(Reads, Instant, bool)>,
    /// A store has lost objects that nothing knows of yet.
    may_be_short: AtomicBool,
    is_over: AtomicBool,
}

/// What one query showed.
struct Seen {
    is_mirror: bool,
    is_short: bool,
    wrong: Option<String>,
}

/// Rows of one answer, and whether a mirror gave it.
type Answer = (Vec<Map<String, Value>>, bool);

/// Asks `sql` of the router.
///
/// # Errors
/// When it is not answered.
pub async fn ask(router: &Router, sql: &str) -> anyhow::Result<Answer> {
    let request = Request::post("/sql?format=json").body(Body::from(sql.to_owned()))?;
    let answer = router.clone().oneshot(request).await?;
    let (status, is_mirror) = (
        answer.status(),
        answer.headers().contains_key("stele-mirror"),
    );
    let body = axum::body::to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await?;
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    let rows = serde_json::from_slice(&body).context("an answer that is no JSON")?;
    Ok((rows, is_mirror))
}

/// A whole number of an answer.
pub fn number(row: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = row.get(name)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole numbers far below 2^53"
    )]
    let whole = value.as_f64().map(|value| value as i64);
    value.as_i64().or(whole)
}

impl Reader {
    /// Reads from `sql`; the history is what `load` wrote until now, before `end_us`.
    pub fn new(sql: Router, load: Arc<Load>, end_us: i64) -> Arc<Self> {
        let samples = load.samples();
        let old = samples.iter().filter(|((_, ts_us), _)| *ts_us < end_us);
        let (count, sum) = old.fold((0, 0), |(n, sum), (_, value)| (n + 1, sum + value));
        Arc::new(Self {
            sql,
            load,
            history: (end_us, count, sum),
            began: Instant::now(),
            reads: Mutex::new((Reads::default(), Instant::now(), false)),
            may_be_short: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    fn reads(&self) -> std::sync::MutexGuard<'_, (Reads, Instant, bool)> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until [`Reader::stop`].
    pub async fn run(self: Arc<Self>) {
        while !self.is_over.load(Ordering::SeqCst) {
            for resolution in [Resolution::Raw, Resolution::M60] {
                let wrong = self.history(resolution).await;
                self.note(wrong);
            }
            let wrong = self.everything().await;
            self.note(wrong);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets [`Reader::run`] end after the round that is under way.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether answers may miss samples from now on.
    pub fn may_be_short(&self, may: bool) {
        self.may_be_short.store(may, Ordering::SeqCst);
    }

    /// What reading came to until now.
    pub fn result(&self) -> Reads {
        self.reads().0.clone()
    }

    fn note(&self, answer: anyhow::Result<Seen>) {
        let mut reads = self.reads();
        let (done, last, has_failed) = &mut *reads;
        match answer {
            Ok(seen) => {
                if std::mem::take(has_failed) {
                    done.longest_gap = done.longest_gap.max(last.elapsed());
                }
                *last = Instant::now();
                done.answered += 1;
                done.by_mirror += u64::from(seen.is_mirror);
                done.short += u64::from(seen.is_short);
                if done.wrong.is_none() {
                    done.wrong = seen.wrong;
                }
            }
            Err(error) => {
                *has_failed = true;
                done.failed += 1;
                let at = self.began.elapsed().as_secs_f64();
                done.last_failure = Some(format!("{at:.1} s after reading began: {error:#}"));
            }
        }
    }

    /// The samples from before the incident, from raw or from a rollup.
    async fn history(&self, resolution: Resolution) -> anyhow::Result<Seen> {
        let (end_us, count, sum) = self.history;
        let table = resolution.table();
        let (n, total) = match resolution {
            Resolution::Raw => ("count(value)", "sum(value)"),
            _ => ("sum(\"count\")", "sum(\"sum\")"),
        };
        let sql = format!(
            "SELECT {n} AS n, {total} AS total FROM {table} WHERE ts < TIMESTAMP '{}'",
            rfc3339(end_us)
        );
        let (rows, is_mirror) = ask(&self.sql, &sql).await?;
        let got = rows
            .first()
            .map(|row| (number(row, "n"), number(row, "total")));
        let wanted = Some((Some(count), Some(sum)));
        let wrong = (got != wanted).then(|| {
            format!("the history in {table} is {got:?} (samples, sum) and should be {wanted:?}")
        });
        Ok(Seen {
            is_mirror,
            is_short: false,
            wrong,
        })
    }

    /// What was acknowledged before the query began must be in the answer, and nothing that was
    /// not sent before it ended.
    async fn everything(&self) -> anyhow::Result<Seen> {
        let least = self.load.acked_samples();
        let may_be_short = || self.may_be_short.load(Ordering::SeqCst);
        let was_lost = may_be_short();
        let sql = "SELECT count(value) AS n, sum(value) AS total FROM samples";
        let (rows, is_mirror) = ask(&self.sql, sql).await?;
        let most = self.load.sent_samples();
        let got = rows.first().and_then(|row| number(row, "n"));
        let got = got.and_then(|n| u64::try_from(n).ok());
        let is_least = got.is_some_and(|n| n >= least);
        let is_short = !is_least && (was_lost || may_be_short());
        let is_right = got.is_some_and(|n| n <= most) && (is_least || is_short);
        let wrong = (!is_right).then(|| {
            format!("{got:?} samples can be read; {least} were acknowledged and {most} sent")
        });
        Ok(Seen {
            is_mirror,
            is_short,
            wrong,
        })
    }
}
