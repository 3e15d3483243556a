//! The invariants, each a named function, over everything stored.
//!
//! The observer reads through the same code as a query, but without faults and in one go, so
//! every object that is live must be readable and every sample must be there exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_compact::reader;
use stele_model::{Digest, L0Name, Resolution, chain};
use stele_table::{Expired, LedgerRow, TableLog, TableState, View};

use super::Violation;
use super::invariants::{
    Checked, i2_every_listed_object_is_expected, i2_exactly_once_and_i3_no_invention,
    i4_conservation, i5_single_consumption, i6_only_superseded_objects_were_deleted,
    i7_no_key_has_two_contents, i9_rollup_truth,
};
use super::process::Node;
use super::registry::{Registry, l0_name};
use crate::fault::relative;
use crate::memory::{MemoryStore, Mutation};
use crate::oracle::{Rollups, Samples};

/// Clocks of the simulation differ by up to 20 s to either side.
const CLOCKS_DIFFER_US: i64 = 45_000_000;

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
