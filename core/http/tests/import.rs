//! The import route: an object is taken apart, checked and encoded anew.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use bytes::Bytes;
use common::{NOW_US, Server};
use stele_format::l0;
use stele_model::{Extra, Limits, Row, Rows, Series};

/// One series, `values` a second apart until now, each claiming rank 7.
fn object(tags: &str, values: &[f64]) -> Bytes {
    let row = |(n, value): (i64, &f64)| Row {
        ts_us: NOW_US - n * 1_000_000,
        value: *value,
        series: 0,
        extra: 0,
    };
    let rows = Rows {
        series: vec![Series {
            metric: "cpu".to_owned(),
            tags: tags.to_owned(),
        }],
        rows: (0..).zip(values).map(row).collect(),
        extras: vec![Extra {
            rank: Some(7),
            ..Extra::default()
        }],
    };
    l0::encode(&[stele_format::batch(rows)]).unwrap().bytes
}

async fn ranks(server: &Server) -> Vec<Option<i32>> {
    let mut ranks = Vec::new();
    for object in server.tenant.l0_list().await.unwrap() {
        let bytes = server.tenant.l0_get(&object.name).await.unwrap();
        for batch in l0::decode(bytes).unwrap() {
            let rows = &batch.rows;
            ranks.extend(rows.rows.iter().map(|row| rows.extra(row).rank));
        }
    }
    ranks
}

#[tokio::test]
async fn an_import_loses_its_claimed_rank_and_a_correction_gets_the_one_asked_for() {
    for (uri, rank) in [
        ("/admin/import", None),
        ("/admin/import?correct=2", Some(2)),
    ] {
        let server = Server::new(Limits::default());
        let reply = server.post(uri, object("{}", &[1.0, f64::NAN])).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(reply.body.contains("\"accepted\":2"), "{}", reply.body);
        assert_eq!(ranks(&server).await, [rank, rank]);
    }
}

#[tokio::test]
async fn imported_samples_meet_the_limits_of_every_request() {
    let server = Server::new(Limits {
        samples_max: 2,
        tags_max: 1,
        ..Limits::default()
    });
    let reply = server.post("/admin/import", object("{}", &[1.0; 3])).await;
    assert_eq!(reply.status, 413, "{}", reply.body);
    let two = "{\"a\":\"1\",\"b\":\"2\"}";
    let reply = server.post("/admin/import", object(two, &[1.0])).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("tags_max"), "{}", reply.body);
    let reply = server.post("/admin/import", "cpu value=1").await;
    assert_eq!(reply.status, 400);
    assert!(server.keys().await.is_empty());
}
