//! A process of a run with tiers: what it opens for the tier set it believes in, as a server does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use stele_compact::{Compactor, TierWitnesses};
use stele_model::{Clock, ErrorKind, TierId, chain};
use stele_protect::{MigrateError, MigrateOptions, Migration, ReplicateError, Step};
use stele_store::{Current, Opener, Role, Tier, Tiers, WritePolicy};
use stele_table::{Owner, TableLog};

use super::process::{Failed, Node, Settings};
use crate::clock::SeededIds;
use crate::fault::FaultWorld;

/// How the tiers of a run are worked with.
#[derive(Debug, Clone)]
pub(super) struct TierSettings {
    pub lease_ms: u64,
    pub request_ms: u64,
    /// The stores that every process is told of; their names are their URLs.
    pub seeds: Vec<String>,
}

/// What an operator asks for, or the replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TierAsk {
    Sync,
    Follow,
    Add(TierId, Role),
    Policy(WritePolicy),
    Promote(TierId),
    Force(TierId),
    Drain(TierId),
    Retire(TierId),
    /// Whether the tier is equal to the primary.
    Compare(TierId),
}

/// What a step came to.
#[derive(Debug)]
pub(super) struct Migrated {
    /// As a trace shows it; a step that has to wait for the leases of others says so.
    pub text: String,
}

/// What is open of one tier set.
#[derive(Default)]
struct Open {
    current: Option<Arc<Current>>,
    node: Option<Node>,
    sweepers: BTreeMap<TierId, Arc<Compactor>>,
    readers: BTreeMap<String, Arc<TableLog>>,
}

/// The tiers as one process works with them.
pub(super) struct Fleet {
    tiers: Tiers,
    migration: Migration,
    clock: Arc<dyn Clock>,
    ids: RefCell<u64>,
    settings: Settings,
    open: RefCell<Open>,
}

fn failed<E: std::error::Error>(kind: ErrorKind, error: &E) -> Failed {
    Failed {
        kind,
        text: chain(error),
    }
}

impl Fleet {
    pub fn new(
        world: &FaultWorld,
        actor: &str,
        clock: Arc<dyn Clock>,
        ids: u64,
        settings: &Settings,
        of: &TierSettings,
    ) -> Self {
        let store = world.actor(actor);
        let open = move |name: &str| Tier::from_store(store.clone(), name, name);
        let seeds = of.seeds.iter().map(|name| open(name)).collect();
        let opener: Opener = Arc::new(move |name| Ok(open(name)));
        let tiers = Tiers::new(seeds, opener, Arc::clone(&clock));
        let options = MigrateOptions {
            table: settings.table.clone(),
            marker_keep_us: settings.compact.marker_keep_us,
            bytes_per_second: None,
            copies: 2,
        };
        let of_migration = Arc::new(SeededIds::new(ids ^ 0x5eed));
        let migration = Migration::new(tiers.clone(), options, Arc::clone(&clock), of_migration);
        Self {
            tiers,
            migration,
            clock,
            ids: RefCell::new(ids),
            settings: settings.clone(),
            open: RefCell::default(),
        }
    }

    pub fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// Makes sure that the set may be acted on.
    async fn refresh(&self) -> Result<Arc<Current>, Failed> {
        let current = self.tiers.current().await;
        let current = current.map_err(|error| failed(error.kind(), &error))?;
        let mut open = self.open.borrow_mut();
        let epoch = open.current.as_ref().map(|current| current.epoch());
        if epoch != Some(current.epoch()) {
            *open = Open::default();
        }
        open.current = Some(Arc::clone(&current));
        Ok(current)
    }

    /// The tenant on the primary.
    pub async fn node(&self) -> Result<Node, Failed> {
        let current = self.refresh().await?;
        let known = self.open.borrow().node.clone();
        Ok(known.unwrap_or_else(|| {
            let node = self.open_node(&current);
            self.open.borrow_mut().node = Some(node.clone());
            node
        }))
    }

    /// The tenant on the primary, once the last promotion is finished.
    pub async fn ready_node(&self) -> Result<Option<Node>, Failed> {
        self.refresh().await?;
        match self.migration.ready().await {
            Ok(Step::Done(())) => self.node().await.map(Some),
            Ok(Step::Wait { .. }) => Ok(None),
            Err(error) => Err(alarm(&error)),
        }
    }

    fn open_node(&self, current: &Current) -> Node {
        let owner = current.set.as_ref().and_then(Owner::of);
        let own = owner.as_ref().map(|owner| owner.tier.clone());
        let open = self.opener();
        let log = open(&current.primary);
        let log = match owner {
            Some(owner) => log.with_owner(owner),
            None => log,
        };
        self.compactor(
            log,
            TierWitnesses::of_primary(self.tiers.clone(), own, open),
        )
    }

    /// What opens the tenant's table on a tier.
    fn opener(&self) -> impl Fn(&Tier) -> TableLog + Send + Sync + 'static {
        let (tenant, options) = (self.settings.tenant.clone(), self.settings.table.clone());
        let clock = Arc::clone(&self.clock);
        move |tier| TableLog::new(tier.tenant(&tenant), options.clone(), Arc::clone(&clock))
    }

    fn compactor(&self, log: TableLog, others: TierWitnesses) -> Node {
        let s = &self.settings;
        let log = Arc::new(log);
        let mut ids = self.ids.borrow_mut();
        *ids = ids.wrapping_add(1);
        let (store, of_ids) = (log.store().clone(), Arc::new(SeededIds::new(*ids)));
        let (options, clock) = (s.compact.clone(), Arc::clone(&self.clock));
        let compactor = Compactor::new(store.clone(), Arc::clone(&log), options, clock, of_ids);
        Node {
            store,
            log,
            compactor: Arc::new(compactor.with_witnesses(Arc::new(others))),
        }
    }

    /// What sweeps the other tiers.
    pub fn sweepers(&self) -> Vec<Arc<Compactor>> {
        let Some(current) = self.open.borrow().current.clone() else {
            return Vec::new();
        };
        let sweepers = current.sweepable().map(|other| {
            let id = &other.member.id;
            let known = self.open.borrow().sweepers.get(id).cloned();
            known.unwrap_or_else(|| {
                let open = self.opener();
                let log = open(&other.tier).with_owner(Owner::nobody(id.clone()));
                let others = TierWitnesses::of_mirror(self.tiers.clone(), id.clone(), open);
                let node = self.compactor(log, others);
                let sweepers = &mut self.open.borrow_mut().sweepers;
                sweepers.insert(id.clone(), Arc::clone(&node.compactor));
                node.compactor
            })
        });
        sweepers.collect()
    }

    /// The table that a query reads: of the primary or of a complete mirror, the `nth`.
    pub async fn readable(&self, nth: usize) -> Result<Arc<TableLog>, Failed> {
        let current = self.refresh().await?;
        let mirrors = current.complete_mirrors().map(|mirror| &mirror.tier);
        let tiers: Vec<&Tier> = std::iter::once(&current.primary).chain(mirrors).collect();
        let tier = tiers[nth % tiers.len()];
        let mut open = self.open.borrow_mut();
        let log = open.readers.entry(tier.url().to_owned());
        let log = log.or_insert_with(|| Arc::new(self.opener()(tier)));
        Ok(Arc::clone(log))
    }

    /// Takes one step.
    pub async fn migrate(&self, ask: &TierAsk) -> Result<Migrated, Failed> {
        match self.ask(ask).await {
            Ok(migrated) => Ok(migrated),
            Err(error) => Err(alarm(&error)),
        }
    }

    async fn ask(&self, ask: &TierAsk) -> Result<Migrated, MigrateError> {
        let work = &self.migration;
        match ask {
            TierAsk::Sync => {
                let report = work.sync(&|_, _| {}).await?;
                Ok(done(format!("{report:?}")))
            }
            TierAsk::Follow => Ok(done(format!("{:?}", work.follow().await?))),
            TierAsk::Add(id, role) => {
                let added = work.add(id.clone(), id.as_str(), *role).await?;
                Ok(told(added, |set| format!("epoch {}", set.epoch)))
            }
            TierAsk::Policy(policy) => {
                let set = work.set_policy(*policy).await?;
                Ok(told(set, |set| format!("epoch {}", set.epoch)))
            }
            TierAsk::Promote(id) => {
                let promoted = work.promote(id, &|_| {}).await?;
                Ok(told(promoted, |p| format!("epoch {}", p.set.epoch)))
            }
            TierAsk::Force(id) => {
                let promoted = work.promote_forced(id).await?;
                Ok(told(promoted, |p| format!("epoch {}", p.set.epoch)))
            }
            TierAsk::Drain(id) => {
                let drained = work.drain(id).await?;
                Ok(told(drained, |set| format!("epoch {}", set.epoch)))
            }
            TierAsk::Retire(id) => match work.retire_plan(id).await? {
                Step::Wait { us } => Ok(told(Step::<()>::Wait { us }, |()| String::new())),
                Step::Done(plan) => {
                    let retired = work.retire(id, plan.hash).await?;
                    Ok(told(retired, |set| format!("epoch {}", set.epoch)))
                }
            },
            TierAsk::Compare(id) => {
                let missing = work.compare(id).await?;
                match missing.total {
                    0 => Ok(done("equal".to_owned())),
                    _ => Err(MigrateError::Unequal {
                        id: id.clone(),
                        with: id.clone(),
                        missing,
                    }),
                }
            }
        }
    }
}

fn done(text: String) -> Migrated {
    Migrated { text }
}

fn told<T>(step: Step<T>, text: impl FnOnce(T) -> String) -> Migrated {
    match step {
        Step::Done(of) => done(text(of)),
        Step::Wait { us } => Migrated {
            text: format!("must wait {us} µs"),
        },
    }
}

/// What says that logs or objects contradict each other is no refusal like others.
fn alarm(error: &MigrateError) -> Failed {
    let kind = match error {
        MigrateError::Replicate { source, .. } | MigrateError::Control { source, .. } => {
            match **source {
                ReplicateError::Diverged { .. } | ReplicateError::Other { .. } => {
                    ErrorKind::Contradiction
                }
                _ => error.kind(),
            }
        }
        _ => error.kind(),
    };
    failed(kind, error)
}
