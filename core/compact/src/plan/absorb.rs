//! Which L0 objects one round of absorb takes.

use std::collections::BTreeMap;

use stele_model::Day;
use stele_store::L0Object;

/// Objects of one round at most: bounds what the ledger of one operation holds.
const OBJECTS_MAX: usize = 4096;

/// What an object holds decoded at the least, bytes; a round is cut short by what was really
/// decoded, so this only keeps it from fetching far too much.
#[must_use]
pub fn decoded_bytes_at_least(size_bytes: u64) -> u64 {
    size_bytes.saturating_mul(2)
}

/// The objects of the next round: whole days together, so that a round touches few days, the day
/// with the longest waiting object first, and within a day the longest waiting first. At least
/// one, then as many as fit `decoded_bytes_max` by [`decoded_bytes_at_least`].
#[must_use]
pub fn round(objects: &[L0Object], decoded_bytes_max: u64) -> Vec<L0Object> {
    let mut oldest: BTreeMap<Day, i64> = BTreeMap::new();
    for object in objects {
        let day = oldest.entry(object.name.first.day()).or_insert(i64::MAX);
        *day = object.stored_us.min(*day);
    }
    let key = |object: &L0Object| {
        let day = object.name.first.day();
        let waiting = oldest.get(&day).copied().unwrap_or(i64::MAX);
        (waiting, day, object.stored_us, object.name)
    };
    let mut sorted = objects.to_vec();
    sorted.sort_unstable_by_key(key);
    let mut decoded_bytes = 0;
    let mut taken = 0;
    for object in sorted.iter().take(OBJECTS_MAX) {
        decoded_bytes += decoded_bytes_at_least(object.size_bytes);
        if taken > 0 && decoded_bytes > decoded_bytes_max {
            break;
        }
        taken += 1;
    }
    sorted.truncate(taken);
    sorted
}

#[cfg(test)]
mod tests {
    use stele_model::{Digest, L0Name, Window};

    use super::*;

    fn object(n: u8, hour: i32, stored_us: i64, size_bytes: u64) -> L0Object {
        let name = L0Name {
            digest: Digest([n; 16]),
            first: Window(hour),
            last: Window(hour),
        };
        L0Object {
            name,
            size_bytes,
            stored_us,
        }
    }

    #[test]
    fn days_stay_together_and_the_longest_waiting_goes_first() {
        let objects = [
            object(1, 30, 5, 1),
            object(2, 1, 9, 1),
            object(3, 31, 1, 1),
            object(4, 2, 2, 1),
        ];
        let order: Vec<u8> = round(&objects, 1 << 20)
            .iter()
            .map(|o| o.name.digest.0[0])
            .collect();
        assert_eq!(order, [3, 1, 4, 2]);
    }

    #[test]
    fn a_round_is_bounded_but_never_empty() {
        let objects: Vec<_> = (0..9).map(|n| object(n, 1, i64::from(n), 1000)).collect();
        assert_eq!(round(&objects, 6000).len(), 3);
        assert_eq!(round(&objects, 1).len(), 1);
        assert!(round(&[], 1).is_empty());
    }
}
