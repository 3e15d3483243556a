//! Absorb: L0 objects become open files.
//!
//! Work is LIST − ledger, taken once per run and worked off in rounds. A round decodes objects up
//! to its share of memory, asks the ledger about every batch, sorts the rows of new batches by
//! day, merges each day with a few small open files of it, and commits all days at once.
//!
//! A batch that the ledger knows counts once: its copy is consumed as a duplicate. So is an object
//! of nothing but copies (a ghost: sent again after a sweep, or by a client that gave up), because
//! only what the log names is hidden from readers first and deleted a whole grace later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use stele_format::{MemorySource, Merge, SampleReader, SampleSource, l0, rows_hash};
use stele_model::{Batch, Day, Digest, L0Name, Resolution, Rows, sabotaged};
use stele_store::L0Object;
use stele_table::{
    CommitKind, Conservation, ConsumedBatch, ConsumedObject, FileEntry, FileKind, Loss, LostObject,
    TableState, View, change_losses, note_losses,
};

use crate::commit::{Draft, Published, THIS_OPERATION, add_conservation, conservation};
use crate::compactor::{Compactor, Pace, lock};
use crate::days::DayRows;
use crate::error::{Error, Result};
use crate::files::check_rows;
use crate::memory::Shares;
use crate::options::Budget;
use crate::plan;
use crate::reader::{damaged, fetch, fetch_files, l0_key};
use crate::report::Report;
use crate::split::{Covers, SampleOut};

/// Objects fetched at the same time.
const FETCHES: usize = 16;

/// Where a run tells how far it is: (done, total).
pub(crate) type Tell<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// An opened L0 object.
struct Opened {
    object: L0Object,
    batches: Vec<Batch>,
}

/// What a round made of the objects it opened.
#[derive(Default)]
struct Sorted {
    consumed: Vec<ConsumedObject>,
    ghosts: u64,
    days: BTreeMap<Day, DayRows>,
    batches: u64,
    duplicates: u64,
}

impl Compactor {
    /// Absorbs what LIST shows now, in rounds, until it is done or the deadline comes.
    ///
    /// An object that cannot be decoded is left where it is (it keeps its windows open, and
    /// reading them fails) and counted as damaged; the others are absorbed.
    ///
    /// # Errors
    /// The store's and the table's; [`Error::Contended`]. What was committed before stays.
    pub async fn absorb(&self, budget: &Budget) -> Result<Report> {
        let absorbed = self.absorb_telling(budget, &|_, _| ()).await;
        self.watched(absorbed).await
    }

    pub(crate) async fn absorb_telling(&self, budget: &Budget, tell: Tell<'_>) -> Result<Report> {
        let _turn = self.absorbing.lock().await;
        let mut report = Report::default();
        let view = View::read(&self.log, self.cached_state()).await?;
        let mut waiting = view.l0;
        waiting.retain(|object| budget.part.has_window(object.name.first));
        if waiting.is_empty() {
            return Ok(report);
        }
        let mut state = match view.state.exists() {
            true => view.state,
            false => self.log.load_or_create(self.clock.now_us()).await?,
        };
        self.remember(&state);
        let total = waiting.len() as u64;
        let mut stale = 0;
        while !waiting.is_empty() {
            if self.is_past(budget) {
                report.stopped = true;
                break;
            }
            let left = waiting.len();
            state = self
                .absorb_round(state, &mut waiting, budget, &mut report)
                .await?;
            stale = if waiting.len() == left { stale + 1 } else { 0 };
            if stale >= self.options.attempts_max {
                return Err(Error::Contended { attempts: stale });
            }
            tell(total - waiting.len() as u64, total);
        }
        Ok(report)
    }

    /// One round over the first of `waiting`; what it dealt with leaves the list.
    async fn absorb_round(
        &self,
        state: Arc<TableState>,
        waiting: &mut Vec<L0Object>,
        budget: &Budget,
        report: &mut Report,
    ) -> Result<Arc<TableState>> {
        waiting.retain(|object| !state.unswept.contains_key(&object.name.digest));
        let shares = self.shares(budget);
        let chosen = plan::round(waiting, shares.decoded_bytes);
        let (opened, mut done) = self.open_objects(chosen, &shares, report).await?;
        done.extend(opened.iter().map(|o| o.object.name));
        let sorted = self.sort_batches(&state, opened).await?;
        if sorted.consumed.is_empty() {
            waiting.retain(|object| !done.contains(&object.name));
            return Ok(state);
        }
        let names: Vec<L0Name> = sorted.consumed.iter().map(|object| object.name).collect();
        let (objects, batches) = (names.len() as u64, sorted.batches);
        let (duplicates, ghosts) = (sorted.duplicates, sorted.ghosts);
        let mut draft = Draft::new(CommitKind::Absorb);
        draft.consumed = sorted.consumed;
        for (day, rows) in sorted.days {
            if state.expired.holds(Resolution::Raw, day) {
                let expired = expired_rows(&rows.into_rows());
                add_conservation(&mut draft.conservation, &expired);
                continue;
            }
            self.absorb_day(&state, day, rows, &shares, &mut draft, report)
                .await?;
        }
        match self.publish(state, &draft, report).await? {
            Published::Committed(state) => {
                report.objects += objects;
                report.batches += batches;
                report.batches_duplicate += duplicates;
                report.ghosts += ghosts;
                self.withdraw_absorbed(&names).await;
                waiting.retain(|object| !done.contains(&object.name));
                Ok(state)
            }
            Published::Stale(state) => Ok(state),
        }
    }

    /// Fetches and decodes objects until the share of memory is used. Also answers which objects
    /// there is nothing to do about: gone, or damaged.
    async fn open_objects(
        &self,
        chosen: Vec<L0Object>,
        shares: &Shares,
        report: &mut Report,
    ) -> Result<(Vec<Opened>, BTreeSet<L0Name>)> {
        let fetches = futures::stream::iter(chosen).map(|object| async move {
            let bytes = fetch(&self.store, &l0_key(&object)).await;
            (object, bytes)
        });
        let mut fetches = fetches.buffered(FETCHES);
        let (mut opened, mut over) = (Vec::new(), BTreeSet::new());
        let mut damaged = Vec::new();
        let mut pace = Pace::default();
        let mut decoded_bytes = 0;
        while decoded_bytes < shares.decoded_bytes {
            let Some((object, bytes)) = fetches.next().await else {
                break;
            };
            let bytes = match bytes {
                // Consumed and swept since the LIST.
                Err(Error::Gone { key, .. }) => {
                    tracing::debug!(key, "an L0 object is gone");
                    over.insert(object.name);
                    continue;
                }
                other => other?,
            };
            report.read_bytes += bytes.len() as u64;
            match l0::decode(bytes) {
                Ok(mut batches) => {
                    if sabotaged!(DropLastRow) {
                        batches
                            .iter_mut()
                            .for_each(|b| b.rows.rows.truncate(b.rows.len() - 1));
                    }
                    let rows = batches.iter().map(|batch| batch.rows.len()).sum();
                    decoded_bytes += batches.iter().map(|b| b.rows.memory_bytes()).sum::<u64>();
                    opened.push(Opened { object, batches });
                    pace.after(rows).await;
                }
                Err(error) => {
                    tracing::error!(object = %object.name, %error, "a damaged L0 object stays");
                    report.damaged += 1;
                    damaged.push(object.name);
                    over.insert(object.name);
                }
            }
        }
        self.note_damaged(damaged).await;
        Ok((opened, over))
    }

    /// Records objects that are damaged at a second look, too, as losses: once in a process each.
    /// What cannot be recorded does not keep others from being absorbed; the next run tries again.
    async fn note_damaged(&self, damaged: Vec<L0Name>) {
        let mut losses = Vec::new();
        let mut names = Vec::new();
        for name in damaged {
            if lock(&self.noted).contains(&name) {
                continue;
            }
            let again = self.store.l0_get(&name).await;
            if again.is_ok_and(|bytes| l0::decode(bytes).is_err()) {
                losses.push(Loss::of_l0(name, self.clock.now_us()));
                names.push(name);
            }
        }
        if losses.is_empty() {
            return;
        }
        match note_losses(&self.store, &losses).await {
            Ok(_) => lock(&self.noted).extend(names),
            Err(error) => tracing::error!(%error, "damaged L0 objects were not recorded"),
        }
    }

    /// Takes back the losses of objects that were damaged and have been absorbed after all.
    async fn withdraw_absorbed(&self, consumed: &[L0Name]) {
        let whole: BTreeSet<L0Name> = {
            let noted = lock(&self.noted);
            let whole = consumed.iter().filter(|name| noted.contains(*name));
            whole.copied().collect()
        };
        if whole.is_empty() {
            return;
        }
        let is_over = |loss: &Loss| match &loss.object {
            LostObject::L0(name) => whole.contains(name),
            _ => false,
        };
        match change_losses(&self.store, &[], is_over).await {
            Ok(_) => lock(&self.noted).retain(|name| !whole.contains(name)),
            Err(error) => tracing::error!(%error, "losses that are over were not withdrawn"),
        }
    }

    /// Asks the ledger about every batch, and sorts the rows of the new ones by day.
    async fn sort_batches(&self, state: &TableState, opened: Vec<Opened>) -> Result<Sorted> {
        let batches = opened.iter().flat_map(|o| &o.batches);
        let asked: Vec<(Digest, Day)> = batches.map(|b| (b.digest, day_of(&b.rows))).collect();
        let known = match sabotaged!(LedgerUnasked) {
            true => HashMap::new(),
            false => self.log.ledger_lookup(state, &asked).await?,
        };
        let mut sorted = Sorted::default();
        let mut taken = BTreeSet::new();
        let mut pace = Pace::default();
        for Opened { object, batches } in opened {
            let consumed = consumed_batches(&batches, &known, &taken);
            let is_ghost = consumed.iter().all(|batch| batch.duplicate_of.is_some());
            sorted.ghosts += u64::from(is_ghost);
            for (batch, as_consumed) in batches.into_iter().zip(&consumed) {
                if as_consumed.duplicate_of.is_some() {
                    sorted.duplicates += 1;
                    continue;
                }
                sorted.batches += 1;
                taken.insert(batch.digest);
                let rows = batch.rows.len();
                DayRows::sort_into(&mut sorted.days, batch.rows);
                pace.after(rows).await;
            }
            sorted.consumed.push(ConsumedObject {
                name: object.name,
                stored_us: object.stored_us,
                batches: consumed,
            });
        }
        Ok(sorted)
    }

    /// Merges the new rows of one day with a few small open files of it.
    async fn absorb_day(
        &self,
        state: &TableState,
        day: Day,
        rows: DayRows,
        shares: &Shares,
        draft: &mut Draft,
        report: &mut Report,
    ) -> Result<()> {
        let rows = rows.into_rows();
        let merged = self.merge_with(state, day, &rows, shares);
        let removed_rows: u64 = merged.iter().map(|file| file.stats.rows).sum();
        let rows_in = removed_rows + rows.len() as u64;
        let mut sources: Vec<Box<dyn SampleSource>> = vec![Box::new(MemorySource::new(rows))];
        for (file, bytes) in fetch_files(&self.store, merged).await? {
            report.read_bytes += file.stats.size_bytes;
            draft.remove.push(file.path.clone());
            let reader = SampleReader::open(bytes).map_err(|e| damaged(&file, e))?;
            sources.push(Box::new(reader));
        }
        let mut merge = Merge::new(sources);
        let split = shares.split_bytes;
        let mut out = SampleOut::new(FileKind::Open, day.period(), Covers::Rows, split);
        let mut pace = Pace::default();
        let first = draft.add.len();
        while let Some(chunk) = merge.next_chunk()? {
            let lost = usize::from(sabotaged!(Unconserved));
            out.push(&chunk.series, &chunk.rows[lost..])?;
            let full = out.take_full()?;
            self.store_outputs(state, &mut draft.add, full, report)
                .await?;
            pace.after(chunk.rows.len()).await;
        }
        let rest = out.take()?;
        self.store_outputs(state, &mut draft.add, rest, report)
            .await?;
        let tally = merge.tally();
        let written: u64 = draft.add[first..].iter().map(|file| file.stats.rows).sum();
        check_rows(
            "absorb",
            rows_in,
            written,
            tally.duplicates + tally.overridden,
        )?;
        add_conservation(&mut draft.conservation, &conservation(&tally));
        Ok(())
    }

    /// The open files of the day to merge new rows with, by size tiers. Where a day is so large
    /// that seal must take its windows one after the other, only files over the same windows.
    fn merge_with(
        &self,
        state: &TableState,
        day: Day,
        rows: &Rows,
        shares: &Shares,
    ) -> Vec<Arc<FileEntry>> {
        let files = plan::of_period(state, FileKind::Open, &day.period());
        let mut files: Vec<_> = files.filter(|file| !self.is_busy(&file.path)).collect();
        let day_bytes: u64 = files.iter().map(|file| file.stats.size_bytes).sum();
        if day_bytes > shares.input_bytes / 2 {
            let windows = rows.windows();
            files.retain(|file| file.windows.difference(&windows).is_empty());
        }
        let sizes: Vec<u64> = files.iter().map(|file| file.stats.size_bytes).collect();
        let full = self.options.target_file_bytes / 2;
        let new_bytes = rows.len() as u64 * STORED_BYTES_PER_ROW;
        let chosen = plan::merge_with(new_bytes, &sizes, full, shares.input_bytes);
        chosen.into_iter().map(|i| Arc::clone(files[i])).collect()
    }
}

/// Rows of an expired day: accounted for, and not kept. Its rollups are frozen, and nothing is
/// left to tell whether they are duplicates.
fn expired_rows(rows: &Rows) -> Conservation {
    let (count, hash) = (rows.len() as u64, rows_hash(rows));
    Conservation {
        rows_in: count,
        expired: count,
        hash_in: hash,
        hash_dropped: hash,
        ..Conservation::default()
    }
}

/// What a row is taken to need in a file, for choosing a tier only.
const STORED_BYTES_PER_ROW: u64 = 4;

/// The UTC day of the greatest timestamp: where the ledger files a batch.
fn day_of(rows: &Rows) -> Day {
    Day::of(rows.ts_range_us().map_or(0, |(_, last)| last))
}

/// How a commit would state the batches of one object. A batch that another object of the round
/// brings counts there.
fn consumed_batches(
    batches: &[Batch],
    known: &HashMap<Digest, String>,
    taken: &BTreeSet<Digest>,
) -> Vec<ConsumedBatch> {
    let mut own = BTreeSet::new();
    let state = |batch: &Batch| {
        let again = taken.contains(&batch.digest) || !own.insert(batch.digest);
        let here = again.then(|| THIS_OPERATION.to_owned());
        ConsumedBatch {
            digest: batch.digest,
            day: day_of(&batch.rows),
            rows: batch.rows.len() as u64,
            hash: rows_hash(&batch.rows),
            duplicate_of: known.get(&batch.digest).cloned().or(here),
        }
    };
    batches.iter().map(state).collect()
}
