//! Tier sets: which may follow one another, and which one a process acts on.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use stele_model::{Clock, TierId};
use stele_store::{
    Current, Error, Opener, Role, Tier, TierSet, TierSetError, TierState, Tiers, Trouble,
    WritePolicy, newest_epoch, publish_epoch,
};

/// A clock of which both faces can be set.
#[derive(Default)]
struct Faces {
    steady_us: AtomicI64,
    wall_us: AtomicI64,
}

impl Clock for Faces {
    fn now_us(&self) -> i64 {
        self.wall_us.load(Ordering::Relaxed)
    }

    fn steady_us(&self) -> i64 {
        self.steady_us.load(Ordering::Relaxed)
    }
}

fn id(text: &str) -> TierId {
    text.parse().unwrap()
}

fn memory() -> Tier {
    Tier::open("memory://", &[]).unwrap()
}

/// Stores by name, and a process that knows some of them.
struct World {
    stores: BTreeMap<String, Tier>,
    clock: Arc<Faces>,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let stores = names.iter().map(|name| {
            let store = memory().object_store();
            (name.to_string(), Tier::from_store(store, "", name))
        });
        Self {
            stores: stores.collect(),
            clock: Arc::default(),
        }
    }

    fn tiers(&self, seeds: &[&str]) -> Tiers {
        let stores = self.stores.clone();
        let opener: Opener = Arc::new(move |url| {
            let tier = stores.get(url).cloned();
            tier.ok_or_else(|| Error::Unknown {
                key: url.to_owned(),
                attempts: 1,
                source: Box::new(object_store::Error::NotImplemented {
                    operation: String::new(),
                    implementer: String::new(),
                }),
            })
        });
        let seeds = seeds.iter().map(|seed| self.stores[*seed].clone());
        Tiers::new(seeds.collect(), opener, self.clock.clone())
    }

    async fn publish(&self, set: &TierSet, on: &[&str]) {
        for name in on {
            publish_epoch(&self.stores[*name], set).await.unwrap();
        }
    }
}

fn set_of_two() -> TierSet {
    let first = TierSet::first(id("a"), "a");
    first.adding(id("b"), "b", Role::Mirror).unwrap()
}

fn states(current: &Current) -> Vec<(String, TierState)> {
    let members = current.members.iter();
    let states = members.map(|m| (m.member.id.to_string(), m.member.state));
    states.collect()
}

#[test]
fn a_tier_goes_through_its_life_and_no_other_way() {
    let set = set_of_two();
    assert_eq!((set.epoch, set.primary_since), (2, 0));
    let b = id("b");
    assert!(matches!(
        set.promoting(&b, false),
        Err(TierSetError::State { .. })
    ));
    assert!(set.retiring(&b).is_err() && set.retiring(&id("a")).is_err());
    assert!(matches!(
        set.joined(&id("c")),
        Err(TierSetError::NoTier { .. })
    ));
    let set = set.joined(&b).unwrap();
    assert!(set.joined(&b).is_err());
    assert!(set.draining(&id("a")).is_err(), "the primary");
    let set = set.promoting(&b, false).unwrap();
    assert_eq!(set.primary().unwrap().id, b);
    assert_eq!((set.epoch, set.primary_since), (4, 4));
    assert_eq!(set.member(&id("a")).unwrap().state, TierState::Mirror);
    assert!(set.retiring(&id("a")).is_err(), "not drained");
    let set = set.draining(&id("a")).unwrap();
    assert!(!set.member(&id("a")).unwrap().takes_writes());
    let set = set.retiring(&id("a")).unwrap();
    assert_eq!(set.check(), Ok(()));
    // The store may come back, the name may not.
    assert!(set.adding(id("a"), "c", Role::Mirror).is_err());
    assert!(set.adding(id("c"), "b", Role::Mirror).is_err());
    assert!(set.adding(id("c"), "a", Role::Mirror).is_ok());
}

#[test]
fn a_backup_gets_no_batches_and_is_never_promoted() {
    let set = TierSet::first(id("a"), "a");
    let set = set.adding(id("b"), "b", Role::Backup).unwrap();
    let set = set.joined(&id("b")).unwrap();
    let backup = set.member(&id("b")).unwrap();
    assert!(!backup.takes_writes() && backup.is_active());
    assert!(set.promoting(&id("b"), true).is_err());
}

#[tokio::test]
async fn a_mirror_that_need_not_hold_a_batch_is_not_complete_until_it_joined_again() {
    let world = World::new(&["a", "b"]);
    let all = set_of_two().joined(&id("b")).unwrap();
    let primary = all.writing(WritePolicy::Primary);
    let again = primary.writing(WritePolicy::All);
    assert_eq!(again.member(&id("b")).unwrap().state, TierState::Joining);
    assert_eq!(again.writing(WritePolicy::All).members, again.members);
    let joined = again.joined(&id("b")).unwrap();
    for (set, complete) in [(all, 1), (primary, 0), (again, 0), (joined, 1)] {
        world.publish(&set, &["a", "b"]).await;
        let current = world.tiers(&["a"]).current().await.unwrap();
        assert_eq!(current.complete_mirrors().count(), complete, "{set:?}");
        assert_eq!(current.mirrors().count(), 1);
    }
}

#[test]
fn who_is_promoted_by_force_leaves_a_lost_tier_behind() {
    let set = set_of_two().joined(&id("b")).unwrap();
    let set = set.promoting(&id("b"), true).unwrap();
    let lost = set.member(&id("a")).unwrap();
    assert_eq!(lost.state, TierState::Lost);
    assert!(!lost.takes_writes() && !lost.is_active());
}

#[tokio::test]
async fn the_first_set_of_an_epoch_on_the_primary_wins() {
    let world = World::new(&["a", "b", "c"]);
    let first = TierSet::first(id("a"), "a");
    world.publish(&first, &["a"]).await;
    let one = first.adding(id("b"), "b", Role::Mirror).unwrap();
    let other = first.adding(id("c"), "c", Role::Mirror).unwrap();
    world.publish(&one, &["a"]).await;
    world.publish(&one, &["a"]).await;
    let refused = publish_epoch(&world.stores["a"], &other).await;
    assert!(matches!(refused, Err(Error::EpochTaken { epoch: 2, .. })));
    let newest = newest_epoch(&world.stores["a"]).await.unwrap().unwrap();
    assert_eq!(newest.set, one);
    assert!(newest.modified_us > 0);
}

#[tokio::test]
async fn a_store_without_a_set_is_its_own_primary_until_it_has_one() {
    let world = World::new(&["a", "b"]);
    let tiers = world.tiers(&["a"]);
    let current = tiers.current().await.unwrap();
    assert_eq!((current.epoch(), current.members.len()), (0, 0));
    world.publish(&set_of_two(), &["a", "b"]).await;
    assert_eq!(tiers.current().await.unwrap().epoch(), 0, "its lease holds");
    world.clock.steady_us.store(10_000_000, Ordering::Relaxed);
    assert!(!tiers.holds(&current), "it is over");
    let current = tiers.current().await.unwrap();
    assert_eq!(current.epoch(), 2);
    let mirrors: Vec<&str> = current.mirrors().map(|m| m.member.id.as_str()).collect();
    assert_eq!(mirrors, ["b"]);
}

#[tokio::test]
async fn either_clock_ends_the_lease() {
    let world = World::new(&["a", "b"]);
    world.publish(&set_of_two(), &["a", "b"]).await;
    let tiers = world.tiers(&["a"]);
    for (steady_us, wall_us, holds) in [
        (0, 0, true),
        (59_999_999, 59_999_999, true),
        (60_000_000, 1, false),
        (1, 60_000_000, false),
        (1, -1, false),
    ] {
        world.clock.steady_us.store(0, Ordering::Relaxed);
        world.clock.wall_us.store(0, Ordering::Relaxed);
        let current = tiers.fetch().await.unwrap();
        world.clock.steady_us.store(steady_us, Ordering::Relaxed);
        world.clock.wall_us.store(wall_us, Ordering::Relaxed);
        assert_eq!(tiers.holds(&current), holds, "{steady_us} {wall_us}");
        assert_eq!(tiers.known().is_some(), holds, "{steady_us} {wall_us}");
    }
}

#[tokio::test]
async fn the_highest_readable_epoch_wins_whoever_is_asked_first() {
    let world = World::new(&["a", "b"]);
    let (old, new) = (
        set_of_two().joined(&id("b")).unwrap(),
        set_of_two()
            .joined(&id("b"))
            .unwrap()
            .promoting(&id("b"), false)
            .unwrap(),
    );
    world.publish(&old, &["a", "b"]).await;
    world.publish(&new, &["b"]).await;
    for seed in ["a", "b"] {
        let current = world.tiers(&[seed]).current().await.unwrap();
        assert_eq!(current.primary.url(), "b", "asked {seed}");
    }
}

#[tokio::test]
async fn a_primary_that_cannot_be_opened_is_named_and_fails_each_request() {
    let mut world = World::new(&["a", "b"]);
    world.publish(&set_of_two(), &["a", "b"]).await;
    world.stores.remove("a");
    let current = world.tiers(&["b"]).current().await.unwrap();
    assert_eq!(current.primary.url(), "a");
    let trouble = current.members[0].trouble.as_ref().unwrap();
    assert!(matches!(trouble, Trouble::Unreadable(_)), "{trouble}");
    let refused = current.primary.tenants().await.unwrap_err();
    assert_eq!(refused.kind(), stele_model::ErrorKind::Unavailable);
}

#[tokio::test]
async fn an_empty_store_where_a_mirror_was_is_no_mirror() {
    let mut world = World::new(&["a", "b"]);
    let set = set_of_two().joined(&id("b")).unwrap();
    world.publish(&set, &["a", "b"]).await;
    let tiers = world.tiers(&["a"]);
    assert!(tiers.fetch().await.unwrap().members[1].trouble.is_none());
    world.stores.insert("b".to_owned(), memory());
    let current = world.tiers(&["a"]).current().await.unwrap();
    assert_eq!(current.members[1].trouble, Some(Trouble::Foreign));
    assert_eq!(
        states(&current),
        [
            ("a".to_owned(), TierState::Primary),
            ("b".to_owned(), TierState::Mirror)
        ]
    );
}

#[tokio::test]
async fn two_sets_of_one_epoch_are_an_error_not_a_choice() {
    let world = World::new(&["a", "b"]);
    let set = set_of_two();
    world.publish(&set, &["a", "b"]).await;
    let joined = set.joined(&id("b")).unwrap();
    world.publish(&joined, &["a"]).await;
    let other = set.writing(WritePolicy::Primary);
    world.publish(&other, &["b"]).await;
    let error = world.tiers(&["a"]).current().await.unwrap_err();
    assert!(matches!(error, Error::EpochConflict { epoch: 3, .. }));
}

#[tokio::test]
async fn a_damaged_set_stops_whoever_reads_it() {
    let world = World::new(&["a", "b"]);
    world.publish(&set_of_two(), &["a"]).await;
    let damaged = b"{\"format\":1}".as_slice();
    let key = "epoch/00000000000000000003.json";
    let control = world.stores["a"].control();
    control.put_new(key, damaged.into()).await.unwrap();
    let error = world.tiers(&["a"]).current().await.unwrap_err();
    assert!(matches!(error, Error::Epoch { .. }), "{error}");
}

#[tokio::test]
async fn several_stores_without_a_set_are_refused() {
    let world = World::new(&["a", "b"]);
    let error = world.tiers(&["a", "b"]).current().await.unwrap_err();
    assert!(matches!(error, Error::NoTierSet { stores: 2 }));
}

#[tokio::test]
async fn a_fixed_tier_has_no_set_and_no_end() {
    let world = World::new(&["a"]);
    world.publish(&TierSet::first(id("a"), "a"), &["a"]).await;
    let tiers = Tiers::fixed(world.stores["a"].clone());
    let current = tiers.current().await.unwrap();
    world.clock.wall_us.store(i64::MAX, Ordering::Relaxed);
    assert!(tiers.holds(&current) && current.epoch() == 0);
}
