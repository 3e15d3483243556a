//! One query from its text to a stream of batches.
//!
//! ```text
//! text ─► guard ─► view (LIST L0 ‖ LIST heads, then the log) ─► plan ─► execute ─► head ─► stream
//!                    ▲──────────── a data file was gone ◄──────────────────────────┘
//! ```
//!
//! The head of the answer is held back until it is complete or large, so that most failures are
//! still an error instead of a broken stream.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectName, Visit, Visitor};
use futures::{Stream, StreamExt};
use stele_model::Clock;
use stele_table::{TableLog, View};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::QueryConfig;
use crate::error::{Error, Result, from_datafusion};
use crate::guard::{self, Checked};
use crate::nearest::nearest;
use crate::scan::Scope;
use crate::scan::footer::Footers;
use crate::session::{self, Names};
use crate::tables;

/// How often a query starts over because files were swept under it.
const ATTEMPTS: u32 = 4;
/// Bytes of the answer held back before its first byte is given out.
const HEAD_BYTES: usize = 256 << 10;

/// The right to run, given back when the last part of a query is dropped.
type Turn = Arc<OwnedSemaphorePermit>;

/// Runs queries. One per process: it holds the memory pool and the cache of footers.
pub struct QueryEngine {
    config: QueryConfig,
    clock: Arc<dyn Clock>,
    template: SessionState,
    footers: Arc<Footers>,
    turns: Arc<Semaphore>,
}

impl QueryEngine {
    /// An engine with the given limits; `clock` is what SQL's `now()` says.
    ///
    /// # Errors
    /// When DataFusion refuses the limits.
    pub fn new(config: QueryConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let template = session::template(&config)
            .map_err(|e| from_datafusion(e, config.memory_pool_bytes))?;
        Ok(Self {
            footers: Arc::new(Footers::new(config.cache_bytes)),
            turns: Arc::new(Semaphore::new(config.queries_max.max(1))),
            config,
            clock,
            template,
        })
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> &QueryConfig {
        &self.config
    }

    /// Answers `sql` over the table of `log`, as it is now. The stream ends with an error when
    /// the answer cannot be completed; it never ends early without one.
    ///
    /// # Errors
    /// When the text is not allowed or invalid, when a limit is passed, when the store or the
    /// table cannot be read.
    pub async fn query(&self, log: &TableLog, sql: &str) -> Result<QueryStream> {
        let deadline = Instant::now() + self.config.deadline;
        let run = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let turn = turn.expect("the semaphore is never closed");
            self.run(log, sql, deadline, Arc::new(turn)).await
        };
        match tokio::time::timeout_at(deadline, run).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> Error {
        Error::Deadline {
            secs: self.config.deadline.as_secs(),
        }
    }

    async fn run(
        &self,
        log: &TableLog,
        sql: &str,
        deadline: Instant,
        turn: Turn,
    ) -> Result<QueryStream> {
        match guard::check(sql, self.config.sql_bytes_max)? {
            Checked::ShowTables => self.constant(tables::show_tables(), deadline, turn),
            Checked::Describe(name) => {
                let plain = name.strip_prefix("public.").unwrap_or(&name);
                let view = Arc::new(View {
                    state: Arc::default(),
                    l0: Vec::new(),
                });
                let sources = tables::sources(&self.scope(log, view), Vec::new())
                    .map_err(|e| self.sort(e))?;
                let Some(source) = sources.get(plain) else {
                    return Err(Error::NoSuchTable {
                        nearest: nearest(plain, sources.keys().copied()),
                        name,
                    });
                };
                self.constant(tables::describe(&source.schema()), deadline, turn)
            }
            Checked::Query(statement) => self.read(log, &statement, deadline, turn).await,
        }
    }

    fn sort(&self, error: datafusion::error::DataFusionError) -> Error {
        from_datafusion(error, self.config.memory_pool_bytes)
    }

    fn constant(
        &self,
        batch: datafusion::error::Result<RecordBatch>,
        deadline: Instant,
        turn: Turn,
    ) -> Result<QueryStream> {
        let batch = batch.map_err(|e| self.sort(e))?;
        let mut answer = self.answer(batch.schema(), deadline, turn);
        answer.head.push_back(batch);
        Ok(answer)
    }

    fn scope(&self, log: &TableLog, view: Arc<View>) -> Arc<Scope> {
        Arc::new(Scope {
            store: log.store().clone(),
            view,
            footers: Arc::clone(&self.footers),
            target_partitions: self.config.target_partitions.max(1),
            sketch: self.config.sketch,
            gone: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Starts over with a new view while files are gone and nothing was given out.
    async fn read(
        &self,
        log: &TableLog,
        statement: &Statement,
        deadline: Instant,
        turn: Turn,
    ) -> Result<QueryStream> {
        for attempt in 1..=ATTEMPTS {
            let view = Arc::new(View::read_cached(log, self.clock.now_us()).await?);
            let scope = self.scope(log, view);
            let turn = Arc::clone(&turn);
            match self.attempt(log, &scope, statement, deadline, turn).await {
                Err(error) if scope.gone.load(Ordering::Relaxed) => {
                    tracing::info!(attempt, %error, "a data file is gone: reading anew");
                }
                answer => return answer,
            }
        }
        Err(Error::Vanished { attempts: ATTEMPTS })
    }

    async fn attempt(
        &self,
        log: &TableLog,
        scope: &Arc<Scope>,
        statement: &Statement,
        deadline: Instant,
        turn: Turn,
    ) -> Result<QueryStream> {
        let stream = self.execute(log, scope, statement).await?;
        let mut answer = self.answer(stream.schema(), deadline, turn);
        answer.rest = Some(stream);
        answer.gone = Arc::clone(&scope.gone);
        answer.fill().await?;
        Ok(answer)
    }

    /// An answer without any rows yet.
    fn answer(&self, schema: SchemaRef, deadline: Instant, turn: Turn) -> QueryStream {
        QueryStream {
            schema,
            head: VecDeque::new(),
            rest: None,
            rows: 0,
            rows_max: self.config.rows_max,
            bytes_max: self.config.bytes_max,
            memory_limit: self.config.memory_pool_bytes,
            deadline_secs: self.config.deadline.as_secs(),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            gone: Arc::default(),
            failed: false,
            _turn: turn,
        }
    }

    async fn execute(
        &self,
        log: &TableLog,
        scope: &Arc<Scope>,
        statement: &Statement,
    ) -> Result<SendableRecordBatchStream> {
        let ledger = if names_ledger(statement) {
            log.ledger_rows(&scope.view.state).await?
        } else {
            Vec::new()
        };
        let state = session::started(&self.template, self.clock.now_us());
        let planned = async {
            let sources = tables::sources(scope, ledger)?;
            let logical = Names::new(&state, sources).plan(statement.clone())?;
            let physical = state.create_physical_plan(&logical).await?;
            execute_stream(physical, state.task_ctx())
        };
        planned.await.map_err(|e| self.sort(e))
    }
}

/// Whether a statement mentions the table `ledger`, whose rows must be read before planning.
fn names_ledger(statement: &Statement) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            let last = name.0.last().and_then(|part| part.as_ident());
            if last.is_some_and(|ident| ident.value.eq_ignore_ascii_case("ledger")) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    match statement {
        Statement::Statement(inner) => inner.visit(&mut Finder).is_break(),
        Statement::Explain(explain) => names_ledger(&explain.statement),
        _ => false,
    }
}

/// The batches of an answer. After an error there is nothing more.
pub struct QueryStream {
    schema: SchemaRef,
    head: VecDeque<RecordBatch>,
    rest: Option<SendableRecordBatchStream>,
    rows: u64,
    rows_max: u64,
    bytes_max: u64,
    memory_limit: usize,
    deadline_secs: u64,
    timer: Pin<Box<tokio::time::Sleep>>,
    gone: Arc<AtomicBool>,
    failed: bool,
    _turn: Turn,
}

impl QueryStream {
    /// The columns of the answer.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Whether the whole answer is already here, so that nothing can fail any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rest.is_none()
    }

    /// Holds back the first batches until there are enough bytes or no more.
    async fn fill(&mut self) -> Result<()> {
        let mut bytes = 0;
        while bytes < HEAD_BYTES {
            let Some(batch) = std::future::poll_fn(|cx| self.poll_rest(cx)).await else {
                self.rest = None;
                break;
            };
            let batch = batch?;
            bytes += batch.get_array_memory_size();
            self.head.push_back(batch);
        }
        Ok(())
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Error::Deadline {
                secs: self.deadline_secs,
            })));
        }
        let batch = match rest.poll_next_unpin(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => {
                let error = from_datafusion(error, self.memory_limit);
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Ready(Some(Ok(batch))) => batch,
        };
        self.rows += batch.num_rows() as u64;
        if self.rows > self.rows_max {
            return Poll::Ready(Some(Err(Error::OverLimit {
                what: "rows",
                limit: self.rows_max,
            })));
        }
        Poll::Ready(Some(Ok(batch)))
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(batch) = self.head.pop_front() {
            return Poll::Ready(Some(Ok(batch)));
        }
        if self.failed {
            return Poll::Ready(None);
        }
        let next = self.poll_rest(cx);
        match &next {
            Poll::Ready(Some(Err(error))) => {
                self.failed = true;
                self.rest = None;
                let gone = self.gone.load(Ordering::Relaxed);
                tracing::warn!(%error, gone, "an answer broke off");
            }
            Poll::Ready(None) => self.rest = None,
            _ => {}
        }
        next
    }
}
