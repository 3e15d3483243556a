//! What a receipt promises.

#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use stele_ingest::{Error, Ingestor, Prepared};
use stele_model::{ErrorKind, NO_EXTRA, Row, Rows, Series, TenantId};
use stele_store::{TenantStore, Tier};

fn store() -> TenantStore {
    Tier::open("memory://", &[])
        .unwrap()
        .tenant(&TenantId::default())
}

/// Samples of two series, given in the order of `values`.
fn rows(values: &[(u32, i64, f64)]) -> Rows {
    let series = ["b", "a"].map(|metric| Series {
        metric: metric.to_owned(),
        ..Series::default()
    });
    let row = |&(series, ts_us, value): &(u32, i64, f64)| Row {
        ts_us,
        value,
        series,
        extra: NO_EXTRA,
    };
    Rows {
        series: series.to_vec(),
        rows: values.iter().map(row).collect(),
        extras: Vec::new(),
    }
}

const VALUES: [(u32, i64, f64); 3] = [(0, 7_200_000_000, 1.5), (1, 5, f64::NAN), (0, 3, -0.0)];

#[tokio::test]
async fn a_receipt_names_the_object_that_holds_the_batch() {
    let store = store();
    let receipt = Ingestor::new(store.clone())
        .accept(rows(&VALUES))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (receipt.rows, receipt.tiers.as_slice()),
        (3, ["memory://".to_owned()].as_slice())
    );
    let objects = store.l0_list().await.unwrap();
    assert_eq!(
        objects.iter().map(|o| o.name).collect::<Vec<_>>(),
        [receipt.name]
    );
    assert_eq!((receipt.name.first.0, receipt.name.last.0), (0, 2));
    let bytes = store.l0_get(&receipt.name).await.unwrap();
    let batches = stele_format::l0::decode(bytes).unwrap();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].digest, receipt.id.digest);
    // The day of the greatest timestamp, 02:00.
    assert_eq!(
        receipt.id.to_string(),
        format!("{}-19700101", batches[0].digest)
    );
    assert_eq!(stele_format::rows_hash(&batches[0].rows), {
        let mut canonical = rows(&VALUES);
        canonical.canonicalize();
        stele_format::rows_hash(&canonical)
    });
}

#[tokio::test]
async fn the_same_samples_again_are_one_object_and_one_receipt() {
    let store = store();
    let ingestor = Ingestor::new(store.clone());
    let mut reversed = VALUES;
    reversed.reverse();
    let first = ingestor.accept(rows(&VALUES)).await.unwrap();
    let second = ingestor.accept(rows(&reversed)).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(store.l0_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn no_sample_stores_nothing_and_has_no_receipt() {
    let store = store();
    let receipt = Ingestor::new(store.clone())
        .accept(rows(&[]))
        .await
        .unwrap();
    assert_eq!(
        (receipt, store.l0_list().await.unwrap()),
        (None, Vec::new())
    );
}

#[tokio::test]
async fn a_name_that_holds_other_bytes_is_no_acknowledgement() {
    let store = store();
    let ingestor = Ingestor::new(store.clone());
    let receipt = ingestor.accept(rows(&VALUES)).await.unwrap().unwrap();
    let other = Prepared::new(rows(&VALUES[..1])).unwrap();
    let other = ingestor.put(other).await.unwrap();
    let key = |name: stele_model::L0Name| format!("l0/{name}");
    let foreign = store.l0_get(&other.name).await.unwrap();
    for found in [Bytes::from_static(b"damaged"), foreign] {
        store.delete(&key(receipt.name)).await.unwrap();
        store.put_new(&key(receipt.name), found).await.unwrap();
        let error = ingestor.accept(rows(&VALUES)).await.unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
