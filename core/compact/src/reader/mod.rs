//! The merge reader: every sample of some windows exactly once, whatever has or has not been
//! absorbed and sealed, and rollups folded from them on the fly.
//!
//! Queries use it for open windows, verify and tests for everything. Objects are fetched whole
//! and asynchronously first; the merge itself is synchronous and streams. What it deliberately
//! does not do: prune by page, or read sealed rollups for a query (the query's own Parquet scan
//! does both).

mod fly;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use stele_format::{
    MemorySource, Merge, RollupMerge, RollupReader, RollupSource, SampleReader, SampleSource,
    SeriesPredicate, l0,
};
use stele_model::{Resolution, Window, WindowSet};
use stele_store::{L0Object, TenantStore, keys};
use stele_table::{FileEntry, FileKind, View};

use crate::error::{Error, Result};
use fly::{Disjoint, OnTheFly};

/// Objects fetched at the same time.
const FETCHES: usize = 16;

/// Which rows a reader returns. The default returns all.
#[derive(Clone)]
pub struct Filter {
    /// The first instant, µs; for rollups, of bin starts.
    pub ts_lo_us: i64,
    /// The first instant after, µs; for rollups, of bin starts.
    pub ts_hi_us: i64,
    /// Only these metrics; `None` for all.
    pub metrics: Option<Arc<BTreeSet<String>>>,
    /// Only series for which this holds.
    pub series: Option<SeriesPredicate>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            ts_lo_us: i64::MIN,
            ts_hi_us: i64::MAX,
            metrics: None,
            series: None,
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("ts_lo_us", &self.ts_lo_us)
            .field("ts_hi_us", &self.ts_hi_us)
            .field("metrics", &self.metrics)
            .field("series", &self.series.is_some())
            .finish()
    }
}

impl Filter {
    /// Whether a file may hold a row of it, by the log's statistics.
    #[must_use]
    pub fn may_match(&self, file: &FileEntry) -> bool {
        let stats = &file.stats;
        let in_time = stats.ts_max_us >= self.ts_lo_us && stats.ts_min_us < self.ts_hi_us;
        let in_names = self.metrics.as_ref().is_none_or(|metrics| {
            let from = metrics.range::<String, _>(&stats.metric_min..);
            from.into_iter()
                .next()
                .is_some_and(|metric| *metric <= stats.metric_max)
        });
        in_time && in_names
    }

    /// One predicate for the names and the series condition.
    fn predicate(&self) -> Option<SeriesPredicate> {
        match (self.metrics.clone(), self.series.clone()) {
            (None, series) => series,
            (Some(metrics), None) => Some(Arc::new(move |s| metrics.contains(&s.metric))),
            (Some(metrics), Some(series)) => {
                Some(Arc::new(move |s| metrics.contains(&s.metric) && series(s)))
            }
        }
    }

    /// The windows that may hold rows of it.
    fn windows(&self, windows: &WindowSet) -> WindowSet {
        let (lo, hi) = (self.ts_lo_us, self.ts_hi_us);
        let overlaps = |window: &Window| window.end_us() > lo && window.start_us() < hi;
        windows.iter().filter(overlaps).collect()
    }
}

/// Reads samples and rollups of a view; see the module's text.
#[derive(Debug, Clone, Copy)]
pub struct MergeReader;

impl MergeReader {
    /// Every sample of `windows` that passes `filter`, exactly once: the merge of raw files, open
    /// files and unabsorbed L0 objects. Strictly ascending by (metric, tags, ts).
    ///
    /// # Errors
    /// [`Error::Gone`] when the view is too old: read a new one and start again. Else the
    /// store's, and damaged objects.
    pub async fn samples(
        store: &TenantStore,
        view: &View,
        windows: &WindowSet,
        filter: Filter,
    ) -> Result<Box<dyn SampleSource>> {
        let sources = sample_sources(store, view, windows, &filter).await?;
        Ok(Box::new(Merge::new(sources)))
    }

    /// The bins of `windows` that pass `filter`, folded from [`MergeReader::samples`] with the
    /// fold that seal uses. Strictly ascending by (metric, tags, start).
    ///
    /// # Errors
    /// As [`MergeReader::samples`]. Raw has no bins: [`Resolution::Raw`] gives none.
    pub async fn rollups(
        store: &TenantStore,
        view: &View,
        resolution: Resolution,
        windows: &WindowSet,
        mut filter: Filter,
        sketch: bool,
    ) -> Result<Box<dyn RollupSource>> {
        let Some(bin_us) = resolution.bin_us() else {
            return Ok(Box::new(RollupMerge::new(Vec::new())));
        };
        // A bin is wanted whole when its start is.
        filter.ts_lo_us = ceil(filter.ts_lo_us, bin_us);
        filter.ts_hi_us = ceil(filter.ts_hi_us, bin_us);
        let samples = Self::samples(store, view, windows, filter).await?;
        Ok(Box::new(OnTheFly::new(samples, resolution, sketch)))
    }
}

/// The least multiple of `step` that is not below `ts_us`; saturates at the ends.
fn ceil(ts_us: i64, step: i64) -> i64 {
    match ts_us.rem_euclid(step) {
        0 => ts_us,
        rest => ts_us.checked_add(step - rest).unwrap_or(ts_us),
    }
}

/// Every sample of the view, as a query sees them: sealed windows from raw files alone, open ones
/// through the merge. Ascending by (metric, tags, ts). Holds the whole store in memory: for small
/// stores and tests; [`windows_samples`] reads a part.
///
/// # Errors
/// As [`MergeReader::samples`]; and reading on fails when sealed files hold a sample twice.
pub async fn all_samples(store: &TenantStore, view: &View) -> Result<Box<dyn SampleSource>> {
    windows_samples(store, view, &all_windows(view)).await
}

/// Like [`all_samples`], of the windows of `windows` alone.
///
/// # Errors
/// As [`all_samples`].
pub async fn windows_samples(
    store: &TenantStore,
    view: &View,
    windows: &WindowSet,
) -> Result<Box<dyn SampleSource>> {
    let open = view.open_windows().intersection(windows);
    let sealed = windows.difference(&open);
    let filter = Filter::default();
    let raw = file_sources(store, raw_files(view), &sealed, &filter).await?;
    let merged = MergeReader::samples(store, view, &open, filter).await?;
    let sources: Vec<Box<dyn SampleSource>> = vec![Box::new(Disjoint::new(raw)), merged];
    Ok(Box::new(Disjoint::new(sources)))
}

/// Every bin of one resolution, as a query sees them: sealed windows from rollup files, open ones
/// folded on the fly (with a sketch). Ascending by (metric, tags, start). Holds the whole store in
/// memory.
///
/// # Errors
/// As [`all_samples`].
pub async fn all_rollups(
    store: &TenantStore,
    view: &View,
    resolution: Resolution,
) -> Result<Box<dyn RollupSource>> {
    let open = view.open_windows();
    let files: Vec<_> = view
        .state
        .files_of(FileKind::Sealed(resolution))
        .cloned()
        .collect();
    // Not what raw covers: rollups outlive their samples.
    let mut sealed = WindowSet::new();
    files.iter().for_each(|file| sealed.extend(&file.windows));
    let sealed = sealed.difference(&open);
    let mut sources: Vec<Box<dyn RollupSource>> = Vec::new();
    for (file, bytes) in fetch_files(store, over(files, &sealed)).await? {
        let reader = RollupReader::open(bytes).map_err(|e| damaged(&file, e))?;
        sources.push(Box::new(
            reader.with_windows(sealed.intersection(&file.windows)),
        ));
    }
    let filter = Filter::default();
    let fly = MergeReader::rollups(store, view, resolution, &open, filter, true).await?;
    sources.push(fly);
    Ok(Box::new(RollupMerge::new(sources)))
}

/// Every window the view may hold samples of: expired ones have none.
#[must_use]
pub fn all_windows(view: &View) -> WindowSet {
    let mut windows = view.open_windows();
    for file in view.state.files_of(FileKind::Sealed(Resolution::Raw)) {
        windows.extend(&file.windows);
    }
    windows
}

fn raw_files(view: &View) -> Vec<Arc<FileEntry>> {
    view.state
        .files_of(FileKind::Sealed(Resolution::Raw))
        .cloned()
        .collect()
}

fn over(files: Vec<Arc<FileEntry>>, windows: &WindowSet) -> Vec<Arc<FileEntry>> {
    files
        .into_iter()
        .filter(|file| file.windows.intersects(windows))
        .collect()
}

async fn sample_sources(
    store: &TenantStore,
    view: &View,
    windows: &WindowSet,
    filter: &Filter,
) -> Result<Vec<Box<dyn SampleSource>>> {
    // Nothing that still arrives of an expired window is a sample of it.
    let windows = view.state.expired.not_of(Resolution::Raw, windows);
    let windows = filter.windows(&windows);
    let mut files = raw_files(view);
    files.extend(view.state.files_of(FileKind::Open).cloned());
    let mut sources = file_sources(store, files, &windows, filter).await?;
    let objects: Vec<L0Object> = view
        .l0
        .iter()
        .filter(|object| object.name.windows().intersects(&windows))
        .cloned()
        .collect();
    let fetches = futures::stream::iter(objects).map(|object| async move {
        let bytes = fetch(store, &l0_key(&object)).await?;
        Ok::<_, Error>((object, bytes))
    });
    let mut fetches = fetches.buffered(FETCHES);
    while let Some((object, bytes)) = fetches.try_next().await? {
        let batches = l0::decode(bytes).map_err(|source| Error::Object {
            key: l0_key(&object),
            source,
        })?;
        for batch in batches {
            let mut source = MemorySource::new(batch.rows)
                .with_windows(windows.clone())
                .with_ts_range(filter.ts_lo_us, filter.ts_hi_us);
            if let Some(predicate) = filter.predicate() {
                source = source.with_series(predicate);
            }
            sources.push(Box::new(source));
        }
    }
    Ok(sources)
}

async fn file_sources(
    store: &TenantStore,
    files: Vec<Arc<FileEntry>>,
    windows: &WindowSet,
    filter: &Filter,
) -> Result<Vec<Box<dyn SampleSource>>> {
    let files = over(files, windows)
        .into_iter()
        .filter(|file| filter.may_match(file))
        .collect();
    let mut sources: Vec<Box<dyn SampleSource>> = Vec::new();
    for (file, bytes) in fetch_files(store, files).await? {
        let mut reader = SampleReader::open(bytes).map_err(|e| damaged(&file, e))?;
        if !file.windows.difference(windows).is_empty() {
            reader = reader.with_windows(windows.intersection(&file.windows));
        }
        if file.stats.ts_min_us < filter.ts_lo_us || file.stats.ts_max_us >= filter.ts_hi_us {
            reader = reader.with_ts_range(filter.ts_lo_us, filter.ts_hi_us);
        }
        if let Some(predicate) = filter.predicate() {
            reader = reader.with_series(predicate);
        }
        sources.push(Box::new(reader));
    }
    Ok(sources)
}

/// Fetches whole files, in order, after checking their length and footer against the log.
pub(crate) async fn fetch_files(
    store: &TenantStore,
    files: Vec<Arc<FileEntry>>,
) -> Result<Vec<(Arc<FileEntry>, Bytes)>> {
    let fetches = futures::stream::iter(files).map(|file| async move {
        let bytes = fetch_file(store, &file).await?;
        Ok((file, bytes))
    });
    fetches.buffered(FETCHES).try_collect().await
}

/// Fetches one whole file and checks its length and its footer's digest.
pub(crate) async fn fetch_file(store: &TenantStore, file: &FileEntry) -> Result<Bytes> {
    let bytes = fetch(store, &keys::data_file(&file.path)).await?;
    check_footer(&bytes, file).map_err(|source| damaged(file, source))?;
    Ok(bytes)
}

fn check_footer(bytes: &Bytes, file: &FileEntry) -> stele_format::Result<()> {
    let stats = &file.stats;
    if bytes.len() as u64 != stats.size_bytes || stats.footer_bytes > stats.size_bytes {
        return Err(stele_format::Error::Corrupt {
            what: "its size is not the one in the log",
        });
    }
    let footer = usize::try_from(stats.size_bytes - stats.footer_bytes).unwrap_or(0);
    let found = stele_format::content_digest(&bytes[footer..]);
    if found == stats.footer_digest {
        return Ok(());
    }
    Err(stele_format::Error::DigestMismatch {
        what: "the footer",
        expected: stats.footer_digest,
        found,
    })
}

/// Fetches one object of a view.
pub(crate) async fn fetch(store: &TenantStore, key: &str) -> Result<Bytes> {
    store.get(key).await.map_err(|source| match source {
        stele_store::Error::NotFound { .. } => Error::Gone {
            key: key.to_owned(),
            source,
        },
        other => Error::Store(other),
    })
}

pub(crate) fn l0_key(object: &L0Object) -> String {
    format!("{}/{}", keys::L0, object.name)
}

pub(crate) fn damaged(file: &FileEntry, source: stele_format::Error) -> Error {
    Error::Object {
        key: keys::data_file(&file.path),
        source,
    }
}
