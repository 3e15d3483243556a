//! What the ingest routes share, and the routes themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use bytes::Bytes;
use futures::future::BoxFuture;
use stele_ingest::{Ingestor, Prepared, Quotas, Receipt, body_digest};
use stele_model::{Clock, Limits, RawRetention, Rejections, TenantId};
use stele_wire::Decoded;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body;
use crate::error::{BoxError, Error};
use crate::unpack::{Encoding, unpack};
use crate::{clients, idempotency, import, librato, native, write};

/// A plain body of at most this many bytes is decoded where it arrived;
/// a larger one would keep its worker from other requests.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// How many larger bodies are unpacked, decoded and encoded at once: what a body of the maximal
/// size takes meanwhile bounds the memory of the process.
const DECODING_MAX: usize = 2;

/// What ingest has done since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests to the write routes.
    pub requests: AtomicU64,
    /// Those answered with an error for the request as a whole.
    pub failures: AtomicU64,
    /// Samples acknowledged.
    pub samples_accepted: AtomicU64,
    /// Samples refused by name.
    pub samples_rejected: AtomicU64,
    /// Bytes of bodies as sent.
    pub body_bytes: AtomicU64,
}

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct IngestState {
    inner: Arc<Inner>,
}

/// The ingestor of each tenant.
pub type Ingestors = dyn Fn(&TenantId) -> Arc<Ingestor> + Send + Sync;

/// How long each tenant's raw samples are kept, as of at most 60 s ago.
pub type Retentions =
    dyn Fn(&TenantId) -> BoxFuture<'static, Result<RawRetention, BoxError>> + Send + Sync;

struct Inner {
    ingestors: Box<Ingestors>,
    retentions: Option<Box<Retentions>>,
    quotas: Option<Arc<Quotas>>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// One permit per byte.
    in_flight: Arc<Semaphore>,
    /// One permit per large body that may be decoded at once.
    decoding: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// Decodes an unpacked body received at a time in µs.
pub(crate) type Decode =
    Box<dyn FnOnce(&[u8], i64, &Limits) -> Result<Decoded, stele_wire::Error> + Send>;

/// What became of a request's samples: accepted ones are durable.
pub(crate) struct Accepted {
    pub rejections: Rejections,
    pub receipt: Option<Receipt>,
}

impl Accepted {
    pub(crate) fn samples(&self) -> u64 {
        self.receipt.as_ref().map_or(0, |receipt| receipt.rows)
    }
}

/// The routes of ingest: `/write`, `/api/v2/write`, `/api/samples`, Librato's `/v1/metrics` and
/// `/v1/measurements` (also under `/librato`), `/admin/import`, `/ping`, `/health`, `/query`.
pub fn ingest_router(state: IngestState) -> Router {
    Router::new()
        .route("/write", post(write::v1))
        .route("/api/v2/write", post(write::v2))
        .route("/api/samples", post(native::samples))
        .route("/admin/import", post(import::import))
        .route("/v1/metrics", post(librato::metrics))
        .route("/v1/measurements", post(librato::measurements))
        .route("/librato/v1/metrics", post(librato::metrics))
        .route("/librato/v1/measurements", post(librato::measurements))
        .route("/ping", get(clients::ping))
        .route("/health", get(clients::health))
        .route("/query", get(clients::query).post(clients::query))
        // Bodies are limited where they are read, with an error that names the limit.
        .layer(DefaultBodyLimit::disable())
        .with_state(state)
}

impl IngestState {
    /// State for one listener of one tenant; two large bodies are decoded at once.
    #[must_use]
    pub fn new(ingestor: Arc<Ingestor>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let ingestors = move |_: &TenantId| Arc::clone(&ingestor);
        Self::for_tenants(Box::new(ingestors), None, None, clock, limits)
    }

    /// State for one listener of many tenants. A request's tenant is the [`TenantId`] among its
    /// extensions, where a [`Gate`](crate::Gate) puts it, or the default one. `limits` bound the
    /// bytes in flight of all tenants together.
    #[must_use]
    pub fn for_tenants(
        ingestors: Box<Ingestors>,
        retentions: Option<Box<Retentions>>,
        quotas: Option<Arc<Quotas>>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Self {
        let bytes = usize::try_from(limits.in_flight_bytes_max).unwrap_or(usize::MAX);
        Self {
            inner: Arc::new(Inner {
                ingestors,
                retentions,
                quotas,
                clock,
                limits,
                in_flight: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))),
                decoding: Arc::new(Semaphore::new(DECODING_MAX)),
                counters: Arc::default(),
            }),
        }
    }

    /// The limits that requests are held to.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.inner.counters
    }

    /// A request's hold on the bytes in flight, empty at first.
    pub(crate) fn flight(&self) -> Flight {
        Flight {
            semaphore: Arc::clone(&self.inner.in_flight),
            held: None,
            limit: self.limits().in_flight_bytes_max,
        }
    }

    /// Takes a request's body to durable samples.
    pub(crate) async fn accept(
        &self,
        request: axum::extract::Request,
        decode: Decode,
    ) -> Result<Accepted, Error> {
        let counters = &self.inner.counters;
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let accepted = self.try_accept(request, decode).await;
        match &accepted {
            Ok(accepted) => {
                let (kept, refused) = (accepted.samples(), accepted.rejections.total);
                counters.samples_accepted.fetch_add(kept, Ordering::Relaxed);
                counters
                    .samples_rejected
                    .fetch_add(refused, Ordering::Relaxed);
            }
            Err(error) => {
                counters.failures.fetch_add(1, Ordering::Relaxed);
                error.log();
            }
        }
        accepted
    }

    async fn try_accept(
        &self,
        request: axum::extract::Request,
        decode: Decode,
    ) -> Result<Accepted, Error> {
        let encoding = Encoding::of(request.headers())?;
        let key = idempotency::key(request.headers())?;
        let meaning = idempotency::meaning(request.uri());
        let now_us = self.inner.clock.now_us();
        let tenant = request.extensions().get::<TenantId>();
        let tenant = tenant.cloned().unwrap_or_default();
        let ingestor = (self.inner.ingestors)(&tenant);
        let mut flight = self.flight();
        let packed = body::read(request, self.limits(), &mut flight).await?;
        let bytes = packed.len() as u64;
        self.inner
            .counters
            .body_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let inline = encoding == Encoding::Identity && packed.len() <= INLINE_BYTES_MAX;
        let mut limits = *self.limits();
        if let Some(retentions) = &self.inner.retentions {
            limits.raw_retention = retentions(&tenant).await.map_err(Error::Retention)?;
        }
        let quotas = self.inner.quotas.clone();
        let unpack = move || {
            let unpacked = unpack(packed, encoding, &limits, &mut flight)?;
            // The bytes count as in flight until the object is stored.
            Ok::<_, Error>((unpacked, flight))
        };
        let prepare = move |unpacked: Bytes, received_us| {
            let mut decoded = decode(&unpacked, received_us, &limits)?;
            drop(unpacked);
            if let Some(quotas) = quotas {
                let Decoded {
                    rows,
                    rejections,
                    positions,
                } = &mut decoded;
                quotas.admit(&tenant, rows, positions, rejections, now_us)?;
            }
            Ok::<_, Error>((Prepared::new(decoded.rows), decoded.rejections))
        };
        let ((prepared, rejections), _flight) = match key {
            None => {
                let work = move || {
                    let (unpacked, flight) = unpack()?;
                    Ok((prepare(unpacked, now_us)?, flight))
                };
                self.work(inline, work).await?
            }
            Some(key) => {
                let work = move || {
                    let (unpacked, flight) = unpack()?;
                    Ok((body_digest(&meaning, &unpacked), unpacked, flight))
                };
                let (body, unpacked, flight) = self.work(inline, work).await?;
                let received_us = ingestor.received_us(&key, body, now_us).await?;
                let work = move || Ok((prepare(unpacked, received_us)?, flight));
                self.work(inline, work).await?
            }
        };
        let receipt = match prepared {
            None => None,
            Some(prepared) => Some(ingestor.put(prepared).await?),
        };
        Ok(Accepted {
            rejections,
            receipt,
        })
    }

    /// Does what keeps a processor busy: where it is, or, when it is long, on a thread for that.
    async fn work<T: Send + 'static>(
        &self,
        inline: bool,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if inline {
            return work();
        }
        // A sender that goes away ends neither the work nor its turn. The semaphore is never
        // closed.
        let turn = Arc::clone(&self.inner.decoding).acquire_owned().await.ok();
        let work = move || {
            let _turn = turn;
            work()
        };
        let worker = tokio::task::spawn_blocking(work);
        worker.await.map_err(Error::Worker)?
    }
}

/// The bytes one request holds of those that may be in flight; given back when dropped.
pub(crate) struct Flight {
    semaphore: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    limit: u64,
}

impl Flight {
    /// Takes `bytes` more, without waiting.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let busy = || Error::Busy { limit: self.limit };
        let permits = u32::try_from(bytes).map_err(|_| busy())?;
        let semaphore = Arc::clone(&self.semaphore);
        let more = semaphore
            .try_acquire_many_owned(permits)
            .map_err(|_| busy())?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}
