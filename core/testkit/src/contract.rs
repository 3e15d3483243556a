//! What every store must do, as one suite that is run against each of them.
//!
//! A failed expectation panics with its own message, as a test does.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, stream};
use object_store::ObjectStoreExt;
use stele_model::{Digest, ErrorKind, L0Name, TenantId, Window};
use stele_store::{Error, Put, TenantStore, Tier, keys};

/// Writers that race for one key.
const WRITERS: usize = 16;
/// PUTs in flight while the long listing is filled.
const IN_FLIGHT: usize = 32;

/// How thorough the suite is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Objects of the long listing; above 1,000 it crosses a page of S3.
    pub listed_keys: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { listed_keys: 1_100 }
    }
}

fn tenant(tier: &Tier, name: &str) -> TenantStore {
    let id: TenantId = name.parse().expect("a valid tenant name");
    tier.tenant(&id)
}

/// Runs the whole suite on an empty tier.
///
/// # Panics
/// At the first promise that is broken.
pub async fn run(tier: &Tier, options: Options) {
    creates_once(&tenant(tier, "creates")).await;
    one_of_many_writers_wins(&tenant(tier, "races")).await;
    reads_what_was_written(&tenant(tier, "reads")).await;
    deletes_are_idempotent(&tenant(tier, "deletes")).await;
    overwrites_in_place(&tenant(tier, "overwrites")).await;
    lists_to_the_last_page(&tenant(tier, "lists"), options.listed_keys).await;
    tenants_are_apart(tier).await;
    newest_head_is_first(&tenant(tier, "heads")).await;
    l0_objects_come_back_by_name(&tenant(tier, "l0")).await;
    time_goes_on(tier).await;
}

async fn put(store: &TenantStore, key: &str, text: &str) -> Put {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let put = store.put_new(key, bytes).await;
    put.expect("a conditional create")
}

async fn keys_of(store: &TenantStore, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).await.expect("a listing");
    listed.into_iter().map(|object| object.key).collect()
}

async fn creates_once(store: &TenantStore) {
    assert_eq!(put(store, "a/x", "one").await, Put::Created);
    assert_eq!(put(store, "a/x", "one").await, Put::Same);
    let other = put(store, "a/x", "two").await;
    assert_eq!(other, Put::Other(Bytes::from_static(b"one")));
    assert_eq!(store.get("a/x").await.expect("there"), "one");
    assert_eq!(put(store, "empty", "").await, Put::Created);
    assert_eq!(store.get("empty").await.expect("there"), "");
}

async fn one_of_many_writers_wins(store: &TenantStore) {
    for round in 0..3 {
        let key = format!("race/{round}");
        let texts: Vec<String> = (0..WRITERS).map(|n| format!("writer {n}")).collect();
        let puts = join_all(texts.iter().map(|text| put(store, &key, text))).await;
        let created = |put: &&Put| **put == Put::Created;
        assert_eq!(puts.iter().filter(created).count(), 1, "round {round}");
        let winner = puts.iter().position(|put| *put == Put::Created);
        let kept = store.get(&key).await.expect("there");
        assert_eq!(kept, texts[winner.expect("one created it")]);
        for (n, put) in puts.iter().enumerate() {
            let lost = *put == Put::Other(kept.clone());
            assert!(lost || Some(n) == winner, "writer {n}: {put:?}");
        }
        let key = format!("{key}-same");
        let same = join_all((0..WRITERS).map(|_| put(store, &key, "x"))).await;
        assert_eq!(same.iter().filter(created).count(), 1, "round {round}");
        assert!(
            same.iter()
                .all(|put| matches!(put, Put::Created | Put::Same))
        );
    }
}

async fn reads_what_was_written(store: &TenantStore) {
    let big = Bytes::from(
        (0..1u32 << 18)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<u8>>(),
    );
    let created = store.put_new("deep/er/big", big.clone()).await;
    assert_eq!(created.expect("a create"), Put::Created);
    assert_eq!(store.get("deep/er/big").await.expect("there"), big);
    let size = big.len() as u64;
    for range in [0..1, 5..17, size - 8..size] {
        let got = store.get_range("deep/er/big", range.clone()).await;
        let index = |n: u64| usize::try_from(n).expect("small");
        let want = big.slice(index(range.start)..index(range.end));
        assert_eq!(got.expect("a range"), want, "{range:?}");
    }
    for range in [size - 1..size + 1, size..size + 1] {
        let got = store.get_range("deep/er/big", range.clone()).await;
        assert!(got.is_err(), "{range:?} is not within {size} bytes");
    }
    for missing in ["deep/er/no", "deep/er", "deep"] {
        let error = store.get(missing).await.expect_err("nothing is there");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{missing}: {error}");
        assert!(error.to_string().contains(missing), "{error}");
        assert_eq!(store.get_opt(missing).await.expect("an answer"), None);
    }
    let error = store.get_range("deep/no", 0..1).await;
    assert!(matches!(error, Err(Error::NotFound { .. })), "{error:?}");
}

async fn deletes_are_idempotent(store: &TenantStore) {
    put(store, "d/one", "1").await;
    put(store, "d/two", "2").await;
    for _ in 0..2 {
        store.delete("d/one").await.expect("a delete");
        assert_eq!(store.get_opt("d/one").await.expect("an answer"), None);
        assert_eq!(keys_of(store, "d").await, ["d/two"]);
    }
    assert_eq!(put(store, "d/one", "again").await, Put::Created);
}

async fn overwrites_in_place(store: &TenantStore) {
    let (path, raw) = (store.path("table/_last"), store.tier().object_store());
    for text in ["first", "second, longer", "3"] {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        raw.put(&path, bytes.into()).await.expect("an overwrite");
        assert_eq!(store.get("table/_last").await.expect("there"), text);
    }
}

async fn lists_to_the_last_page(store: &TenantStore, count: usize) {
    assert_eq!(keys_of(store, "many").await, Vec::<String>::new());
    let names: BTreeSet<String> = (0..count)
        .map(|n| format!("many/{:08x}", n * 7919))
        .collect();
    let puts = stream::iter(&names).map(|name| put(store, name, name));
    puts.buffer_unordered(IN_FLIGHT).collect::<Vec<Put>>().await;
    put(store, "many/sub/deeper", "x").await;
    put(store, "manyfold/x", "x").await;
    put(store, "man", "x").await;
    let listed = store.list("many").await.expect("a listing");
    let mut want: Vec<&str> = names.iter().map(String::as_str).collect();
    want.push("many/sub/deeper");
    let got: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(got, want, "sorted, complete, and nothing beside the folder");
    for object in &listed[..3.min(count)] {
        assert_eq!(object.size_bytes, object.key.len() as u64);
        let meta = store.tier().object_store();
        let meta = meta.head(&store.path(&object.key)).await.expect("there");
        let modified_us = meta.last_modified.timestamp_micros();
        // S3 shows milliseconds in a LIST and seconds in a HEAD.
        let apart_us = (modified_us - object.modified_us).abs();
        assert!(
            apart_us < 1_000_000,
            "LIST and HEAD differ by {apart_us} us"
        );
    }
}

async fn tenants_are_apart(tier: &Tier) {
    let (a, ab) = (tenant(tier, "apart"), tenant(tier, "apart-b"));
    put(&a, "l0/x", "a").await;
    put(&ab, "l0/x", "ab").await;
    put(&ab, "l0/y", "ab").await;
    assert_eq!(keys_of(&a, "l0").await, ["l0/x"]);
    assert_eq!(a.get("l0/x").await.expect("there"), "a");
    assert_eq!(a.get_opt("l0/y").await.expect("an answer"), None);
    let tenants = tier.tenants().await.expect("a listing");
    for name in ["apart", "apart-b", "races"] {
        assert!(tenants.iter().any(|t| t.as_str() == name), "{name}");
    }
    assert!(tenants.is_sorted());
}

async fn newest_head_is_first(store: &TenantStore) {
    let none = store.list_newest_head(keys::HEADS).await;
    assert_eq!(none.expect("an answer"), None);
    for version in [0, 9, 10, 2, 1_000] {
        put(store, &keys::head(version), "head").await;
    }
    let newest = store.list_newest_head(keys::HEADS).await.expect("a page");
    assert_eq!(newest, Some(keys::head(1_000)));
}

async fn l0_objects_come_back_by_name(store: &TenantStore) {
    let name = |n: u8| L0Name {
        digest: Digest([n; 16]),
        first: Window(262_968),
        last: Window(500_000 + i32::from(n)),
    };
    let bytes = Bytes::from_static(b"rows");
    for n in [3, 1] {
        let stored = store.l0_put(&name(n), bytes.clone()).await;
        assert_eq!(stored.expect("a create"), Put::Created);
    }
    let again = store.l0_put(&name(1), bytes.clone()).await;
    assert_eq!(again.expect("read back"), Put::Same);
    let other = store.l0_put(&name(1), Bytes::from_static(b"other")).await;
    let error = other.expect_err("an L0 name has one content");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    put(store, "l0/not-a-name", "x").await;
    let listed = store.l0_list().await.expect("a listing");
    let names: Vec<L0Name> = listed.iter().map(|object| object.name).collect();
    assert_eq!(names, [name(1), name(3)]);
    assert_eq!(listed[0].size_bytes, 4);
    assert_eq!(store.l0_get(&name(3)).await.expect("there"), bytes);
}

async fn time_goes_on(tier: &Tier) {
    let first = tier.now_us().await.expect("the store's clock");
    let second = tier.now_us().await.expect("the store's clock");
    assert!(second >= first, "{second} comes after {first}");
    let report = tier
        .probe(second, "contract")
        .await
        .expect("a capable store");
    assert_eq!(report.rounds, 3);
    let control = tier.object_store();
    let mut left = control.list(Some(&object_store::path::Path::from("control")));
    while let Some(meta) = left.next().await {
        let key = meta.expect("a listing").location.to_string();
        assert!(!key.contains("probe"), "{key} is left behind");
    }
}
