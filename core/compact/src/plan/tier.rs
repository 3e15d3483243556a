//! Size-tiered merging: a file is rewritten only together with files of about its own size, so a
//! row is rewritten a logarithmic number of times and few files remain.

/// Files of one tier that are merged together.
const FILES_PER_TIER: usize = 4;
/// The size below which all files are of one tier, bytes.
const SMALLEST_BYTES: u64 = 16 << 10;

/// The tier of a size: each is four times as large as the one below.
#[must_use]
pub fn tier_of(size_bytes: u64) -> u32 {
    (size_bytes / SMALLEST_BYTES).max(1).ilog(4)
}

/// Which of `sizes` to merge with a new file of `new_bytes`: every tier that would reach four
/// files, and what its result then does to the tier above. Files of at least `full_bytes` rest,
/// and the inputs stay within `input_bytes_max`.
#[must_use]
pub fn merge_with(
    new_bytes: u64,
    sizes: &[u64],
    full_bytes: u64,
    input_bytes_max: u64,
) -> Vec<usize> {
    let mut chosen = Vec::new();
    let (mut merged_bytes, mut input_bytes) = (new_bytes, 0);
    let top = sizes.iter().map(|size| tier_of(*size)).max().unwrap_or(0);
    for tier in 0..=top {
        let members: Vec<usize> = (0..sizes.len())
            .filter(|i| sizes[*i] < full_bytes && tier_of(sizes[*i]) == tier)
            .collect();
        let newcomer = usize::from(tier_of(merged_bytes) == tier);
        if members.is_empty() || members.len() + newcomer < FILES_PER_TIER {
            continue;
        }
        for member in members {
            if input_bytes + sizes[member] > input_bytes_max {
                return chosen;
            }
            input_bytes += sizes[member];
            merged_bytes += sizes[member];
            chosen.push(member);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: u64 = 32 << 20;

    #[test]
    fn three_small_files_rest_and_a_fourth_merges_them() {
        assert!(merge_with(1000, &[1000, 1000], FULL, FULL).is_empty());
        assert_eq!(merge_with(1000, &[1000, 1000, 1000], FULL, FULL), [0, 1, 2]);
    }

    #[test]
    fn a_merge_that_fills_the_tier_above_takes_it_along() {
        let k = 1 << 10;
        let sizes = [20 * k, 20 * k, 20 * k, 80 * k, 80 * k, 80 * k, 9000 * k];
        assert_eq!(merge_with(20 * k, &sizes, FULL, FULL), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn full_files_rest_and_the_inputs_stay_bounded() {
        assert!(merge_with(1, &[FULL; 9], FULL, u64::MAX).is_empty());
        assert_eq!(merge_with(10, &[10; 9], FULL, 40), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn a_stream_of_new_files_leaves_few(
            sizes in proptest::collection::vec(1u64..200_000, 1..400),
        ) {
            let mut files: Vec<u64> = Vec::new();
            let mut rewritten = 0;
            let total: u64 = sizes.iter().sum();
            for new in sizes {
                let chosen = merge_with(new, &files, FULL, u64::MAX);
                let merged = new + chosen.iter().map(|i| files[*i]).sum::<u64>();
                rewritten += merged;
                files = files.iter().enumerate()
                    .filter(|(i, _)| !chosen.contains(i)).map(|(_, size)| *size).collect();
                files.push(merged);
                let tiers = tier_of(FULL) as usize + 1;
                prop_assert!(files.len() <= tiers * FILES_PER_TIER, "{files:?}");
            }
            prop_assert_eq!(files.iter().sum::<u64>(), total);
            prop_assert!(rewritten <= total * (u64::from(tier_of(FULL)) + 2));
        }
    }
}
