//! A token bucket of one second.

/// What may still be taken.
#[derive(Debug)]
pub(super) struct Bucket {
    /// At most the rate; below zero after a request larger than the burst.
    level: f64,
    at_us: i64,
}

impl Bucket {
    pub(super) fn full(rate: u64, now_us: i64) -> Self {
        Self {
            level: rate as f64,
            at_us: now_us,
        }
    }

    /// Takes `n` at `rate` per second, or says after how many seconds they could be taken. A time
    /// before the last one counts as the last one's.
    pub(super) fn take(&mut self, n: u64, rate: u64, now_us: i64) -> Result<(), u64> {
        let (n, rate) = (n as f64, rate as f64);
        let passed_us = now_us.saturating_sub(self.at_us).max(0);
        self.at_us = now_us;
        self.level = (self.level + rate * passed_us as f64 / 1e6).min(rate);
        let missing = n.min(rate) - self.level;
        // A quota of 0 is never met: the longest wait that a sender could honour is a day.
        if missing > 0.0 || rate == 0.0 {
            let wait_secs = (missing / rate).ceil();
            let wait_secs = if wait_secs.is_finite() {
                wait_secs
            } else {
                86_400.0
            };
            return Err(wait_secs.clamp(1.0, 86_400.0) as u64);
        }
        self.level -= n;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn one_second_of_burst_and_the_rate_after_it() {
        let mut bucket = Bucket::full(100, 0);
        assert_eq!(bucket.take(60, 100, 0), Ok(()));
        assert_eq!(bucket.take(60, 100, 0), Err(1));
        assert_eq!(bucket.take(40, 100, 0), Ok(()));
        assert_eq!(bucket.take(50, 100, S / 2), Ok(()));
        assert_eq!(bucket.take(1, 100, S / 2), Err(1));
        // A long rest gives one second's worth, not more.
        assert_eq!(bucket.take(100, 100, 1000 * S), Ok(()));
        assert_eq!(bucket.take(1, 100, 1000 * S), Err(1));
    }

    #[test]
    fn a_request_larger_than_the_burst_is_paid_for_later() {
        let mut bucket = Bucket::full(100, 0);
        assert_eq!(bucket.take(1000, 100, 0), Ok(()));
        assert_eq!(bucket.take(1, 100, S), Err(9));
        assert_eq!(bucket.take(1000, 100, 9 * S), Err(1));
        assert_eq!(bucket.take(1000, 100, 10 * S), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_blocks_nothing() {
        let mut bucket = Bucket::full(10, 100 * S);
        assert_eq!(bucket.take(10, 10, 100 * S), Ok(()));
        assert_eq!(bucket.take(1, 10, 50 * S), Err(1));
        assert_eq!(bucket.take(10, 10, 51 * S), Ok(()));
    }

    #[test]
    fn a_rate_of_zero_takes_nothing() {
        assert_eq!(Bucket::full(0, 0).take(1, 0, S), Err(86_400));
    }
}
