//! A pin: a snapshot as it is stored, and the mark that it is dropped. No I/O.
//!
//! Both are small JSON objects that carry the digest of their own bytes, because nothing else
//! names them: a damaged one is an error, never "no pin". The mark names the digest of the pin it
//! drops, so it can never drop a later pin of the same name.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_model::{Digest, Resolution, RowsHash};
use stele_store::keys;

use crate::check::{self, sealed};
use crate::error::{Damage, Error, Result};
use crate::file::FileKind;
use crate::state::TableState;

/// The layout of pins and marks.
const FORMAT: u32 = 1;
const NAME_MAX: usize = 64;

/// The name of a snapshot: 1 to 64 of `a-z 0-9 _ -`, with a letter: digits alone name a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinName(String);

impl PinName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the pin, relative to the tenant.
    #[must_use]
    pub fn key(&self) -> String {
        keys::pin(&self.0)
    }

    /// The key of the mark that the pin is dropped, relative to the tenant.
    #[must_use]
    pub fn mark_key(&self) -> String {
        keys::pin_mark(&self.0)
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PinName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        let letter = |b: u8| b.is_ascii_lowercase();
        let is_short = text.len() <= NAME_MAX;
        if is_short && text.bytes().all(plain) && text.bytes().any(letter) {
            return Ok(Self(text.to_owned()));
        }
        let name = text.chars().take(80).collect();
        Err(Error::PinName { name })
    }
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Somebody asked for it.
    Manual,
    /// By the hour.
    Hourly,
    /// By the day.
    Daily,
    /// By the week.
    Weekly,
    /// By the month.
    Monthly,
}

impl Why {
    /// The word in names, records and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the live files of one resolution hold, by the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// The multiset hash of their rows.
    pub hash: RowsHash,
    /// The least timestamp, µs; absent without files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts_min_us: Option<i64>,
    /// The greatest timestamp, µs; absent without files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts_max_us: Option<i64>,
}

impl Sums {
    fn of(state: &TableState, kind: FileKind) -> Self {
        state.files_of(kind).fold(Self::default(), |sums, file| {
            let stats = &file.stats;
            let least = |known: i64| known.min(stats.ts_min_us);
            let greatest = |known: i64| known.max(stats.ts_max_us);
            Self {
                files: sums.files + 1,
                bytes: sums.bytes.saturating_add(stats.size_bytes),
                rows: sums.rows.saturating_add(stats.rows),
                hash: sums.hash.union(stats.rows_hash),
                ts_min_us: Some(sums.ts_min_us.map_or(stats.ts_min_us, least)),
                ts_max_us: Some(sums.ts_max_us.map_or(stats.ts_max_us, greatest)),
            }
        })
    }

    fn union(self, other: Self) -> Self {
        let both = |a: Option<i64>, b: Option<i64>, of: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(of(a, b)),
            (a, b) => a.or(b),
        };
        Self {
            files: self.files + other.files,
            bytes: self.bytes.saturating_add(other.bytes),
            rows: self.rows.saturating_add(other.rows),
            hash: self.hash.union(other.hash),
            ts_min_us: both(self.ts_min_us, other.ts_min_us, i64::min),
            ts_max_us: both(self.ts_max_us, other.ts_max_us, i64::max),
        }
    }
}

/// What one version holds, by resolution: what a restore must bring back (I10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Samples: `open` and `raw` files.
    pub samples: Sums,
    /// 60 s rollups.
    #[serde(rename = "60s")]
    pub s60: Sums,
    /// 15 min rollups.
    #[serde(rename = "15m")]
    pub m15: Sums,
    /// 60 min rollups.
    #[serde(rename = "60m")]
    pub m60: Sums,
}

impl Content {
    /// The content of a version; no data is read.
    #[must_use]
    pub fn of(state: &TableState) -> Self {
        let sealed = |resolution| Sums::of(state, FileKind::Sealed(resolution));
        Self {
            samples: Sums::of(state, FileKind::Open).union(sealed(Resolution::Raw)),
            s60: sealed(Resolution::S60),
            m15: sealed(Resolution::M15),
            m60: sealed(Resolution::M60),
        }
    }

    /// The sums by the name of their SQL table: `samples`, `60s`, `15m`, `60m`.
    #[must_use]
    pub fn by_resolution(&self) -> [(&'static str, Sums); 4] {
        [
            ("samples", self.samples),
            ("60s", self.s60),
            ("15m", self.m15),
            ("60m", self.m60),
        ]
    }
}

/// A snapshot: one version of the table that sweep keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its name.
    pub name: PinName,
    /// The version.
    pub version: u64,
    /// The digest of that version's log entry.
    pub entry: Digest,
    /// That entry's operation id.
    pub operation: String,
    /// When it was taken, µs by the clock of who took it.
    pub taken_us: i64,
    /// Why it was taken.
    pub why: Why,
    /// What it is for, in the words of who took it.
    pub note: String,
    /// What the version holds.
    pub content: Content,
}

/// The greatest length of a note, bytes.
pub(crate) const NOTE_BYTES_MAX: usize = 500;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredForm {
    format: u32,
    check: Digest,
    #[serde(with = "crate::codec::text")]
    name: PinName,
    version: u64,
    entry: Digest,
    operation: String,
    taken_us: i64,
    why: Why,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
    content: Content,
}

fn known_format(format: u32) -> Result<(), Damage> {
    match format {
        FORMAT => Ok(()),
        other => Err(Damage::value("format", &other.to_string())),
    }
}

impl Pin {
    /// A pin of `state`.
    ///
    /// # Errors
    /// [`Error::PinNote`] when the note is too long, [`Error::NoTable`] when there is no version.
    pub fn new(
        name: PinName,
        state: &TableState,
        taken_us: i64,
        why: Why,
        note: &str,
    ) -> Result<Self> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(Error::PinNote {
                bytes: note.len(),
                bytes_max: NOTE_BYTES_MAX,
            });
        }
        if !state.exists() {
            return Err(Error::NoTable);
        }
        Ok(Self {
            name,
            version: state.version,
            entry: state.entry_digest,
            operation: state.operation.clone(),
            taken_us,
            why,
            note: note.to_owned(),
            content: Content::of(state),
        })
    }

    /// Whether both pin the same version for the same reason, whenever they were taken.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let taken_us = self.taken_us;
        *self
            == Self {
                taken_us,
                ..other.clone()
            }
    }

    /// Whether `state` is the very version that was pinned.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, state: &TableState) -> Result<(), Damage> {
        if state.version != self.version {
            return Err(Damage::Version {
                got: state.version,
                expected: self.version,
            });
        }
        if state.entry_digest != self.entry {
            return Err(Damage::Digest {
                got: state.entry_digest,
                expected: self.entry,
            });
        }
        if state.operation != self.operation || Content::of(state) != self.content {
            let what = "the content recorded when the snapshot was taken";
            return Err(Damage::Disagrees { what });
        }
        Ok(())
    }

    /// The stored form.
    ///
    /// # Errors
    /// As the encoder.
    pub fn encode(&self) -> Result<Bytes, Damage> {
        let stored = StoredForm {
            format: FORMAT,
            check: Digest::default(),
            name: self.name.clone(),
            version: self.version,
            entry: self.entry,
            operation: self.operation.clone(),
            taken_us: self.taken_us,
            why: self.why,
            note: self.note.clone(),
            content: self.content,
        };
        Ok(sealed(serde_json::to_vec(&stored)?))
    }

    /// The pin stored as `name`.
    ///
    /// # Errors
    /// The bytes are no pin of that name, or not the ones that were written.
    pub fn decode(name: &PinName, bytes: &[u8]) -> Result<Self, Damage> {
        let stored: StoredForm = serde_json::from_slice(bytes)?;
        known_format(stored.format)?;
        check::verify(bytes, stored.check)?;
        if stored.name != *name {
            return Err(Damage::value("name", stored.name.as_str()));
        }
        Ok(Self {
            name: stored.name,
            version: stored.version,
            entry: stored.entry,
            operation: stored.operation,
            taken_us: stored.taken_us,
            why: stored.why,
            note: stored.note,
            content: stored.content,
        })
    }
}

/// That a pin is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The digest of the dropped pin's bytes.
    pub pin: Digest,
    /// When it was dropped, µs by the clock of who dropped it.
    pub marked_us: i64,
    /// The pin was never acknowledged and protects nothing.
    pub withdrawn: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMarkForm {
    format: u32,
    check: Digest,
    pin: Digest,
    marked_us: i64,
    withdrawn: bool,
}

impl Mark {
    /// The stored form.
    ///
    /// # Errors
    /// As the encoder.
    pub fn encode(&self) -> Result<Bytes, Damage> {
        let stored = StoredMarkForm {
            format: FORMAT,
            check: Digest::default(),
            pin: self.pin,
            marked_us: self.marked_us,
            withdrawn: self.withdrawn,
        };
        Ok(sealed(serde_json::to_vec(&stored)?))
    }

    /// The reverse of [`Mark::encode`].
    ///
    /// # Errors
    /// The bytes are no mark, or not the ones that were written.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let stored: StoredMarkForm = serde_json::from_slice(bytes)?;
        known_format(stored.format)?;
        check::verify(bytes, stored.check)?;
        Ok(Self {
            pin: stored.pin,
            marked_us: stored.marked_us,
            withdrawn: stored.withdrawn,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Pin {
        let sums = Sums {
            files: 2,
            rows: 5,
            bytes: 90,
            hash: RowsHash(7),
            ts_min_us: Some(-1),
            ts_max_us: Some(9),
        };
        Pin {
            name: "noon".parse().unwrap(),
            version: 41,
            entry: Digest([3; 16]),
            operation: "ab".repeat(16),
            taken_us: 1_000,
            why: Why::Manual,
            note: "before the \"check\":\"upgrade\"".to_owned(),
            content: Content {
                samples: sums,
                ..Content::default()
            },
        }
    }

    #[test]
    fn a_pin_reads_back_and_any_flipped_bit_of_it_is_an_error() {
        let pin = pin();
        let bytes = pin.encode().unwrap();
        assert_eq!(Pin::decode(&pin.name, &bytes).unwrap(), pin);
        let other = "other".parse().unwrap();
        assert!(
            Pin::decode(&other, &bytes).is_err(),
            "moved to another name"
        );
        let mark = Mark {
            pin: Digest([4; 16]),
            marked_us: 5,
            withdrawn: false,
        };
        let marked = mark.encode().unwrap();
        assert_eq!(Mark::decode(&marked).unwrap(), mark);
        for (bytes, is_pin) in [(bytes, true), (marked, false)] {
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut flipped = bytes.to_vec();
                    flipped[at] ^= 1 << bit;
                    let read = match is_pin {
                        true => Pin::decode(&pin.name, &flipped).map(drop),
                        false => Mark::decode(&flipped).map(drop),
                    };
                    assert!(read.is_err(), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn names_are_plain_and_bounded() {
        let long = "x".repeat(64);
        for good in ["a", "hourly-2026-11-22t23", "2_x", long.as_str()] {
            assert_eq!(good.parse::<PinName>().unwrap().as_str(), good);
        }
        let longer = "x".repeat(65);
        for bad in [
            "",
            "_",
            "2026-11-22",
            "A",
            "a.b",
            "a/b",
            "..",
            "ä",
            longer.as_str(),
        ] {
            assert!(bad.parse::<PinName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_pin_taken_later_is_the_same_and_another_note_is_not() {
        let later = Pin {
            taken_us: 2_000,
            ..pin()
        };
        assert!(pin().is_same(&later));
        let other = Pin {
            note: String::new(),
            ..pin()
        };
        assert!(!pin().is_same(&other));
    }
}
