//! The merge of rollup files whose bins are disjoint.

use std::cmp::Ordering;
use std::sync::Arc;

use stele_model::{Aggregate, Series};

use crate::error::{Error, Result};
use crate::sample::{RollupChunk, RollupSource};
use crate::waiting::{Head, Heap, gallop, series_order};

type RollupHead = Head<Box<dyn RollupSource>, (i64, Aggregate)>;

/// The merge of rollup files whose bins are disjoint: row for row, nothing is folded.
pub struct RollupMerge {
    unread: Vec<Box<dyn RollupSource>>,
    heap: Heap<Box<RollupHead>>,
    /// The last bin returned.
    last: Option<(Arc<Series>, i64)>,
}

#[expect(clippy::borrowed_box, reason = "the heap compares what it holds")]
fn by_bin(a: &Box<RollupHead>, b: &Box<RollupHead>) -> Ordering {
    series_order(&a.series, &b.series).then_with(|| a.rest()[0].0.cmp(&b.rest()[0].0))
}

impl RollupMerge {
    /// Merges sources that ascend strictly by (series, start).
    #[must_use]
    pub fn new(sources: Vec<Box<dyn RollupSource>>) -> Self {
        Self {
            unread: sources,
            heap: Heap::default(),
            last: None,
        }
    }

    fn fill(&mut self, mut source: Box<dyn RollupSource>) -> Result<()> {
        while let Some(chunk) = source.next_chunk()? {
            if !chunk.bins.is_empty() {
                let head = Head {
                    source,
                    series: chunk.series,
                    rows: chunk.bins,
                    at: 0,
                };
                self.heap.push(Box::new(head), by_bin);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl RollupSource for RollupMerge {
    /// # Errors
    /// [`crate::Error::Corrupt`] when two sources hold the same bin.
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>> {
        for source in std::mem::take(&mut self.unread) {
            self.fill(source)?;
        }
        let Some(mut head) = self.heap.pop(by_bin) else {
            return Ok(None);
        };
        let start = head.rest()[0].0;
        let n = match self.heap.first() {
            Some(next) if series_order(&next.series, &head.series).is_eq() => {
                let bound = next.rest()[0].0;
                gallop(head.rest(), |bin| bin.0 < bound).max(1)
            }
            _ => head.rest().len(),
        };
        let ascends = self.last.as_ref().is_none_or(|(series, last)| {
            series_order(series, &head.series)
                .then(last.cmp(&start))
                .is_lt()
        });
        if !ascends {
            return Err(Error::corrupt("two rollup files hold the same bin"));
        }
        let series = Arc::clone(&head.series);
        let bins: Vec<_> = if head.at == 0 && n == head.rows.len() {
            std::mem::take(&mut head.rows)
        } else {
            head.rest()[..n].to_vec()
        };
        head.at += n;
        let end = bins.last().map_or(start, |bin| bin.0);
        self.last = Some((Arc::clone(&series), end));
        if head.at < head.rows.len() {
            self.heap.push(head, by_bin);
        } else {
            self.fill(head.source)?;
        }
        Ok(Some(RollupChunk { series, bins }))
    }
}
