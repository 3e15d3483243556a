//! Decoders against damaged input. Whole objects behind a digest cannot reach them damaged, but
//! heads and entries can, and a decoder must not be the thing that relies on it.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use stele_model::{Day, Digest, FileStats, L0Name, Resolution, RowsHash, Window};

use crate::apply::{Attached, apply};
use crate::check::sealed;
use crate::codec;
use crate::commit::{Commit, CommitKind, Conservation, ConsumedBatch, ConsumedObject, OperationId};
use crate::entry::{LogEntry, encode, encode_create};
use crate::error::Damage;
use crate::file::{FileEntry, FileKind};
use crate::head::{Manifest, decode_head, encode_head};
use crate::ledger::{LedgerFile, OperationRows};
use crate::state::{LedgerState, TableMeta, TableState};
use crate::{apply as apply_mod, checkpoint};

fn commit() -> Commit {
    let hash = RowsHash(7);
    let batch = ConsumedBatch {
        digest: Digest([3; 16]),
        day: Day(0),
        rows: 5,
        hash,
        duplicate_of: None,
    };
    let name = L0Name {
        digest: Digest([3; 16]),
        first: Window(0),
        last: Window(1),
    };
    let kind = FileKind::Sealed(Resolution::Raw);
    let file = FileEntry {
        path: FileEntry::path_of(kind, "1970-01-01", "a"),
        kind,
        period: "1970-01-01".to_owned(),
        windows: name.windows(),
        stats: FileStats {
            size_bytes: 9,
            digest: Digest([1; 16]),
            footer_digest: Digest([2; 16]),
            footer_bytes: 8,
            rows: 5,
            rows_hash: hash,
            ts_min_us: 0,
            ts_max_us: 1,
            metric_min: "a".to_owned(),
            metric_max: "b".to_owned(),
            series: 1,
        },
    };
    let operation = OperationId(Digest([9; 16]).to_string());
    let mut commit = Commit::new(operation, CommitKind::Absorb, 1_000_000);
    commit.add.push(file);
    commit.consumed.push(ConsumedObject {
        name,
        stored_us: 4,
        batches: vec![batch],
    });
    commit.conservation = Conservation {
        rows_in: 5,
        rows_out: 5,
        hash_in: hash,
        hash_out: hash,
        ..Conservation::default()
    };
    commit
}

/// A table of one commit, and that commit's entry and ledger file.
fn one_commit() -> (TableState, Vec<u8>, Vec<u8>) {
    let meta = TableMeta {
        id: "id".to_owned(),
        created_us: 0,
    };
    let created = encode_create(&Digest([8; 16]).to_string(), &meta, None).unwrap();
    let entry = LogEntry::decode(&created).unwrap();
    let empty = apply_mod::create(&entry, codec::digest(&created)).unwrap();
    let commit = commit();
    let rows = OperationRows {
        operation: commit.operation.0.clone(),
        version: 1,
        committed_us: commit.timestamp_us,
        objects: commit.consumed.clone(),
        overridden: 0,
    };
    let (object, ledger) = LedgerFile::encode_operation(&rows.operation, rows.clone()).unwrap();
    let bytes = encode(&empty, &commit, Some(&object)).unwrap();
    let file = Arc::new(LedgerFile::new(vec![rows]));
    let entry = LogEntry::decode(&bytes).unwrap();
    let digest = codec::digest(&bytes);
    let state = apply(&empty, &entry, digest, &Attached::Ledger(file)).unwrap();
    (state, bytes.to_vec(), ledger.to_vec())
}

/// Puts `with` where the n-th scalar of a JSON value is.
fn replace(value: &mut Value, n: &mut usize, with: &Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(|v| replace(v, n, with)),
        Value::Array(items) => items.iter_mut().for_each(|v| replace(v, n, with)),
        scalar => {
            if *n == 0 {
                *scalar = with.clone();
            }
            *n = n.wrapping_sub(1);
        }
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::from(i64::MIN)),
        Just(Value::from(u64::MAX)),
        "[-0-9a-f:,]{0,40}".prop_map(Value::from),
    ]
}

#[test]
fn an_entry_says_what_was_committed() {
    let (state, bytes, _) = one_commit();
    let entry = LogEntry::decode(&bytes).unwrap();
    let commit = commit();
    assert_eq!((entry.add, entry.remove), (commit.add, commit.remove));
    assert_eq!(state.totals.rows, 5);
    assert_eq!(decode_head(&encode_head(&state).unwrap()).unwrap(), state);
}

#[test]
fn any_flipped_bit_of_an_entry_is_found_by_the_entry_itself() {
    let (_, bytes, _) = one_commit();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(
                LogEntry::decode(&flipped).is_err(),
                "bit {bit} of byte {at}"
            );
        }
        assert!(LogEntry::decode(&bytes[..at]).is_err(), "cut to {at}");
    }
}

#[test]
fn an_entry_applies_only_to_the_version_it_continues() {
    let (state, bytes, ledger) = one_commit();
    let entry = LogEntry::decode(&bytes).unwrap();
    let file = Attached::Ledger(Arc::new(LedgerFile::decode(&ledger).unwrap()));
    let digest = codec::digest(&bytes);
    assert!(
        apply(&state, &entry, digest, &file).is_err(),
        "its own version again"
    );
    let mut forked = TableState {
        entry_digest: Digest([5; 16]),
        ..TableState::default()
    };
    assert!(
        apply(&forked, &entry, digest, &file).is_err(),
        "another history"
    );
    forked.entry_digest = entry.facts.previous;
    assert!(apply(&forked, &entry, digest, &file).is_ok());
    assert!(
        apply(&forked, &entry, digest, &Attached::Nothing).is_err(),
        "rows from nowhere"
    );
    forked.files.clone_from(&state.files);
    assert!(
        apply(&forked, &entry, digest, &file).is_err(),
        "a file added twice"
    );
}

#[test]
fn no_checkpoint_is_parsed_that_is_not_ours_to_the_bit() {
    let (mut state, ..) = one_commit();
    let manifest = Manifest::new(&state, LedgerState::default()).unwrap();
    state.ledger.manifest = Some(manifest.encode().unwrap().0);
    let checkpoint::Encoded { bytes, hint } = checkpoint::encode(&state).unwrap();
    let decoded = checkpoint::decode(bytes.clone()).unwrap();
    assert_eq!((decoded.version, decoded.files.len()), (1, 1));
    assert_eq!(checkpoint::Hint::decode(&hint).unwrap().version, 1);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            let error = checkpoint::decode(damaged.into()).err();
            // The one error that comes before the library sees a byte.
            let unparsed = matches!(error, Some(Damage::Digest { .. } | Damage::Value { .. }));
            assert!(unparsed, "bit {bit} of byte {at}: {error:?}");
        }
        assert!(checkpoint::decode(bytes.slice(..at)).is_err());
    }
    for at in 0..hint.len() {
        for bit in 0..8 {
            let mut damaged = hint.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(checkpoint::Hint::decode(&damaged).is_err(), "{bit} {at}");
        }
        assert!(checkpoint::Hint::decode(&hint[..at]).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_a_decoder(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let packed = zstd::bulk::compress(&bytes, 1).unwrap();
        for bytes in [&bytes, &packed] {
            prop_assert!(LogEntry::decode(bytes).is_err());
            prop_assert!(decode_head(bytes).is_err());
            prop_assert!(Manifest::decode(bytes).is_err());
            prop_assert!(LedgerFile::decode(bytes).is_err());
            prop_assert!(checkpoint::decode(bytes.clone().into()).is_err());
        }
    }

    #[test]
    fn odd_values_never_panic_a_decoder(n in 0usize..60, with in odd_value()) {
        let (state, bytes, ledger) = one_commit();
        let mut lines = Vec::new();
        let mut at = n;
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let mut line: Value = serde_json::from_slice(line).unwrap();
            replace(&mut line, &mut at, &with);
            lines.extend(line.to_string().into_bytes());
            lines.push(b'\n');
        }
        // What was replaced is not what the check is for.
        if let Ok(entry) = LogEntry::decode(&sealed(lines)) {
            let _ = apply(&state, &entry, Digest::default(), &Attached::Nothing);
        }
        let odd = |packed: &[u8]| {
            let mut value: Value = codec::unpack(packed).unwrap();
            replace(&mut value, &mut n.clone(), &with);
            codec::pack(&value).unwrap()
        };
        if let Ok(state) = decode_head(&odd(&encode_head(&state).unwrap())) {
            let _ = state.open_windows_of_files();
        }
        if let Ok(file) = LedgerFile::decode(&odd(&ledger)) {
            let _ = crate::ledger::by_day(&[Arc::new(file)]);
        }
        let manifest = Manifest::new(&state, LedgerState::default()).unwrap();
        let _ = Manifest::decode(&odd(&manifest.encode().unwrap().1));
    }
}
