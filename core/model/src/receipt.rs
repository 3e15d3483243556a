//! What a sender gets for a stored batch, as text.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::digest::Digest;
use crate::window::Day;

/// A receipt, `<digest>-<YYYYMMDD>`: the digest of a batch, and the UTC day of its greatest
/// timestamp, by which the ledger files it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptId {
    /// The digest of the batch.
    pub digest: Digest,
    /// The UTC day of its greatest timestamp.
    pub day: Day,
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.digest, self.day.period().replace('-', ""))
    }
}

impl Serialize for ReceiptId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("receipt {0:?} is not 32 lower-case hex digits, a hyphen and a date YYYYMMDD")]
pub struct ReceiptError(String);

impl FromStr for ReceiptId {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (digest, date) = text.split_once('-')?;
            if date.len() != 8 || !date.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
            Some(Self {
                digest: digest.parse().ok()?,
                day: Day::parse(&format!("{year}-{month}-{day}"))?,
            })
        };
        parse().ok_or_else(|| ReceiptError(text.chars().take(60).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_round_trips_and_has_one_spelling() {
        let receipt = ReceiptId {
            digest: Digest([0xab; 16]),
            day: Day(20_779),
        };
        let text = receipt.to_string();
        assert_eq!(text, format!("{}-20261122", "ab".repeat(16)));
        assert_eq!(text.parse(), Ok(receipt));
        let digest = "ab".repeat(16);
        for bad in [
            digest.clone(),
            format!("{digest}-2026-11-22"),
            format!("{digest}-20261131"),
            format!("{digest}-+2026112"),
            format!("{digest}-202611220"),
            format!("{}-20261122", digest.to_uppercase()),
            format!("{text} "),
            String::new(),
        ] {
            assert!(bad.parse::<ReceiptId>().is_err(), "{bad}");
        }
    }
}
