//! Runs of the jobs over several tenants, each in the time of one invocation.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;

use stele_compact::{Budget, Part};
use stele_model::time::{HOUR_US, SECOND_US};
use stele_model::{Clock, TenantId};
use stele_node::fan_out::Piece;
use stele_node::{Job, Others, OthersError, Work};
use stele_runtime::{Config, SystemClock};
use stele_store::{Tier, keys};
use stele_table::{View, deletion_frozen};
use stele_testkit::Rng;
use stele_testkit::gen_rows::RowGen;
use tempfile::TempDir;

/// A store of three tenants, each with batches of several hours.
struct World {
    directory: TempDir,
    work: Work,
}

const BATCHES: u64 = 6;

/// Nobody but this invocation.
struct Alone;

impl Others for Alone {
    fn max(&self) -> usize {
        0
    }

    async fn ask(&self, _: &[Piece]) -> Result<(), OthersError> {
        Err("alone".into())
    }
}

fn tenants() -> [TenantId; 3] {
    ["a", "b", "c"].map(|name| name.parse().unwrap())
}

impl World {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let work = Self::open(&directory).await;
        for tenant in tenants() {
            let node = work.tenants.get(&tenant);
            let mut random = RowGen::new(Rng::new(7), 5);
            for batch in 0..BATCHES {
                // One hour after the other, so that both parts of two have some.
                let begin_us = SystemClock.now_us() - (30 + batch.cast_signed()) * HOUR_US;
                let rows = random.rows(begin_us, 0, 600);
                node.ingestor.accept(rows).await.unwrap().unwrap();
            }
        }
        // The tenants were met by that process; another one must find them.
        let work = Self::open(&directory).await;
        Self { directory, work }
    }

    async fn open(directory: &TempDir) -> Work {
        let url = directory.path().to_str().unwrap();
        let config = Config::default();
        let tiers = stele_node::open_tiers(url, &config).unwrap();
        Work::open(tiers, &config).await.unwrap()
    }

    fn tier(&self) -> Tier {
        Tier::open(self.directory.path().to_str().unwrap(), &[]).unwrap()
    }

    /// L0 objects of `tenant` that no commit has consumed, and windows that are not sealed.
    async fn open_of(&self, tenant: &TenantId) -> (usize, usize) {
        let node = self.work.tenants.get(tenant);
        let view = View::read(&node.log, None).await.unwrap();
        let open = view.open_windows().iter().count();
        (view.l0.len(), open)
    }
}

fn budget() -> Budget {
    Budget {
        deadline_us: SystemClock.now_us() + 60 * SECOND_US,
        ..Budget::unlimited()
    }
}

#[tokio::test]
async fn one_run_brings_every_tenant_of_the_store_to_its_end() {
    let world = World::new().await;
    let tick = world.work.compact(None, &budget(), &Alone).await.unwrap();
    assert_eq!((tick.tenants, tick.failures, tick.stopped), (3, 0, false));
    for tenant in tenants() {
        let before = tick.lags[&tenant].backlog.l0_objects;
        assert_eq!(before, BATCHES, "before the run");
        assert_eq!(world.open_of(&tenant).await, (0, 0), "{tenant}");
    }
    let again = world.work.compact(None, &budget(), &Alone).await.unwrap();
    assert_eq!((again.commits, again.rounds), (0, 1), "nothing is left");
    assert!(again.lags.values().all(|lag| lag.secs() == 0));
}

#[tokio::test]
async fn a_late_sample_of_long_ago_is_no_lag() {
    let world = World::new().await;
    world.work.compact(None, &budget(), &Alone).await.unwrap();
    let [a, ..] = tenants();
    let rows = RowGen::new(Rng::new(9), 5).rows(SystemClock.now_us() - 30 * HOUR_US, 0, 60);
    let node = world.work.tenants.get(&a);
    node.ingestor.accept(rows).await.unwrap().unwrap();
    let tick = world.work.compact(None, &budget(), &Alone).await.unwrap();
    let lag = &tick.lags[&a];
    assert!(
        lag.windows.reopened > 0 && lag.windows.not_sealed > 0,
        "{lag:?}"
    );
    assert!(lag.secs() < 60, "{lag:?}");
}

#[tokio::test]
async fn a_run_whose_time_is_over_does_nothing_and_the_next_one_goes_on() {
    let world = World::new().await;
    let late = Budget {
        deadline_us: SystemClock.now_us(),
        ..Budget::unlimited()
    };
    let tick = world.work.compact(None, &late, &Alone).await.unwrap();
    assert!(tick.stopped && tick.commits == 0, "{tick:?}");
    for tenant in tenants() {
        assert_eq!(world.open_of(&tenant).await.0, 6);
    }
    let tick = world.work.compact(None, &budget(), &Alone).await.unwrap();
    assert!(!tick.stopped && tick.commits > 0);
}

#[tokio::test]
async fn parts_of_a_tenant_are_together_all_of_it_also_at_once() {
    let world = World::new().await;
    let tenant = &tenants()[0];
    let part = |index| Piece {
        tenant: tenant.clone(),
        part: Part { index, of: 2 },
    };
    let one = world
        .work
        .compact(Some(vec![part(0)]), &budget(), &Alone)
        .await;
    assert_eq!(one.unwrap().failures, 0);
    let (objects, _) = world.open_of(tenant).await;
    assert!((1..6).contains(&objects), "of 6 objects {objects} are left");
    // Each in a process of its own.
    let first = World::open(&world.directory).await;
    let second = World::open(&world.directory).await;
    let budget = budget();
    let (first, second) = tokio::join!(
        first.compact(Some(vec![part(0)]), &budget, &Alone),
        second.compact(Some(vec![part(1)]), &budget, &Alone)
    );
    assert_eq!((first.unwrap().failures, second.unwrap().failures), (0, 0));
    assert_eq!(world.open_of(tenant).await.0, 0, "all is absorbed");
    // What one of them absorbed of a day that the other had sealed before waits for a later run.
    let node = world.work.tenants.get(tenant);
    let settled = node.compactor.settle(&budget, &|_| ()).await.unwrap();
    assert!(settled.complete, "{settled:?}");
    assert_eq!(world.open_of(tenant).await, (0, 0));
    assert_eq!(world.open_of(&tenants()[1]).await.0, 6, "not asked for");
}

/// Takes every share, and does nothing about it.
#[derive(Default)]
struct Sleepers(Mutex<Vec<Piece>>);

impl Others for Sleepers {
    fn max(&self) -> usize {
        100
    }

    async fn ask(&self, share: &[Piece]) -> Result<(), OthersError> {
        self.0.lock().unwrap().extend_from_slice(share);
        Ok(())
    }
}

#[tokio::test]
async fn nobody_is_asked_for_help_with_a_small_backlog() {
    let world = World::new().await;
    let sleepers = Sleepers::default();
    let tick = world.work.compact(None, &budget(), &sleepers).await;
    assert_eq!(tick.unwrap().asked, 0);
    assert!(sleepers.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_tenant_that_fails_is_named_and_holds_up_no_other() {
    let world = World::new().await;
    let [a, b, c] = tenants();
    world.work.compact(None, &budget(), &Alone).await.unwrap();
    for tenant in [&a, &b, &c] {
        let node = world.work.tenants.get(tenant);
        let rows = RowGen::new(Rng::new(8), 5).rows(SystemClock.now_us() - 9 * HOUR_US, 50, 60);
        node.ingestor.accept(rows).await.unwrap().unwrap();
    }
    let of_b = world.directory.path().join("tenants/b");
    for entry in std::fs::read_dir(of_b.join(keys::LOG)).unwrap() {
        std::fs::write(entry.unwrap().path(), "rubbish").unwrap();
    }
    std::fs::remove_dir_all(of_b.join(keys::HEADS)).unwrap();
    let work = World::open(&world.directory).await;
    let tick = work.compact(None, &budget(), &Alone).await.unwrap();
    assert!(tick.failed[0].contains(" of b: "), "{tick:?}");
    assert_eq!(world.open_of(&a).await, (0, 0));
    assert_eq!(world.open_of(&c).await, (0, 0));
    assert!(!tick.lags.contains_key(&b), "its lag is not known");
}

#[tokio::test]
async fn verify_freezes_the_deletion_of_a_damaged_tenant_alone() {
    let world = World::new().await;
    world.work.compact(None, &budget(), &Alone).await.unwrap();
    let clean = world.work.verify().await.unwrap();
    assert_eq!((clean.tenants, clean.failures), (3, 0), "{clean:?}");
    let [a, b, _] = tenants();
    let of_b = world.tier().tenant(&b);
    let files = of_b.list(&keys::data_file("resolution=raw")).await.unwrap();
    let path = world.directory.path().join("tenants/b").join(&files[0].key);
    std::fs::remove_file(path).unwrap();
    let tick = world.work.verify().await.unwrap();
    assert_eq!(tick.failures, 1, "{tick:?}");
    let frozen = deletion_frozen(&of_b).await.unwrap().unwrap();
    assert!(frozen.reason.contains("verify found"), "{frozen:?}");
    let of_a = world.tier().tenant(&a);
    assert_eq!(deletion_frozen(&of_a).await.unwrap(), None);
}

#[tokio::test]
async fn each_runs_a_job_for_every_tenant() {
    let world = World::new().await;
    let tick = world.work.each(Job::Absorb, &budget()).await.unwrap();
    assert_eq!((tick.tenants, tick.failures), (3, 0));
    for tenant in tenants() {
        let (objects, windows) = world.open_of(&tenant).await;
        assert_eq!(objects, 0);
        assert!(windows > 0, "absorbed, and not sealed");
    }
}
