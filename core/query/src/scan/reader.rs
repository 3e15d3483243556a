//! How the Parquet scan reads a file: its footer from the plan, its pages from the store, each held
//! against its sum, every request and byte counted where `EXPLAIN ANALYZE` shows them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::Gone;
use super::footer::{Footer, damaged};

/// Ranges nearer than this are fetched in one request, as `object_store` does.
const COALESCE_BYTES: u64 = 1 << 20;
/// The names of the counters.
pub(crate) const REQUESTS: &str = "store_requests";
pub(crate) const BYTES: &str = "store_bytes";

/// Makes readers over one tenant's store.
pub(crate) struct Readers {
    store: Arc<dyn ObjectStore>,
    gone: Gone,
}

impl Readers {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, gone: Gone) -> Self {
        Self { store, gone }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readers")
    }
}

/// The footer that travels with a planned file.
#[derive(Debug)]
pub(crate) struct PlannedFooter(pub(crate) Arc<Footer>);

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let footer = file.extension::<PlannedFooter>();
        let Some(footer) = footer.map(|footer| Arc::clone(&footer.0)) else {
            return datafusion::common::internal_err!("a planned file has no footer");
        };
        Ok(Box::new(Reader {
            store: Arc::clone(&self.store),
            path: file.object_meta.location.clone(),
            footer,
            gone: self.gone.clone(),
            requests: MetricBuilder::new(metrics).counter(REQUESTS, partition),
            bytes: MetricBuilder::new(metrics).counter(BYTES, partition),
        }))
    }
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    footer: Arc<Footer>,
    gone: Gone,
    requests: Count,
    bytes: Count,
}

/// How many requests `object_store` makes of these ranges.
fn requests(ranges: &[Range<u64>]) -> usize {
    let mut sorted: Vec<_> = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    let (mut count, mut end) = (0, None);
    for range in sorted {
        if end.is_none_or(|end: u64| range.start > end.saturating_add(COALESCE_BYTES)) {
            count += 1;
        }
        end = Some(end.unwrap_or(0).max(range.end));
    }
    count
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let mut all = self.get_byte_ranges(vec![range]).await?;
            all.pop()
                .ok_or_else(|| ParquetError::General("a range without bytes".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            self.requests.add(requests(&ranges));
            let answer = self.store.get_ranges(&self.path, &ranges).await;
            let parts = answer.map_err(|e| {
                if matches!(e, object_store::Error::NotFound { .. }) {
                    self.gone.note(self.path.as_ref());
                }
                ParquetError::External(Box::new(e))
            })?;
            for (range, part) in ranges.iter().zip(&parts) {
                if part.len() as u64 != range.end - range.start {
                    return Err(ParquetError::EOF(format!("{} is cut short", self.path)));
                }
                let sums = &self.footer.sums;
                if let Err(error) = sums.check(range.start, part) {
                    let damaged = damaged(self.path.as_ref(), &error);
                    return Err(ParquetError::External(Box::new(damaged)));
                }
                self.bytes.add(part.len());
            }
            Ok(parts)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        std::future::ready(Ok(Arc::clone(&self.footer.metadata))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_one_request() {
        assert_eq!(requests(&[0..10, 20..30]), 1);
        assert_eq!(requests(&[5 << 20..6 << 20, 0..10]), 2);
        assert_eq!(requests(&[]), 0);
    }
}
