//! Promotions: what they wait for, what keeps a tier from being promoted, and what is fenced then.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/tiers.rs"]
mod tiers;

use stele_compact::Budget;
use stele_ingest::Ingestor;
use stele_model::time::SECOND_US;
use stele_model::{TenantId, TierId};
use stele_protect::{MigrateError, Migration, Promoted, Step};
use stele_store::{Role, TierState, keys, newest_epoch};
use stele_table::{Fence, Owner};
use tiers::{HOUR, World, id, rows, tier};

impl World {
    /// Adds a tier, which joins.
    async fn join(&self, work: &Migration, name: &str) {
        let add = self.step(async || work.add(id(name), name, Role::Mirror).await);
        add.await.unwrap();
    }

    /// Adds a tier and brings it to where the primary is, so that it is a mirror.
    async fn mirror(&self, work: &Migration, name: &str) {
        self.join(work, name).await;
        let report = self.step(async || match work.sync(&|_, _| {}).await? {
            report if report.tiers.iter().any(|t| t.state == TierState::Joining) => {
                Ok(Step::Wait { us: SECOND_US })
            }
            report => Ok(Step::Done(report)),
        });
        assert!(report.await.unwrap().is_whole());
    }

    /// What is absorbed now is a version that no mirror has yet.
    async fn absorb(&self, name: &str, since_epoch: u64) -> u64 {
        let compactor = self.compactor(name, since_epoch);
        let report = compactor.absorb(&Budget::default()).await.unwrap();
        assert!(report.commits > 0, "{report:?}");
        self.version(name).await
    }

    /// Copies a table as replication does, and no L0.
    async fn copy_table(&self, from: &str, to: &str) {
        let store = |name| tier(&self.store(), name).tenant(&TenantId::default());
        let (from, to) = (store(from), store(to));
        for part in ["table", keys::LEDGER] {
            for object in from.list(part).await.unwrap() {
                let bytes = from.get(&object.key).await.unwrap();
                to.put_new(&object.key, bytes).await.unwrap();
            }
        }
    }

    async fn version(&self, name: &str) -> u64 {
        self.log(name).load().await.unwrap().unwrap().version
    }

    async fn fence(&self, name: &str) -> Option<Fence> {
        let state = self.log(name).load().await.unwrap();
        state.and_then(|state| state.fence.clone())
    }

    async fn primary(&self, name: &str) -> TierId {
        let published = newest_epoch(&tier(&self.store(), name)).await.unwrap();
        let set = published.unwrap().set;
        set.primary().unwrap().id.clone()
    }

    async fn forced(&self, work: &Migration, name: &str) -> Result<Promoted, MigrateError> {
        self.step(async || work.promote_forced(&id(name)).await)
            .await
    }
}

fn wait_us<T: std::fmt::Debug>(step: Step<T>) -> i64 {
    match step {
        Step::Wait { us } => us,
        Step::Done(done) => panic!("{done:?}"),
    }
}

#[tokio::test]
async fn a_promotion_is_published_and_fenced_only_when_nobody_acts_on_the_set_before() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    let promote = async || work.promote(&id("b"), &|_| {}).await.unwrap();
    // Lease and request are a second each; the store's times are whole seconds.
    assert_eq!(wait_us(promote().await), 3_000_000);
    assert_eq!(world.primary("b").await, id("a"));
    world.clock.advance(2_999_999);
    assert_eq!(wait_us(promote().await), 1);
    world.clock.advance(1);
    let left_us = wait_us(promote().await);
    assert_eq!(world.primary("a").await, id("b"));
    world.clock.advance(left_us - 1);
    assert_eq!(wait_us(promote().await), 1);
    assert_eq!(wait_us(work.ready().await.unwrap()), 1);
    assert_eq!(
        (world.fence("a").await, world.fence("b").await),
        (None, None)
    );
    world.clock.advance(1);
    let Step::Done(promoted) = promote().await else {
        panic!("it waits");
    };
    assert_eq!(promoted.fenced, 1);
    let fence = Fence {
        epoch: promoted.set.epoch,
        tier: id("b"),
    };
    assert_eq!(world.fence("a").await, Some(fence.clone()));
    assert_eq!(world.fence("b").await, Some(fence));
    // Asked again, it is done.
    let Step::Done(again) = promote().await else {
        panic!("it waits");
    };
    assert_eq!((again.set, again.fenced), (promoted.set, 0));
    assert_eq!(work.ready().await.unwrap(), Step::Done(()));
}

#[tokio::test]
async fn a_mirror_that_holds_other_bytes_is_not_promoted() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    let paths = world.memory.keys("b/tenants/default/table/resolution=raw");
    let whole = world.memory.bytes(&paths[0]).unwrap();
    world.memory.damage(&paths[0], "other".into());
    let refused = world
        .step(async || work.promote(&id("b"), &|_| {}).await)
        .await
        .unwrap_err();
    let text = refused.to_string();
    assert!(text.contains(paths[0].filename().unwrap()), "{text}");
    assert!(matches!(refused, MigrateError::Unequal { .. }), "{text}");
    assert_eq!(work.compare(&id("b")).await.unwrap().total, 1);
    assert_eq!(world.primary("b").await, id("a"));
    world.memory.damage(&paths[0], whole);
    assert_eq!(work.compare(&id("b")).await.unwrap().total, 0);
    let promoted = world
        .step(async || work.promote(&id("b"), &|_| {}).await)
        .await;
    assert_eq!(promoted.unwrap().set.primary().unwrap().id, id("b"));
}

#[tokio::test]
async fn what_a_mirror_lost_is_missing_in_the_comparison() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    let paths = world.memory.keys("b/tenants/default/table/resolution=raw");
    world.memory.lose(&paths[0]);
    let compared = work.compare(&id("b")).await.unwrap();
    let name = paths[0].filename().unwrap();
    assert_eq!((compared.total, compared.examples.len()), (1, 1));
    assert!(compared.examples[0].contains(name), "{compared}");
}

#[tokio::test]
async fn a_tenant_that_never_had_a_table_begins_on_the_new_primary() {
    let world = World::new().await;
    let work = world.migration(world.store());
    let other: TenantId = "other".parse().unwrap();
    let store = tier(&world.store(), "a").tenant(&other);
    let ingestor = Ingestor::new(store);
    ingestor.accept(rows("m", HOUR)).await.unwrap();
    world.mirror(&work, "b").await;
    let promoted = world
        .step(async || work.promote(&id("b"), &|_| {}).await)
        .await
        .unwrap();
    assert_eq!(promoted.fenced, 2);
    let log = |name: &str| world.log_of(name, &other);
    assert!(log("a").load().await.unwrap().is_none());
    let begun = log("b").load().await.unwrap().unwrap();
    assert_eq!((begun.version, begun.fence.is_some()), (0, true));
    let owner = Owner {
        tier: id("b"),
        since_epoch: promoted.set.epoch,
    };
    log("b").with_owner(owner).check_owner(&begun).unwrap();
}

#[tokio::test]
async fn a_primary_that_can_be_read_is_not_passed_over_by_force() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    let refused = world.forced(&work, "b").await.unwrap_err();
    assert!(
        matches!(&refused, MigrateError::PrimaryThere { primary } if *primary == id("a")),
        "{refused}"
    );
    assert_eq!(world.primary("b").await, id("a"));
}

#[tokio::test]
async fn by_force_a_mirror_follows_a_primary_that_is_lost_and_its_own_logs_are_fenced() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    let alone = world.migration_without(&["a"]);
    // As a planned one does, it waits for whoever acts on the set before.
    let left_us = wait_us(alone.promote_forced(&id("b")).await.unwrap());
    assert_eq!(left_us, 3_000_000);
    let promoted = world.forced(&alone, "b").await.unwrap();
    assert_eq!(promoted.fenced, 1);
    assert_eq!(promoted.set.primary().unwrap().id, id("b"));
    let state = promoted.set.member(&id("a")).unwrap().state;
    assert_eq!(state, TierState::Lost);
    let fence = world.fence("b").await.unwrap();
    assert_eq!((fence.epoch, fence.tier), (promoted.set.epoch, id("b")));
    assert_eq!(world.fence("a").await, None);
    // Asked again, it is done.
    assert_eq!(world.forced(&alone, "b").await.unwrap().fenced, 0);
}

/// Nothing is mounted where the primary was: its emptiness is no answer.
#[tokio::test]
async fn by_force_a_mirror_follows_a_primary_whose_store_is_another() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    for key in world.memory.keys("a/") {
        world.memory.lose(&key);
    }
    let work = world.migration_without(&[]);
    let promoted = world.forced(&work, "b").await.unwrap();
    assert_eq!(promoted.set.primary().unwrap().id, id("b"));
}

#[tokio::test]
async fn by_force_no_mirror_is_promoted_that_another_is_ahead_of() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    world.mirror(&work, "c").await;
    let even = world.version("b").await;
    assert_eq!(world.version("c").await, even);
    // A version that c alone has.
    let ahead = world.absorb("a", 0).await;
    world.copy_table("a", "c").await;
    assert_eq!(world.version("c").await, ahead);
    let alone = world.migration_without(&["a"]);
    let refused = world.forced(&alone, "b").await.unwrap_err();
    assert!(
        matches!(&refused, MigrateError::Ahead { id: behind, other, .. }
            if *behind == id("b") && *other == id("c")),
        "{refused}"
    );
    // One that cannot be read is nobody to wait for.
    let lonely = world.migration_without(&["a", "c"]);
    lonely.promote_forced(&id("b")).await.unwrap();
    let promoted = world.forced(&alone, "c").await.unwrap();
    assert_eq!(promoted.set.primary().unwrap().id, id("c"));
}

#[tokio::test]
async fn by_force_one_of_two_mirrors_that_are_even_is_promoted() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    world.mirror(&work, "c").await;
    let alone = world.migration_without(&["a"]);
    let promoted = world.forced(&alone, "b").await.unwrap();
    assert_eq!(promoted.set.primary().unwrap().id, id("b"));
    let left = promoted.set.member(&id("c")).unwrap().state;
    assert_eq!(left, TierState::Mirror);
}

/// It may be the newest, and lack the history.
#[tokio::test]
async fn by_force_a_joining_tier_that_is_ahead_does_not_hold_up_a_mirror() {
    let world = World::new().await;
    let work = world.migration(world.store());
    world.mirror(&work, "b").await;
    world.absorb("a", 0).await;
    world.join(&work, "c").await;
    world.copy_table("a", "c").await;
    assert!(world.version("c").await > world.version("b").await);
    let alone = world.migration_without(&["a"]);
    let promoted = world.forced(&alone, "b").await.unwrap();
    assert_eq!(promoted.set.primary().unwrap().id, id("b"));
}
