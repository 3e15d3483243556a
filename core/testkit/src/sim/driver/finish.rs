//! What a finished task came to, and whether it may have.

use stele_model::{Clock, Digest, ErrorKind, Resolution};

use super::Driver;
use crate::fault::Fault;
use crate::oracle::Samples;
use crate::sim::Violation;
use crate::sim::invariants::{i1_durable_ack, i2_a_query_is_complete, i9_rollup_truth};
use crate::sim::place::Place;
use crate::sim::process::{Answer, Began, Done, Failed, PinAsk};

impl Driver {
    pub(super) fn finished(
        &mut self,
        actor: &str,
        name: &str,
        done: Done,
    ) -> Result<(), Violation> {
        // What landed in this very step counts.
        self.track()?;
        let failed = match done {
            Done::Ingest { batches, receipt } => match receipt {
                Ok(object) => {
                    self.note(format!("{actor}: acknowledges {object}"));
                    self.tally.acks += 1;
                    let known = &self.home().registry;
                    let of = batches.iter().flat_map(|o| known.batches_of(o));
                    let of: Vec<Digest> = of.copied().collect();
                    self.i1_durable_ack(&of)?;
                    None
                }
                Err(failed) => Some(failed),
            },
            Done::Keyed { key, receipt } => self.attempted(actor, key, receipt)?,
            Done::Pinned { ask, name, result } => match result {
                Ok(pin) => {
                    self.note(format!("{actor}: {ask:?} of pin {name} is done"));
                    self.tally.pins += u64::from(ask == PinAsk::Take);
                    self.pinned.acknowledged(ask, name, pin);
                    None
                }
                // A name that is taken, or nothing to undelete.
                Err(failed) if failed.kind == ErrorKind::Conflict => {
                    self.note(format!("{actor}: {ask:?} of pin {name}: {}", failed.text));
                    None
                }
                Err(failed) => Some(failed),
            },
            Done::Job {
                job,
                sealed,
                deleted,
                result,
            } => {
                self.tally.windows_sealed += sealed.0;
                self.tally.windows_resealed += sealed.1;
                self.tally.deleted += deleted;
                if let Ok(text) = &result {
                    self.note(format!("{actor}: {job:?} is done: {text}"));
                }
                result.err()
            }
            Done::Query {
                began,
                resolution,
                answer,
            } => match answer {
                Ok(answer) => {
                    self.tally.queries += 1;
                    self.note(format!("{actor}: answers {} samples", answer.samples.len()));
                    self.i2_the_answer_is_complete(&began, resolution, &answer)?;
                    None
                }
                Err(failed) => Some(failed),
            },
            Done::Restored { ask, name, result } => match result {
                Ok(restored) => {
                    self.restored(actor, &ask, &name, restored);
                    None
                }
                // Another plan, a name that is taken or gone, or a hold that somebody lifted.
                Err(failed) if failed.kind == ErrorKind::Conflict => {
                    self.restores.is_refused = true;
                    self.note(format!("{actor}: {ask:?} of pin {name}: {}", failed.text));
                    None
                }
                Err(failed) => Some(failed),
            },
            Done::Migrated { ask, result } => match result {
                Ok(migrated) => {
                    self.migrated(actor, &ask, &migrated)?;
                    None
                }
                // Refused, for a reason that is no defect.
                Err(failed) if failed.kind == ErrorKind::Conflict => {
                    self.note(format!("{actor}: {ask:?}: {}", failed.text));
                    None
                }
                Err(failed) => Some(failed),
            },
        };
        match failed {
            None => Ok(()),
            Some(failed) => self.failed(actor, name, &failed),
        }
    }

    /// I1: what is acknowledged is wherever it must be.
    fn i1_durable_ack(&mut self, batches: &[Digest]) -> Result<(), Violation> {
        match self.settings.tiers {
            None => i1_durable_ack(&self.home().registry, batches),
            Some(_) => self.i1_durable_on_tiers(batches),
        }
    }

    fn i2_the_answer_is_complete(
        &self,
        began: &Began,
        resolution: Resolution,
        answer: &Answer,
    ) -> Result<(), Violation> {
        let read = self.places.iter().find(|place| place.name == answer.tier);
        let Place {
            registry, observer, ..
        } = read.unwrap_or(self.home());
        let (least, most) = match began {
            Began::Landed(moment) => (registry.expected_at(*moment), registry.ever().clone()),
            Began::Acked(epoch, acked) => {
                let mut most = Samples::default();
                for place in &self.places {
                    most.merge(place.registry.expected());
                }
                match self.epochs.answers(*epoch, &answer.tier) {
                    true => (acked.clone(), most),
                    false => (Samples::default(), most),
                }
            }
        };
        let least = observer.kept(&least, &answer.expired);
        i2_a_query_is_complete(&least, &most, &answer.samples)?;
        let frozen = observer.frozen(resolution, &answer.expired);
        i9_rollup_truth(&answer.samples, &frozen, &answer.rollups, resolution)
    }

    /// An attempt with a key came to its end.
    pub(super) fn attempted(
        &mut self,
        actor: &str,
        key: usize,
        receipt: Result<Digest, Failed>,
    ) -> Result<Option<Failed>, Violation> {
        let age_us_max = self.settings.ingest.key_age_us_max;
        match receipt {
            Ok(batch) => {
                self.note(format!("{actor}: acknowledges {batch} with key {key}"));
                self.tally.acks += 1;
                self.tally.retries += u64::from(self.keys.acked(key));
                self.i1_durable_ack(&[batch])?;
                Ok(None)
            }
            Err(failed) if failed.kind == ErrorKind::Conflict => {
                self.note(format!("{actor}: key {key} is old"));
                match self.keys.may_be_old(key, self.clock.now_us(), age_us_max) {
                    true => Ok(None),
                    false => Err(Violation::new("no defect of ours", failed.text)),
                }
            }
            Err(failed) => Ok(Some(failed)),
        }
    }

    /// I13: a fault may become an error, but only of a kind that says what it is; and nobody may
    /// find anything corrupt whose bytes were not damaged on the way.
    pub(super) fn failed(
        &mut self,
        actor: &str,
        name: &str,
        failed: &Failed,
    ) -> Result<(), Violation> {
        self.tally.errors += 1;
        self.note(format!(
            "{actor}: {name} fails ({}): {}",
            failed.kind, failed.text
        ));
        let damaged = self.world.fired().iter().any(|fired| {
            fired.key.actor == actor && matches!(fired.fault, Fault::BitFlip | Fault::Missing)
        });
        let fine = match failed.kind {
            ErrorKind::Unavailable | ErrorKind::NotFound => true,
            ErrorKind::Corrupt => damaged,
            _ => false,
        };
        if fine {
            return Ok(());
        }
        let what = format!(
            "{actor}'s {name} failed as {}: {}",
            failed.kind, failed.text
        );
        Err(Violation::new("no defect of ours", what))
    }
}
