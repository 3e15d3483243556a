//! What a receipt tells: where its batch is, from the acknowledgement to long after the sweep.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use object_store::ObjectStore;
use serde_json::Value;
use stele_compact::{Budget, Compactor, Options};
use stele_format::{batch, l0};
use stele_ingest::{Ingestor, Prepared};
use stele_model::time::{DAY_US, HOUR_US, MINUTE_US};
use stele_model::{Batch, Day, Digest, L0Name, NO_EXTRA, ReceiptId, Row, Rows, Series, TenantId};
use stele_protect::{BatchState, find_batch, receipts_router};
use stele_store::{TenantStore, Tier};
use stele_table::TableLog;
use stele_testkit::{CountingStore, FaultWorld, ManualClock, MemoryStore, Plan, SeededIds};
use tower::ServiceExt;

const DAY0: i64 = 20_779 * DAY_US;
const ALL: Budget = Budget::unlimited();

struct World {
    clock: ManualClock,
    memory: MemoryStore,
    requests: CountingStore,
    store: TenantStore,
    log: Arc<TableLog>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new(DAY0 + 12 * HOUR_US);
        let memory = MemoryStore::new(clock.clone());
        let requests = CountingStore::new(Arc::new(memory.clone()));
        let store = tenant(Arc::new(requests.clone()), "default");
        let log = log(&store, &clock);
        Self {
            clock,
            memory,
            requests,
            store,
            log,
        }
    }

    fn compactor(&self, store: Arc<dyn ObjectStore>) -> Compactor {
        let store = tenant(store, "default");
        let log = log(&store, &self.clock);
        let clock = Arc::new(self.clock.clone());
        let ids = Arc::new(SeededIds::new(4));
        Compactor::new(store, log, Options::default(), clock, ids)
    }

    fn router(&self) -> Router {
        let (memory, clock) = (self.memory.clone(), self.clock.clone());
        receipts_router(Arc::new(move |name: &TenantId| {
            log(&tenant(Arc::new(memory.clone()), name.as_str()), &clock)
        }))
    }

    async fn get(&self, receipt: &str, as_tenant: Option<&str>) -> (u16, Value) {
        let mut request = Request::get(format!("/receipts/{receipt}"))
            .body(Body::empty())
            .unwrap();
        if let Some(name) = as_tenant {
            let name: TenantId = name.parse().unwrap();
            request.extensions_mut().insert(name);
        }
        let response = self.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn accept(&self, ts_us: i64) -> ReceiptId {
        let ingestor = Ingestor::new(self.store.clone());
        let receipt = ingestor.accept(sample("cpu", ts_us)).await.unwrap();
        receipt.unwrap().id
    }

    async fn put_group(&self, batches: &[Batch]) -> L0Name {
        let encoded = l0::encode(batches).unwrap();
        let put = self.store.l0_put(&encoded.name, encoded.bytes).await;
        put.unwrap();
        encoded.name
    }
}

fn tenant(store: Arc<dyn ObjectStore>, name: &str) -> TenantStore {
    Tier::from_store(store, "", "memory").tenant(&name.parse().unwrap())
}

fn log(store: &TenantStore, clock: &ManualClock) -> Arc<TableLog> {
    let options = stele_table::Options::default();
    Arc::new(TableLog::new(
        store.clone(),
        options,
        Arc::new(clock.clone()),
    ))
}

fn sample(metric: &str, ts_us: i64) -> Rows {
    Rows {
        series: vec![Series {
            metric: metric.to_owned(),
            ..Series::default()
        }],
        rows: vec![Row {
            ts_us,
            value: 1.0,
            series: 0,
            extra: NO_EXTRA,
        }],
        extras: Vec::new(),
    }
}

fn id(batch: &Batch) -> ReceiptId {
    Prepared::new(batch.rows.clone()).unwrap().id()
}

#[tokio::test]
async fn a_receipt_tells_where_its_batch_is_through_its_whole_life() {
    let world = World::new();
    let receipt = world.accept(DAY0 + 9 * HOUR_US).await;
    let text = receipt.to_string();
    let (status, reply) = world.get(&text, None).await;
    let name = world.store.l0_list().await.unwrap()[0].name;
    let object = format!("l0/{name}");
    let expected = serde_json::json!({"receipt": text, "state": "l0", "object": object});
    assert_eq!((status, reply), (200, expected));
    let compactor = world.compactor(Arc::new(world.memory.clone()));
    compactor.absorb(&ALL).await.unwrap();
    let (status, absorbed) = world.get(&text, None).await;
    assert_eq!((status, &absorbed["state"]), (200, &"absorbed".into()));
    assert_eq!(absorbed["rows"], 1);
    assert_eq!(absorbed["committed"], "2026-11-22T12:00:00.000000Z");
    let operation = absorbed["operation"].as_str().unwrap();
    assert_eq!(absorbed["ledger"], format!("ledger/{operation}.json.zst"));
    let entry = world.log.entry(absorbed["version"].as_u64().unwrap()).await;
    assert_eq!(entry.unwrap().unwrap().operation(), operation);
    // Enough commits that the ledger is merged by day.
    for n in 0..25 {
        world.accept(DAY0 + 8 * HOUR_US + n).await;
        compactor.absorb(&ALL).await.unwrap();
    }
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world.clock.advance(2 * DAY_US);
    compactor.sweep(&ALL).await.unwrap();
    assert!(world.store.l0_list().await.unwrap().is_empty());
    let (_, later) = world.get(&text, None).await;
    let ledger = later["ledger"].as_str().unwrap();
    assert!(ledger.starts_with("ledger/day-2026-11-22-"), "{ledger}");
    for field in ["state", "version", "operation", "committed", "rows"] {
        assert_eq!(later[field], absorbed[field], "{field}");
    }
    // The same batch again, after its sweep, is where it was.
    world.accept(DAY0 + 9 * HOUR_US).await;
    assert_eq!(world.get(&text, None).await.1["state"], "absorbed");
}

#[tokio::test]
async fn a_batch_in_a_group_is_found_by_opening_only_objects_over_its_day() {
    let world = World::new();
    let batches = [("a", 9), ("b", 10), ("c", 11)]
        .map(|(metric, hour)| batch(sample(metric, DAY0 + hour * HOUR_US)));
    let group = world.put_group(&batches).await;
    let yesterday = ["d", "e"].map(|metric| batch(sample(metric, DAY0 - HOUR_US)));
    world.put_group(&yesterday).await;
    for one in &batches {
        drop(world.requests.take());
        let found = find_batch(&world.log, id(one)).await.unwrap();
        assert_eq!(found, BatchState::L0 { object: group });
        let gets = world.requests.take().into_iter().map(|request| request.key);
        let gets: Vec<String> = gets.filter(|key| key.starts_with("l0/")).collect();
        assert_eq!(gets, [format!("l0/{group}")]);
    }
    let other_day = ReceiptId {
        day: Day::of(DAY0 - HOUR_US),
        ..id(&batches[0])
    };
    let found = find_batch(&world.log, other_day).await.unwrap();
    assert_eq!(found, BatchState::Unknown);
}

#[tokio::test]
async fn what_is_no_receipt_or_nobodys_is_said_so() {
    let world = World::new();
    let mine = world.accept(DAY0).await.to_string();
    let digest = Digest([7; 16]);
    let unknown = format!("{digest}-20261122");
    let (status, reply) = world.get(&unknown, None).await;
    assert_eq!((status, &reply["state"]), (404, &"unknown".into()));
    assert_eq!(reply["kind"], "not_found");
    for bad in [
        digest.to_string(),
        format!("{digest}-2026-11-22"),
        "x".into(),
    ] {
        let (status, reply) = world.get(&bad, None).await;
        assert_eq!(
            (status, &reply["kind"]),
            (400, &"malformed".into()),
            "{bad}"
        );
        assert!(reply["error"].as_str().unwrap().contains(&bad), "{reply}");
    }
    assert_eq!(world.get(&mine, Some("default")).await.0, 200);
    assert_eq!(world.get(&mine, Some("other")).await.0, 404);
}

#[tokio::test]
async fn a_damaged_object_that_may_hold_the_batch_is_not_called_unknown() {
    let world = World::new();
    let batches = ["a", "b"].map(|metric| batch(sample(metric, DAY0)));
    let group = world.put_group(&batches).await;
    let path = world.store.path(&format!("l0/{group}"));
    world.memory.damage(&path, "damaged".into());
    let receipt = id(&batches[0]).to_string();
    let (status, reply) = world.get(&receipt, None).await;
    assert_eq!((status, &reply["kind"]), (500, &"corrupt".into()));
}

#[tokio::test]
async fn too_many_objects_to_open_are_a_reason_to_ask_again() {
    let world = World::new();
    let mut wanted = None;
    for n in 0..257 {
        let batches = ["a", "b"].map(|metric| batch(sample(metric, DAY0 + n)));
        world.put_group(&batches).await;
        wanted = Some(id(&batches[0]));
    }
    let receipt = wanted.unwrap().to_string();
    let (status, reply) = world.get(&receipt, None).await;
    assert_eq!((status, &reply["kind"]), (503, &"unavailable".into()));
    assert!(reply["error"].as_str().unwrap().contains("more than 256"));
}

#[tokio::test]
async fn a_batch_on_its_way_from_l0_to_the_table_is_never_unknown() {
    let world = World::new();
    let gates = FaultWorld::immediate(Arc::new(world.memory.clone()), Plan::none());
    let reader = tenant(gates.actor("reader"), "default");
    let compactor = world.compactor(gates.actor("compactor"));
    let mut states = std::collections::BTreeSet::new();
    for n in 0..12 {
        let batches = ["a", "b"].map(|metric| batch(sample(metric, DAY0 + n)));
        world.put_group(&batches).await;
        let receipt = id(&batches[1]);
        let work = async {
            compactor.absorb(&ALL).await.unwrap();
            world.clock.advance(20 * MINUTE_US);
            compactor.sweep(&ALL).await.unwrap();
        };
        let ask = async {
            // Each begins at another moment of the work, cold or warm.
            let log = log(&reader, &world.clock);
            let mut seen = Vec::new();
            for pause in 0..12 {
                for _ in 0..pause {
                    tokio::task::yield_now().await;
                }
                seen.push(find_batch(&log, receipt).await.unwrap());
            }
            seen
        };
        let ((), seen) = tokio::join!(work, ask);
        for state in seen {
            assert!(state != BatchState::Unknown, "round {n}");
            states.insert(matches!(state, BatchState::Absorbed { .. }));
        }
    }
    assert_eq!(states.len(), 2, "both sides of the move were seen");
}
