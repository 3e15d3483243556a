//! The record of losses: noted once, withdrawn by a later link, bounded, and never misread.

use std::sync::Arc;

use stele_model::{Digest, TenantId};
use stele_store::{Tier, sealed};

use super::*;

fn store() -> TenantStore {
    let tier = Tier::open("memory://", &[]).unwrap();
    tier.tenant(&TenantId::default())
}

fn name(n: u8, first: i32, last: i32) -> L0Name {
    L0Name {
        digest: Digest([n; 16]),
        first: Window(first),
        last: Window(last),
    }
}

fn batch(n: u8) -> Loss {
    Loss::of_l0(name(n, 10, 12), i64::from(n))
}

fn file(path: &str, kind: LossKind, noticed_us: i64) -> Loss {
    Loss {
        kind,
        object: LostObject::File(path.to_owned()),
        windows: WindowSet::range(Window(5), Window(6)),
        metrics: Some(MetricRange {
            min: "a \"b\"\u{7f}é".to_owned(),
            max: "z".to_owned(),
        }),
        rows: Some(3),
        noticed_us,
    }
}

fn restore(version: u64, hour: i32, batches: u64) -> Loss {
    Loss {
        kind: LossKind::BatchRevoked,
        object: LostObject::Restore { version, batches },
        windows: WindowSet::range(Window(hour), Window(hour)),
        metrics: None,
        rows: Some(9),
        noticed_us: 1,
    }
}

async fn links(store: &TenantStore) -> usize {
    store.list("control/losses").await.unwrap().len()
}

#[tokio::test]
async fn a_loss_is_noted_once_and_withdrawn_by_a_later_link() {
    let store = store();
    assert_eq!(losses(&store).await.unwrap(), []);
    let (a, b) = (file("a", LossKind::FileMissing, 7), batch(1));
    let both = [a.clone(), b.clone(), restore(4, 5, 2)];
    let noted = note_losses(&store, &both).await.unwrap();
    assert_eq!((noted.noted, noted.withdrawn, noted.losses), (3, 0, 3));
    assert_eq!(losses(&store).await.unwrap(), both);
    // Noticed again, it is no news; another kind is.
    let again = file("a", LossKind::FileMissing, 99);
    let noted = note_losses(&store, &[again]).await.unwrap();
    assert_eq!((noted.noted, links(&store).await), (0, 1));
    let other = file("a", LossKind::FileDamaged, 99);
    note_losses(&store, &[other]).await.unwrap();
    let known = losses(&store).await.unwrap();
    assert_eq!(
        (known[0].kind, known[0].noticed_us),
        (LossKind::FileDamaged, 7)
    );
    let is_file = |loss: &Loss| matches!(loss.object, LostObject::File(_));
    let over = change_losses(&store, &[], is_file).await.unwrap();
    assert_eq!((over.noted, over.withdrawn, over.losses), (0, 1, 2));
    assert_eq!(losses(&store).await.unwrap(), [b, restore(4, 5, 2)]);
    // Nothing was deleted, and what is over already writes nothing.
    change_losses(&store, &[], is_file).await.unwrap();
    assert_eq!(links(&store).await, 3);
}

#[tokio::test]
async fn batches_of_one_restore_are_one_loss_for_each_set_of_windows() {
    let store = store();
    let first = [restore(4, 5, 2), restore(4, 6, 1), restore(9, 5, 1)];
    note_losses(&store, &first).await.unwrap();
    // One of two came back.
    let fewer = [restore(4, 5, 1)];
    let is_of_4 = |loss: &Loss| matches!(loss.object, LostObject::Restore { version: 4, .. });
    change_losses(&store, &fewer, is_of_4).await.unwrap();
    let known = losses(&store).await.unwrap();
    assert_eq!(known, [restore(4, 5, 1), restore(9, 5, 1)]);
}

#[tokio::test]
async fn writers_that_race_lose_no_loss() {
    let store = Arc::new(store());
    let tasks = (0..8).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { note_losses(&store, &[batch(n)]).await.map(drop) })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    let known = losses(&store).await.unwrap();
    assert_eq!(known.len(), 8);
    assert_eq!(links(&store).await, 8);
}

#[tokio::test]
async fn more_losses_than_are_named_keep_their_windows() {
    let store = store();
    let hour = |n: usize| i32::try_from(n).unwrap();
    let many = (0..LOSSES_MAX + 7).map(|n| Loss {
        windows: WindowSet::range(Window(hour(n)), Window(hour(n))),
        ..file(&format!("f{n}"), LossKind::FileMissing, 1)
    });
    let many: Vec<Loss> = many.collect();
    note_losses(&store, &many).await.unwrap();
    let known = losses(&store).await.unwrap();
    assert_eq!(known.len(), LOSSES_MAX + 1);
    assert_eq!(known[LOSSES_MAX].object, LostObject::Others);
    assert_eq!(known[LOSSES_MAX].windows.len(), 7);
    note_losses(&store, &many).await.unwrap();
    assert_eq!(links(&store).await, 1, "again is no news");
    // Whoever knows them all says so, and then the others are over with what they stood for.
    change_losses(&store, &many[..2], |_| true).await.unwrap();
    assert_eq!(losses(&store).await.unwrap(), many[..2]);
}

#[tokio::test]
async fn wide_batches_are_bounded_by_the_days_they_span() {
    let wide = |n| Loss::of_l0(name(n, 0, Window::LAST.0), 1);
    let all: Vec<Loss> = (0..20).map(wide).collect();
    let kept = named(all, None);
    assert_eq!(kept.len(), NAMED_DAYS_MAX / 84_006 + 1);
    let rest = kept.last().unwrap();
    assert_eq!(
        (&rest.object, rest.windows.len()),
        (&LostObject::Others, 2_016_144)
    );
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_never_another_record() {
    let key = "control/losses/00000000000000000000.json";
    let good = serde_json::to_string(&Record {
        losses: vec![file("a", LossKind::FileMissing, 7)],
    });
    let good = good.unwrap();
    let hostile = [
        good.replace("\"file_missing\"", "\"batch_damaged\""),
        good.replace("\"5-6\"", "\"\""),
        good.replace("\"5-6\"", "\"5-2147483647\""),
        good.replace("\"5-6\"", "\"6-5\""),
        good.replace("\"z\"", "\"\""),
        good.replace("\"rows\":3", "\"rows\":-3"),
        good.replace("\"rows\":3", "\"rows\":3,\"more\":1"),
        good.replace("{\"file\":\"a\"}", "{\"l0\":\"../../x\"}"),
        good.replace("{\"file\":\"a\"}", "\"everything\""),
        "{\"losses\":7}".to_owned(),
        "{}".to_owned(),
        "[".repeat(100_000),
    ];
    for text in hostile {
        assert_ne!(text, good);
        let store = store();
        store
            .put_new(key, sealed::seal(text.as_bytes()))
            .await
            .unwrap();
        let error = losses(&store).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        let error = note_losses(&store, &[batch(1)]).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert_eq!(links(&store).await, 1);
    }
    for bytes in [good.clone().into_bytes(), vec![b' '; 9 << 20]] {
        let store = store();
        store.put_new(key, bytes.into()).await.unwrap();
        assert!(losses(&store).await.is_err(), "not sealed");
    }
    let store = store();
    store
        .put_new(key, sealed::seal(good.as_bytes()))
        .await
        .unwrap();
    assert_eq!(losses(&store).await.unwrap().len(), 1);
}
