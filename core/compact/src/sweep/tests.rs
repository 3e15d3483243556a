//! What is looked at again before each group of deletions: the plan may be minutes old.
#![allow(clippy::unwrap_used, clippy::panic)]

use stele_model::Window;
use stele_table::{FileKind, RemovedFile, Retired, Unswept};

use super::*;
use crate::plan::fixtures;

fn alone() -> Others {
    Others {
        may_commit: true,
        each: Vec::new(),
    }
}

fn goes(one: &Doomed, state: &TableState) -> bool {
    is_doomed(one, state, &alone())
}

#[test]
fn a_file_still_goes_only_while_that_very_removal_is_named_and_it_is_not_live() {
    let file = fixtures::file(FileKind::Open, "one", &[1], 1);
    let one = Doomed::File {
        path: file.path.clone(),
        size_bytes: 1,
        removed_us: 7,
    };
    let removed = |path: &str, removed_us| {
        let mut state = fixtures::state(&[]);
        state.removed.push(RemovedFile {
            path: path.to_owned(),
            size_bytes: 1,
            removed_us,
        });
        state
    };
    assert!(goes(&one, &removed(&file.path, 7)));
    // Another sweep has deleted it, and that is noted.
    assert!(!goes(&one, &fixtures::state(&[])));
    // Its name was used again, and removed again.
    assert!(!goes(&one, &removed(&file.path, 8)));
    assert!(!goes(&one, &removed("another", 7)));
    // A restore brought it back.
    let mut back = removed(&file.path, 7);
    back.files.insert(file.path.clone(), file);
    assert!(!goes(&one, &back));
}

#[test]
fn a_ledger_object_still_goes_only_while_it_is_named_as_retired() {
    let key = |key: &str| Doomed::Ledger {
        key: key.to_owned(),
        size_bytes: 1,
    };
    let mut state = fixtures::state(&[]);
    state.ledger.retired.push(Retired {
        key: "ledger/one".to_owned(),
        size_bytes: 1,
        retired_us: 1,
    });
    assert!(goes(&key("ledger/one"), &state));
    assert!(!goes(&key("ledger/two"), &state));
}

#[test]
fn an_object_still_goes_only_while_the_same_version_has_consumed_it() {
    let name = L0Name {
        digest: Digest([1; 16]),
        first: Window(1),
        last: Window(1),
    };
    let one = |version| Doomed::L0 {
        name,
        version,
        size_bytes: 1,
    };
    let mut state = fixtures::state(&[]);
    assert!(!goes(&one(3), &state));
    let unswept = Unswept {
        name,
        committed_us: 0,
        version: 3,
    };
    state.unswept.insert(name.digest, unswept);
    assert!(goes(&one(3), &state));
    // Sent again after another sweep had deleted it, and consumed again.
    assert!(!goes(&one(2), &state) && !goes(&one(4), &state));
}
