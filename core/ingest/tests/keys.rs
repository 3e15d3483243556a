//! Idempotency keys: every attempt makes the same batch, or is refused.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use stele_ingest::{Error, IdempotencyKey, Ingestor, body_digest};
use stele_model::time::{DAY_US, MINUTE_US, SECOND_US};
use stele_model::{Clock, Digest, ErrorKind, NO_EXTRA, Row, Rows, Series, TenantId};
use stele_store::Tier;
use stele_testkit::{
    CountingStore, Fault, FaultWorld, KeyClass, ManualClock, MemoryStore, Operation, Plan,
};

struct World {
    clock: ManualClock,
    memory: MemoryStore,
    requests: CountingStore,
    ingestor: Ingestor,
}

fn world() -> World {
    let clock = ManualClock::new(1_800_000_000_000_000);
    let memory = MemoryStore::new(clock.clone());
    let requests = CountingStore::new(Arc::new(memory.clone()));
    let tier = Tier::from_store(Arc::new(requests.clone()), "", "memory");
    World {
        clock,
        memory,
        requests,
        ingestor: Ingestor::new(tier.tenant(&TenantId::default())),
    }
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text.as_bytes()).unwrap()
}

fn body() -> Digest {
    body_digest("/write", b"cpu value=1")
}

impl World {
    async fn ask(&self, key: &IdempotencyKey, body: Digest) -> Result<i64, Error> {
        let now_us = self.clock.now_us();
        self.ingestor.received_us(key, body, now_us).await
    }
}

#[tokio::test]
async fn every_attempt_within_a_day_gets_the_receive_time_of_the_first() {
    let world = world();
    let first_us = world.clock.now_us();
    assert_eq!(world.ask(&key("k"), body()).await.unwrap(), first_us);
    for us in [SECOND_US, DAY_US / 2, DAY_US / 2 - SECOND_US] {
        world.clock.advance(us);
        assert_eq!(world.ask(&key("k"), body()).await.unwrap(), first_us);
    }
    let other_us = world.clock.now_us();
    assert_eq!(world.ask(&key("l"), body()).await.unwrap(), other_us);
}

#[tokio::test]
async fn a_new_key_costs_one_put_and_one_sent_again_a_get() {
    let world = world();
    world.ask(&key("k"), body()).await.unwrap();
    let shapes = |world: &World| -> Vec<String> {
        let requests = world.requests.take();
        requests.iter().map(stele_testkit::Request::shape).collect()
    };
    assert_eq!(shapes(&world), ["PUT-NEW idem/<digest>"]);
    world.clock.advance(MINUTE_US);
    world.ask(&key("k"), body()).await.unwrap();
    let again = ["PUT-NEW idem/<digest>", "GET idem/<digest>"];
    assert_eq!(shapes(&world), again);
    // Where our clock does not decide, the store's does: within two minutes of the limit.
    world.clock.advance(DAY_US - 3 * MINUTE_US);
    world.ask(&key("k"), body()).await.unwrap();
    let asked = [
        again[0],
        again[1],
        "PUT control/clock",
        "HEAD control/clock",
    ];
    assert_eq!(shapes(&world), asked);
}

#[tokio::test]
async fn the_text_of_a_key_is_in_no_name() {
    let world = world();
    world.ask(&key("../../x"), body()).await.unwrap();
    let keys = world.memory.keys("");
    assert_eq!(keys.len(), 1);
    let name = keys[0].as_ref().strip_prefix("tenants/default/idem/");
    assert!(name.unwrap().parse::<Digest>().is_ok(), "{}", keys[0]);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let world = world();
    world.ask(&key("k"), body()).await.unwrap();
    for other in [
        body_digest("/write", b"cpu value=2"),
        body_digest("/api/v2/write", b"cpu value=1"),
    ] {
        let error = world.ask(&key("k"), other).await.unwrap_err();
        assert!(matches!(error, Error::KeyReused), "{error}");
        assert_eq!(error.kind().status(), 422);
    }
}

#[tokio::test]
async fn a_key_older_than_a_day_by_the_stores_clock_is_never_acknowledged() {
    let world = world();
    let ours_us = world.clock.now_us();
    world.ask(&key("k"), body()).await.unwrap();
    world.clock.advance(DAY_US + SECOND_US);
    let error = world.ask(&key("k"), body()).await.unwrap_err();
    assert!(matches!(error, Error::KeyOld { .. }), "{error}");
    assert_eq!(error.kind().status(), 409);
    let says = "86401 s old, over the limit of 86400 s";
    assert!(error.to_string().contains(says), "{error}");
    // A clock of ours that is up to two minutes slow does not make it younger.
    for slow_us in [MINUTE_US, 2 * MINUTE_US] {
        let (k, now_us) = (key("k"), ours_us + DAY_US - slow_us);
        let asked = world.ingestor.received_us(&k, body(), now_us).await;
        assert!(matches!(asked, Err(Error::KeyOld { .. })));
    }
    world.clock.advance(30 * DAY_US);
    assert!(world.ask(&key("k"), body()).await.is_err());
}

#[tokio::test]
async fn a_damaged_marker_is_no_acknowledgement() {
    let world = world();
    world.ask(&key("k"), body()).await.unwrap();
    let name = world.memory.keys("").remove(0);
    for bytes in [
        "",
        "{}",
        "{\"format\":2,\"body\":\"00000000000000000000000000000000\",\"received_us\":1}",
    ] {
        world
            .memory
            .damage(&name, Bytes::from_static(bytes.as_bytes()));
        let error = world.ask(&key("k"), body()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[tokio::test]
async fn attempts_that_race_or_whose_replies_are_lost_agree() {
    for fault in [
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::ExistsAfter,
        Fault::ExistsBefore,
        Fault::Late { requests: 2 },
        Fault::Late { requests: 6 },
    ] {
        let memory = MemoryStore::new(ManualClock::new(1_800_000_000_000_000));
        let plan = Plan::none().with("a", Operation::Put, KeyClass::Idem, 0, fault);
        let world = FaultWorld::immediate(Arc::new(memory), plan);
        let attempt = |actor: &str, now_us| {
            let tier = Tier::from_store(world.actor(actor), "", "sim");
            let ingestor = Ingestor::new(tier.tenant(&TenantId::default()));
            async move { ingestor.received_us(&key("k"), body(), now_us).await }
        };
        let now_us = 1_800_000_000_000_000;
        let (one, two) = tokio::join!(attempt("a", now_us), attempt("b", now_us + 7));
        let three = attempt("c", now_us + SECOND_US).await.unwrap();
        assert_eq!((one.unwrap(), two.unwrap()), (three, three), "{fault:?}");
        assert_eq!(world.fired().len(), 1);
    }
}

#[tokio::test]
async fn ingest_never_lists_and_never_deletes() {
    let world = world();
    let rows = |value| {
        let (metric, tags) = ("cpu".to_owned(), "{}".to_owned());
        Rows {
            series: vec![Series { metric, tags }],
            rows: vec![Row {
                ts_us: 1,
                value,
                series: 0,
                extra: NO_EXTRA,
            }],
            ..Rows::default()
        }
    };
    for value in [1.0, 1.0, 2.0] {
        world.ask(&key("k"), body()).await.unwrap();
        world.ingestor.accept(rows(value)).await.unwrap().unwrap();
        world.clock.advance(DAY_US / 4);
    }
    world.clock.advance(2 * DAY_US);
    world.ask(&key("k"), body()).await.unwrap_err();
    let sent = world.requests.take();
    let methods: BTreeSet<&str> = sent.iter().map(|request| request.method).collect();
    assert_eq!(methods, BTreeSet::from(["GET", "PUT-NEW"]), "{sent:?}");
}
