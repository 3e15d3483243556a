//! How a backlog is divided among several invocations of a function (pure).
//!
//! A tenant with more than one invocation should do is divided by windows, and the parts of all
//! tenants are dealt out so that every invocation gets about as much. It is about time alone: two
//! invocations that do the same work commit it once.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use stele_compact::Part;
use stele_model::TenantId;

/// What one invocation is about to do for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Whose.
    pub tenant: TenantId,
    /// Which part of it.
    #[serde(default)]
    pub part: Part,
}

/// What waits for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Whose.
    pub tenant: TenantId,
    /// L0 objects not yet absorbed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Different windows in which they begin: no more parts than these are of use.
    pub windows: u32,
    /// For how long the oldest of them has waited, seconds.
    pub oldest_secs: u64,
}

/// Reading an object costs about as much as this many of its bytes.
const OBJECT_BYTES: u64 = 64 << 10;
/// What an invocation may have in front of it before another is asked for help: 4,096 small objects.
const INVOCATION_BYTES: u64 = 4_096 * OBJECT_BYTES;

impl Waiting {
    fn cost(&self) -> u64 {
        // A tenant where nothing waits costs its requests all the same.
        self.bytes + self.objects.max(1) * OBJECT_BYTES
    }
}

/// Divides what waits into at most `others_max + 1` shares, none of them empty but the first. The
/// first is for whoever asks, each other one for another invocation. In each, what has waited
/// longest comes first.
#[must_use]
pub fn share(waiting: &[Waiting], others_max: usize) -> Vec<Vec<Piece>> {
    let total: u64 = waiting.iter().map(Waiting::cost).sum();
    let wanted = usize::try_from(total.div_ceil(INVOCATION_BYTES)).unwrap_or(usize::MAX);
    let shares = wanted.clamp(1, others_max.saturating_add(1));
    let fair = total.div_ceil(shares as u64).max(1);
    let mut pieces = Vec::new();
    for one in waiting {
        let of = u32::try_from(one.cost().div_ceil(fair)).unwrap_or(u32::MAX);
        let of = of.clamp(1, one.windows.max(1));
        let cost = one.cost() / u64::from(of);
        pieces.extend((0..of).map(|index| {
            let part = Part { index, of };
            let tenant = one.tenant.clone();
            (cost, one.oldest_secs, Piece { tenant, part })
        }));
    }
    // The largest first, each to whoever has least.
    pieces.sort_by_key(|(cost, ..)| Reverse(*cost));
    let mut dealt: Vec<(u64, Vec<(u64, Piece)>)> = vec![Default::default(); shares];
    for (cost, oldest_secs, piece) in pieces {
        if let Some((sum, share)) = dealt.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum += cost;
            share.push((oldest_secs, piece));
        }
    }
    let mut shares: Vec<Vec<Piece>> = Vec::with_capacity(dealt.len());
    for (_, mut share) in dealt {
        share.sort_by_key(|(oldest_secs, _)| Reverse(*oldest_secs));
        let share: Vec<Piece> = share.into_iter().map(|(_, piece)| piece).collect();
        if shares.is_empty() || !share.is_empty() {
            shares.push(share);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn waiting(tenant: &str, objects: u64, windows: u32, oldest_secs: u64) -> Waiting {
        Waiting {
            tenant: tenant.parse().unwrap(),
            objects,
            bytes: objects * 1024,
            windows,
            oldest_secs,
        }
    }

    fn names(share: &[Piece]) -> Vec<String> {
        let named = share.iter().map(|piece| {
            let Part { index, of } = piece.part;
            format!("{} {index}/{of}", piece.tenant)
        });
        named.collect()
    }

    #[test]
    fn a_small_backlog_is_one_invocation_oldest_first() {
        let small = [
            waiting("a", 10, 3, 5),
            waiting("b", 0, 0, 0),
            waiting("c", 7, 2, 60),
        ];
        let shares = share(&small, 10);
        assert_eq!(shares.len(), 1);
        assert_eq!(names(&shares[0]), ["c 0/1", "a 0/1", "b 0/1"]);
    }

    #[test]
    fn without_others_nothing_is_divided() {
        let shares = share(&[waiting("a", 1_000_000, 500, 9)], 0);
        assert_eq!(shares.len(), 1);
        assert_eq!(names(&shares[0]), ["a 0/1"]);
    }

    #[test]
    fn a_large_tenant_is_divided_by_windows_and_no_further() {
        let shares = share(&[waiting("a", 1_000_000, 3, 9)], 10);
        let pieces: Vec<String> = shares.iter().flat_map(|share| names(share)).collect();
        assert_eq!(pieces, ["a 0/3", "a 1/3", "a 2/3"]);
        assert!(shares.iter().all(|share| share.len() == 1));
    }

    #[test]
    fn every_part_is_dealt_once_and_the_shares_are_bounded() {
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let all: Vec<Waiting> = (0..next(30))
                .map(|n| {
                    let windows = u32::try_from(next(50)).unwrap();
                    waiting(&format!("t{n}"), next(100_000), windows, next(1000))
                })
                .collect();
            let others = usize::try_from(next(8)).unwrap();
            let shares = share(&all, others);
            assert!((1..=others + 1).contains(&shares.len()));
            let mut parts: BTreeMap<TenantId, Vec<Part>> = BTreeMap::new();
            for piece in shares.into_iter().flatten() {
                parts.entry(piece.tenant).or_default().push(piece.part);
            }
            assert_eq!(parts.len(), all.len());
            for mut parts in parts.into_values() {
                parts.sort_by_key(|part| part.index);
                let of = u32::try_from(parts.len()).unwrap();
                let whole: Vec<Part> = (0..of).map(|index| Part { index, of }).collect();
                assert_eq!(parts, whole);
            }
        }
    }

    #[test]
    fn many_small_tenants_are_spread() {
        let many: Vec<Waiting> = (0..100)
            .map(|n| waiting(&format!("t{n}"), 400, 2, n))
            .collect();
        let shares = share(&many, 4);
        assert_eq!(shares.len(), 5);
        assert!(shares.iter().all(|share| share.len() == 20));
    }
}
