//! A store is moved to another tier by a process that dies at each of its mutations: whoever goes
//! on brings it to the same end, and no acknowledged sample is missing on the survivor.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/tiers.rs"]
mod tiers;

use std::sync::Arc;

use fuse::Fuse;
use object_store::path::Path;
use stele_compact::Budget;
use stele_ingest::{Ingestor, Options};
use stele_model::time::SECOND_US;
use stele_model::{TenantId, TierId};
use stele_protect::{MigrateError, Migration, record_losses, verify};
use stele_store::{Cut, RepairIntent, Role, TierState, Tiers, WritePolicy, newest_epoch};
use stele_table::{Loss, LossKind, LostObject, View, change_losses, losses, note_losses};
use stele_testkit::oracle::Samples;
use tiers::{HOUR, World, id, rows, tier};

impl World {
    /// What an operator would do next, until the old tier is retired.
    async fn move_on(&self, work: &Migration) -> Result<(), MigrateError> {
        let (a, b) = (id("a"), id("b"));
        loop {
            let current = work.tiers().fetch().await?;
            let set = current.set.clone().unwrap();
            let state = |id: &TierId| set.member(id).ok().map(|member| member.state);
            match (state(&a).unwrap(), state(&b)) {
                (_, None) => {
                    self.step(async || work.add(b.clone(), "b", Role::Mirror).await)
                        .await?;
                }
                (_, Some(TierState::Joining)) => {
                    let report = work.sync(&|_, _| {}).await?;
                    if let Some(why) = &report.tiers[0].failed {
                        let error = stele_store::Error::NotFound { key: why.clone() };
                        return Err(error.into());
                    }
                    self.clock.advance(SECOND_US);
                }
                (_, Some(TierState::Mirror)) => {
                    self.step(async || work.promote(&b, &|_| {}).await).await?;
                }
                (TierState::Mirror, _) => {
                    self.step(async || work.promote(&b, &|_| {}).await).await?;
                    self.step(async || work.drain(&a).await).await?;
                }
                (TierState::Draining, _) => {
                    let plan = self.step(async || work.retire_plan(&a).await).await?;
                    self.step(async || work.retire(&a, plan.hash).await).await?;
                }
                (TierState::Retired, _) => return Ok(()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The new tier alone holds all of it, and the old one's compactors are fenced out.
    async fn assert_moved(&self, wanted: &Samples, what: &str) {
        let found = self.samples("b").await;
        assert_eq!(wanted.first_difference(&found), None, "{what}");
        let report = verify(self.log("b").store(), &self.log("b"), &|_| {}).await;
        assert_eq!(report.findings, [], "{what}");
        let set = newest_epoch(&tier(&self.store(), "b")).await;
        let set = set.unwrap().unwrap().set;
        let since = set.primary_since;
        let zombie = self.compactor("a", 0).absorb(&Budget::default()).await;
        assert!(zombie.is_err(), "{what}: a zombie committed");
        let done = self.compactor("b", since).absorb(&Budget::default()).await;
        assert_eq!(done.unwrap().objects, 1, "{what}");
        let found = self.samples("b").await;
        assert_eq!(wanted.first_difference(&found), None, "{what}");
        assert!(self.memory.reused_keys().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_store_is_moved_and_nothing_is_left_behind() {
    let world = World::new().await;
    let wanted = world.samples("a").await;
    world
        .move_on(&world.migration(world.store()))
        .await
        .unwrap();
    world.assert_moved(&wanted, "at once").await;
}

#[tokio::test]
async fn a_process_that_dies_at_any_mutation_is_replaced_by_another() {
    let mut after = 0;
    loop {
        let mut died = false;
        for lands in [false, true] {
            let world = World::new().await;
            let wanted = world.samples("a").await;
            let fuse = Fuse::new(world.store(), after, lands);
            let moved = world
                .move_on(&world.migration(Arc::<Fuse>::clone(&fuse) as _))
                .await;
            died |= moved.is_err();
            assert_eq!(moved.is_err(), fuse.has_blown(), "{moved:?}");
            let what = format!("died after {after} mutations, the last landed: {lands}");
            let finished = world.move_on(&world.migration(world.store())).await;
            finished.unwrap_or_else(|error| panic!("{what}: {}", stele_model::chain(&error)));
            world.assert_moved(&wanted, &what).await;
        }
        if !died {
            assert!(
                after > 30,
                "{after} mutations are too few to be all of them"
            );
            return;
        }
        after += 1;
    }
}

impl World {
    async fn move_on_to_draining(&self, work: &Migration) {
        let (a, b) = (id("a"), id("b"));
        for _ in 0..3 {
            work.sync(&|_, _| {}).await.unwrap();
            self.clock.advance(2 * SECOND_US);
        }
        let promoted = self.step(async || work.promote(&b, &|_| {}).await).await;
        assert_eq!(promoted.unwrap().set.primary().unwrap().id, b);
        self.step(async || work.drain(&a).await).await.unwrap();
    }
}

#[tokio::test]
async fn a_tier_that_holds_what_the_survivor_lacks_is_not_retired() {
    let world = World::new().await;
    let work = world.migration(world.store());
    let add = world.step(async || work.add(id("b"), "b", Role::Mirror).await);
    add.await.unwrap();
    let refused = work.retire_plan(&id("a")).await.unwrap_err();
    assert!(matches!(refused, MigrateError::Needed { .. }), "{refused}");
    world.move_on_to_draining(&work).await;
    // What a writer that came late put there is brought over before the proof.
    let late = tier(&world.store(), "a").tenant(&TenantId::default());
    let ingestor = Ingestor::new(late);
    ingestor.accept(rows("very late", HOUR)).await.unwrap();
    let wanted = world.samples("a").await;
    let plan = world
        .step(async || work.retire_plan(&id("a")).await)
        .await
        .unwrap();
    // The survivor loses something of it after the plan was made.
    let key = world.memory.keys("b/tenants/default/table/resolution=raw");
    let path: &Path = key.first().unwrap();
    let bytes = world.memory.bytes(path).unwrap();
    world.memory.lose(path);
    let refused = work.retire(&id("a"), plan.hash).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains(path.filename().unwrap()), "{text}");
    let back = path.as_ref().strip_prefix("b/tenants/default/").unwrap();
    let store = tier(&world.store(), "b").tenant(&TenantId::default());
    store.put_new(back, bytes).await.unwrap();
    let plan = world
        .step(async || work.retire_plan(&id("a")).await)
        .await
        .unwrap();
    work.retire(&id("a"), plan.hash).await.unwrap();
    assert_eq!(wanted.first_difference(&world.samples("b").await), None);
}

#[tokio::test]
async fn what_one_tier_lost_is_brought_back_from_the_other() {
    let world = World::new().await;
    let wanted = world.samples("a").await;
    let work = world.migration(world.store());
    let add = world.step(async || work.add(id("b"), "b", Role::Mirror).await);
    add.await.unwrap();
    world.send("both", 2).await.unwrap();
    let with = world.samples("a").await;
    assert!(wanted.first_difference(&with).is_some());
    work.sync(&|_, _| {}).await.unwrap();
    let view = View::read(&world.log("a"), None).await.unwrap();
    let accepted = format!("a/tenants/default/l0/{}", view.l0[0].name);
    for lost in [
        accepted.as_str(),
        "a/tenants/default/table/resolution=raw",
        "b/tenants/default/table/resolution=60s",
    ] {
        world.memory.lose(world.memory.keys(lost).first().unwrap());
    }
    for name in ["a", "b"] {
        let log = world.log(name);
        let report = verify(log.store(), &log, &|_| {}).await;
        record_losses(&log, &report, 1).await.unwrap();
        assert_eq!(losses(log.store()).await.unwrap().len(), 1, "{name}");
    }
    let report = work.sync(&|_, _| {}).await.unwrap();
    let done = &report.tiers[0];
    assert_eq!((done.returned, done.healed), (1, 2), "{done:?}");
    for name in ["a", "b"] {
        assert_eq!(with.first_difference(&world.samples(name).await), None);
        let report = verify(world.log(name).store(), &world.log(name), &|_| {}).await;
        assert_eq!(report.findings, []);
        // Whole again, they are taken back on the tier that had lost them.
        let left = losses(world.log(name).store()).await.unwrap();
        assert_eq!(left, [], "{name}");
    }
}

#[tokio::test]
async fn a_mirror_knows_the_batches_that_a_restore_lost_and_no_file_of_the_primary() {
    let world = World::new().await;
    let work = world.migration(world.store());
    let add = world.step(async || work.add(id("b"), "b", Role::Mirror).await);
    add.await.unwrap();
    let log = world.log("a");
    let state = log.load().await.unwrap().unwrap();
    let file = state.files.values().next().unwrap();
    let of_file = Loss::of_file(LossKind::FileMissing, file, 1);
    let of_restore = Loss {
        kind: LossKind::BatchRevoked,
        object: LostObject::Restore {
            version: 3,
            batches: 2,
        },
        metrics: None,
        rows: None,
        ..of_file.clone()
    };
    let (a, b) = (world.log("a"), world.log("b"));
    let both = [of_file, of_restore.clone()];
    note_losses(a.store(), &both).await.unwrap();
    work.sync(&|_, _| {}).await.unwrap();
    assert_eq!(losses(b.store()).await.unwrap(), [of_restore]);
    // Taken back on the primary, it is so on the mirror.
    change_losses(a.store(), &[], |_| true).await.unwrap();
    work.sync(&|_, _| {}).await.unwrap();
    assert_eq!(losses(b.store()).await.unwrap(), []);
}

#[tokio::test]
async fn repair_intents_keep_a_mirror_from_being_promoted_until_they_are_fulfilled() {
    let world = World::new().await;
    let store = world.store();
    let (b, cut) = Cut::over(&tier(&store, "b"));
    let a = tier(&store, "a");
    let seed = a.clone();
    let opener = move |name: &str| Ok(if name == "a" { a.clone() } else { b.clone() });
    let tiers = Tiers::new(vec![seed], Arc::new(opener), Arc::new(world.clock.clone()));
    let ingestor = Ingestor::over(tiers, TenantId::default(), Options::default());
    let work = world.migration(world.store());
    let add = world.step(async || work.add(id("b"), "b", Role::Mirror).await);
    add.await.unwrap();
    for _ in 0..3 {
        work.sync(&|_, _| {}).await.unwrap();
        world.clock.advance(2 * SECOND_US);
    }
    let policy = world.step(async || work.set_policy(WritePolicy::Primary).await);
    assert_eq!(policy.await.unwrap().policy, WritePolicy::Primary);
    cut.set(true);
    ingestor.accept(rows("alone", HOUR + 2)).await.unwrap();
    let primary = tier(&store, "a").tenant(&TenantId::default());
    let open = RepairIntent::list(&primary, &id("b")).await.unwrap();
    assert_eq!(open.len(), 1);
    // The object is lost where it is before it was copied: the intent stays, and says so.
    let lost = format!("a/tenants/default/l0/{}", open[0].name);
    let lost = Path::from(lost);
    let bytes = world.memory.bytes(&lost).unwrap();
    world.memory.lose(&lost);
    let refused = world
        .step(async || work.promote(&id("b"), &|_| {}).await)
        .await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, MigrateError::Intents { open: 1, .. }),
        "{refused}"
    );
    primary
        .put_new(&format!("l0/{}", open[0].name), bytes)
        .await
        .unwrap();
    let report = work.sync(&|_, _| {}).await.unwrap();
    assert_eq!(report.tiers[0].repaired, 1);
    assert_eq!(RepairIntent::list(&primary, &id("b")).await.unwrap(), []);
    let promoted = world
        .step(async || work.promote(&id("b"), &|_| {}).await)
        .await;
    assert_eq!(promoted.unwrap().set.primary().unwrap().id, id("b"));
}
