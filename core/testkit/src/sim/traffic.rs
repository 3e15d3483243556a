//! What each actor sends, and how often: where faults of a random plan may strike.

use crate::fault::{KeyClass, Operation, Traffic};

/// Every process.
pub(super) const ACTORS: [&str; 9] = [
    "in-0", "in-1", "c-0", "c-1", "c-2", "p-0", "p-1", "q-0", "q-1",
];
/// Those of a run with tiers: two more work on the tiers.
pub(super) const TIER_ACTORS: [&str; 11] = [
    "in-0", "in-1", "c-0", "c-1", "c-2", "p-0", "p-1", "q-0", "q-1", "m-0", "m-1",
];
const INGEST: &[(KeyClass, Operation, usize)] = &[
    (KeyClass::L0, Operation::Put, 20),
    (KeyClass::L0, Operation::Get, 6),
    (KeyClass::Idem, Operation::Put, 8),
    (KeyClass::Idem, Operation::Get, 4),
];
const COMPACT: &[(KeyClass, Operation, usize)] = &[
    (KeyClass::L0, Operation::List, 16),
    (KeyClass::L0, Operation::Get, 20),
    (KeyClass::L0, Operation::Delete, 10),
    (KeyClass::Log, Operation::Get, 60),
    (KeyClass::Log, Operation::Put, 12),
    (KeyClass::Log, Operation::Put, 12),
    (KeyClass::Log, Operation::List, 5),
    (KeyClass::Log, Operation::Delete, 5),
    (KeyClass::Checkpoint, Operation::Get, 4),
    (KeyClass::Checkpoint, Operation::Put, 4),
    (KeyClass::Head, Operation::Get, 5),
    (KeyClass::Head, Operation::List, 6),
    (KeyClass::Head, Operation::Put, 10),
    (KeyClass::Head, Operation::Delete, 5),
    (KeyClass::Ledger, Operation::Get, 12),
    (KeyClass::Ledger, Operation::Put, 12),
    (KeyClass::Ledger, Operation::Delete, 4),
    (KeyClass::Data, Operation::Get, 50),
    (KeyClass::Data, Operation::Put, 30),
    (KeyClass::Data, Operation::List, 3),
    (KeyClass::Data, Operation::Delete, 8),
    (KeyClass::Control, Operation::List, 6),
    (KeyClass::Control, Operation::Put, 5),
    (KeyClass::Control, Operation::Head, 5),
    (KeyClass::Idem, Operation::List, 5),
    (KeyClass::Idem, Operation::Delete, 2),
    (KeyClass::Pin, Operation::List, 6),
    (KeyClass::Pin, Operation::Get, 20),
    (KeyClass::Pin, Operation::Put, 1),
    (KeyClass::Pin, Operation::Delete, 4),
];
const PINS: &[(KeyClass, Operation, usize)] = &[
    (KeyClass::Pin, Operation::Put, 12),
    (KeyClass::Pin, Operation::Get, 30),
    (KeyClass::Pin, Operation::List, 2),
    (KeyClass::Pin, Operation::Delete, 3),
    (KeyClass::Log, Operation::Get, 20),
    (KeyClass::Log, Operation::List, 6),
    (KeyClass::Head, Operation::List, 6),
    (KeyClass::Head, Operation::Get, 6),
    (KeyClass::Control, Operation::Put, 4),
    (KeyClass::Control, Operation::Head, 4),
];
const QUERY: &[(KeyClass, Operation, usize)] = &[
    (KeyClass::L0, Operation::List, 6),
    (KeyClass::L0, Operation::Get, 20),
    (KeyClass::Head, Operation::List, 3),
    (KeyClass::Head, Operation::Get, 3),
    (KeyClass::Log, Operation::Get, 20),
    (KeyClass::Checkpoint, Operation::Get, 2),
    (KeyClass::Ledger, Operation::Get, 2),
    (KeyClass::Data, Operation::Get, 30),
];
const TIERED_INGEST: &[(KeyClass, Operation, usize)] = &[
    (KeyClass::L0, Operation::Put, 40),
    (KeyClass::L0, Operation::Put, 40),
    (KeyClass::L0, Operation::Get, 6),
    (KeyClass::Idem, Operation::Put, 16),
    (KeyClass::Control, Operation::List, 8),
    (KeyClass::Control, Operation::Get, 40),
    (KeyClass::Control, Operation::Put, 4),
];
const MIGRATE: &[(KeyClass, Operation, usize)] = &[
    (KeyClass::Control, Operation::Get, 60),
    (KeyClass::Control, Operation::List, 20),
    (KeyClass::Control, Operation::Put, 40),
    (KeyClass::Control, Operation::Put, 40),
    (KeyClass::Control, Operation::Head, 10),
    (KeyClass::L0, Operation::List, 20),
    (KeyClass::L0, Operation::Get, 12),
    (KeyClass::L0, Operation::Put, 12),
    (KeyClass::Log, Operation::Get, 80),
    (KeyClass::Log, Operation::List, 20),
    (KeyClass::Log, Operation::Put, 20),
    (KeyClass::Log, Operation::Put, 20),
    (KeyClass::Checkpoint, Operation::Get, 6),
    (KeyClass::Checkpoint, Operation::Put, 6),
    (KeyClass::Head, Operation::List, 10),
    (KeyClass::Head, Operation::Get, 10),
    (KeyClass::Head, Operation::Put, 10),
    (KeyClass::Ledger, Operation::Get, 20),
    (KeyClass::Ledger, Operation::Put, 20),
    (KeyClass::Data, Operation::Get, 40),
    (KeyClass::Data, Operation::Put, 40),
    (KeyClass::Data, Operation::List, 6),
    (KeyClass::Idem, Operation::Put, 6),
    (KeyClass::Pin, Operation::Get, 20),
    (KeyClass::Pin, Operation::Put, 6),
];
const fn traffic(actor: &'static str, sends: &'static [(KeyClass, Operation, usize)]) -> Traffic {
    Traffic { actor, sends }
}
/// Compactors send most, so they are drawn more often.
pub(super) const TRAFFIC: [Traffic; 11] = [
    traffic("in-0", INGEST),
    traffic("in-1", INGEST),
    traffic("c-0", COMPACT),
    traffic("c-1", COMPACT),
    traffic("c-2", COMPACT),
    traffic("c-0", COMPACT),
    traffic("c-1", COMPACT),
    traffic("p-0", PINS),
    traffic("p-1", PINS),
    traffic("q-0", QUERY),
    traffic("q-1", QUERY),
];
/// The same with tiers.
pub(super) const TIER_TRAFFIC: [Traffic; 13] = [
    traffic("in-0", TIERED_INGEST),
    traffic("in-1", TIERED_INGEST),
    traffic("c-0", COMPACT),
    traffic("c-1", COMPACT),
    traffic("c-2", COMPACT),
    traffic("p-0", PINS),
    traffic("p-1", PINS),
    traffic("q-0", QUERY),
    traffic("q-1", QUERY),
    traffic("m-0", MIGRATE),
    traffic("m-1", MIGRATE),
    traffic("m-0", MIGRATE),
    traffic("m-1", MIGRATE),
];
