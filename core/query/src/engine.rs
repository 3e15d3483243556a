//! One query from its text to a stream of batches.
//!
//! ```text
//! text ─► guard ─► view (LIST L0 ‖ LIST heads, then the log) ─► plan ─► execute ─► head ─► stream
//!                    ▲──────────── a data file was gone ◄──────────────────────────┘
//! ```
//!
//! Queries run on threads of the engine's own: with stacks deep enough for the deepest text that
//! the guard lets through, and apart from the threads that accept samples. The head of the answer
//! is held back until it is complete or large, so that most failures are still an error instead
//! of a broken stream.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectName, Visit, Visitor};
use stele_model::Clock;
use stele_table::{AsOf, Ledger, TableLog, View};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::QueryConfig;
use crate::error::{Error, Result, from_datafusion};
use crate::guard::{self, Checked};
use crate::losses::{Coverage, Losses};
use crate::nearest::nearest;
use crate::scan::footer::Footers;
use crate::scan::{Gone, Scope};
use crate::session::{self, Names};
use crate::stream::{Bounds, QueryStream, Turn, broke_off};
use crate::tables::{self, Named};

/// How often a query starts over because files were swept under it.
const ATTEMPTS: u32 = 4;
/// The stack of each thread; pages that are never touched cost nothing.
const STACK_BYTES: usize = 32 << 20;

/// Runs queries. One per process: it holds the memory pool, the cache of footers and threads.
pub struct QueryEngine {
    inner: Arc<Inner>,
    /// Taken out only on drop.
    runtime: Option<Runtime>,
}

struct Inner {
    config: QueryConfig,
    clock: Arc<dyn Clock>,
    template: SessionState,
    footers: Arc<Footers>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryEngine")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl Drop for QueryEngine {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed where an engine may be dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl QueryEngine {
    /// An engine with the given limits; `clock` is what SQL's `now()` says.
    ///
    /// # Errors
    /// When DataFusion refuses the limits, or no thread can be started.
    pub fn new(config: QueryConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let template =
            session::template(&config).map_err(|e| from_datafusion(e, config.memory_pool_bytes))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.target_partitions.max(1))
            .thread_stack_size(STACK_BYTES)
            .thread_name("stele-query")
            .enable_all()
            .build()
            .map_err(|e| Error::Internal(Box::new(DataFusionError::IoError(e))))?;
        let inner = Inner {
            footers: Arc::new(Footers::new(config.cache_bytes)),
            turns: Arc::new(Semaphore::new(config.queries_max.max(1))),
            config,
            clock,
            template,
        };
        Ok(Self {
            inner: Arc::new(inner),
            runtime: Some(runtime),
        })
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> &QueryConfig {
        &self.inner.config
    }

    /// Bytes that the operators of all running queries hold now, of
    /// [`QueryConfig::memory_pool_bytes`].
    #[must_use]
    pub fn memory_reserved_bytes(&self) -> usize {
        self.inner.template.runtime_env().memory_pool.reserved()
    }

    /// Answers `sql` over the table of `log`, as it is now. The stream ends with an error when
    /// the answer cannot be completed; it never ends early without one. Dropping the future or
    /// the stream stops the query.
    ///
    /// # Errors
    /// When the text is not allowed or invalid, when a limit is passed, when the store or the
    /// table cannot be read.
    pub async fn query(&self, log: &Arc<TableLog>, sql: &str) -> Result<QueryStream> {
        self.query_as_of(log, sql, None).await
    }

    /// Like [`QueryEngine::query`], over the table as it was; `None` for as it is now. What had
    /// not been absorbed then is not in it.
    ///
    /// # Errors
    /// As there, and those of [`TableLog::as_of`].
    pub async fn query_as_of(
        &self,
        log: &Arc<TableLog>,
        sql: &str,
        as_of: Option<&AsOf>,
    ) -> Result<QueryStream> {
        self.start(log, sql, as_of, false).await
    }

    /// Like [`QueryEngine::query_as_of`], and the stream says what is known to be lost of the
    /// windows that the query reads: [`QueryStream::coverage`]. That is a LIST more, and a GET when
    /// there ever was a loss.
    ///
    /// # Errors
    /// As there, and for a damaged record of losses.
    pub async fn query_covered(
        &self,
        log: &Arc<TableLog>,
        sql: &str,
        as_of: Option<&AsOf>,
    ) -> Result<QueryStream> {
        self.start(log, sql, as_of, true).await
    }

    async fn start(
        &self,
        log: &Arc<TableLog>,
        sql: &str,
        as_of: Option<&AsOf>,
        is_covered: bool,
    ) -> Result<QueryStream> {
        let config = &self.inner.config;
        let bounds = Bounds {
            rows_max: config.rows_max,
            bytes_max: config.bytes_max,
            memory_max: config.memory_pool_bytes,
            deadline: Instant::now() + config.deadline,
            deadline_secs: config.deadline.as_secs(),
        };
        let (inner, log, sql) = (Arc::clone(&self.inner), Arc::clone(log), sql.to_owned());
        let as_of = as_of.cloned();
        let run = async move {
            let turn = Arc::clone(&inner.turns).acquire_owned().await;
            let turn = Arc::new(turn.expect("the semaphore is never closed"));
            let table = Table {
                log: &log,
                as_of,
                is_covered,
            };
            inner.run(&table, &sql, bounds, turn).await
        };
        let runtime = self.runtime.as_ref().expect("taken out only on drop");
        let task = Stop(runtime.spawn(run));
        match tokio::time::timeout_at(bounds.deadline, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(broke_off()),
            Err(_) => Err(bounds.late()),
        }
    }
}

/// A task that stops when nobody waits for it any more.
struct Stop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Stop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Stop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a query reads.
struct Table<'a> {
    log: &'a TableLog,
    /// `None` for the newest version and what is not absorbed.
    as_of: Option<AsOf>,
    /// Whether the answer says what is lost of what it reads.
    is_covered: bool,
}

impl Table<'_> {
    async fn view(&self) -> Result<Arc<View>> {
        let view = match &self.as_of {
            None => View::read_cached(self.log).await?,
            Some(as_of) => View::as_of(self.log, as_of).await.map_err(Error::as_of)?,
        };
        Ok(Arc::new(view))
    }

    /// The losses that count in `view`.
    async fn losses(&self, view: &View) -> Result<Arc<Losses>> {
        let recorded = stele_table::losses(self.log.store()).await?;
        Ok(Arc::new(Losses::of(recorded, view, self.as_of.is_none())))
    }
}

impl Inner {
    async fn run(
        &self,
        table: &Table<'_>,
        sql: &str,
        bounds: Bounds,
        turn: Turn,
    ) -> Result<QueryStream> {
        let batch = match guard::check(sql, self.config.sql_bytes_max)? {
            Checked::Query(statement) => return self.read(table, &statement, bounds, turn).await,
            Checked::ShowTables => tables::show_tables(),
            Checked::Describe(name) => self.describe(table.log, &name)?,
        };
        let batch = batch.map_err(|e| self.sort(e))?;
        let coverage = table.is_covered.then(Coverage::default);
        Ok(QueryStream::of(batch, bounds, turn).covered(coverage))
    }

    fn describe(
        &self,
        log: &TableLog,
        name: &str,
    ) -> Result<datafusion::error::Result<arrow::record_batch::RecordBatch>> {
        let plain = name.strip_prefix("public.").unwrap_or(name);
        let nothing = Arc::new(View {
            state: Arc::default(),
            l0: Vec::new(),
        });
        let scope = self.scope(log, nothing, false);
        let sources = tables::sources(&scope, Named::default());
        let sources = sources.map_err(|e| self.sort(e))?;
        match sources.get(plain) {
            Some(source) => Ok(tables::describe(&source.schema())),
            None => Err(Error::NoSuchTable {
                name: name.chars().take(100).collect(),
                nearest: nearest(plain, sources.keys().copied()),
            }),
        }
    }

    fn sort(&self, error: DataFusionError) -> Error {
        from_datafusion(error, self.config.memory_pool_bytes)
    }

    fn scope(&self, log: &TableLog, view: Arc<View>, is_covered: bool) -> Arc<Scope> {
        Arc::new(Scope {
            store: log.store().clone(),
            view,
            footers: Arc::clone(&self.footers),
            target_partitions: self.config.target_partitions.max(1),
            sketch: self.config.sketch,
            gone: Gone::default(),
            reads: is_covered.then(Mutex::default),
        })
    }

    /// Starts over with a new view while files are gone and nothing was given out. What is gone twice
    /// from the same version was not compacted: it is missing.
    async fn read(
        &self,
        table: &Table<'_>,
        statement: &Statement,
        bounds: Bounds,
        turn: Turn,
    ) -> Result<QueryStream> {
        let is_shown = names_table(statement, "coverage");
        let is_asked = is_shown || table.is_covered;
        let mut gone_from = None;
        for attempt in 1..=ATTEMPTS {
            let scope = self.scope(table.log, table.view().await?, table.is_covered);
            let losses = match is_asked {
                true => Some(table.losses(&scope.view).await?),
                false => None,
            };
            let shown = losses.clone().filter(|_| is_shown);
            let answer = match self.execute(table.log, &scope, statement, shown).await {
                Ok(stream) => QueryStream::start(stream, bounds, Arc::clone(&turn)).await,
                Err(error) => Err(error),
            };
            let coverage = losses.filter(|_| table.is_covered);
            let coverage = coverage.map(|losses| losses.cover(&scope.view, &scope.reads()));
            let answer = answer.map(|stream| stream.covered(coverage));
            let (error, gone) = match (answer, scope.gone.first()) {
                (Err(error), Some(gone)) => (error, gone.to_owned()),
                (answer, _) => return answer,
            };
            let version = scope.view.state.version;
            if table.as_of.is_none() && gone_from.replace(version) == Some(version) {
                let root = table.log.store().path("");
                let key = gone.strip_prefix(root.as_ref()).unwrap_or(&gone);
                let object = key.trim_start_matches('/').to_owned();
                return Err(Error::Missing { object });
            }
            tracing::info!(attempt, %error, gone, "a data file is gone: reading anew");
        }
        Err(Error::Vanished { attempts: ATTEMPTS })
    }

    async fn execute(
        &self,
        log: &TableLog,
        scope: &Arc<Scope>,
        statement: &Statement,
        coverage: Option<Arc<Losses>>,
    ) -> Result<SendableRecordBatchStream> {
        let ledger = if names_table(statement, "ledger") {
            log.ledger(&scope.view.state).await?
        } else {
            Ledger::default()
        };
        let named = Named { ledger, coverage };
        let state = session::started(&self.template, self.clock.now_us());
        let planned = async {
            let sources = tables::sources(scope, named)?;
            let logical = Names::new(&state, sources).plan(statement.clone())?;
            let physical = state.create_physical_plan(&logical).await?;
            execute_stream(physical, state.task_ctx())
        };
        planned.await.map_err(|e| self.sort(e))
    }
}

/// Whether a statement mentions `table`, whose rows must be made before planning.
fn names_table(statement: &Statement, table: &'static str) -> bool {
    struct Finder(&'static str);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            let last = name.0.last().and_then(|part| part.as_ident());
            if last.is_some_and(|ident| ident.value.eq_ignore_ascii_case(self.0)) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    match statement {
        Statement::Statement(inner) => inner.visit(&mut Finder(table)).is_break(),
        Statement::Explain(explain) => names_table(&explain.statement, table),
        _ => false,
    }
}
