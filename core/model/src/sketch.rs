//! A mergeable quantile sketch with 1 % relative error.
//!
//! Semantics: DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch
//! with relative-error guarantees", VLDB 2019) with the logarithmic mapping
//! `index = ceil(ln |v| / ln γ)`, γ = (1 + α) / (1 − α), α = 0.01, negative values mirrored and
//! zeroes counted apart. No bin is ever collapsed: indexes of all finite doubles fit ±38,000.
//!
//! The stored form is our own, made for bins of a few samples: a varint
//! `positive bins << 2 | has negatives << 1 | has zeroes`, the number of negative bins and the
//! zero count when flagged, then both runs of bins ascending by index: the first index zigzag,
//! later ones as the gap − 1, each shifted left by one with the low bit set when a varint
//! `count − 2` follows (otherwise the count is 1).

/// The relative error of a quantile.
pub const RELATIVE_ERROR: f64 = 0.01;
const GAMMA: f64 = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);
/// The bin of ±infinity, beyond the bin of every finite double.
const INFINITE: i32 = 40_000;

/// The most values a stored sketch can have counted.
const COUNT_MAX: u64 = i64::MAX.unsigned_abs();

/// Counts of values per logarithmic bin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch {
    /// (index of |v|, count ≥ 1), ascending by index.
    negative: Vec<(i32, u64)>,
    zeroes: u64,
    /// (index, count ≥ 1), ascending by index.
    positive: Vec<(i32, u64)>,
}

/// Bytes that no version of the encoder wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a quantile sketch: {0}")]
pub struct SketchError(&'static str);

fn index_of(magnitude: f64) -> i32 {
    if magnitude.is_infinite() {
        return INFINITE;
    }
    // |index| < 38,000 for every finite double, so the cast is exact.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded by the range of f64"
    )]
    let index = (magnitude.ln() / GAMMA.ln()).ceil() as i32;
    index
}

fn value_of(index: i32) -> f64 {
    if index >= INFINITE {
        return f64::INFINITY;
    }
    (f64::from(index) * GAMMA.ln()).exp() * 2.0 / (GAMMA + 1.0)
}

fn add(bins: &mut Vec<(i32, u64)>, index: i32, count: u64) {
    match bins.binary_search_by_key(&index, |bin| bin.0) {
        Ok(at) => bins[at].1 += count,
        Err(at) => bins.insert(at, (index, count)),
    }
}

impl Sketch {
    /// Counts one value; NaN is not counted.
    pub fn push(&mut self, value: f64) {
        if value > 0.0 {
            add(&mut self.positive, index_of(value), 1);
        } else if value < 0.0 {
            add(&mut self.negative, index_of(-value), 1);
        } else if value == 0.0 {
            self.zeroes += 1;
        }
    }

    /// Adds the counts of `other`: the sketch of both inputs.
    pub fn merge(&mut self, other: &Self) {
        self.zeroes = self.zeroes.saturating_add(other.zeroes);
        merge_bins(&mut self.negative, &other.negative);
        merge_bins(&mut self.positive, &other.positive);
    }

    /// The number of values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        let bins = self.negative.iter().chain(&self.positive);
        bins.fold(self.zeroes, |sum, bin| sum.saturating_add(bin.1))
    }

    /// The memory its bins take, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        (self.negative.capacity() + self.positive.capacity()) * size_of::<(i32, u64)>()
    }

    /// The value at rank `q · (count − 1)` within 1 %; `None` when empty or `q` not in [0, 1].
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank below 2^53 is exact, above it it may be rounded past the last one"
        )]
        let rank = ((q * (count - 1) as f64) as u64).min(count - 1);
        let mut seen = 0u64;
        for (index, n) in self.negative.iter().rev() {
            seen = seen.saturating_add(*n);
            if seen > rank {
                return Some(-value_of(*index));
            }
        }
        seen = seen.saturating_add(self.zeroes);
        if seen > rank {
            return Some(0.0);
        }
        for (index, n) in &self.positive {
            seen = seen.saturating_add(*n);
            if seen > rank {
                return Some(value_of(*index));
            }
        }
        None
    }

    /// Appends the stored form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let has = |flag: bool, bit: u64| if flag { bit } else { 0 };
        let head = (self.positive.len() as u64) << 2
            | has(!self.negative.is_empty(), 2)
            | has(self.zeroes > 0, 1);
        put_varint(out, head);
        if !self.negative.is_empty() {
            put_varint(out, self.negative.len() as u64);
        }
        if self.zeroes > 0 {
            put_varint(out, self.zeroes);
        }
        encode_bins(out, &self.negative);
        encode_bins(out, &self.positive);
    }

    /// Reads the stored form; the whole of `bytes` must be one sketch.
    ///
    /// # Errors
    /// When the bytes are not a sketch.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, SketchError> {
        let input = &mut bytes;
        let head = take_varint(input)?;
        let negative = if head & 2 != 0 {
            take_varint(input)?
        } else {
            0
        };
        let zeroes = if head & 1 != 0 {
            take_varint(input)?
        } else {
            0
        };
        let negative = decode_bins(input, negative)?;
        let positive = decode_bins(input, head >> 2)?;
        if !input.is_empty() {
            return Err(SketchError("bytes after its end"));
        }
        let sketch = Self {
            negative,
            zeroes,
            positive,
        };
        // A bin's count is an i64; beyond it nothing was ever counted, and sums would overflow.
        match sketch.count() {
            0..=COUNT_MAX => Ok(sketch),
            _ => Err(SketchError("it counts more than 2^63 - 1 values")),
        }
    }
}

fn merge_bins(into: &mut Vec<(i32, u64)>, from: &[(i32, u64)]) {
    if from.is_empty() {
        return;
    }
    let mut out = Vec::with_capacity(into.len() + from.len());
    let (mut a, mut b) = (
        into.iter().copied().peekable(),
        from.iter().copied().peekable(),
    );
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x.0 == y.0 => {
                let sum = (x.0, x.1.saturating_add(y.1));
                b.next();
                a.next();
                Some(sum)
            }
            (Some(x), Some(y)) if x.0 < y.0 => a.next(),
            (_, Some(_)) => b.next(),
            (_, None) => a.next(),
        };
        match next {
            Some(bin) => out.push(bin),
            None => break,
        }
    }
    *into = out;
}

fn encode_bins(out: &mut Vec<u8>, bins: &[(i32, u64)]) {
    let mut previous: Option<i32> = None;
    for (index, count) in bins {
        let step = match previous {
            None => {
                u64::from(index.wrapping_shl(1).cast_unsigned() ^ (index >> 31).cast_unsigned())
            }
            Some(p) => u64::from((index - p - 1).unsigned_abs()),
        };
        put_varint(out, step << 1 | u64::from(*count > 1));
        if *count > 1 {
            put_varint(out, count - 2);
        }
        previous = Some(*index);
    }
}

fn decode_bins(input: &mut &[u8], n: u64) -> Result<Vec<(i32, u64)>, SketchError> {
    // Every bin takes at least one byte, so a forged count cannot make us allocate.
    if n > input.len() as u64 {
        return Err(SketchError("more bins than bytes"));
    }
    let mut bins: Vec<(i32, u64)> = Vec::new();
    for _ in 0..n {
        let word = take_varint(input)?;
        let step = u32::try_from(word >> 1).map_err(|_| SketchError("bin index out of range"))?;
        let index = match bins.last() {
            None => Some((step >> 1).cast_signed() ^ -(step & 1).cast_signed()),
            Some((p, _)) => i32::try_from(step)
                .ok()
                .and_then(|s| p.checked_add(s)?.checked_add(1)),
        };
        let index = index
            .filter(|i| i.unsigned_abs() <= INFINITE.unsigned_abs())
            .ok_or(SketchError("bin index out of range"))?;
        let count = match word & 1 {
            0 => 1,
            _ => take_varint(input)?
                .checked_add(2)
                .ok_or(SketchError("count out of range"))?,
        };
        bins.push((index, count));
    }
    Ok(bins)
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(input: &mut &[u8]) -> Result<u64, SketchError> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first().ok_or(SketchError("it ends early"))?;
        *input = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(SketchError("a number of more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|v| sketch.push(*v));
        sketch
    }

    #[test]
    fn six_close_values_take_few_bytes() {
        let mut out = Vec::new();
        of(&[50.0, 51.0, 51.0, 52.0, 53.0, 50.0]).encode(&mut out);
        assert!(out.len() <= 9, "{} bytes", out.len());
    }

    #[test]
    fn extreme_values_have_bins() {
        let sketch = of(&[
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE / 2e15,
            -0.0,
            f64::NAN,
        ]);
        assert_eq!(sketch.count(), 5);
        assert_eq!(sketch.quantile(1.0), Some(f64::INFINITY));
        assert_eq!(sketch.quantile(0.0), Some(f64::NEG_INFINITY));
        let mut out = Vec::new();
        sketch.encode(&mut out);
        assert_eq!(Sketch::decode(&out), Ok(sketch));
    }

    #[test]
    fn a_forged_index_is_out_of_range_also_at_the_least_integer() {
        let forged = [0x07, 0x01, 0x79, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x12];
        assert!(Sketch::decode(&forged).is_err());
    }

    #[test]
    fn forged_counts_never_overflow() {
        let stored = |positive: u64, counts: [u64; 2]| {
            let mut out = Vec::new();
            put_varint(&mut out, positive << 2);
            for count in counts {
                put_varint(&mut out, 1);
                put_varint(&mut out, count - 2);
            }
            Sketch::decode(&out)
        };
        assert!(stored(2, [u64::MAX, 2]).is_err());
        assert!(stored(2, [1 << 62, 1 << 62]).is_err());
        let most = stored(2, [COUNT_MAX - 2, 2]).expect("just within the limit");
        assert!(most.quantile(1.0).is_some(), "the last rank is rounded up");
        let mut sum = most.clone();
        (0..3).for_each(|_| sum.merge(&most));
        assert_eq!(sum.count(), u64::MAX);
        assert!(sum.quantile(1.0).is_some());
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_one_percent(mut values in proptest::collection::vec(-1e6f64..1e6, 1..200), q in 0.0f64..=1.0) {
            let got = of(&values).quantile(q).expect("not empty");
            values.sort_by(f64::total_cmp);
            let want = values[(q * (values.len() - 1) as f64) as usize];
            prop_assert!((got - want).abs() <= want.abs() * (RELATIVE_ERROR + 1e-9), "{got} for {want}");
        }

        #[test]
        fn merging_is_sketching_both(a in proptest::collection::vec(any::<f64>(), 0..50), b in proptest::collection::vec(any::<f64>(), 0..50)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(&merged, &of(&[a, b].concat()));
            let mut out = Vec::new();
            merged.encode(&mut out);
            prop_assert_eq!(Sketch::decode(&out), Ok(merged));
        }

        #[test]
        fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Sketch::decode(&bytes);
        }
    }
}
