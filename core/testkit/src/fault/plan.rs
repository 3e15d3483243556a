//! Which request fails, and how. A plan is data: it is generated from a seed, printed as a trace,
//! and read back to replay one failure without its seed.

use std::collections::BTreeMap;
use std::fmt;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// What an object is, as far as a fault cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyClass {
    /// An accepted batch.
    L0,
    /// An entry of the Delta log.
    Log,
    /// A checkpoint, or the pointer to the last one.
    Checkpoint,
    /// A head.
    Head,
    /// A ledger file.
    Ledger,
    /// A data file.
    Data,
    /// A switch, a probe or the clock.
    Control,
    /// A marker of an idempotency key.
    Idem,
    /// A snapshot, or the mark that it is dropped.
    Pin,
    /// Anything else.
    Other,
}

impl KeyClass {
    /// The class of a full path (or of a prefix that is listed).
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let key = relative(path.as_ref());
        let under = |folder: &str| {
            key.strip_prefix(folder)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if under("l0") {
            Self::L0
        } else if under("table/_delta_log") && key.contains("checkpoint") {
            Self::Checkpoint
        } else if under("table/_delta_log") {
            Self::Log
        } else if under("table/heads") {
            Self::Head
        } else if under("ledger") {
            Self::Ledger
        } else if key.starts_with("table/resolution=") {
            Self::Data
        } else if under("control") {
            Self::Control
        } else if under("idem") {
            Self::Idem
        } else if under("pins") {
            Self::Pin
        } else {
            Self::Other
        }
    }
}

/// The key without the tier's prefix and the tenant.
#[must_use]
pub fn relative(full: &str) -> &str {
    let tenants = match full.strip_prefix("tenants/") {
        Some(rest) => Some(rest),
        None => full.split_once("/tenants/").map(|(_, rest)| rest),
    };
    match tenants {
        Some(rest) => rest.split_once('/').map_or("", |(_, key)| key),
        None => full.split_at(root(full).len()).1,
    }
}

/// The tier's prefix, with its last `/`; empty for a tier that fills its store.
#[must_use]
pub fn root(full: &str) -> &str {
    if full.starts_with("tenants/") {
        return "";
    }
    let of = |folder| full.find(folder).map(|at| full.split_at(at + 1).0);
    let found = of("/tenants/").or_else(|| of("/control/"));
    // A LIST of the tenants.
    let listed = || {
        full.strip_suffix("tenants")
            .filter(|root| root.ends_with('/'))
    };
    found.or_else(listed).unwrap_or("")
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// PUT, conditional or not.
    Put,
    /// GET of a whole object or a range.
    Get,
    /// LIST, all its pages.
    List,
    /// DELETE.
    Delete,
    /// HEAD.
    Head,
}

/// The request a fault strikes: the `nth` (from 0) of its kind by one actor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultKey {
    /// Who sends it.
    pub actor: String,
    /// What it is about.
    pub class: KeyClass,
    /// What it does.
    pub operation: Operation,
    /// How many of the same actor, class and operation came before.
    pub nth: u32,
}

/// What happens to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It fails and changes nothing.
    ErrorBefore,
    /// It takes effect and fails. A LIST fails after its first page, a GET in its body.
    ErrorAfter,
    /// A PUT lands and is answered "already exists", as when a client library retries it.
    ExistsAfter,
    /// A PUT does not land and is answered "already exists", as a bare 409 is.
    ExistsBefore,
    /// It fails like a timeout and takes effect after `requests` more requests of the world.
    Late {
        /// How many requests later it lands.
        requests: u32,
    },
    /// It and the `requests` after it, of its kind and by its actor, fail like timeouts; a PUT
    /// that begins such an outage takes effect when the outage is nearly over.
    Outage {
        /// How many more fail.
        requests: u32,
    },
    /// A LIST is cut into pages of one key, so that much happens between them.
    TornList,
    /// A LIST leaves out its last `keys` keys although they were there before. No correct store
    /// does this: it is for tests that show what an oracle notices.
    TornListHard {
        /// How many keys it hides.
        keys: u32,
    },
    /// A GET is answered 404 although the object is there.
    Missing,
    /// A GET answers with one bit flipped.
    BitFlip,
    /// The actor dies before the request takes effect: it and all later ones fail until
    /// [`crate::FaultWorld::restart`].
    CrashBefore,
    /// The actor dies after the request took effect.
    CrashAfter,
    /// The request is never answered and takes no effect; the driver drops the actor.
    HangBefore,
    /// The request takes effect and is never answered; the driver drops the actor.
    HangAfter,
    /// The request waits for `turns` more turns of the others.
    Delay {
        /// How many turns.
        turns: u32,
    },
}

/// What one actor sends, for plans that strike: each kind of request and about how often.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// The actor's name.
    pub actor: &'static str,
    /// Class, operation, and how many of them there are in a run (at least 1).
    pub sends: &'static [(KeyClass, Operation, usize)],
}

/// The faults of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan(BTreeMap<FaultKey, Fault>);

/// One line of a printed plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    key: FaultKey,
    fault: Fault,
}

impl Plan {
    /// No fault at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds one fault.
    #[must_use]
    pub fn with(
        mut self,
        actor: &str,
        operation: Operation,
        class: KeyClass,
        nth: u32,
        fault: Fault,
    ) -> Self {
        let key = FaultKey {
            actor: actor.to_owned(),
            class,
            operation,
            nth,
        };
        self.0.insert(key, fault);
        self
    }

    /// About `faults` faults that a correct store may show, spread over what actors send.
    #[must_use]
    pub fn random(rng: &mut Rng, traffic: &[Traffic], faults: usize) -> Self {
        let mut plan = Self::none();
        for _ in 0..faults {
            let Traffic { actor, sends } = rng.pick(traffic);
            let (class, operation, often) = rng.pick(sends);
            let nth = u32::try_from(rng.below(often)).unwrap_or(0);
            let fault = random_fault(rng, operation, class);
            plan = plan.with(actor, operation, class, nth, fault);
        }
        plan
    }

    /// The fault of one request.
    #[must_use]
    pub fn get(&self, key: &FaultKey) -> Option<Fault> {
        self.0.get(key).copied()
    }

    /// The number of faults.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing fails.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plan without its `index`th fault, for shrinking a failure.
    #[must_use]
    pub fn without(&self, index: usize) -> Self {
        let kept = self.0.iter().enumerate().filter(|(i, _)| *i != index);
        Self(
            kept.map(|(_, (key, fault))| (key.clone(), *fault))
                .collect(),
        )
    }

    /// The plan of a printed trace: one JSON object per line; blank lines and `#` are skipped.
    ///
    /// # Errors
    /// The first line that is no fault.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let faults: Result<BTreeMap<_, _>, _> = lines
            .map(|line| serde_json::from_str::<Line>(line).map(|line| (line.key, line.fault)))
            .collect();
        faults.map(Self)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, fault) in &self.0 {
            let line = Line {
                key: key.clone(),
                fault: *fault,
            };
            writeln!(
                f,
                "{}",
                serde_json::to_string(&line).map_err(|_| fmt::Error)?
            )?;
        }
        Ok(())
    }
}

fn random_fault(rng: &mut Rng, operation: Operation, class: KeyClass) -> Fault {
    let soon = rng.pick(&[10, 60, 600]);
    let late = Fault::Late {
        requests: u32::try_from(1 + rng.below(soon)).unwrap_or(1),
    };
    let outage = Fault::Outage {
        requests: u32::try_from(1 + rng.below(30)).unwrap_or(1),
    };
    let delay = Fault::Delay {
        turns: u32::try_from(1 + rng.below(12)).unwrap_or(1),
    };
    match operation {
        Operation::Put => rng.pick(&[
            Fault::ErrorBefore,
            Fault::ErrorAfter,
            Fault::ErrorAfter,
            Fault::ExistsAfter,
            Fault::ExistsBefore,
            late,
            late,
            outage,
            Fault::HangBefore,
            Fault::HangAfter,
            delay,
        ]),
        Operation::Get if matches!(class, KeyClass::Data | KeyClass::L0 | KeyClass::Head) => rng
            .pick(&[
                Fault::ErrorBefore,
                Fault::ErrorAfter,
                Fault::BitFlip,
                Fault::Missing,
                Fault::HangBefore,
                delay,
            ]),
        Operation::Get | Operation::Head => rng.pick(&[
            Fault::ErrorBefore,
            Fault::ErrorAfter,
            Fault::HangBefore,
            delay,
        ]),
        Operation::List => rng.pick(&[
            Fault::ErrorBefore,
            Fault::ErrorAfter,
            Fault::TornList,
            Fault::TornList,
            Fault::HangBefore,
        ]),
        Operation::Delete => rng.pick(&[
            Fault::ErrorBefore,
            Fault::ErrorAfter,
            late,
            Fault::HangAfter,
            delay,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_plan_is_read_back() {
        let sends = &[
            (KeyClass::L0, Operation::Put, 9),
            (KeyClass::Log, Operation::Get, 9),
            (KeyClass::Data, Operation::Delete, 9),
            (KeyClass::Head, Operation::List, 9),
        ];
        let traffic = ["a", "b"].map(|actor| Traffic { actor, sends });
        let plan = Plan::random(&mut Rng::new(3), &traffic, 40);
        assert!(plan.len() > 20);
        assert_eq!(Plan::parse(&plan.to_string()).unwrap(), plan);
        assert_eq!(Plan::parse("# nothing\n\n").unwrap(), Plan::none());
        assert!(Plan::parse("x").is_err());
        assert_eq!(plan.without(0).len(), plan.len() - 1);
    }

    #[test]
    fn keys_fall_into_their_class_below_any_prefix() {
        for (path, class) in [
            ("tenants/a/l0/x", KeyClass::L0),
            ("deep/tenants/a/l0", KeyClass::L0),
            ("tenants/a/l0x/y", KeyClass::Other),
            ("tenants/a/table/_delta_log/00.json", KeyClass::Log),
            (
                "tenants/a/table/_delta_log/_last_checkpoint",
                KeyClass::Checkpoint,
            ),
            ("tenants/a/table/heads/9.json.zst", KeyClass::Head),
            (
                "tenants/a/table/resolution=raw/period=x/y.parquet",
                KeyClass::Data,
            ),
            ("tenants/a/ledger/x", KeyClass::Ledger),
            ("control/clock", KeyClass::Control),
            ("tenants/a/idem/0123", KeyClass::Idem),
            ("tenants/a/pins/noon.json", KeyClass::Pin),
            ("tier.json", KeyClass::Other),
        ] {
            assert_eq!(KeyClass::of(&Path::from(path)), class, "{path}");
        }
    }
}
