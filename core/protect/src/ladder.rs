//! The retention ladder: which scheduled snapshots there should be (pure), and seeing to it.

use std::collections::BTreeSet;

use stele_model::time::{DAY_US, HOUR_US};
use stele_model::{Clock, Day};
use stele_table::{PinName, PinState, TableLog, Why};

use crate::snapshot::{Listed, NewSnapshot, SnapshotError, create, drop_snapshot, list};

/// How many snapshots of each rung are kept; 0 switches a rung off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// One every hour.
    pub hourly: u32,
    /// One every day (UTC).
    pub daily: u32,
    /// One every week, which begins on Monday.
    pub weekly: u32,
    /// One every month.
    pub monthly: u32,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            hourly: 24,
            daily: 7,
            weekly: 5,
            monthly: 12,
        }
    }
}

/// A snapshot that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its name.
    pub name: PinName,
    /// Why it was taken.
    pub why: Why,
    /// When it was taken, µs.
    pub taken_us: i64,
    /// Whether it is not dropped.
    pub is_live: bool,
}

impl Existing {
    /// A listed snapshot; `None` for a damaged one, which nobody drops but an operator.
    #[must_use]
    pub fn of(listed: &Listed) -> Option<Self> {
        let pin = listed.pin.as_ref().ok()?;
        Some(Self {
            name: listed.name.clone(),
            why: pin.why,
            taken_us: pin.taken_us,
            is_live: listed.state == PinState::Live,
        })
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LadderPlan {
    /// Snapshots to take, all of one version.
    pub create: Vec<(PinName, Why)>,
    /// Snapshots to drop, oldest first.
    pub drop: Vec<PinName>,
}

impl Ladder {
    /// All rungs, and how many of each are kept.
    #[must_use]
    pub fn rungs(&self) -> [(Why, u32); 4] {
        [
            (Why::Hourly, self.hourly),
            (Why::Daily, self.daily),
            (Why::Weekly, self.weekly),
            (Why::Monthly, self.monthly),
        ]
    }

    /// What to take and what to drop at `now_us`. A snapshot of a rung is due when there is none
    /// of that name, dropped or not. Of each rung the newest are kept; manual snapshots are never
    /// dropped. A clock that runs back drops nothing it would not have dropped before.
    #[must_use]
    pub fn plan(&self, existing: &[Existing], now_us: i64) -> LadderPlan {
        let names: BTreeSet<&PinName> = existing.iter().map(|e| &e.name).collect();
        let mut plan = LadderPlan::default();
        for (why, kept) in self.rungs() {
            let due = name_of(why, now_us).filter(|name| kept > 0 && !names.contains(name));
            let mut rung: Vec<(i64, &PinName)> = existing
                .iter()
                .filter(|one| one.why == why && one.is_live)
                .map(|one| (one.taken_us, &one.name))
                .collect();
            rung.sort_unstable();
            let kept = kept as usize - usize::from(due.is_some());
            let over = rung.len().saturating_sub(kept);
            plan.drop
                .extend(rung[..over].iter().map(|(_, name)| (*name).clone()));
            plan.create.extend(due.map(|name| (name, why)));
        }
        plan
    }
}

/// What is to be done at `now_us` about the snapshots there are. Every snapshot is read: ask once
/// an hour, not once a minute.
///
/// # Errors
/// The store's.
pub async fn ladder_plan(
    log: &TableLog,
    ladder: &Ladder,
    now_us: i64,
) -> Result<LadderPlan, SnapshotError> {
    let listed = list(log).await?;
    let existing: Vec<Existing> = listed.iter().filter_map(Existing::of).collect();
    let mut plan = ladder.plan(&existing, now_us);
    // A damaged one keeps its name.
    let is_free = |name: &PinName| listed.iter().all(|one| one.name != *name);
    plan.create.retain(|(name, _)| is_free(name));
    Ok(plan)
}

/// Takes and drops what a plan says; when the plan takes any, the caller absorbs first. What
/// another process was faster with is as good. Answers the names that were taken.
///
/// # Errors
/// The first failure; what it left is in the next plan. Nothing is dropped before everything due
/// is taken.
pub async fn follow_ladder(
    log: &TableLog,
    plan: &LadderPlan,
    clock: &dyn Clock,
) -> Result<Vec<PinName>, SnapshotError> {
    let mut taken = Vec::new();
    for (name, why) in &plan.create {
        let new = NewSnapshot {
            name: name.clone(),
            why: *why,
            note: String::new(),
        };
        match create(log, &new, clock).await {
            Ok(_) => taken.push(name.clone()),
            Err(SnapshotError::Exists { .. } | SnapshotError::NameDropped { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for name in &plan.drop {
        match drop_snapshot(log, name, clock).await {
            Ok(_) | Err(SnapshotError::Table(stele_table::Error::NoSnapshot { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// The name of the scheduled snapshot of a rung at a time: `hourly-2026-11-22t23`,
/// `daily-2026-11-22`, `weekly-2026-11-16` (its Monday), `monthly-2026-11`. Manual ones have none.
#[must_use]
pub fn name_of(why: Why, at_us: i64) -> Option<PinName> {
    let day = Day::of(at_us);
    let period = match why {
        Why::Manual => return None,
        Why::Hourly => {
            let hour = at_us.rem_euclid(DAY_US) / HOUR_US;
            format!("{}t{hour:02}", day.period())
        }
        Why::Daily => day.period(),
        // Day 0 was a Thursday.
        Why::Weekly => Day(day.0 - (day.0 + 3).rem_euclid(7)).period(),
        Why::Monthly => day.month().period(),
    };
    format!("{why}-{period}").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-22T23:15:00Z, a Sunday.
    const NOW: i64 = 20_779 * DAY_US + 23 * HOUR_US + HOUR_US / 4;

    fn names(at_us: i64) -> Vec<String> {
        let whys = [Why::Hourly, Why::Daily, Why::Weekly, Why::Monthly];
        let names = whys.iter().filter_map(|why| name_of(*why, at_us));
        names.map(|name| name.to_string()).collect()
    }

    /// Takes and drops what the plan says.
    fn follow(ladder: &Ladder, existing: &mut Vec<Existing>, now_us: i64) -> LadderPlan {
        let plan = ladder.plan(existing, now_us);
        for one in existing.iter_mut() {
            one.is_live &= !plan.drop.contains(&one.name);
        }
        existing.extend(plan.create.iter().map(|(name, why)| Existing {
            name: name.clone(),
            why: *why,
            taken_us: now_us,
            is_live: true,
        }));
        plan
    }

    #[test]
    fn names_say_their_period() {
        let expected = [
            "hourly-2026-11-22t23",
            "daily-2026-11-22",
            "weekly-2026-11-16",
        ];
        assert_eq!(names(NOW)[..3], expected);
        assert_eq!(names(NOW)[3], "monthly-2026-11");
        let monday = names(NOW + HOUR_US);
        assert_eq!(monday[2], "weekly-2026-11-23");
        assert_eq!(name_of(Why::Manual, NOW), None);
    }

    #[test]
    fn a_year_of_hours_leaves_one_of_each_period_and_no_more() {
        let ladder = Ladder::default();
        let mut existing = Vec::new();
        for hour in 0..370 * 24 {
            follow(&ladder, &mut existing, NOW + hour * HOUR_US);
            existing.retain(|one| one.is_live);
        }
        for (why, kept) in ladder.rungs() {
            let rung = existing.iter().filter(|one| one.why == why).count();
            assert_eq!(rung, kept as usize, "{why}");
        }
        let taken = existing.iter().map(|one| one.taken_us);
        let oldest_days = (NOW + 370 * DAY_US - taken.min().unwrap()) / DAY_US;
        assert!((330..=370).contains(&oldest_days), "{oldest_days}");
    }

    fn why() -> impl Strategy<Value = Why> {
        prop::sample::select(vec![
            Why::Manual,
            Why::Hourly,
            Why::Daily,
            Why::Weekly,
            Why::Monthly,
        ])
    }

    fn existing() -> impl Strategy<Value = Vec<Existing>> {
        let one = (why(), 0..400i64, 0..24i64, any::<bool>());
        let all = prop::collection::vec(one, 0..80);
        all.prop_map(|all| {
            let mut seen = BTreeSet::new();
            let made = all.into_iter().enumerate().filter_map(|(n, one)| {
                let (why, days, hours, is_live) = one;
                let taken_us = NOW - days * DAY_US - hours * HOUR_US;
                let name = name_of(why, taken_us);
                let name = name.unwrap_or_else(|| format!("by-hand-{n}").parse().unwrap());
                let is_new = seen.insert(name.clone());
                is_new.then_some(Existing {
                    name,
                    why,
                    taken_us,
                    is_live,
                })
            });
            made.collect()
        })
    }

    proptest! {
        #[test]
        fn manual_and_newer_ones_stay_and_a_second_plan_changes_nothing(
            mut existing in existing(),
            kept in 0u32..9,
        ) {
            let ladder = Ladder { hourly: kept, daily: kept, weekly: 2, monthly: kept };
            let before = existing.clone();
            let plan = follow(&ladder, &mut existing, NOW);
            for name in &plan.drop {
                let one = before.iter().find(|one| one.name == *name).unwrap();
                prop_assert!(one.why != Why::Manual && one.is_live);
                let newer = existing.iter().filter(|other| {
                    other.why == one.why && other.is_live && other.taken_us >= one.taken_us
                });
                let (_, kept) = ladder.rungs().into_iter().find(|(why, _)| *why == one.why).unwrap();
                prop_assert_eq!(newer.count(), kept as usize, "{:?} was dropped too soon", one);
            }
            for (why, kept) in ladder.rungs() {
                let live = existing.iter().filter(|one| one.why == why && one.is_live);
                prop_assert!(live.count() <= kept as usize);
            }
            prop_assert_eq!(ladder.plan(&existing, NOW), LadderPlan::default());
        }
    }
}
