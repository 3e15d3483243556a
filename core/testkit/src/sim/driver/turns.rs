//! Whose turn it is, and who stands still, dies or begins anew.

use std::collections::BTreeSet;
use std::task::{Context, Poll};

use futures::task::noop_waker;
use stele_model::time::{HOUR_US, MINUTE_US, SECOND_US};

use super::{Driver, Running};
use crate::fault::Ticket;
use crate::sim::Violation;
use crate::sim::process::{Process, Task};

/// Requests before which a process freezes more often than by chance.
const RISKY: [&str; 3] = ["Put table/_delta_log", "Get table/_delta_log", "List l0"];
/// With tiers, also before a tier set is published, or a batch is stored.
const RISKY_TIERS: [&str; 5] = [
    "Put table/_delta_log",
    "Get table/_delta_log",
    "List l0",
    "Put control/epoch",
    "Put l0",
];

impl Driver {
    /// Who waits and is not frozen; when only frozen ones wait, they go on.
    pub(super) fn awake(&mut self) -> Vec<Ticket> {
        let steps = self.steps;
        self.frozen.retain(|_, until| *until > steps);
        let waiting = self.world.waiting();
        let frozen = |ticket: &&Ticket| !self.frozen.contains_key(&ticket.actor);
        let awake: Vec<Ticket> = waiting.iter().filter(frozen).cloned().collect();
        if awake.is_empty() {
            self.frozen.clear();
            return waiting;
        }
        awake
    }

    /// A process stands still in the middle of a request while the others go on.
    pub(super) fn freeze(&mut self, waiting: &[Ticket]) {
        // Worst just before a commit, and before the first read of a view.
        let risky: &[&str] = match self.settings.tiers {
            Some(_) => &RISKY_TIERS,
            None => &RISKY,
        };
        let is_risky = |t: &&Ticket| risky.iter().any(|risky| t.what.starts_with(risky));
        let risky: Vec<&Ticket> = waiting.iter().filter(is_risky).collect();
        let actors: BTreeSet<&String> = match risky.is_empty() || self.rng.chance(40) {
            true => waiting.iter().map(|t| &t.actor).collect(),
            false => risky.iter().map(|t| &t.actor).collect(),
        };
        let actors: Vec<&String> = actors.into_iter().collect();
        let actor = actors[self.rng.below(actors.len())].clone();
        let most = self.rng.pick(&[100, 400, 1_200]);
        let steps = 1 + self.rng.below(most);
        self.note(format!("{actor}: freezes for {steps} steps"));
        self.frozen.insert(actor, self.steps + steps);
    }

    /// Time passes while everyone stands still.
    pub(super) fn jump(&mut self) {
        let us = match self.rng.below(4) {
            0 => self.rng.between(HOUR_US, 3 * HOUR_US),
            1 => self.rng.between(10 * MINUTE_US, HOUR_US),
            _ => self.rng.between(MINUTE_US, 10 * MINUTE_US),
        };
        self.pass(us);
        self.note(format!("time: {} s pass", us / SECOND_US));
    }

    /// A process that has work dies at whatever await it stands, and a new one takes its place.
    pub(super) fn crash_one(&mut self) {
        let busy: BTreeSet<String> = self.tasks.iter().map(|t| t.actor.clone()).collect();
        let busy: Vec<&String> = busy.iter().collect();
        if busy.is_empty() {
            return;
        }
        let actor = busy[self.rng.below(busy.len())].clone();
        self.crash(&actor);
    }

    pub(super) fn crash(&mut self, actor: &str) {
        self.tally.crashes += 1;
        self.note(format!("{actor}: CRASH"));
        self.tasks.retain(|task| task.actor != actor);
        self.frozen.remove(actor);
        self.restart(actor);
    }

    pub(super) fn restart(&mut self, actor: &str) {
        self.world.restart(actor);
        let skew_us = self.rng.between(-20, 20) * SECOND_US;
        let ids = self.rng.next_u64();
        let fresh = Process::start(&self.world, actor, skew_us, ids, &self.settings);
        if let Some(old) = self.processes.iter_mut().find(|p| p.actor == actor) {
            *old = fresh;
        }
    }

    pub(super) fn process(&mut self, prefix: &str) -> Process {
        let of = |p: &&Process| p.actor.starts_with(prefix);
        let all: Vec<&Process> = self.processes.iter().filter(of).collect();
        all[self.rng.below(all.len())].clone()
    }

    pub(super) fn spawn(&mut self, actor: &str, name: String, task: Task) -> Result<(), Violation> {
        self.note(format!("{actor}: begins {name}"));
        self.tasks.push(Running {
            actor: actor.to_owned(),
            name,
            task,
        });
        self.poll(actor)
    }

    /// Lets an actor's tasks run until all of them stand at a gate, hang, or are done.
    pub(super) fn poll(&mut self, actor: &str) -> Result<(), Violation> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        // Tasks of one process may wait for each other, and may yield without a request.
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.world.gates_passed();
            let mut index = 0;
            let mut progressed = false;
            while index < self.tasks.len() {
                if self.tasks[index].actor != actor {
                    index += 1;
                    continue;
                }
                match self.tasks[index].task.as_mut().poll(&mut cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(done) => {
                        let Running { actor, name, .. } = self.tasks.remove(index);
                        self.finished(&actor, &name, done)?;
                        progressed = true;
                    }
                }
            }
            progressed |= self.world.gates_passed() != before;
            quiet = if progressed { 0 } else { quiet + 1 };
        }
        if self.world.has_crashed(actor) {
            self.tally.crashes += 1;
            self.tasks.retain(|task| task.actor != actor);
            self.restart(actor);
        }
        Ok(())
    }
}
