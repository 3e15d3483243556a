//! `stele serve`: ingest, jobs and queries in one process.
//!
//! Shutdown: stop accepting, finish the requests in flight, stop the jobs, exit 0.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use stele_auth::Tokens;
use stele_http::{Gate, IngestState, error_response, ingest_router};
use stele_ingest::Quotas;
use stele_model::{Clock, ErrorKind, Ids, Limits, TenantId};
use stele_node::Node;
use stele_node::{Met, Tenants, with_lease};
use stele_query::{QueryEngine, QueryState};
use stele_runtime::{Config, RandomIds, SystemClock, telemetry};
use stele_store::Tiers;
use stele_table::{Retention, set_rollups_paused};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::{LogForm, ServeArgs};
use crate::jobs::Jobs;
use crate::status::{Status, prometheus};
use crate::{host_metrics, retention, settings};

/// How long requests in flight may take after the signal.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the server until SIGINT or SIGTERM.
///
/// # Errors
/// A setting that cannot be used, a store that fails the probe, an address that is taken.
pub async fn run(args: ServeArgs, config: Config) -> anyhow::Result<()> {
    let form = match args.log {
        None => config.log_format,
        Some(LogForm::Text) => Some(stele_runtime::LogFormat::Text),
        Some(LogForm::Json) => Some(stele_runtime::LogFormat::Json),
    };
    telemetry::init(form, config.log.as_deref(), config.secrets())?;
    let mut options = stele_node::compact_options(&config);
    options.seal_delay_us = args.seal_delay.unwrap_or(options.seal_delay_us);
    options.sketch &= !args.no_sketch;
    stele_node::check(&options, &config)?;
    let address = address(&args, &config)?;
    let tenant = settings::tenant(args.tenant.as_deref(), &config)?;
    let store = settings::store(args.store.as_deref(), &config);
    let tiers = stele_node::open_tiers(&store, &config)?;
    let met = Met::default();
    let tenants = Tenants::open(tiers, options.clone(), Arc::clone(&met)).await?;
    let tier = tenants.current().primary.clone();
    probe(&tenants).await?;
    let gate = gate(address, tenants.tiers(), &tenant).await?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    // Connections of an HTTP client live on the runtime that opened them; the jobs' runtime is
    // busy for seconds at a time, so it gets a client of its own.
    let jobs_tiers = if store.starts_with("memory:") {
        tenants.tiers().clone()
    } else {
        stele_node::open_tiers(&store, &config)?
    };

    let node = tenants.get(&tenant);
    let (stop, stopped) = watch::channel(false);
    let (jobs, thread) = Jobs::start(
        Box::pin(Tenants::open(jobs_tiers, options.clone(), met)),
        config.clone(),
        options.clone(),
        stele_node::ladder(args.snapshots.as_deref().or(config.snapshots.as_deref()))?,
        stopped.clone(),
    )?;
    let recorder = (args.host_metrics || config.host_metrics == Some(true)).then(|| {
        let (node, stopped) = (node.clone(), stopped.clone());
        tokio::spawn(async move { host_metrics::run(&node.ingestor, &*node.clock, stopped).await })
    });
    let queries = settings::query_config(&config, options.sketch)?;
    let engine = QueryEngine::new(queries, Arc::clone(&node.clock))?;
    let server = Server {
        tenants,
        tenant: tenant.clone(),
        jobs,
        seal_delay_us: options.seal_delay_us,
    };
    let app = gate.guard(router(server, engine, &config));

    let url = format!("http://{}", listener.local_addr()?);
    tracing::info!(%url, store = tier.url(), tenant = %tenant, "listening on {url}");
    if let Some(path) = &args.ready_file {
        std::fs::write(path, &url).with_context(|| format!("writing {}", path.display()))?;
    }
    serve(listener, app, &stop).await?;
    if let Some(recorder) = recorder {
        recorder.await.context("the host metrics task")?;
    }
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the jobs' thread died"))?;
    tracing::info!("stopped");
    Ok(())
}

/// Everything that is served, before the gate.
fn router(server: Server, engine: QueryEngine, config: &Config) -> Router {
    let (of_ingest, of_logs) = (server.tenants.clone(), server.tenants.clone());
    let (of_query, of_retention) = (server.tenants.clone(), server.tenants.clone());
    let of_lease = server.tenants.clone();
    let tenant = server.tenant.clone();
    let ingest = IngestState::for_tenants(
        Box::new(move |tenant: &TenantId| of_ingest.get(tenant).ingestor),
        Some(Box::new(move |tenant: &TenantId| {
            let node = of_retention.get(tenant);
            Box::pin(async move { Ok(node.retention.raw(&node.store).await?) })
        })),
        Some(Arc::new(Quotas::new(stele_node::quotas(config)))),
        Arc::new(SystemClock),
        Limits::default(),
    );
    let logs = move |tenant: &TenantId| of_logs.get(tenant).log;
    let router = admin_router(server)
        .merge(ingest_router(ingest))
        .merge(stele_protect::receipts_router(Arc::new(logs)))
        .merge(stele_query::router(QueryState {
            engine: Arc::new(engine),
            tables: Arc::new(of_query),
            tenant,
        }));
    with_lease(router, of_lease)
}

/// Every tier that is written to must keep what it is given.
async fn probe(tenants: &Tenants) -> anyhow::Result<()> {
    let current = tenants.current();
    let mirrors = current.mirrors().map(|mirror| &mirror.tier);
    for tier in std::iter::once(&current.primary).chain(mirrors) {
        let id = RandomIds.operation_id();
        match tier.probe(SystemClock.now_us(), &id).await {
            Ok(report) => tracing::info!(store = tier.url(), ?report, "the store passed the probe"),
            Err(error @ stele_store::Error::Incapable { .. }) => return Err(error.into()),
            // Reads go on from the others, and nothing is acknowledged without it.
            Err(error) if current.set.is_some() => {
                tracing::error!(store = tier.url(), %error, "the tier cannot be probed");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Who may come in: whoever shows a token when the store holds one, else loopback alone. That is
/// decided once: revoking the last token must not open a server.
async fn gate(address: SocketAddr, tiers: &Tiers, tenant: &TenantId) -> anyhow::Result<Gate> {
    let tokens = Tokens::new(tiers.clone(), Arc::new(SystemClock));
    let active = tokens.active().await?;
    if active > 0 {
        tracing::info!(active, "requests need a token");
        return Ok(Gate::tokens(Arc::new(tokens)));
    }
    anyhow::ensure!(
        address.ip().is_loopback(),
        "{address} is not loopback, and the store holds no valid token: make one with \
         `stele token create`"
    );
    tracing::info!("requests need no token, and must be addressed to loopback, until a restart");
    Ok(Gate::loopback(tenant.clone()))
}

/// The address of the flag, the environment or the default.
fn address(args: &ServeArgs, config: &Config) -> anyhow::Result<SocketAddr> {
    let text = args
        .listen
        .as_deref()
        .or(config.listen.as_deref())
        .unwrap_or(settings::LISTEN);
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse()
        .with_context(|| format!("{text:?} is not an address such as 127.0.0.1:8686"))
}

async fn serve(
    listener: TcpListener,
    app: Router,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<()> {
    let mut stopped = stop.subscribe();
    let graceful = axum::serve(listener, app).with_graceful_shutdown(async move {
        // An error means the sender is gone, which is a stop as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    let mut server = tokio::spawn(graceful.into_future());
    tokio::select! {
        ended = &mut server => return Ok(ended??),
        signal = signal() => tracing::info!(signal = signal?, "finishing what is in flight"),
    }
    stop.send_replace(true);
    match tokio::time::timeout(DRAIN, &mut server).await {
        Ok(ended) => Ok(ended??),
        Err(_) => {
            server.abort();
            tracing::warn!(
                secs = DRAIN.as_secs(),
                "requests were still in flight; dropped"
            );
            Ok(())
        }
    }
}

async fn signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| "SIGINT").map_err(Into::into),
    }
}

#[derive(Clone)]
struct Server {
    tenants: Tenants,
    /// Of requests that carry no token.
    tenant: TenantId,
    jobs: Jobs,
    seal_delay_us: i64,
}

/// The tenant of a request's token.
type Named = Option<Extension<TenantId>>;

impl Server {
    fn tenant(&self, named: Named) -> TenantId {
        named.map_or_else(|| self.tenant.clone(), |Extension(tenant)| tenant)
    }

    fn node(&self, named: Named) -> Node {
        self.tenants.get(&self.tenant(named))
    }
}

fn admin_router(server: Server) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/admin/settle", post(settle))
        .route(
            "/admin/retention",
            get(read_retention).post(set_tenant_retention),
        )
        .route("/admin/rollups", get(rollups))
        .route("/admin/rollups/{action}", post(set_rollups))
        .with_state(server)
}

/// The reply to a fault of the store or the table: the kind decides, the cause is logged.
fn fault(kind: ErrorKind, error: &(dyn std::error::Error + 'static)) -> Response {
    tracing::error!(error, "an admin request failed");
    error_response(kind, &error.to_string())
}

/// A reply of one JSON value.
fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => fault(ErrorKind::Internal, &error),
    }
}

async fn read_status(server: &Server, named: Named) -> Result<Status, Response> {
    let node = server.node(named);
    let status = {
        let current = server.tenants.current();
        Status::read(&node, &current, server.seal_delay_us, server.jobs.done()).await
    };
    status.map_err(|error| fault(error.kind(), &error))
}

async fn status(State(server): State<Server>, named: Named) -> Result<Response, Response> {
    Ok(json(&read_status(&server, named).await?))
}

async fn metrics(State(server): State<Server>, named: Named) -> Result<Response, Response> {
    let text = prometheus(&read_status(&server, named).await?);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

async fn settle(State(server): State<Server>, named: Named) -> Response {
    match server.jobs.settle(server.tenant(named)).await {
        Ok(report) => json(&report),
        Err(Some(error)) => fault(error.kind(), &error),
        Err(None) => error_response(ErrorKind::Unavailable, "the server is stopping"),
    }
}

async fn rollups(State(server): State<Server>, named: Named) -> Result<Response, Response> {
    read_rollups(&server.node(named)).await
}

async fn read_rollups(node: &Node) -> Result<Response, Response> {
    let paused = stele_table::rollups_paused(&node.store).await;
    let paused = paused.map_err(|error| fault(error.kind(), &error))?;
    let since = paused.map(|p| stele_model::time::rfc3339(p.since_us));
    let body = serde_json::json!({"rollups_paused": paused.is_some(), "since": since});
    Ok(json(&body))
}

async fn read_retention(State(server): State<Server>, named: Named) -> Result<Response, Response> {
    let in_force = stele_table::retention(&server.node(named).store).await;
    let in_force = in_force.map_err(|error| fault(error.kind(), &error))?;
    Ok(json(&retention::shown(&in_force)))
}

async fn set_tenant_retention(
    State(server): State<Server>,
    named: Named,
    body: Bytes,
) -> Result<Response, Response> {
    let wanted: Retention = serde_json::from_slice(&body)
        .map_err(|error| error_response(ErrorKind::Malformed, &error.to_string()))?;
    let node = server.node(named.clone());
    let set = stele_table::set_retention(&node.store, wanted).await;
    node.retention.forget();
    set.map_err(|error| match error.kind() {
        kind @ ErrorKind::Malformed => error_response(kind, &error.to_string()),
        kind => fault(kind, &error),
    })?;
    read_retention(State(server), named).await
}

async fn set_rollups(
    State(server): State<Server>,
    named: Named,
    Path(action): Path<String>,
) -> Result<Response, Response> {
    let pause = match action.as_str() {
        "pause" => true,
        "resume" => false,
        _ => return Err(StatusCode::NOT_FOUND.into_response()),
    };
    let node = server.node(named);
    let set = set_rollups_paused(&node.store, pause, node.clock.now_us()).await;
    set.map_err(|error| fault(error.kind(), &error))?;
    read_rollups(&node).await
}
