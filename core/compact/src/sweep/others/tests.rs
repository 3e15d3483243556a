//! Each rule about other tiers, by a tier that lacks one thing.
#![allow(clippy::unwrap_used, clippy::panic)]

use stele_model::{TenantId, Window};
use stele_store::Tier;
use stele_table::{FileKind, RemovedFile, Retired, Revoked, TableLog};
use stele_testkit::{ManualClock, MemoryStore};

use super::*;
use crate::plan::fixtures;

fn other(tier: &str, common: Common) -> Other {
    let clock = ManualClock::new(0);
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    let store = Tier::from_store(memory, "", tier).tenant(&TenantId::default());
    let log = TableLog::new(store, stele_table::Options::default(), Arc::new(clock));
    Other {
        witness: Witness {
            tier: tier.to_owned(),
            log: Arc::new(log),
        },
        pins: Pins::default(),
        state: None,
        index: LogIndex::default(),
        l0: BTreeSet::new(),
        common,
    }
}

fn others(each: Vec<Other>) -> Others {
    Others {
        may_commit: true,
        each,
    }
}

fn name(byte: u8) -> L0Name {
    L0Name {
        digest: Digest([byte; 16]),
        first: Window(1),
        last: Window(1),
    }
}

fn at(version: u64) -> TableState {
    TableState {
        version,
        ..fixtures::state(&[])
    }
}

/// All others are one tier, whose newest version is `state`.
fn with(state: TableState) -> Others {
    let mut one = other("b", Common::At(state.version));
    one.state = Some(Arc::new(state));
    others(vec![one])
}

#[test]
fn only_a_tier_that_may_commit_and_has_no_other_is_alone() {
    assert!(others(Vec::new()).is_alone());
    assert!(!others(vec![other("b", Common::NoTable)]).is_alone());
    let mut mirror = others(Vec::new());
    mirror.may_commit = false;
    assert!(!mirror.is_alone());
}

#[test]
fn what_was_consumed_is_had_by_the_same_log_or_the_object() {
    let has = |common, holds, revoked: bool| {
        let mut one = other("b", common);
        let mut state = at(9);
        if revoked {
            let plan = Digest::default();
            let (after, before) = (4, 8);
            state.revoked = vec![Revoked {
                after,
                before,
                plan,
            }];
        }
        one.state = Some(Arc::new(state));
        one.l0.insert(name(holds).digest);
        let others = others(vec![other_with_all(), one]);
        others.have(&name(1), 5)
    };
    assert!(has(Common::At(5), 2, false));
    assert!(!has(Common::At(4), 2, false));
    assert!(!has(Common::At(5), 2, true));
    assert!(has(Common::At(5), 1, true));
    for common in [Common::NoTable, Common::Unproven, Common::Diverged(5)] {
        assert!(!has(common, 2, false), "{common:?}");
        assert!(has(common, 1, false), "{common:?}");
    }
}

fn other_with_all() -> Other {
    let mut one = other("a", Common::At(9));
    one.state = Some(Arc::new(at(9)));
    one.l0.insert(name(1).digest);
    one
}

#[test]
fn all_logs_are_the_same_up_to_the_end_of_the_shortest() {
    let common = |all: &[Common]| {
        let each = all.iter().map(|common| other("b", *common));
        others(each.collect()).common()
    };
    assert_eq!(common(&[]), Some(u64::MAX));
    assert_eq!(
        common(&[Common::At(7), Common::At(5), Common::At(6)]),
        Some(5)
    );
    for unknown in [Common::NoTable, Common::Unproven, Common::Diverged(5)] {
        assert_eq!(common(&[Common::At(7), unknown]), None);
    }
}

#[test]
fn the_tiers_whose_logs_do_not_reach_a_version_are_behind() {
    let all = others(vec![
        other("less", Common::At(4)),
        other("as far", Common::At(5)),
        other("without", Common::NoTable),
    ]);
    assert_eq!(all.behind(5), ["less", "without"]);
}

#[test]
fn a_file_goes_when_no_tier_has_it_live_and_none_ahead_has_forgotten_it() {
    let live = fixtures::file(FileKind::Open, "one", &[1], 1);
    let removed = |path: &str, removed_us| RemovedFile {
        path: path.to_owned(),
        size_bytes: 1,
        removed_us,
    };
    let own = at(5);
    let goes = |others: Others| others.let_file_go(&live.path, 7, &own);
    assert!(goes(others(Vec::new())));
    // Without a table there, nothing is known of it.
    assert!(!goes(others(vec![other("b", Common::NoTable)])));
    let holding = || fixtures::state(std::slice::from_ref(&live));
    for version in [4, 5] {
        assert!(goes(with(at(version))), "{version}");
        let live = TableState {
            version,
            ..holding()
        };
        assert!(!goes(with(live)), "{version}");
    }
    let ahead = |removed: &[RemovedFile]| TableState {
        removed: removed.to_vec(),
        ..at(6)
    };
    assert!(!goes(with(at(6))));
    assert!(goes(with(ahead(&[removed(&live.path, 7)]))));
    // Removed again, or another.
    assert!(!goes(with(ahead(&[removed(&live.path, 8)]))));
    assert!(!goes(with(ahead(&[removed("another", 7)]))));
    let both = TableState {
        version: 6,
        removed: vec![removed(&live.path, 7)],
        ..holding()
    };
    assert!(!goes(with(both)));
}

#[test]
fn a_ledger_object_goes_when_no_tier_ahead_has_forgotten_it() {
    let own = at(5);
    let goes = |others: Others| others.let_ledger_go("ledger/one", &own);
    let ahead = |key: &str| {
        let mut state = at(6);
        state.ledger.retired.push(Retired {
            key: key.to_owned(),
            size_bytes: 1,
            retired_us: 1,
        });
        with(state)
    };
    assert!(goes(others(Vec::new())));
    assert!(!goes(others(vec![other("b", Common::NoTable)])));
    assert!(goes(with(at(4))) && goes(with(at(5))));
    assert!(!goes(with(at(6))) && !goes(ahead("ledger/two")));
    assert!(goes(ahead("ledger/one")));
}

#[test]
fn a_path_is_live_when_any_tier_says_so() {
    let live = fixtures::file(FileKind::Open, "one", &[1], 1);
    let mut all = with(fixtures::state(std::slice::from_ref(&live)));
    all.each.push(other("c", Common::NoTable));
    assert!(all.any_live(&live.path));
    assert!(!all.any_live("another"));
}

#[test]
fn an_object_is_gone_when_no_tier_lists_it() {
    let mut one = other("b", Common::NoTable);
    one.l0.insert(name(1).digest);
    let all = others(vec![one, other("c", Common::NoTable)]);
    let mut gone = vec![name(1).digest, name(2).digest];
    all.gone_everywhere(&mut gone);
    assert_eq!(gone, [name(2).digest]);
}
