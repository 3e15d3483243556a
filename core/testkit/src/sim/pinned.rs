//! I10: what was acknowledged as pinned is kept, loads, and is what it was.

use std::collections::BTreeMap;

use stele_model::chain;
use stele_store::keys;
use stele_table::Pin;

use super::Violation;
use super::process::{Node, PinAsk};
use crate::fault::relative;
use crate::memory::{MemoryStore, Mutation};

const NAME: &str = "I10 pin stability";

/// One acknowledged pin.
struct Held {
    pin: Pin,
    /// Every key it needs, and its size where the log knows it; empty until it was loaded.
    keys: BTreeMap<String, Option<u64>>,
    /// Since when it is marked as dropped, µs by the store's clock.
    dropped_us: Option<i64>,
}

/// All acknowledged pins by name.
pub(super) struct Pinned {
    held: BTreeMap<String, Held>,
    /// Marks that are there, and since when.
    marks: BTreeMap<String, i64>,
    history_us: i64,
    must_check: bool,
}

impl Pinned {
    pub fn new(history_us: i64) -> Self {
        Self {
            held: BTreeMap::new(),
            marks: BTreeMap::new(),
            history_us,
            must_check: false,
        }
    }

    /// The names of all acknowledged pins.
    pub fn names(&self) -> Vec<String> {
        self.held.keys().cloned().collect()
    }

    /// The version that an acknowledged pin pins.
    pub fn version(&self, name: &str) -> Option<u64> {
        self.held.get(name).map(|held| held.pin.version)
    }

    /// The names that are marked as dropped.
    pub fn marked(&self) -> Vec<String> {
        self.marks.keys().cloned().collect()
    }

    /// Whether a pin was acknowledged since the last check, or lost a part of its log.
    pub fn must_check(&self) -> bool {
        self.must_check
    }

    /// A request about a pin was answered with success.
    pub fn acknowledged(&mut self, ask: PinAsk, name: String, pin: Option<Box<Pin>>) {
        match (ask, pin) {
            (PinAsk::Take, Some(pin)) => {
                let dropped_us = self.marks.get(&name).copied();
                let known = self.held.get(&name).is_some_and(|held| held.pin == *pin);
                if !known {
                    let keys = BTreeMap::new();
                    let held = Held {
                        pin: *pin,
                        keys,
                        dropped_us,
                    };
                    self.held.insert(name, held);
                    self.must_check = true;
                }
            }
            (PinAsk::Undelete | PinAsk::DropAndUndelete, _) => {
                let mark = self.marks.get(&name).copied();
                if let Some(held) = self.held.get_mut(&name) {
                    held.dropped_us = mark;
                }
            }
            _ => {}
        }
    }

    /// Follows one change of the store; answers how many pins went for good.
    ///
    /// What another tier than the primary loses of a pin must be as old, and is no end of it.
    pub fn follow(
        &mut self,
        mutation: &Mutation,
        now_us: i64,
        is_primary: bool,
    ) -> Result<u64, Violation> {
        let marked = |key: &str| {
            let name = key.strip_prefix("pins/")?.strip_suffix(".dropped.json")?;
            Some(name.to_owned())
        };
        match mutation {
            Mutation::Put(_) if !is_primary => Ok(0),
            Mutation::Put(path) => {
                if let Some(name) = marked(relative(path.as_ref())) {
                    if let Some(held) = self.held.get_mut(&name) {
                        held.dropped_us.get_or_insert(now_us);
                    }
                    self.marks.insert(name, now_us);
                }
                Ok(0)
            }
            Mutation::Deleted(path) => {
                let key = relative(path.as_ref());
                if let Some(name) = marked(key).filter(|_| is_primary) {
                    self.marks.remove(&name);
                }
                self.deleted(key, now_us, is_primary)
            }
        }
    }

    /// The primary was lost, and with it the snapshots that the new one does not hold.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool, newest: u64) {
        let is_kept = |pin: &Pin| pin.version <= newest && is_there(&pin.name.key());
        self.held.retain(|_, held| is_kept(&held.pin));
    }

    /// Another tier is the primary: its marks count from now on.
    pub fn moves(&mut self, marks: impl Iterator<Item = String>, now_us: i64) {
        self.marks = marks.map(|name| (name, now_us)).collect();
        for (name, held) in &mut self.held {
            if self.marks.contains_key(name) {
                held.dropped_us.get_or_insert(now_us);
            }
        }
        self.must_check = true;
    }

    fn deleted(&mut self, key: &str, now_us: i64, is_primary: bool) -> Result<u64, Violation> {
        let mut gone = Vec::new();
        for (name, held) in &self.held {
            let is_pin = held.pin.name.key() == key;
            if !is_pin && !held.keys.contains_key(key) {
                continue;
            }
            let is_over = held
                .dropped_us
                .is_some_and(|since| since + self.history_us <= now_us);
            // A newer checkpoint, written after the pin, needs less of the log: it must load.
            let is_log = key.starts_with("table/_delta_log/") || key.starts_with("ledger/");
            if !is_over && is_log {
                self.must_check |= is_primary;
            } else if !is_over {
                let dropped = held.dropped_us.map(|since| (now_us - since) / 1_000_000);
                let what = format!("{key} of pin {name} was deleted (dropped since {dropped:?} s)");
                return Err(Violation::new(NAME, what));
            }
            if is_pin && is_primary {
                gone.push(name.clone());
            }
        }
        for name in &gone {
            self.held.remove(name);
        }
        Ok(gone.len() as u64)
    }

    /// Loads every pin that is not dropped and compares it with what was recorded.
    pub async fn check(&mut self, store: &MemoryStore, node: &Node) -> Result<(), Violation> {
        self.must_check = false;
        let broken = |name: &str, what: String| Violation::new(NAME, format!("pin {name}: {what}"));
        let index = node.log.index().await;
        let index = index.map_err(|error| broken("", chain(&error)))?;
        for (name, held) in &mut self.held {
            if held.dropped_us.is_some() {
                continue;
            }
            let reach = node.log.reach(&index, held.pin.version).await;
            let reach = reach.map_err(|error| broken(name, chain(&error)))?;
            let same = held.pin.check(&reach.state);
            same.map_err(|damage| broken(name, chain(&damage)))?;
            let files = reach.state.files.values();
            let files = files.map(|f| (keys::data_file(&f.path), Some(f.stats.size_bytes)));
            let ledger = reach.ledger.values();
            let ledger = ledger.map(|object| (object.key.clone(), Some(object.size_bytes)));
            let log = reach.log_keys().into_iter().map(|key| (key, None));
            held.keys = files.chain(ledger).chain(log).collect();
            for (key, size_bytes) in &held.keys {
                let bytes = store.bytes(&node.store.path(key));
                let found = bytes.map(|bytes| bytes.len() as u64);
                if found.is_none() || size_bytes.is_some() && found != *size_bytes {
                    return Err(broken(name, format!("{key} is missing or short")));
                }
            }
        }
        Ok(())
    }
}
