//! The fence: who may commit after it, and that it stays.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use stele_model::ErrorKind;
use stele_store::{Role, TierSet, keys};
use stele_table::{CommitKind, Error, Fence, Fenced, Outcome, Owner, TableLog, TableState};

fn owner(tier: &str, since_epoch: u64) -> Owner {
    Owner {
        tier: tier.parse().unwrap(),
        since_epoch,
    }
}

fn fence(tier: &str, epoch: u64) -> Fence {
    Fence {
        epoch,
        tier: tier.parse().unwrap(),
    }
}

fn log_of(store: &Watched, tier: &str, since_epoch: u64) -> TableLog {
    store.log().with_owner(owner(tier, since_epoch))
}

fn fenced<T: std::fmt::Debug>(result: stele_table::Result<T>) -> Fenced {
    match result {
        Err(error @ Error::Fenced(_)) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let Error::Fenced(fenced) = error else {
                unreachable!()
            };
            fenced
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_zombie_that_slept_through_the_fence_commits_nothing() {
    let store = Watched::new();
    let zombie = log_of(&store, "a", 0);
    let planned = table(&zombie, 3).await;
    let state = store
        .log()
        .fence(&fence("b", 4), &operation(90), T0 + 9)
        .await;
    let state = state.unwrap();
    assert_eq!(
        (state.version, state.fence.clone()),
        (4, Some(fence("b", 4)))
    );
    // Its plan is for the slot that the fence took; what it learns from that is who may commit.
    let refused = fenced(zombie.commit(&planned, simple(10)).await);
    let other = Fenced::Other {
        fence: fence("b", 4),
        owner: owner("a", 0),
    };
    assert_eq!(refused, other);
    assert_eq!(
        refused.to_string(),
        "the table is fenced for tier b, primary since epoch 4; \
         this writer is of tier a, primary since epoch 0"
    );
    let newest = zombie.refresh(&planned).await.unwrap();
    assert_eq!(fenced(zombie.commit(&newest, simple(11)).await), other);
    assert_eq!(fenced(zombie.load_or_create(T0).await), other);
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
    // Nor does it leave a ledger file or a ledger commit.
    let written = store.tenant().list(keys::LEDGER).await.unwrap();
    let unnamed = |key: &str| key.contains(&operation(11).0);
    assert!(!written.iter().any(|object| unnamed(&object.key)));
}

#[tokio::test]
async fn only_the_owner_that_the_fence_names_commits_after_it() {
    let store = Watched::new();
    let state = table(&log_of(&store, "a", 0), 2).await;
    // Before the fence, the tier that will be the primary may not.
    let early = fenced(log_of(&store, "b", 4).commit(&state, simple(9)).await);
    assert!(matches!(early, Fenced::Unfinished { fence: None, .. }));
    assert_eq!(
        early.to_string(),
        "the promotion to b at epoch 4 is not finished for this tenant: its table has no fence"
    );
    let state = store
        .log()
        .fence(&fence("b", 4), &operation(90), T0)
        .await
        .unwrap();
    let refused = [("a", 0), ("a", 4), ("b", 0), ("b", 3), ("b", 5), ("c", 9)];
    for (tier, since) in refused {
        fenced(log_of(&store, tier, since).commit(&state, simple(9)).await);
    }
    let unaware = fenced(store.log().commit(&state, simple(9)).await);
    assert!(matches!(unaware, Fenced::NoTiers { .. }));
    let state = committed(&log_of(&store, "b", 4), &state, simple(9)).await;
    // And back: the next promotion, to where it began.
    let state2 = store
        .log()
        .fence(&fence("a", 5), &operation(91), T0)
        .await
        .unwrap();
    fenced(log_of(&store, "b", 4).commit(&state, simple(20)).await);
    fenced(log_of(&store, "a", 0).commit(&state2, simple(20)).await);
    committed(&log_of(&store, "a", 5), &state2, simple(21)).await;
}

#[tokio::test]
async fn a_fence_is_there_once_and_never_goes_back() {
    let store = Watched::new();
    table(&store.log(), 2).await;
    let first = store
        .log()
        .fence(&fence("b", 4), &operation(90), T0)
        .await
        .unwrap();
    let again = store
        .log()
        .fence(&fence("b", 4), &operation(91), T0 + 1)
        .await
        .unwrap();
    assert_eq!(first, again);
    for back in [fence("b", 3), fence("a", 4), fence("a", 0)] {
        let error = store
            .log()
            .fence(&back, &operation(92), T0)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::FencedLater { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    let entry = store.log().entry(first.version).await.unwrap().unwrap();
    assert_eq!(
        (entry.kind(), entry.fence()),
        (CommitKind::Fence, Some(&fence("b", 4)))
    );
    assert!(
        store
            .log()
            .fence(&fence("b", 0), &operation(93), T0)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_fence_lands_among_writers_and_after_lost_replies() {
    let store = Watched::new();
    let mut state = table(&store.log(), 2).await;
    store.fail(&keys::log_entry(3), &[Fault::AfterEffect]);
    let fenced_at = store
        .log()
        .fence(&fence("b", 4), &operation(90), T0)
        .await
        .unwrap();
    assert_eq!(fenced_at.version, 3);
    // A writer that takes every slot until the fence has one.
    let writer = log_of(&store, "b", 4);
    state = writer.refresh(&state).await.unwrap();
    let racing = tokio::spawn(async move {
        let mut won = 0;
        for n in 100..400 {
            match writer.commit(&state, simple(n)).await {
                Ok(Outcome::Committed(next)) => {
                    (state, won) = (next, won + 1);
                }
                Ok(Outcome::Moved(next)) => state = next,
                Err(Error::Fenced(_)) => return (won, true),
                Err(error) => panic!("{error}"),
            }
        }
        (won, false)
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let state = store
        .log()
        .fence(&fence("c", 7), &operation(91), T0)
        .await
        .unwrap();
    let (won, stopped) = racing.await.unwrap();
    assert!(won > 0 && stopped, "{won} commits");
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
}

async fn all_ways(store: &Watched) -> Arc<TableState> {
    let by_head = store.log().load().await.unwrap().unwrap();
    let by_log = store.log().load_from_log().await.unwrap().unwrap();
    assert_eq!(by_head, by_log);
    let index = store.log().index().await.unwrap();
    let reach = store.log().reach(&index, by_head.version).await.unwrap();
    assert_eq!(reach.state, by_head);
    by_head
}

#[tokio::test]
async fn a_fence_survives_heads_checkpoints_and_the_log_before_it() {
    let store = Watched::new();
    let state = table(&store.log(), 3).await;
    store
        .log()
        .fence(&fence("b", 4), &operation(90), T0)
        .await
        .unwrap();
    assert_eq!(all_ways(&store).await.fence, Some(fence("b", 4)));
    let log = log_of(&store, "b", 4);
    let mut state = log.refresh(&state).await.unwrap();
    for n in 30..60 {
        state = committed(&log, &state, simple(n)).await;
    }
    assert!(state.ledger.manifest_version > 4);
    for key in swept(&state) {
        store.remove(&key).await;
    }
    let state = all_ways(&store).await;
    assert_eq!(
        (state.version, state.fence.clone()),
        (
            log.load().await.unwrap().unwrap().version,
            Some(fence("b", 4))
        )
    );
    assert!(
        store.log().entry(4).await.unwrap().is_none(),
        "the fence's entry is swept"
    );
    fenced(log_of(&store, "a", 0).commit(&state, simple(99)).await);
}

#[tokio::test]
async fn a_table_that_is_made_after_a_promotion_is_fenced_from_the_first_version_on() {
    let store = Watched::new();
    let state = log_of(&store, "b", 4).load_or_create(T0).await.unwrap();
    assert_eq!(
        (state.version, state.fence.clone()),
        (0, Some(fence("b", 4)))
    );
    assert_eq!(all_ways(&store).await, state);
    fenced(log_of(&store, "a", 0).load_or_create(T0).await);
    committed(&log_of(&store, "b", 4), &state, simple(1)).await;
    // A promotion makes the table too, and the first primary's compactor finds it fenced.
    let store = Watched::new();
    let state = store
        .log()
        .fence(&fence("b", 4), &operation(9), T0)
        .await
        .unwrap();
    assert_eq!(
        (state.version, state.fence.clone()),
        (0, Some(fence("b", 4)))
    );
    fenced(log_of(&store, "a", 0).load_or_create(T0 + MINUTE).await);
}

/// What was stored before there were fences.
#[tokio::test]
async fn a_table_that_never_had_a_fence_is_stored_as_ever() {
    let store = Watched::new();
    let state = table(&log_of(&store, "a", 0), 22).await;
    assert_eq!(state.fence, None);
    for object in store.tenant().list("").await.unwrap() {
        let bytes = store.tenant().get(&object.key).await.unwrap();
        let text = match object.key.ends_with(".zst") {
            true => zstd::stream::decode_all(&bytes[..]).unwrap(),
            false => bytes.to_vec(),
        };
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("fence"), "{}: {text}", object.key);
        let is_json = !object.key.ends_with(".parquet") && text.contains("\"format\":");
        assert!(!is_json || text.contains("\"format\":1"), "{}", object.key);
    }
}

/// The fence of an earlier promotion says that the later one is not finished, not that it is lost.
#[tokio::test]
async fn an_older_fence_is_an_unfinished_promotion_and_a_newer_one_is_anothers() {
    let store = Watched::new();
    let first = log_of(&store, "a", 0);
    table(&first, 3).await;
    let fence_b = fence("b", 4);
    let state = first.fence(&fence_b, &operation(90), T0 + 9).await;
    let state = state.unwrap();
    let later = log_of(&store, "c", 6);
    let unfinished = Fenced::Unfinished {
        fence: Some(fence_b.clone()),
        owner: owner("c", 6),
    };
    let refused = fenced(later.commit(&state, simple(10)).await);
    assert_eq!(
        refused.to_string(),
        "the promotion to c at epoch 6 is not finished for this tenant: \
         its table is fenced for tier b, primary since epoch 4"
    );
    assert_eq!(refused, unfinished);
    let earlier = log_of(&store, "a", 2);
    let refused = fenced(earlier.commit(&state, simple(11)).await);
    let other = Fenced::Other {
        fence: fence_b,
        owner: owner("a", 2),
    };
    assert_eq!(refused, other);
}

/// The first primary of all needs none.
#[tokio::test]
async fn a_fence_of_no_promotion_is_refused_and_leaves_nothing() {
    let store = Watched::new();
    let state = table(&store.log(), 3).await;
    let none = store.log().fence(&fence("a", 0), &operation(90), T0).await;
    match none.unwrap_err() {
        Error::Corrupt { key, .. } => assert_eq!(key, keys::log_entry(4)),
        other => panic!("{other}"),
    }
    assert_eq!(all_ways(&store).await, state);
}

#[tokio::test]
async fn a_set_is_owned_by_its_primary_since_it_became_that_and_by_nobody_else() {
    let id = |tier: &str| tier.parse().unwrap();
    let first = TierSet::first(id("a"), "a");
    assert_eq!(Owner::of(&first), Some(owner("a", 0)));
    let added = first.adding(id("b"), "b", Role::Mirror).unwrap();
    let joined = added.joined(&id("b")).unwrap();
    assert_eq!(Owner::of(&joined), Some(owner("a", 0)));
    let promoted = joined.promoting(&id("b"), false).unwrap();
    assert_eq!(Owner::of(&promoted), Some(owner("b", promoted.epoch)));
    // Nobody commits, before a fence or after.
    let store = Watched::new();
    let state = table(&log_of(&store, "a", 0), 2).await;
    let nobody = store.log().with_owner(Owner::nobody(id("a")));
    fenced(nobody.commit(&state, simple(9)).await);
    let (log, at_4, id) = (store.log(), fence("a", 4), operation(90));
    let state = log.fence(&at_4, &id, T0).await.unwrap();
    fenced(nobody.commit(&state, simple(9)).await);
}
