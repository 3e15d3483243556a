//! Which sealed files to merge into one, row for row.

use std::collections::BTreeMap;
use std::sync::Arc;

use stele_model::{Day, Month, Resolution};
use stele_table::{FileEntry, FileKind, TableState};

use super::tier::{merge_with, tier_of};

/// What a consolidation needs to know beside the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsolidateRules {
    /// The compactor's clock, µs.
    pub now_us: i64,
    /// A period is over this long after its end, µs.
    pub seal_delay_us: i64,
    /// The size a file should reach; files of half of it rest.
    pub target_bytes: u64,
    /// Stored bytes read at once.
    pub input_bytes_max: u64,
    /// Merge what can be merged, though its period is not over.
    pub force: bool,
}

/// Files of one resolution and period that become one.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsolidatePlan {
    /// Their resolution.
    pub resolution: Resolution,
    /// Their period.
    pub period: String,
    /// At least two.
    pub files: Vec<Arc<FileEntry>>,
}

/// The consolidations that are worth it, at most one per resolution and period.
///
/// While a period may still grow, files are merged by size tiers, so that a row is rewritten a
/// few times; once it is over (or when forced), all its small files are. Every merge lowers the
/// number of files smaller than half the target, so this comes to an end.
#[must_use]
pub fn consolidations(state: &TableState, rules: &ConsolidateRules) -> Vec<ConsolidatePlan> {
    const RESOLUTIONS: [Resolution; 4] = [
        Resolution::Raw,
        Resolution::S60,
        Resolution::M15,
        Resolution::M60,
    ];
    let mut plans = Vec::new();
    for resolution in RESOLUTIONS {
        let mut periods: BTreeMap<&str, Vec<Arc<FileEntry>>> = BTreeMap::new();
        for file in state.files_of(FileKind::Sealed(resolution)) {
            if file.stats.size_bytes < rules.target_bytes / 2 {
                periods
                    .entry(&file.period)
                    .or_default()
                    .push(Arc::clone(file));
            }
        }
        for (period, files) in periods {
            let over = rules.force || is_over(state, rules, resolution, period);
            let files = if over {
                all(files, rules)
            } else {
                tiered(files, rules)
            };
            if files.len() >= 2 {
                plans.push(ConsolidatePlan {
                    resolution,
                    period: period.to_owned(),
                    files,
                });
            }
        }
    }
    plans
}

/// Whether no more rows of the period are expected: it has ended and nothing of it is open.
fn is_over(state: &TableState, rules: &ConsolidateRules, r: Resolution, period: &str) -> bool {
    let end_us = match r {
        Resolution::M60 => Month::parse(period).map(Month::end_us),
        _ => Day::parse(period).map(Day::end_us),
    };
    let ended = end_us.is_some_and(|end| end.saturating_add(rules.seal_delay_us) <= rules.now_us);
    ended
        && !state
            .files_of(FileKind::Open)
            .any(|file| file.period.starts_with(period))
}

/// The longest run in time order that makes at most one and a half target files.
fn all(mut files: Vec<Arc<FileEntry>>, rules: &ConsolidateRules) -> Vec<Arc<FileEntry>> {
    let bytes_max = (rules.target_bytes / 2 * 3).min(rules.input_bytes_max);
    files.sort_by(|a, b| {
        (a.windows.iter().next(), &a.path).cmp(&(b.windows.iter().next(), &b.path))
    });
    let mut run: Vec<Arc<FileEntry>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        if bytes + file.stats.size_bytes > bytes_max {
            if run.len() >= 2 {
                break;
            }
            run.clear();
            bytes = 0;
        }
        bytes += file.stats.size_bytes;
        run.push(file);
    }
    run
}

fn tiered(files: Vec<Arc<FileEntry>>, rules: &ConsolidateRules) -> Vec<Arc<FileEntry>> {
    let sizes: Vec<u64> = files.iter().map(|file| file.stats.size_bytes).collect();
    let least = sizes.iter().copied().min().unwrap_or(0);
    let top = sizes.iter().map(|size| tier_of(*size)).max().unwrap_or(0);
    // The first tier that is full; its result is the "new file" for the tiers above.
    for tier in tier_of(least)..=top {
        let members: Vec<usize> = (0..files.len())
            .filter(|i| tier_of(sizes[*i]) == tier)
            .collect();
        let Some((newest, rest)) = members.split_last() else {
            continue;
        };
        let rest_sizes: Vec<u64> = rest.iter().map(|i| sizes[*i]).collect();
        let bytes_max = rules.input_bytes_max.saturating_sub(sizes[*newest]);
        let full = rules.target_bytes / 2;
        let chosen = merge_with(sizes[*newest], &rest_sizes, full, bytes_max);
        if !chosen.is_empty() {
            let mut group: Vec<_> = chosen
                .iter()
                .map(|i| Arc::clone(&files[rest[*i]]))
                .collect();
            group.push(Arc::clone(&files[*newest]));
            return group;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use stele_model::time::HOUR_US;

    use super::super::fixtures::{file, name, state};
    use super::*;

    const RAW: FileKind = FileKind::Sealed(Resolution::Raw);
    const M60: FileKind = FileKind::Sealed(Resolution::M60);
    const K: u64 = 1 << 10;

    fn rules(hours: i64, force: bool) -> ConsolidateRules {
        ConsolidateRules {
            now_us: hours * HOUR_US,
            seal_delay_us: 0,
            target_bytes: 1 << 20,
            input_bytes_max: 8 << 20,
            force,
        }
    }

    fn names(plan: &ConsolidatePlan) -> Vec<String> {
        plan.files.iter().map(|file| name(file)).collect()
    }

    #[test]
    fn a_day_that_is_over_becomes_one_file_and_a_growing_one_merges_by_tiers() {
        let hours: Vec<_> = (0..3)
            .map(|h| file(RAW, &format!("h{h}"), &[h], K))
            .collect();
        let table = state(&hours);
        assert!(consolidations(&table, &rules(5, false)).is_empty());
        assert_eq!(
            names(&consolidations(&table, &rules(24, false))[0]),
            ["h0", "h1", "h2"]
        );
        assert_eq!(names(&consolidations(&table, &rules(5, true))[0]).len(), 3);
        let four: Vec<_> = (0..4)
            .map(|h| file(RAW, &format!("h{h}"), &[h], K))
            .collect();
        assert_eq!(
            consolidations(&state(&four), &rules(5, false))[0]
                .files
                .len(),
            4
        );
    }

    #[test]
    fn an_open_file_keeps_its_day_growing() {
        let table = state(&[
            file(RAW, "a", &[1], K),
            file(RAW, "b", &[2], K),
            file(FileKind::Open, "late", &[2], K),
        ]);
        assert!(consolidations(&table, &rules(48, false)).is_empty());
    }

    #[test]
    fn days_stay_apart_but_a_month_of_60_min_rollups_is_one_period() {
        let table = state(&[
            file(RAW, "a", &[1], K),
            file(RAW, "b", &[25], K),
            file(M60, "c", &[1], K),
            file(M60, "d", &[25], K),
        ]);
        let plans = consolidations(&table, &rules(24 * 40, false));
        assert_eq!(plans.len(), 1);
        assert_eq!(names(&plans[0]), ["c", "d"]);
    }

    #[test]
    fn large_files_rest_so_merging_comes_to_an_end() {
        let half = 512 * K;
        let table = state(&[
            file(RAW, "a", &[1], half),
            file(RAW, "b", &[2], half),
            file(RAW, "c", &[3], K),
        ]);
        assert!(consolidations(&table, &rules(48, true)).is_empty());
        let table = state(&[
            file(RAW, "a", &[1], half - 1),
            file(RAW, "b", &[2], half - 1),
            file(RAW, "c", &[3], half - 1),
            file(RAW, "d", &[4], half - 1),
        ]);
        assert_eq!(
            names(&consolidations(&table, &rules(48, true))[0]),
            ["a", "b", "c"]
        );
    }
}
