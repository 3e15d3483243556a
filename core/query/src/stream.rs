//! The batches of an answer, on their way out of the engine's threads.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use crate::error::{Error, Result, from_datafusion};
use crate::losses::Coverage;

/// Bytes of the answer held back before its first byte is given out.
const HEAD_BYTES: usize = 256 << 10;
/// Batches made ahead of the reader.
const AHEAD: usize = 2;

/// What bounds one answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) rows_max: u64,
    pub(crate) bytes_max: u64,
    pub(crate) memory_max: usize,
    pub(crate) deadline: Instant,
    pub(crate) deadline_secs: u64,
}

impl Bounds {
    pub(crate) fn late(&self) -> Error {
        Error::Deadline {
            secs: self.deadline_secs,
        }
    }
}

/// The right to run, given back when the last part of a query is dropped.
pub(crate) type Turn = Arc<OwnedSemaphorePermit>;

/// A batch, or `None` for the end: a channel that closes without it broke off.
type Part = Result<Option<RecordBatch>>;

/// The batches of an answer. An error is the last item.
pub struct QueryStream {
    schema: SchemaRef,
    head: VecDeque<RecordBatch>,
    rest: Option<Rest>,
    bounds: Bounds,
    timer: Pin<Box<Sleep>>,
    /// What is lost of what it was made from, when that was asked for.
    coverage: Option<Coverage>,
    _turn: Turn,
}

struct Rest {
    parts: Receiver<Part>,
    pump: AbortHandle,
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl QueryStream {
    /// An answer that is one batch.
    pub(crate) fn of(batch: RecordBatch, bounds: Bounds, turn: Turn) -> Self {
        Self {
            schema: batch.schema(),
            head: VecDeque::from([batch]),
            rest: None,
            bounds,
            timer: Box::pin(tokio::time::sleep_until(bounds.deadline)),
            coverage: None,
            _turn: turn,
        }
    }

    /// Runs `stream` on the current runtime: its first batches until there are enough bytes or
    /// no more, the others as they are asked for.
    ///
    /// # Errors
    /// The first failure of the first batches.
    pub(crate) async fn start(
        mut stream: SendableRecordBatchStream,
        bounds: Bounds,
        turn: Turn,
    ) -> Result<Self> {
        let schema = stream.schema();
        let mut head = VecDeque::new();
        let (mut bytes, mut rows, mut complete) = (0, 0, false);
        while bytes < HEAD_BYTES && !complete {
            match next(&mut stream, &mut rows, &bounds).await? {
                Some(batch) => {
                    bytes += batch.get_array_memory_size();
                    head.push_back(batch);
                }
                None => complete = true,
            }
        }
        let rest = (!complete).then(|| pump(stream, rows, bounds, Arc::clone(&turn)));
        Ok(Self {
            schema,
            head,
            rest,
            bounds,
            timer: Box::pin(tokio::time::sleep_until(bounds.deadline)),
            coverage: None,
            _turn: turn,
        })
    }

    /// The columns of the answer.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// What is known to be lost of what the answer was made from; `None` when that was not asked
    /// for.
    #[must_use]
    pub fn coverage(&self) -> Option<&Coverage> {
        self.coverage.as_ref()
    }

    pub(crate) fn covered(mut self, coverage: Option<Coverage>) -> Self {
        self.coverage = coverage;
        self
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bounds.bytes_max
    }

    /// Whether the whole answer is already here, so that nothing can fail any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rest.is_none()
    }
}

/// The next batch, within the cap on rows.
async fn next(
    stream: &mut SendableRecordBatchStream,
    rows: &mut u64,
    bounds: &Bounds,
) -> Result<Option<RecordBatch>> {
    let Some(batch) = stream.next().await else {
        return Ok(None);
    };
    let batch = batch.map_err(|e| from_datafusion(e, bounds.memory_max))?;
    *rows += batch.num_rows() as u64;
    if *rows > bounds.rows_max {
        return Err(Error::OverLimit {
            what: "rows",
            limit: bounds.rows_max,
        });
    }
    Ok(Some(batch))
}

/// Moves batches from the engine's runtime to whoever reads the answer.
fn pump(mut stream: SendableRecordBatchStream, mut rows: u64, bounds: Bounds, turn: Turn) -> Rest {
    let (sender, parts) = channel(AHEAD);
    let task = tokio::spawn(async move {
        let _turn = turn;
        loop {
            let part = next(&mut stream, &mut rows, &bounds).await;
            let last = !matches!(part, Ok(Some(_)));
            if sender.send(part).await.is_err() || last {
                return;
            }
        }
    });
    Rest {
        parts,
        pump: task.abort_handle(),
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(batch) = self.head.pop_front() {
            return Poll::Ready(Some(Ok(batch)));
        }
        if self.rest.is_none() {
            return Poll::Ready(None);
        }
        let late = self.timer.as_mut().poll(cx).is_ready();
        let part = match &mut self.rest {
            _ if late => Poll::Ready(Some(Err(self.bounds.late()))),
            Some(rest) => rest.parts.poll_recv(cx),
            None => return Poll::Ready(None),
        };
        let item = match part {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(Some(batch)))) => return Poll::Ready(Some(Ok(batch))),
            Poll::Ready(Some(Ok(None))) => None,
            Poll::Ready(Some(Err(error))) => Some(Err(error)),
            Poll::Ready(None) => Some(Err(broke_off())),
        };
        self.rest = None;
        Poll::Ready(item)
    }
}

/// The task that made the batches is gone without a word: it panicked.
pub(crate) fn broke_off() -> Error {
    let text = "the query's task ended before its answer did".to_owned();
    Error::Internal(Box::new(DataFusionError::Internal(text)))
}
