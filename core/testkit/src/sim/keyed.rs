//! Submissions with idempotency keys, and what must hold of them.

use object_store::path::Path;
use stele_model::{Digest, Rows};

use super::Violation;
use super::tasks::Submission;
use crate::fault::relative;
use crate::memory::Mutation;

const NAME: &str = "I12 every attempt with a key is one batch";
/// Clocks of the simulation differ by up to 20 s to either side.
const CLOCKS_DIFFER_US: i64 = 45_000_000;

/// One key through the first life of its marker. A key whose marker was swept promises nothing.
struct Keyed {
    submission: Submission,
    marker: String,
    batch: Option<Digest>,
    /// When the marker landed.
    marked_us: Option<i64>,
    acked: bool,
    retired: bool,
}

/// Every key that was ever sent.
#[derive(Default)]
pub(super) struct Keys(Vec<Keyed>);

impl Keys {
    /// A new key for a submission.
    pub fn begin(&mut self, rows: Rows) -> Submission {
        let submission = Submission {
            key: self.0.len(),
            rows,
        };
        self.0.push(Keyed {
            marker: submission.idempotency_key().marker(),
            submission: submission.clone(),
            batch: None,
            marked_us: None,
            acked: false,
            retired: false,
        });
        submission
    }

    /// Submissions that may be attempted again, and the batch each has been so far.
    pub fn alive(&self) -> Vec<(Submission, Option<Digest>)> {
        let alive = self.0.iter().filter(|keyed| !keyed.retired);
        alive
            .map(|keyed| (keyed.submission.clone(), keyed.batch))
            .collect()
    }

    /// An attempt is about to store `batch`.
    pub fn announced(&mut self, key: usize, batch: Digest) -> Result<(), Violation> {
        let Some(keyed) = self.0.get_mut(key).filter(|keyed| !keyed.retired) else {
            return Ok(());
        };
        let before = *keyed.batch.get_or_insert(batch);
        if before == batch {
            return Ok(());
        }
        let what = format!("key {key} made {before}, and now {batch}");
        Err(Violation::new(NAME, what))
    }

    /// An attempt was acknowledged. Answers whether one was before.
    pub fn acked(&mut self, key: usize) -> bool {
        let keyed = self.0.get_mut(key);
        keyed.is_some_and(|keyed| std::mem::replace(&mut keyed.acked, true))
    }

    /// Follows one change of the store; `keep_us` is how long a marker must be kept.
    pub fn follow(
        &mut self,
        mutation: &Mutation,
        now_us: i64,
        keep_us: i64,
    ) -> Result<(), Violation> {
        let (Mutation::Put(path) | Mutation::Deleted(path)) = mutation;
        let Some(keyed) = self.of_marker(path) else {
            return Ok(());
        };
        if matches!(mutation, Mutation::Put(_)) {
            keyed.marked_us.get_or_insert(now_us);
            return Ok(());
        }
        let marked_us = keyed.marked_us.unwrap_or(now_us);
        let early_us = marked_us + keep_us - now_us;
        if !keyed.retired && early_us > CLOCKS_DIFFER_US {
            let what = format!("a marker was deleted {} s early", early_us / 1_000_000);
            return Err(Violation::new("I6 safe delete", what));
        }
        keyed.retired = true;
        Ok(())
    }

    fn of_marker(&mut self, path: &Path) -> Option<&mut Keyed> {
        let marker = relative(path.as_ref());
        self.0.iter_mut().find(|keyed| keyed.marker == marker)
    }

    /// Whether an attempt may be refused as too old.
    pub fn may_be_old(&self, key: usize, now_us: i64, age_us_max: i64) -> bool {
        let marked_us = self.0.get(key).and_then(|keyed| keyed.marked_us);
        marked_us.is_some_and(|marked| now_us + CLOCKS_DIFFER_US >= marked + age_us_max)
    }
}
