//! Sets of windows as runs, `first-last,first-last`: hours since the epoch, ascending. A batch may
//! span many years, and a run of them is short.

use serde::{Deserialize, Deserializer, Serializer};
use stele_model::{Window, WindowSet};

use crate::error::Damage;

pub(super) fn to_text(windows: &WindowSet) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for Window(hour) in windows.iter() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == hour => *last = hour,
            _ => runs.push((hour, hour)),
        }
    }
    let runs: Vec<String> = runs
        .iter()
        .map(|(first, last)| format!("{first}-{last}"))
        .collect();
    runs.join(",")
}

/// The reverse of [`to_text`], of storable windows alone.
pub(super) fn from_text(text: &str) -> Result<WindowSet, Damage> {
    let bad = || Damage::value("windows", text);
    let mut windows = WindowSet::new();
    let mut after = -1;
    for run in text.split(',').filter(|run| !run.is_empty()) {
        let (first, last) = run.split_once('-').ok_or_else(bad)?;
        let first: i32 = first.parse().map_err(|_| bad())?;
        let last: i32 = last.parse().map_err(|_| bad())?;
        if first <= after || last < first || !Window(last).is_storable() {
            return Err(bad());
        }
        windows.extend(&WindowSet::range(Window(first), Window(last)));
        after = last;
    }
    Ok(windows)
}

pub fn serialize<S: Serializer>(windows: &WindowSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(windows))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WindowSet, D::Error> {
    from_text(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_round_trip(set in proptest::collection::btree_set(0i32..600_000, 0..60)) {
            let windows: WindowSet = set.iter().map(|w| Window(*w)).collect();
            prop_assert_eq!(from_text(&to_text(&windows)).unwrap(), windows);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[-0-9,]{0,40}") {
            let _ = from_text(&text);
        }
    }

    #[test]
    fn a_set_has_one_spelling_and_lies_in_what_can_be_stored() {
        assert_eq!(
            to_text(&WindowSet::range(Window(0), Window::LAST)),
            "0-2016143"
        );
        for bad in ["1", "2-1", "-1-3", "5-6,6-7", "5-6,1-2", "0-2016144", "x-1"] {
            assert!(from_text(bad).is_err(), "{bad}");
        }
    }
}
