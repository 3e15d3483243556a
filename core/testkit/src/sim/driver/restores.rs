//! Restores of snapshots, beside everything else.

use std::collections::BTreeSet;

use stele_model::TenantId;

use super::Driver;
use crate::sim::Violation;
use crate::sim::process::{PinAsk, Process};
use crate::sim::restores::{HOLD_US, IN_PLACE_MAX, RestoreAsk, Restored, restore_task};
use crate::sim::tasks::pin_task;

const NAME: &str = "I10 a restore takes back what its plan said";

impl Driver {
    /// Restores are of runs with one store that forget nothing: what expired comes back with a
    /// snapshot, and mirrors have L0 of their own; other tests have both.
    pub(super) fn may_restore(&self) -> bool {
        self.settings.tiers.is_none() && self.settings.retention.is_for_ever()
    }

    pub(super) fn begin_restore(&mut self) -> Result<(), Violation> {
        let process = self.process("p-");
        let names = self.pinned.names();
        let (ask, name) = match self.restores.going.clone() {
            Some((name, plan)) => match self.rng.below(100) {
                0..6 => (RestoreAsk::Abandon, name),
                6..12 => (RestoreAsk::Plan, name),
                _ if self.restores.is_refused => (RestoreAsk::Plan, name),
                _ => (RestoreAsk::GoOn(plan), name),
            },
            None if names.is_empty() => return self.begin_pin(PinAsk::Take, "a"),
            None => {
                let name = names[self.rng.below(names.len())].clone();
                match self.rng.chance(50) && self.restores.begun < IN_PLACE_MAX {
                    true => (RestoreAsk::Plan, name),
                    false => (RestoreAsk::Copy(self.copy_of(&name)), name),
                }
            }
        };
        self.ask_restore(&process, ask, &name)
    }

    fn begin_pin(&mut self, ask: PinAsk, name: &str) -> Result<(), Violation> {
        let process = self.process("p-");
        let task = pin_task(&process, ask, name);
        self.spawn(&process.actor, format!("{ask:?} of pin {name}"), task)
    }

    /// The tenant that copies of this snapshot go to: one for each version.
    fn copy_of(&self, name: &str) -> TenantId {
        let version = self.pinned.version(name).unwrap_or(0);
        let tenant = format!("copy-of-{name}-{version}").parse();
        tenant.expect("a name of a tenant")
    }

    fn ask_restore(
        &mut self,
        process: &Process,
        ask: RestoreAsk,
        name: &str,
    ) -> Result<(), Violation> {
        if matches!(ask, RestoreAsk::GoOn(_)) {
            self.end_deletions();
            self.restores.held.insert(name.to_owned());
        }
        let ids = self.rng.next_u64();
        let task = restore_task(process, ask.clone(), name, ids);
        self.spawn(&process.actor, format!("{ask:?} of pin {name}"), task)
    }

    /// A restore waits for longer than any DELETE takes: whoever stands still in one is dead by
    /// then, and what was sent has landed.
    fn end_deletions(&mut self) {
        let waiting = self.world.waiting().into_iter();
        let deleting = waiting.filter(|ticket| ticket.what.starts_with("Delete"));
        let actors: BTreeSet<String> = deleting.map(|t| t.actor).collect();
        for actor in actors {
            self.crash(&actor);
        }
        self.must_land = true;
    }

    /// A step of a restore was answered.
    pub(super) fn restored(
        &mut self,
        actor: &str,
        ask: &RestoreAsk,
        name: &str,
        restored: Restored,
    ) {
        let text = self.restores.answered(ask, name, restored);
        self.note(format!("{actor}: {ask:?} of pin {name}: {text}"));
    }

    /// I10: what came about of restores is what was confirmed.
    pub(super) async fn follow_copies(&mut self) -> Result<(), Violation> {
        for (plan, lost) in self.places[self.primary].observer.take_taken_back() {
            self.tally.restored += 1;
            self.tally.lost += lost.len() as u64;
            let said = self.restores.lost.get(&plan);
            let said = said.ok_or_else(|| Violation::new(NAME, format!("nobody saw {plan}")))?;
            if let Some(batch) = lost.difference(said).next() {
                let what = format!("batch {batch} is lost, and plan {plan} did not say so");
                return Err(Violation::new(NAME, what));
            }
        }
        let tier = self.home().as_tier(&self.store);
        self.tally.copied += self.restores.check_copies(&tier, &self.settings).await?;
        Ok(())
    }

    /// I15: a restore that was begun can be ended, one way or the other.
    pub(super) async fn end_restores(&mut self) -> Result<(), Violation> {
        self.end_holds().await?;
        for _ in 0..8 {
            let Some((name, plan)) = self.restores.going.clone() else {
                return Ok(());
            };
            if self.restore_alone(RestoreAsk::GoOn(plan), &name).await? {
                self.pass(HOLD_US);
                continue;
            }
            // More was lost before the hold, the snapshot is gone, or giving up came to no end.
            self.restore_alone(RestoreAsk::Abandon, &name).await?;
            self.restore_alone(RestoreAsk::Plan, &name).await?;
        }
        let what = "a restore in place comes to no end".to_owned();
        Err(Violation::new("I15 progress", what))
    }

    /// Of two operators one may hold deletion after the other has let it go on, or for another
    /// snapshot.
    async fn end_holds(&mut self) -> Result<(), Violation> {
        let going = self.restores.going.clone();
        for name in std::mem::take(&mut self.restores.held) {
            if going.as_ref().is_none_or(|(of, _)| *of != name) {
                self.restore_alone(RestoreAsk::Abandon, &name).await?;
            }
        }
        Ok(())
    }

    /// Answers whether it was not refused.
    async fn restore_alone(&mut self, ask: RestoreAsk, name: &str) -> Result<bool, Violation> {
        let answers = self.restores.answers;
        let (process, ids) = (self.process("p-"), self.rng.next_u64());
        let task = restore_task(&process, ask, name, ids);
        self.alone(&process.actor, "restore", task).await?;
        Ok(self.restores.answers > answers)
    }
}
