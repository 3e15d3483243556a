//! Seeds from the real encoders: the objects of a small busy store.

use std::sync::Arc;

use bytes::Bytes;
use stele_compact::{Budget, Compactor, Options};
use stele_format::{batch, l0};
use stele_model::time::{DAY_US, HOUR_US};
use stele_model::{Clock, Digest, TenantId};
use stele_store::Tier;
use stele_table::{Mark, Pin, PinName, TableLog, Why, raw};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::{ManualClock, MemoryStore, Rng, SeededIds};

use crate::seeds::texts;

/// Seeds of one kind; a fuzzer gains nothing from the hundredth of a kind.
const SEEDS_MAX: usize = 12;

/// Key and bytes of every object of a store with everything in it.
fn store() -> Vec<(String, Bytes)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a thread is enough").block_on(async {
        let clock = ManualClock::new(20_779 * DAY_US + 12 * HOUR_US);
        let memory = MemoryStore::new(clock.clone());
        let tier = Tier::from_store(Arc::new(memory.clone()), "", "memory://");
        let store = tier.tenant(&TenantId::default());
        let options = stele_table::Options::default();
        let log = Arc::new(TableLog::new(
            store.clone(),
            options,
            Arc::new(clock.clone()),
        ));
        let compactor = Compactor::new(
            store.clone(),
            log,
            Options::default(),
            Arc::new(clock.clone()),
            Arc::new(SeededIds::new(4)),
        );
        let mut random = RowGen::new(Rng::new(11), 5);
        for n in 0..24 {
            let rows = random.rows(clock.now_us(), 6, 12);
            let object = l0::encode(&[batch(rows)]).expect("there are rows");
            store
                .l0_put(&object.name, object.bytes)
                .await
                .expect("memory takes it");
            let all = Budget::unlimited();
            compactor.absorb(&all).await.expect("it absorbs");
            clock.advance(HOUR_US);
            if n % 5 == 0 {
                compactor.seal(&all, true).await.expect("it seals");
            }
        }
        let keys = memory.keys("");
        let object = |key| (key_of(&key), memory.bytes(&key).expect("it is listed"));
        keys.into_iter().map(object).collect()
    })
}

fn key_of(path: &object_store::path::Path) -> String {
    path.to_string()
}

/// The smallest objects whose key has `part` in it and ends with `end`.
fn objects(part: &str, end: &str) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = store()
        .into_iter()
        .filter(|(key, _)| key.contains(part) && key.ends_with(end))
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    found.sort_by_key(Vec::len);
    found.truncate(SEEDS_MAX);
    found
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    zstd::decode_all(bytes).expect("it is ours")
}

fn prefixed(byte: u8, seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let seed = |seed: Vec<u8>| [vec![byte], seed].concat();
    seeds.into_iter().map(seed).collect()
}

/// Of [`crate::files::l0_object`].
pub fn l0_object() -> Vec<Vec<u8>> {
    let mut random = RowGen::new(Rng::new(3), 3);
    let mut two = || batch(random.rows(crate::NOW_US, 3, 8));
    let several = l0::encode(&[two(), two()]).expect("there are rows");
    let mut seeds = objects("/l0/", ".parquet");
    seeds.push(several.bytes.to_vec());
    seeds
}

/// Of [`crate::files::sample_file`].
pub fn sample_file() -> Vec<Vec<u8>> {
    [
        objects("resolution=raw/", ".parquet"),
        objects("resolution=open/", ".parquet"),
    ]
    .concat()
}

/// Of [`crate::files::rollup_file`].
pub fn rollup_file() -> Vec<Vec<u8>> {
    [
        objects("resolution=60s/", ".parquet"),
        objects("resolution=60m/", ".parquet"),
    ]
    .concat()
}

/// Of [`crate::keys::keys`].
pub fn keys() -> Vec<Vec<u8>> {
    texts([
        "table/heads/09223372036854775806.json.zst",
        "table/_delta_log/00000000000000000041.json",
        "20779:ffffff,20780:1",
    ])
}

/// Of [`crate::table::log_entry`].
pub fn log_entry() -> Vec<Vec<u8>> {
    objects("_delta_log/", ".json")
}

/// Of [`crate::table::pin`].
pub fn pin() -> Vec<Vec<u8>> {
    let name: PinName = "noon".parse().expect("a name");
    let states = head()
        .into_iter()
        .filter_map(|json| raw::head(&zstd::encode_all(&json[..], 1).ok()?).ok());
    let pins = states.filter_map(|state| {
        let pin = Pin::new(name.clone(), &state, 7, Why::Weekly, "why").ok()?;
        pin.encode().ok()
    });
    let mark = Mark {
        pin: Digest([7; 16]),
        marked_us: 9,
        withdrawn: true,
    };
    let mark = mark.encode().ok();
    pins.chain(mark).map(|bytes| bytes.to_vec()).collect()
}

/// Of [`crate::table::head`].
pub fn head() -> Vec<Vec<u8>> {
    let heads = objects("heads/", ".json.zst");
    let mut seeds: Vec<Vec<u8>> = heads.iter().map(|head| unpacked(head)).collect();
    let entries = log_entry();
    for n in 0..seeds.len().min(entries.len()) {
        seeds.push([&seeds[n][..], &entries[n]].join(&0));
    }
    seeds.extend(heads.into_iter().take(2));
    seeds
}

/// Of [`crate::table::manifest`].
pub fn manifest() -> Vec<Vec<u8>> {
    ledger_objects("manifest")
}

/// Of [`crate::table::ledger`].
pub fn ledger() -> Vec<Vec<u8>> {
    ledger_objects("")
}

fn ledger_objects(part: &str) -> Vec<Vec<u8>> {
    let of_part = |(key, _): &(String, Bytes)| key.contains("/ledger/") && key.contains(part);
    let mut found: Vec<Vec<u8>> = store()
        .into_iter()
        .filter(of_part)
        .filter(|(key, _)| !part.is_empty() || !key.contains("manifest"))
        .map(|(_, bytes)| unpacked(&bytes))
        .collect();
    found.sort_by_key(Vec::len);
    found.truncate(SEEDS_MAX);
    found
}

/// Of [`crate::table::checkpoint`].
pub fn checkpoint() -> Vec<Vec<u8>> {
    objects("_delta_log/", ".checkpoint.parquet")
}

/// Of [`crate::import::csv`].
pub fn import_csv() -> Vec<Vec<u8>> {
    texts([
        "\0ts,metric,host,value,tags\n1795348800,cpu,a,1.5,\"{\"\"x\"\":\"\"y\"\"}\"\nnoon,cpu,a,1,\n",
        "\u{1}time,value\n1795348800000,2\n\n,x\n",
        "\u{2}date,a,b,host\n2026-11-22 12:00:00,1,,\"h,1\"\n2026-11-22T12:00:00+01:00,1,2\n",
        "\u{3}at,name,host,value\n1795348800000000,m,h,1e300\n",
    ])
}

/// Of [`crate::import::parquet`].
pub fn import_parquet() -> Vec<Vec<u8>> {
    let own = prefixed(0, sample_file());
    let bins = prefixed(2, objects("resolution=60s/", ".parquet"));
    [own, bins].concat()
}
