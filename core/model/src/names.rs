//! Names that become part of object keys: tenants and L0 objects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::window::{Window, WindowSet};

/// A tenant: 1 to 40 characters of `a-z`, `0-9`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TenantId(String);

/// A text that is no tenant name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tenant {0:?} is not 1 to 40 characters of a-z, 0-9, _ and -")]
pub struct TenantError(String);

impl TenantId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl TryFrom<String> for TenantId {
    type Error = TenantError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match is_name(&text, 40) {
            true => Ok(Self(text)),
            false => Err(TenantError(shortened(&text))),
        }
    }
}

impl FromStr for TenantId {
    type Err = TenantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tier: 1 to 20 characters of `a-z`, `0-9`, `_` and `-`. Given when the tier is added, and never
/// given to another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TierId(String);

/// A text that is no tier name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tier {0:?} is not 1 to 20 characters of a-z, 0-9, _ and -")]
pub struct TierError(String);

impl TierId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TierId {
    type Error = TierError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match is_name(&text, 20) {
            true => Ok(Self(text)),
            false => Err(TierError(shortened(&text))),
        }
    }
}

impl FromStr for TierId {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for TierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names go into keys: nothing in them can lead elsewhere.
fn is_name(text: &str, length_max: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=length_max).contains(&text.len()) && text.bytes().all(allowed)
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The name of an L0 object, `<digest>-<first hour>-<last hour>.parquet`: the digest of its
/// batches and the windows its rows lie in, so that a LIST alone tells what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L0Name {
    /// The digest of its batch; of its sorted batch digests when it holds several.
    pub digest: Digest,
    /// The window of its earliest row.
    pub first: Window,
    /// The window of its latest row.
    pub last: Window,
}

impl L0Name {
    /// The windows the object may hold rows of.
    #[must_use]
    pub fn windows(&self) -> WindowSet {
        WindowSet::range(self.first, self.last)
    }
}

impl fmt::Display for L0Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{}.parquet",
            self.digest, self.first.0, self.last.0
        )
    }
}

/// A key under `l0/` that is no L0 name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an L0 object")]
pub struct L0NameError(String);

impl FromStr for L0Name {
    type Err = L0NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.strip_suffix(".parquet")?.splitn(3, '-');
            let name = Self {
                digest: parts.next()?.parse().ok()?,
                first: Window(parts.next()?.parse().ok()?),
                last: Window(parts.next()?.parse().ok()?),
            };
            let ordered = name.first <= name.last && name.last.is_storable();
            (ordered && name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| L0NameError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_cannot_escape_their_prefix() {
        for bad in ["", "..", "a/b", "A", "é", &"x".repeat(41)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
        assert_eq!(
            "team_1-x".parse::<TenantId>().map(|t| t.to_string()),
            Ok("team_1-x".to_owned())
        );
    }

    #[test]
    fn tiers_are_named_like_tenants_and_shorter() {
        assert_eq!(
            "cold-2".parse::<TierId>().expect("valid").as_str(),
            "cold-2"
        );
        for bad in ["", "..", "a/b", "A", &"x".repeat(21)] {
            assert!(bad.parse::<TierId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_l0_name_claims_more_than_a_small_set() {
        let digest = Digest([7; 16]);
        let widest = format!("{digest}-0-{}.parquet", Window::LAST.0);
        let windows = widest.parse::<L0Name>().expect("valid").windows();
        assert_eq!(windows.len(), 2_016_144);
        // One mask a day: the memory it takes.
        assert_eq!(windows.days().count(), 84_006);
    }

    #[test]
    fn an_l0_name_round_trips_and_has_one_spelling() {
        let name = L0Name {
            digest: Digest([7; 16]),
            first: Window(498_000),
            last: Window(498_001),
        };
        assert_eq!(name.to_string().parse(), Ok(name));
        let digest = Digest([7; 16]).to_string();
        for bad in [
            format!("{digest}-2-1.parquet"),
            format!("{digest}-01-1.parquet"),
            format!("{digest}-1-1"),
            format!("{digest}--1-1.parquet"),
            format!("{digest}-1-2016144.parquet"),
            format!("{digest}-0-2147483647.parquet"),
            format!("{digest}-2147483647-2147483647.parquet"),
            "x".into(),
        ] {
            assert!(bad.parse::<L0Name>().is_err(), "{bad}");
        }
    }
}
