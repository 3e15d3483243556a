//! What the store layer does when a request fails, lands late, or both.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use stele_model::ErrorKind;
use stele_store::{Error, Put, TenantStore, Tier};
use stele_testkit::{
    Fault, FaultWorld, KeyClass, ManualClock, MemoryStore, Mutation, Operation, Plan,
};

const KEY: &str = "l0/x";

fn world(plan: Plan) -> (MemoryStore, FaultWorld) {
    let store = MemoryStore::new(ManualClock::new(1_800_000_000_000_000));
    let world = FaultWorld::immediate(Arc::new(store.clone()), plan);
    (store, world)
}

fn actor(world: &FaultWorld, name: &str) -> TenantStore {
    Tier::from_store(world.actor(name), "", "sim").tenant(&"a".parse().unwrap())
}

fn put_plan(faults: &[(Operation, u32, Fault)]) -> Plan {
    let add = |plan: Plan, (operation, nth, fault): &(Operation, u32, Fault)| {
        plan.with("a", *operation, KeyClass::L0, *nth, *fault)
    };
    faults.iter().fold(Plan::none(), add)
}

async fn put_under(faults: &[(Operation, u32, Fault)]) -> (Result<Put, Error>, usize) {
    let (store, world) = world(put_plan(faults));
    let put = actor(&world, "a")
        .put_new(KEY, Bytes::from_static(b"x"))
        .await;
    assert_eq!(world.fired().len(), faults.len(), "every fault struck");
    let landed = store.mutations(0).len();
    world.land_all().await;
    assert_eq!(store.mutations(0).len().max(1), 1, "it lands at most once");
    (put, landed)
}

#[tokio::test]
async fn no_single_fault_of_a_put_changes_its_outcome() {
    use Operation::{Get, Put as P};
    for (fault, want) in [
        (Fault::ErrorBefore, Put::Created),
        (Fault::ErrorAfter, Put::Same),
        (Fault::ExistsAfter, Put::Same),
        (Fault::ExistsBefore, Put::Created),
        (Fault::Late { requests: 1 }, Put::Same),
        (Fault::Late { requests: 2 }, Put::Same),
        (Fault::Late { requests: 3 }, Put::Created),
        (Fault::Late { requests: 9 }, Put::Created),
    ] {
        let (put, landed) = put_under(&[(P, 0, fault)]).await;
        assert_eq!((put.unwrap(), landed), (want.clone(), 1), "{fault:?}");
    }
    for read_back in [Fault::ErrorBefore, Fault::ErrorAfter] {
        let faults = [(P, 0, Fault::ErrorAfter), (Get, 0, read_back)];
        let (put, landed) = put_under(&faults).await;
        assert_eq!((put.unwrap(), landed), (Put::Same, 1), "{read_back:?}");
    }
}

#[tokio::test]
async fn an_outcome_that_cannot_be_learned_is_unknown_and_not_failed() {
    let faults: Vec<_> = (0..4)
        .map(|n| (Operation::Put, n, Fault::ErrorBefore))
        .collect();
    let (put, landed) = put_under(&faults).await;
    let error = put.unwrap_err();
    assert!(
        matches!(error, Error::Unknown { attempts: 4, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(KEY));
    assert_eq!(landed, 0);
}

#[tokio::test]
async fn an_outage_ends_as_unknown_and_the_put_lands_after_all() {
    let plan = put_plan(&[(Operation::Put, 0, Fault::Outage { requests: 3 })]);
    let (store, world) = world(plan);
    let a = actor(&world, "a");
    let bytes = Bytes::from_static(b"x");
    let unknown = a.put_new(KEY, bytes.clone()).await.unwrap_err();
    assert!(matches!(unknown, Error::Unknown { .. }), "{unknown}");
    world.land_all().await;
    assert_eq!(store.mutations(0).len(), 1);
    assert_eq!(a.put_new(KEY, bytes).await.unwrap(), Put::Same);
}

#[tokio::test]
async fn somebody_elses_bytes_are_other_whatever_the_answer_was() {
    for fault in [
        Fault::ErrorBefore,
        Fault::ExistsBefore,
        Fault::Late { requests: 5 },
    ] {
        let (_, world) = world(put_plan(&[(Operation::Put, 0, fault)]));
        let first = actor(&world, "b")
            .put_new(KEY, Bytes::from_static(b"b"))
            .await;
        assert_eq!(first.unwrap(), Put::Created);
        let second = actor(&world, "a")
            .put_new(KEY, Bytes::from_static(b"a"))
            .await;
        assert_eq!(second.unwrap(), Put::Other(Bytes::from_static(b"b")));
        world.land_all().await;
        assert_eq!(actor(&world, "c").get(KEY).await.unwrap(), "b");
    }
}

#[tokio::test]
async fn a_listing_that_breaks_after_its_first_page_is_an_error_and_not_short() {
    let plan = put_plan(&[(Operation::List, 0, Fault::ErrorAfter)]);
    let (_, world) = world(plan);
    let store = actor(&world, "a");
    store.put_new(KEY, Bytes::from_static(b"x")).await.unwrap();
    let error = store.list("l0").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.list("l0").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_torn_listing_never_hides_what_was_there_before() {
    let plan = put_plan(&[(Operation::List, 0, Fault::TornList)]);
    let (_, world) = world(plan);
    let (reader, writer) = (actor(&world, "a"), actor(&world, "b"));
    for key in ["l0/b", "l0/d", "l0/f"] {
        writer.put_new(key, Bytes::from_static(b"x")).await.unwrap();
    }
    let write = async {
        for key in ["l0/g", "l0/e", "l0/c", "l0/a"] {
            writer.put_new(key, Bytes::from_static(b"x")).await.unwrap();
        }
    };
    let (listed, ()) = tokio::join!(reader.list("l0"), write);
    let listed: Vec<String> = listed.unwrap().into_iter().map(|o| o.key).collect();
    for before in ["l0/b", "l0/d", "l0/f"] {
        assert!(listed.contains(&before.to_owned()), "{listed:?}");
    }
    assert!(
        (4..7).contains(&listed.len()),
        "some new keys, not all: {listed:?}"
    );
}

#[tokio::test]
async fn a_crashed_actor_fails_until_it_is_restarted_and_others_go_on() {
    for (fault, landed) in [(Fault::CrashBefore, 0), (Fault::CrashAfter, 1)] {
        let (store, world) = world(put_plan(&[(Operation::Put, 0, fault)]));
        let a = actor(&world, "a");
        let put = a.put_new(KEY, Bytes::from_static(b"x")).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.mutations(0).len(), landed);
        assert!(a.list("l0").await.is_err() && world.has_crashed("a"));
        actor(&world, "b").list("l0").await.unwrap();
        world.restart("a");
        assert_eq!(a.list("l0").await.unwrap().len(), landed);
    }
}

#[tokio::test]
async fn a_delete_that_lands_late_still_lands() {
    let plan = put_plan(&[(Operation::Delete, 0, Fault::Late { requests: 9 })]);
    let (store, world) = world(plan);
    let a = actor(&world, "a");
    a.put_new(KEY, Bytes::from_static(b"x")).await.unwrap();
    assert!(a.delete(KEY).await.is_err());
    assert_eq!(a.get(KEY).await.unwrap(), "x");
    world.land_all().await;
    let path = a.path(KEY);
    assert_eq!(store.mutations(1), [Mutation::Deleted(path)]);
}

#[tokio::test]
async fn a_flipped_bit_and_a_false_404_reach_the_reader() {
    let plan = put_plan(&[
        (Operation::Get, 0, Fault::BitFlip),
        (Operation::Get, 1, Fault::Missing),
    ]);
    let (_, world) = world(plan);
    let a = actor(&world, "a");
    a.put_new(KEY, Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(a.get(KEY).await.unwrap(), "arc");
    assert_eq!(a.get(KEY).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(a.get(KEY).await.unwrap(), "abc");
}
