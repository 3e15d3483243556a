//! The real clock and the real sources of fresh names and of secrets.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::TryRngCore;
use rand::rngs::OsRng;
use stele_model::{Clock, Entropy, Ids};

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

    fn steady_us(&self) -> i64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
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

/// The operating system's source of secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        OsRng.try_fill_bytes(bytes).map_err(std::io::Error::other)
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

    #[test]
    fn secrets_fill_every_byte_and_differ() {
        let (mut a, mut b) = ([0; 64], [0; 64]);
        OsEntropy.fill(&mut a).unwrap();
        OsEntropy.fill(&mut b).unwrap();
        assert_ne!(a, b);
        // All of 64 random bytes below 128, or one half of them zero, is as good as impossible.
        assert!(a.iter().any(|byte| *byte >= 128));
        assert!(a[..32].iter().any(|byte| *byte > 0) && a[32..].iter().any(|byte| *byte > 0));
    }
}
