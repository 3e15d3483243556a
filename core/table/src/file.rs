//! One live data file, as the log knows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stele_model::{Day, FileStats, Month, Resolution, Window, WindowSet};

use crate::error::Damage;

/// What a data file holds: the `resolution` partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum FileKind {
    /// Absorbed samples of windows not sealed; such files may overlap.
    Open,
    /// Sealed windows, each row exactly once.
    Sealed(Resolution),
}

impl FileKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Sealed(Resolution::Raw),
        Self::Sealed(Resolution::S60),
        Self::Sealed(Resolution::M15),
        Self::Sealed(Resolution::M60),
    ];

    /// The value of the `resolution` partition column.
    #[must_use]
    pub fn partition(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed(resolution) => resolution.partition(),
        }
    }

    /// The kind of a `resolution` partition value.
    #[must_use]
    pub fn of_partition(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.partition() == text)
    }

    /// Whether the rows are samples (`open`, `raw`), which commits conserve; rollups are derived.
    #[must_use]
    pub fn holds_samples(self) -> bool {
        matches!(self, Self::Open | Self::Sealed(Resolution::Raw))
    }

    /// The `period` partition value of the file that holds `window`: a month for 60 min rollups,
    /// a day for everything else.
    #[must_use]
    pub fn period_of(self, window: Window) -> String {
        match self {
            Self::Sealed(Resolution::M60) => window.day().month().period(),
            _ => window.day().period(),
        }
    }
}

impl Serialize for FileKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.partition())
    }
}

impl<'de> Deserialize<'de> for FileKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::of_partition(&text)
            .ok_or_else(|| serde::de::Error::custom(Damage::value("resolution", &text)))
    }
}

/// A data file and what the log says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// `resolution=raw/period=2026-11-22/<name>.parquet`, relative to `table/`. A name is used
    /// once: one that is live or still among [`crate::TableState::removed`] is refused, since a
    /// sweep of the older removal would take the new file with it.
    pub path: String,
    /// Its `resolution` partition.
    pub kind: FileKind,
    /// Its `period` partition: `YYYY-MM-DD`, or `YYYY-MM` for 60 min rollups.
    pub period: String,
    /// The windows it covers, all within its period.
    #[serde(with = "windows_text")]
    pub windows: WindowSet,
    /// What its writer knows of its bytes and rows.
    pub stats: FileStats,
}

impl FileEntry {
    /// The path of a file called `<name>.parquet`.
    #[must_use]
    pub fn path_of(kind: FileKind, period: &str, name: &str) -> String {
        format!(
            "resolution={}/period={period}/{name}.parquet",
            kind.partition()
        )
    }

    /// Whether path, kind, period and windows agree. Names are 1 to 100 of `a-z 0-9 _ -`, so a
    /// path has one spelling and the URL encoding Delta asks for changes nothing in it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let prefix = format!(
            "resolution={}/period={}/",
            self.kind.partition(),
            self.period
        );
        let name = self
            .path
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(".parquet"))
            .ok_or("the path does not spell its partition")?;
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if !(1..=100).contains(&name.len()) || !name.bytes().all(plain) {
            return Err("the name is not 1 to 100 of a-z, 0-9, _ and -");
        }
        if self.windows.is_empty() {
            return Err("it covers no window");
        }
        let days = match self.kind {
            FileKind::Sealed(Resolution::M60) => Month::parse(&self.period)
                .filter(|month| month.period() == self.period)
                .map(|month| (Day::of(month.start_us()), Day::of(month.end_us() - 1))),
            _ => Day::parse(&self.period)
                .filter(|day| day.period() == self.period)
                .map(|day| (day, day)),
        };
        let (first, last) = days.ok_or("the period is no date of its kind")?;
        if self.windows.days().any(|day| day < first || day > last) {
            return Err("it covers a window outside its period");
        }
        Ok(())
    }
}

/// `day:mask,day:mask`: days since the epoch, the mask of its hours in hex.
pub(crate) fn windows_to_text(windows: &WindowSet) -> String {
    let mut days: BTreeMap<Day, u32> = BTreeMap::new();
    for window in windows.iter() {
        let day = window.day();
        *days.entry(day).or_default() |= 1 << (window.0 - day.0 * 24);
    }
    let parts: Vec<_> = days
        .iter()
        .map(|(day, mask)| format!("{}:{mask:x}", day.0))
        .collect();
    parts.join(",")
}

/// The reverse of [`windows_to_text`].
pub(crate) fn windows_from_text(text: &str) -> Result<WindowSet, Damage> {
    const HOURS_MAX: i32 = i32::MAX / 24;
    let bad = || Damage::value("windows", text);
    let mut windows = WindowSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (day, mask) = part.split_once(':').ok_or_else(bad)?;
        let day: i32 = day.parse().map_err(|_| bad())?;
        let mask = u32::from_str_radix(mask, 16).map_err(|_| bad())?;
        if mask >> 24 != 0 || !(-HOURS_MAX..HOURS_MAX).contains(&day) {
            return Err(bad());
        }
        for hour in (0..24).filter(|hour| mask & (1 << hour) != 0) {
            windows.insert(Window(day * 24 + hour));
        }
    }
    Ok(windows)
}

mod windows_text {
    use super::*;

    pub fn serialize<S: Serializer>(windows: &WindowSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&windows_to_text(windows))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WindowSet, D::Error> {
        windows_from_text(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stele_model::{Digest, RowsHash};

    use super::*;

    fn entry(path: &str, kind: FileKind, period: &str, window: i32) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            kind,
            period: period.to_owned(),
            windows: [Window(window)].into_iter().collect(),
            stats: FileStats {
                size_bytes: 1,
                digest: Digest::default(),
                footer_digest: Digest::default(),
                footer_bytes: 1,
                rows: 1,
                rows_hash: RowsHash(1),
                ts_min_us: 0,
                ts_max_us: 0,
                metric_min: String::new(),
                metric_max: String::new(),
                series: 1,
            },
        }
    }

    #[test]
    fn a_path_spells_its_partition_and_cannot_leave_it() {
        let raw = FileKind::Sealed(Resolution::Raw);
        let good = "resolution=raw/period=1970-01-01/ab-1.parquet";
        assert_eq!(entry(good, raw, "1970-01-01", 23).check(), Ok(()));
        let month = "resolution=60m/period=1970-01/a.parquet";
        let m60 = FileKind::Sealed(Resolution::M60);
        assert_eq!(entry(month, m60, "1970-01", 30 * 24 + 23).check(), Ok(()));
        assert!(entry(month, m60, "1970-01", 31 * 24).check().is_err());
        for bad in [
            entry(good, raw, "1970-01-01", 24),
            entry(good, FileKind::Open, "1970-01-01", 0),
            entry(good, raw, "1970-01-02", 0),
            entry(
                "resolution=raw/period=1970-01-01/../a.parquet",
                raw,
                "1970-01-01",
                0,
            ),
            entry(
                "resolution=raw/period=1970-01-01/%41.parquet",
                raw,
                "1970-01-01",
                0,
            ),
            entry("resolution=raw/period=x/a.parquet", raw, "x", 0),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn windows_text_round_trips(
            set in proptest::collection::btree_set(-1000i32..600_000, 0..60),
        ) {
            let windows: WindowSet = set.iter().map(|w| Window(*w)).collect();
            let text = windows_to_text(&windows);
            prop_assert_eq!(windows_from_text(&text).unwrap(), windows);
        }

        #[test]
        fn arbitrary_windows_text_never_panics(text in "[-0-9a-f:,]{0,40}") {
            let _ = windows_from_text(&text);
        }
    }
}
