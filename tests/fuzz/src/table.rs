//! Log entries, heads, manifests, ledger files and checkpoints.
//!
//! Heads, manifests and ledger files are compressed JSON with a checksum: the targets mutate the
//! JSON, since mutated compressed bytes are refused before any of our code sees them. Entries get
//! the check they should have.

use bytes::Bytes;
use stele_table::{LogEntry, Mark, Pin, TableState, raw};

fn packed(json: &[u8]) -> Vec<u8> {
    zstd::encode_all(json, 1).expect("memory takes it")
}

/// An entry reads the same twice, and what it claims can be asked.
pub fn log_entry(data: &[u8]) {
    let bytes = raw::checked(data);
    let Ok(entry) = raw::entry(&bytes) else {
        return;
    };
    assert_eq!(raw::entry(&bytes).expect("it was decoded"), entry);
    let _ = entry.conservation().check();
    assert_eq!(entry.operation().is_empty(), entry.operation() == "");
    assert!(entry.add.iter().all(|file| !file.windows.is_empty()));
}

/// What was decoded is the same after another encoding, and is found to be that of its version or
/// not.
pub fn pin(data: &[u8]) {
    let bytes = raw::checked(data);
    let name = "noon".parse().expect("a name");
    if let Ok(pin) = Pin::decode(&name, &bytes) {
        let again = pin.encode().expect("a decoded pin is encodable");
        assert_eq!(Pin::decode(&name, &again).expect("it is ours"), pin);
        assert!(pin.is_same(&pin));
        let _ = pin.check(&TableState::default());
    }
    if let Ok(mark) = Mark::decode(&bytes) {
        let again = mark.encode().expect("a decoded mark is encodable");
        assert_eq!(Mark::decode(&again).expect("it is ours"), mark);
    }
}

/// `head JSON \0 entry`: a head is the same after another encoding, and an entry applied to it
/// gives the next version or an error.
pub fn head(data: &[u8]) {
    let _ = raw::head(data);
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let json = parts.next().unwrap_or_default();
    let Ok(mut state) = raw::head(&packed(json)) else {
        return;
    };
    let again = raw::head_bytes(&state).expect("a decoded head is encodable");
    assert_eq!(raw::head(&again).expect("it is ours"), state);
    let Some(bytes) = parts.next() else {
        return;
    };
    let bytes = &raw::checked(bytes)[..];
    let Ok(entry) = raw::entry(bytes) else {
        return;
    };
    // The chain of digests and versions is not what the fuzzer is to find.
    let Some(before) = entry.version.checked_sub(1) else {
        return;
    };
    state.version = before;
    state.entry_digest = previous(&entry, bytes);
    if let Ok(next) = raw::after(&state, &entry, bytes) {
        assert_eq!(next.version, entry.version);
        assert!(
            entry
                .add
                .iter()
                .all(|file| next.files.contains_key(&file.path))
        );
        assert!(!entry.remove.iter().any(|path| {
            next.files.contains_key(path) && !entry.add.iter().any(|file| file.path == *path)
        }));
        let head = raw::head_bytes(&next).expect("a state is encodable");
        assert_eq!(raw::head(&head).expect("it is ours"), next);
    }
}

fn previous(entry: &LogEntry, bytes: &[u8]) -> stele_model::Digest {
    let line = bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let value: serde_json::Value = serde_json::from_slice(line).ok()?;
        value["commitInfo"]["stele"]["previous"]
            .as_str()?
            .parse()
            .ok()
    });
    line.unwrap_or_else(|| panic!("version {} names no entry before it", entry.version))
}

/// A manifest is the same after another encoding.
pub fn manifest(data: &[u8]) {
    let _ = raw::manifest(data);
    let Ok(once) = raw::manifest(&packed(data)) else {
        return;
    };
    assert_eq!(raw::manifest(&once).expect("it is ours"), once);
}

/// A ledger file is the same after another encoding.
pub fn ledger(data: &[u8]) {
    let _ = raw::ledger(data);
    let Ok(once) = raw::ledger(&packed(data)) else {
        return;
    };
    assert_eq!(raw::ledger(&once).expect("it is ours"), once);
}

/// A checkpoint reads the same twice.
pub fn checkpoint(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(decoded) = raw::checkpoint(bytes.clone()) else {
        return;
    };
    assert_eq!(raw::checkpoint(bytes).expect("it was decoded"), decoded);
}
