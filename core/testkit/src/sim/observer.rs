//! The invariants, each a named function, over everything stored.
//!
//! The observer reads through the same code as a query, but without faults and in one go, so
//! every object that is live must be readable and every sample must be there exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_compact::reader;
use stele_model::{Digest, L0Name, Resolution, RowsHash, chain};
use stele_table::{Expired, FileKind, LedgerRow, TableLog, TableState, View};

use super::Violation;
use super::process::Node;
use super::registry::{Registry, l0_name};
use crate::fault::relative;
use crate::memory::{MemoryStore, Mutation};
use crate::oracle::{Rollups, Samples};

/// Clocks of the simulation differ by up to 20 s to either side.
const CLOCKS_DIFFER_US: i64 = 45_000_000;

type Checked = Result<(), Violation>;

/// What the observer remembers between checks.
pub(super) struct Observer {
    store: MemoryStore,
    /// What the keys of the place begin with.
    root: String,
    node: Node,
    pub checks: u64,
    /// The place of which this one is a copy.
    copies: Option<String>,
    /// What the last check of everything looked at.
    last: Option<Last>,
    /// The rollups of expired days as they were sealed last.
    frozen: BTreeMap<Resolution, Rollups>,
    taken_back: Vec<(Digest, BTreeSet<Digest>)>,
}

struct Last {
    view: View,
    effective: BTreeSet<Digest>,
}

impl Last {
    /// Objects never change, so the same live objects give the same answers.
    fn is_same(&self, view: &View) -> bool {
        self.view.state.entry_digest == view.state.entry_digest && self.view.l0 == view.l0
    }
}

fn broken(invariant: &'static str) -> impl Fn(&dyn std::error::Error) -> Violation {
    move |error| Violation::new(invariant, chain(error))
}

const READABLE: &str = "I13 fail closed: everything live is readable without faults";

impl Observer {
    /// The observer of the place at `root`, through a node that no fault strikes.
    pub fn new(store: MemoryStore, root: &str, node: Node) -> Self {
        Self {
            store,
            root: root.to_owned(),
            node,
            checks: 0,
            copies: None,
            last: None,
            frozen: BTreeMap::new(),
            taken_back: Vec::new(),
        }
    }

    /// The tenant here, where no fault strikes.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The newest version as of the last check.
    pub fn state(&self) -> Option<&TableState> {
        self.last.as_ref().map(|last| last.view.state.as_ref())
    }

    /// Says whose copy this place is, if it is one, and what was frozen there.
    pub fn follows(&mut self, root: Option<&str>, frozen: BTreeMap<Resolution, Rollups>) {
        self.copies = root.map(str::to_owned);
        for (resolution, rollups) in frozen {
            self.frozen.insert(resolution, rollups);
        }
    }

    /// The rollups of expired days as they were sealed last.
    pub fn all_frozen(&self) -> BTreeMap<Resolution, Rollups> {
        self.frozen.clone()
    }

    /// What of `samples` must be there for a reader of a version with `expired`.
    pub fn kept(&self, samples: &Samples, expired: &Expired) -> Samples {
        let now = self.expired_now().before(Resolution::Raw);
        let before = expired.before(Resolution::Raw).max(now);
        before.map_or_else(|| samples.clone(), |day| samples.since(day.start_us()))
    }

    /// The rollups that must be there now: those of `samples`, and those of expired days.
    pub fn rollups_now(&self, samples: &Samples, resolution: Resolution) -> Rollups {
        let mut rollups = self.kept_now(samples).rollups(resolution, true);
        rollups.add_before(i64::MAX, &self.frozen(resolution, &self.expired_now()));
        rollups
    }

    /// What of `samples` must be there now.
    pub fn kept_now(&self, samples: &Samples) -> Samples {
        self.kept(samples, &self.expired_now())
    }

    fn expired_now(&self) -> Expired {
        let last = self.last.as_ref();
        last.map(|last| last.view.state.expired).unwrap_or_default()
    }

    /// I9: the rollups that a version with `expired` must have beyond those of its samples.
    pub fn frozen(&self, resolution: Resolution, expired: &Expired) -> Rollups {
        let mut frozen = Rollups::default();
        let Some(raw) = expired.before(Resolution::Raw) else {
            return frozen;
        };
        if let Some(known) = self.frozen.get(&resolution) {
            frozen.add_before(raw.start_us(), known);
        }
        match expired.before(resolution) {
            None => frozen,
            Some(day) => frozen.since(day.start_us()),
        }
    }

    /// I9: notes the rollups of days that have expired since the last check, as sealed before.
    async fn freeze(&mut self, now: &TableState) -> Checked {
        let Some(last) = self.last.as_ref().map(|last| &last.view.state) else {
            return Ok(());
        };
        let day = |state: &TableState| state.expired.before(Resolution::Raw);
        let Some(to) = day(now).filter(|to| Some(*to) != day(last)) else {
            return Ok(());
        };
        let before = View {
            state: Arc::clone(last),
            l0: Vec::new(),
        };
        let from = day(last).map_or(i64::MIN, |day| day.start_us());
        for resolution in Resolution::ROLLUPS {
            let rollups = self.rollups(&before, resolution).await?.since(from);
            let known = self.frozen.entry(resolution).or_default();
            known.add_before(to.start_us(), &rollups);
        }
        Ok(())
    }

    /// When `mutations` could change an answer, checks everything.
    pub async fn follow(
        &mut self,
        mutations: &[Mutation],
        registry: &mut Registry,
        now_us: i64,
    ) -> Checked {
        let (mut landed, mut logged, mut deleted) = (false, false, Vec::new());
        for mutation in mutations {
            match mutation {
                Mutation::Put(path) => {
                    let key = relative(path.as_ref());
                    landed |= key.starts_with("l0/");
                    logged |= key.starts_with("table/_delta_log/") && key.ends_with(".json");
                }
                Mutation::Deleted(path) if relative(path.as_ref()).starts_with("idem/") => {}
                Mutation::Deleted(path) => deleted.push(path.clone()),
            }
        }
        if landed || logged || !deleted.is_empty() {
            let whole = logged || !deleted.is_empty();
            self.check(registry, now_us, whole, &deleted).await?;
        }
        Ok(())
    }

    /// Checks everything now.
    pub async fn check_all(&mut self, registry: &mut Registry, now_us: i64) -> Checked {
        self.check(registry, now_us, true, &[]).await?;
        self.heads_agree_with_the_log().await
    }

    async fn check(
        &mut self,
        registry: &mut Registry,
        now_us: i64,
        whole: bool,
        deleted: &[object_store::path::Path],
    ) -> Checked {
        self.checks += 1;
        let view = self.view().await?;
        i7_no_key_has_two_contents(&self.store, &self.root, view.state.ledger.manifest_version)?;
        self.every_live_file_is_there(&view.state)?;
        if let Some(last) = self.last.as_ref().filter(|last| last.is_same(&view)) {
            let effective = &last.effective;
            i6_only_superseded_objects_were_deleted(deleted, &view.state, effective, registry)?;
            self.i6_nothing_was_deleted_early(deleted, &view.state, now_us)?;
            return i2_every_listed_object_is_expected(&view, registry);
        }
        self.freeze(&view.state).await?;
        let ledger = match whole {
            true => self.ledger(&view).await?,
            false => Vec::new(),
        };
        if self.is_taken_back(&view.state) {
            let effective = i5_single_consumption(&ledger)?;
            let objects: Vec<L0Name> = view.l0.iter().map(|object| object.name).collect();
            let lost = registry.taken_back(&effective, &objects);
            let plan = view.state.revoked.last().map(|revoked| revoked.plan);
            self.taken_back.extend(plan.map(|plan| (plan, lost)));
        }
        if !self.root.is_empty() && whole {
            registry.consumed(&i5_single_consumption(&ledger)?);
        }
        if self.is_looked_through() {
            let samples = self.samples(&view).await?;
            let expired = view.state.expired;
            let expected = self.kept(registry.expected(), &expired);
            i2_exactly_once_and_i3_no_invention(&expected, &samples)?;
            if !whole {
                return Ok(());
            }
            for resolution in Resolution::ROLLUPS {
                let rollups = self.rollups(&view, resolution).await?;
                let frozen = self.frozen(resolution, &expired);
                i9_rollup_truth(&samples, &frozen, &rollups, resolution)?;
            }
        }
        if !whole {
            return Ok(());
        }
        let effective = i5_single_consumption(&ledger)?;
        i4_conservation(&view.state, &effective, registry)?;
        i6_only_superseded_objects_were_deleted(deleted, &view.state, &effective, registry)?;
        self.i6_nothing_was_deleted_early(deleted, &view.state, now_us)?;
        self.last = Some(Last { view, effective });
        Ok(())
    }

    /// Whether a restore in place has come about since the last check.
    fn is_taken_back(&self, state: &TableState) -> bool {
        let last = self.state().map_or(0, |last| last.revoked.len());
        state.revoked.len() > last
    }

    /// The plans of restores in place that came about, and the batches that each took back for good.
    pub fn take_taken_back(&mut self) -> Vec<(Digest, BTreeSet<Digest>)> {
        std::mem::take(&mut self.taken_back)
    }

    /// Whether this check reads all samples: of a copy, whose objects are compared with those of
    /// the primary each time, every fourth does.
    fn is_looked_through(&self) -> bool {
        self.copies.is_none() || self.checks.is_multiple_of(4)
    }

    /// Warm and cold reads must both be right.
    async fn view(&self) -> Result<View, Violation> {
        let cached = self
            .last
            .as_ref()
            .filter(|_| !self.checks.is_multiple_of(3));
        let cached = cached.map(|last| Arc::clone(&last.view.state));
        let view = View::read(&self.node.log, cached).await;
        view.map_err(|e| broken(READABLE)(&e))
    }

    async fn samples(&self, view: &View) -> Result<Samples, Violation> {
        let samples = reader::all_samples(&self.node.store, view).await;
        let mut samples = samples.map_err(|e| broken(READABLE)(&e))?;
        let samples = Samples::read(samples.as_mut());
        samples.map_err(|what| Violation::new("I2 exactly once", what))
    }

    async fn ledger(&self, view: &View) -> Result<Vec<LedgerRow>, Violation> {
        if !view.state.exists() {
            return Ok(Vec::new());
        }
        let ledger = self.node.log.ledger_rows(&view.state).await;
        let mut ledger = ledger.map_err(|e| broken(READABLE)(&e))?;
        ledger.retain(|row| !row.revoked);
        Ok(ledger)
    }

    async fn rollups(&self, view: &View, resolution: Resolution) -> Result<Rollups, Violation> {
        let rollups = reader::all_rollups(&self.node.store, view, resolution).await;
        let mut rollups = rollups.map_err(|e| broken(READABLE)(&e))?;
        Rollups::read(rollups.as_mut()).map_err(|what| Violation::new("I9 rollup truth", what))
    }

    /// I6: the successor of whatever was deleted is there, reachable in the log.
    fn every_live_file_is_there(&self, state: &TableState) -> Checked {
        let store = &self.node.store;
        let files = state.files.values();
        let files = files.map(|f| (stele_store::keys::data_file(&f.path), f.stats.size_bytes));
        let recent = state.ledger.recent.iter().map(|r| &r.object);
        let segments = state.ledger.days.values().flatten().map(|s| &s.object);
        let ledger = recent.chain(segments).chain(&state.ledger.manifest);
        let ledger = ledger.map(|object| (object.key.clone(), object.size_bytes));
        for (key, size_bytes) in files.chain(ledger) {
            let path = store.path(&key);
            let bytes = self.store.bytes(&path);
            let len = bytes.as_ref().map(|bytes| bytes.len() as u64);
            if len != Some(size_bytes) {
                let what = format!("{path} is live, and missing or short");
                return Err(Violation::new("I6 safe delete", what));
            }
            if let Some(root) = &self.copies {
                let other = self
                    .store
                    .bytes(&format!("{root}tenants/default/{key}").into());
                if other.is_some() && other != bytes {
                    let what = format!("{path} is not what {root} holds");
                    return Err(Violation::new("I11 tier equality", what));
                }
            }
        }
        Ok(())
    }

    /// I6: readers and `as_of` had the grace and the history they were promised.
    fn i6_nothing_was_deleted_early(
        &self,
        deleted: &[object_store::path::Path],
        state: &TableState,
        now_us: i64,
    ) -> Checked {
        let options = self.node.compactor.options();
        let before = self.last.as_ref().map(|last| &last.view.state);
        for path in deleted {
            let key = relative(path.as_ref());
            let since_us = |state: &TableState| {
                let file = key.strip_prefix("table/");
                let removed = state.removed.iter().find(|f| Some(f.path.as_str()) == file);
                removed.map(|file| file.removed_us)
            };
            let consumed_us = |state: &TableState| {
                let consumed = state.unswept.get(&l0_name(path)?.digest);
                consumed.map(|object| object.committed_us)
            };
            let file = before.and_then(|b| since_us(b)).or_else(|| since_us(state));
            let object = before
                .and_then(|b| consumed_us(b))
                .or_else(|| consumed_us(state));
            let rules = [(file, options.history_us), (object, options.sweep_grace_us)];
            for (since_us, kept_us) in rules {
                let early_us = since_us.map_or(0, |since| since + kept_us - now_us);
                if early_us > CLOCKS_DIFFER_US {
                    let what = format!("{key} was deleted {} s early", early_us / 1_000_000);
                    return Err(Violation::new("I6 safe delete", what));
                }
            }
        }
        Ok(())
    }

    /// The head is a shortcut to what the log says.
    async fn heads_agree_with_the_log(&self) -> Checked {
        const NAME: &str = "heads agree with the log";
        let options = self.node.log.options().clone();
        let clock = Arc::new(self.store.clock());
        let log = TableLog::new(self.node.store.clone(), options, clock);
        let by_head = log.load().await.map_err(|e| broken(NAME)(&e))?;
        let by_log = log.load_from_log().await.map_err(|e| broken(NAME)(&e))?;
        let (Some(by_head), Some(by_log)) = (by_head, by_log) else {
            return Ok(());
        };
        if by_head != by_log {
            let what = format!(
                "version {} by head, {} by log",
                by_head.version, by_log.version
            );
            return Err(Violation::new(NAME, what));
        }
        Ok(())
    }
}

/// I1: at the moment of the ack an object with the batches is there, or they are consumed.
pub(super) fn i1_durable_ack(registry: &Registry, batches: &[Digest]) -> Checked {
    let is_there = |batch: &Digest| registry.has_landed(batch) || registry.was_lost(batch);
    match batches.iter().find(|batch| !is_there(batch)) {
        None => Ok(()),
        Some(batch) => {
            let what = format!("batch {batch} was acknowledged and never landed");
            Err(Violation::new("I1 durable ack", what))
        }
    }
}

/// I2 and I3 at one instant: exactly the merge of everything that has landed.
fn i2_exactly_once_and_i3_no_invention(expected: &Samples, got: &Samples) -> Checked {
    match expected.first_difference(got) {
        None => Ok(()),
        Some(what) => Err(Violation::new("I2 exactly once, I3 no invention", what)),
    }
}

/// The cheap half of I2, when the log and L0 are as they were: nothing new has landed unseen.
fn i2_every_listed_object_is_expected(view: &View, registry: &Registry) -> Checked {
    let unknown = view.l0.iter().find(|object| {
        let batches = registry.batches_of(&object.name.digest);
        !batches.iter().all(|batch| registry.has_landed(batch))
    });
    match unknown {
        None => Ok(()),
        Some(object) => Err(Violation::new("I3 no invention", object.name)),
    }
}

/// I2, I3 and I13 for a query that ran while others did: between what had landed when it began
/// and what had landed when it ended; or an error.
pub(super) fn i2_a_query_is_complete(least: &Samples, most: &Samples, got: &Samples) -> Checked {
    match least.first_violation(most, got) {
        None => Ok(()),
        Some(what) => Err(Violation::new(
            "I2/I3/I13 a query is complete or fails",
            what,
        )),
    }
}

/// I4: the sums of the log are those of the batches that were sent and the files that are live.
fn i4_conservation(
    state: &TableState,
    effective: &BTreeSet<Digest>,
    registry: &Registry,
) -> Checked {
    const NAME: &str = "I4 conservation";
    let totals = &state.totals;
    let (mut rows, mut hash) = (0, RowsHash::default());
    for batch in effective {
        let Some(sent) = registry.rows(batch) else {
            let what = format!("batch {batch} in the ledger was never sent");
            return Err(Violation::new(NAME, what));
        };
        rows += sent.len() as u64;
        hash = hash.union(stele_format::rows_hash(sent));
    }
    let raw = FileKind::Sealed(Resolution::Raw);
    let live = state.files_of(FileKind::Open).chain(state.files_of(raw));
    let (live_rows, live_hash) = live.fold((0, RowsHash::default()), |(rows, hash), file| {
        (rows + file.stats.rows, hash.union(file.stats.rows_hash))
    });
    let dropped = totals.duplicates + totals.overridden + totals.expired;
    let pairs = [
        ("rows consumed", totals.rows, rows),
        (
            "rows live",
            totals.rows - dropped.min(totals.rows),
            live_rows,
        ),
        ("batches", totals.batches, effective.len() as u64),
    ];
    if let Some((what, log, real)) = pairs.iter().find(|(_, log, real)| log != real) {
        let what = format!("{what}: the log says {log}, it is {real}");
        return Err(Violation::new(NAME, what));
    }
    if totals.hash != hash || totals.hash.without(totals.hash_dropped) != live_hash {
        return Err(Violation::new(NAME, "the hashes disagree"));
    }
    Ok(())
}

/// I5: each batch is effective in at most one row. Answers which are.
fn i5_single_consumption(ledger: &[LedgerRow]) -> Result<BTreeSet<Digest>, Violation> {
    const NAME: &str = "I5 single consumption";
    let mut effective: BTreeMap<Digest, &str> = BTreeMap::new();
    for row in ledger.iter().filter(|row| row.duplicate_of.is_none()) {
        if let Some(before) = effective.insert(row.batch, &row.operation) {
            let what = format!(
                "{} is effective in {before} and {}",
                row.batch, row.operation
            );
            return Err(Violation::new(NAME, what));
        }
    }
    for row in ledger {
        let Some(of) = row.duplicate_of.as_deref() else {
            continue;
        };
        let target = effective.get(&row.batch).copied();
        if target != Some(of) {
            let what = format!(
                "{} is a duplicate of {of}, effective in {target:?}",
                row.batch
            );
            return Err(Violation::new(NAME, what));
        }
    }
    Ok(effective.into_keys().collect())
}

/// I6: an L0 object only once its batches are consumed; a data file only once it is not live.
fn i6_only_superseded_objects_were_deleted(
    deleted: &[object_store::path::Path],
    state: &TableState,
    effective: &BTreeSet<Digest>,
    registry: &Registry,
) -> Checked {
    for path in deleted {
        let key = relative(path.as_ref());
        if let Some(name) = l0_name(path) {
            let batches = registry.batches_of(&name.digest);
            if let Some(batch) = batches.iter().find(|batch| !effective.contains(batch)) {
                let what = format!("{key} was deleted and batch {batch} is not consumed");
                return Err(Violation::new("I6 safe delete", what));
            }
        }
        if let Some(file) = key.strip_prefix("table/")
            && state.files.contains_key(file)
        {
            let what = format!("the live file {key} was deleted");
            return Err(Violation::new("I6 safe delete", what));
        }
    }
    Ok(())
}

/// I7: what a create-only key held once is all it ever holds.
///
/// Delta fixes the names of log entries, and no store can refuse a name that was deleted. So a
/// writer that slept for longer than the history can re-create an entry that sweep deleted: its
/// commit does not count, no reader follows it (the other invariants would tell), and sweep
/// deletes it. It must lie below the entries of the history, never among them. A key's marker may
/// come again after its sweep: then the key begins anew; and so may the name of a snapshot.
fn i7_no_key_has_two_contents(store: &MemoryStore, root: &str, swept_below: u64) -> Checked {
    let is_below = |key: &object_store::path::Path| {
        let version = stele_store::keys::log_entry_version(relative(key.as_ref()));
        version.is_some_and(|version| version < swept_below)
    };
    let is_free_again = |key: &object_store::path::Path| {
        let key = relative(key.as_ref());
        key.starts_with("idem/") || key.starts_with("pins/")
    };
    let reused = store.reused_keys().into_iter();
    let reused = reused.filter(|key| key.as_ref().starts_with(root));
    match reused
        .filter(|key| !is_free_again(key))
        .find(|key| !is_below(key))
    {
        None => Ok(()),
        Some(key) => Err(Violation::new(
            "I7 no key reuse",
            format!("{key} held two contents"),
        )),
    }
}

/// I9: the rollups of a view are the naive fold of its samples, and what was frozen before.
pub(super) fn i9_rollup_truth(
    samples: &Samples,
    frozen: &Rollups,
    rollups: &Rollups,
    resolution: Resolution,
) -> Checked {
    let mut expected = samples.rollups(resolution, true);
    expected.add_before(i64::MAX, frozen);
    match expected.first_difference(rollups) {
        None => Ok(()),
        Some(what) => {
            let what = format!("{}: {what}", resolution.table());
            Err(Violation::new("I9 rollup truth", what))
        }
    }
}
