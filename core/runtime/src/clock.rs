//! The real clock and the real source of fresh names.

use std::time::{SystemTime, UNIX_EPOCH};

use stele_model::{Clock, Ids};

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let micros = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => micros(since),
            Err(before) => -micros(before.duration()),
        }
    }
}

/// 128 random bits per name.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn operation_id(&self) -> String {
        format!("{:032x}", rand::random::<u128>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_in_microseconds() {
        let year_2020_us = 1_577_836_800_000_000;
        let year_2200_us = 7_258_118_400_000_000;
        assert!((year_2020_us..year_2200_us).contains(&SystemClock.now_us()));
    }

    #[test]
    fn names_are_32_hex_digits_and_differ() {
        let (a, b) = (RandomIds.operation_id(), RandomIds.operation_id());
        assert_ne!(a, b);
        assert_eq!(a.len(), 32);
        assert!(
            a.bytes()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        );
    }
}
