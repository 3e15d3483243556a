//! What an actor begins next.

use std::collections::BTreeSet;

use stele_format::l0;
use stele_model::{Batch, Clock, Digest, Resolution};

use super::Driver;
use crate::sim::Violation;
use crate::sim::process::{Began, Job, PinAsk, Process, Task};
use crate::sim::tasks::{Submission, ingest, ingest_keyed, job, pin_task, query};

/// Of 100 tasks of a run with tiers, those about the tiers.
const TIER_TASKS: u64 = 22;
/// Names of snapshots: so few that they are used again.
const PIN_NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Driver {
    /// Begins one task.
    pub(super) fn begin(&mut self) -> Result<(), Violation> {
        if self.settings.tiers.is_some() && self.rng.chance(TIER_TASKS) {
            return self.begin_with_tiers();
        }
        // A restore that waits for its hold to have lasted is asked for again and again.
        if self.restores.going.is_some() && self.rng.chance(8) {
            return self.begin_restore();
        }
        let (process, name, task) = match self.rng.below(100) {
            0..40 => self.begin_ingest()?,
            40..44 if self.may_restore() => return self.begin_restore(),
            40..48 => {
                let process = self.process("p-");
                let (ask, name) = self.pin_ask();
                let task = pin_task(&process, ask, &name);
                (process, format!("{ask:?} of pin {name}"), task)
            }
            48..90 => {
                let process = self.process("c-");
                let forgets = !self.settings.retention.is_for_ever();
                let kind = match self.rng.below(100) {
                    _ if forgets && self.rng.chance(12) => Job::Expire,
                    0..38 => Job::Absorb,
                    38..58 => Job::Seal { forced: false },
                    58..68 => Job::Seal { forced: true },
                    68..76 => Job::Consolidate,
                    76..92 => Job::Sweep,
                    92..94 => Job::Pause(true),
                    94..96 => Job::Pause(false),
                    _ => Job::Settle,
                };
                let task = job(&process, kind);
                (process, format!("{kind:?}"), task)
            }
            _ => {
                let process = self.process("q-");
                let resolution = self.rng.pick(&Resolution::ROLLUPS);
                let (began, nth) = match self.epochs.newest() {
                    None => (Began::Landed(self.home().registry.moment()), 0),
                    Some(set) => {
                        let acked = self.epochs.samples().clone();
                        (Began::Acked(set.epoch, acked), self.steps)
                    }
                };
                let task = query(&process, began, resolution, nth);
                (process, format!("query {}", resolution.table()), task)
            }
        };
        self.spawn(&process.actor, name, task)
    }

    /// What is asked about which snapshot: mostly about one that it can be asked about.
    fn pin_ask(&mut self) -> (PinAsk, String) {
        let (ask, of) = match self.rng.below(100) {
            0..50 => (PinAsk::Take, Vec::new()),
            50..70 => (PinAsk::Drop, self.pinned.names()),
            70..85 => (PinAsk::DropAndUndelete, self.pinned.names()),
            _ => (PinAsk::Undelete, self.pinned.marked()),
        };
        match of.is_empty() || self.rng.chance(20) {
            true => (ask, self.rng.pick(&PIN_NAMES).to_owned()),
            false => (ask, of[self.rng.below(of.len())].clone()),
        }
    }

    pub(super) fn begin_ingest(&mut self) -> Result<(Process, String, Task), Violation> {
        let process = self.process("in-");
        if self.rng.chance(20) {
            let submission = self.submission();
            let name = format!("ingest key {}", submission.key);
            let task = ingest_keyed(&process, &submission, &self.announced);
            return Ok((process, name, task));
        }
        let sent = self.home().registry.digests();
        if !sent.is_empty() && self.rng.chance(15) {
            let digest = self.rng.pick(&sent);
            return Ok(self.ingest_on(process, digest, "again"));
        }
        if sent.len() > 2 && self.rng.chance(15) {
            // What comes while this PUT is in flight becomes one object: a known batch, a new one.
            let together = [self.new_batch(), self.rng.pick(&sent)];
            for digest in together {
                let (process, name, task) = self.ingest_on(process.clone(), digest, "together");
                self.spawn(&process.actor, name, task)?;
            }
        }
        let digest = self.new_batch();
        Ok(self.ingest_on(process, digest, ""))
    }

    pub(super) fn ingest_on(
        &self,
        process: Process,
        digest: Digest,
        how: &str,
    ) -> (Process, String, Task) {
        let rows = self
            .home()
            .registry
            .rows(&digest)
            .cloned()
            .unwrap_or_default();
        let task = ingest(&process, rows, digest);
        (process, format!("ingest {digest} {how}"), task)
    }

    /// A keyed submission: a new one, or one that was sent before, perhaps long ago.
    pub(super) fn submission(&mut self) -> Submission {
        let alive = self.keys.alive();
        if !alive.is_empty() && self.rng.chance(60) {
            return alive[self.rng.below(alive.len())].0.clone();
        }
        let rows_max = self.rng.pick(&[1, 4]);
        let rows = self.rows.rows(self.clock.now_us(), 2, rows_max);
        self.keys.begin(rows)
    }

    pub(super) fn new_batch(&mut self) -> Digest {
        // Where raw samples expire, some come too late, and some just before.
        let late_hours = match self.settings.retention.is_for_ever() {
            true => self.rng.pick(&[0, 2, 30]),
            false => self.rng.pick(&[0, 30, 100, 160]),
        };
        let rows_max = self.rng.pick(&[1, 4, 12]);
        let rows = self.rows.rows(self.clock.now_us(), late_hours, rows_max);
        self.sent(rows)
    }

    pub(super) fn group(&mut self, digests: &[Digest]) -> l0::Encoded {
        let unique: BTreeSet<Digest> = digests.iter().copied().collect();
        let batches = unique.iter().map(|digest| Batch {
            digest: *digest,
            rows: self
                .home()
                .registry
                .rows(digest)
                .cloned()
                .unwrap_or_default(),
        });
        let batches: Vec<Batch> = batches.collect();
        let object = l0::encode(&batches).expect("batches that were encoded before");
        let unique: Vec<Digest> = unique.into_iter().collect();
        self.sent_together(object.name.digest, &unique);
        object
    }
}
