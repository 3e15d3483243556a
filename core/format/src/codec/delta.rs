//! DELTA_BINARY_PACKED for 64-bit integers: blocks of 128 differences in four miniblocks.

use super::{bits, pack, put_varint, take_varint, unpack};

const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;
const MINIBLOCKS: usize = BLOCK / MINIBLOCK;

fn zigzag(n: i64) -> u64 {
    (n.wrapping_shl(1) ^ (n >> 63)).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -((n & 1).cast_signed())
}

/// Appends the encoding of `values`.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[i64]) {
    encode_on(out, values, None);
}

/// Appends an encoding in which small differences take a whole byte each, counted from one base
/// wherever possible; `false`, and nothing, when there are none of them.
///
/// It is longer, but its bytes are symbols that an entropy coder can see: differences of two or
/// three bits compress to their entropy, which no compressor finds in packed bits.
pub(crate) fn encode_bytes(out: &mut Vec<u8>, values: &[i64]) -> bool {
    let mut base = None;
    for block in 0..values.len().saturating_sub(1).div_ceil(BLOCK) {
        let end = values.len().min((block + 1) * BLOCK + 1);
        let (least, range) = range(&values[block * BLOCK..end]);
        if (1..=u64::from(u8::MAX)).contains(&range) {
            base = Some(base.map_or(least, |base: i64| base.min(least)));
        }
    }
    if base.is_some() {
        encode_on(out, values, base);
    }
    base.is_some()
}

/// The least difference between neighbours, and how far the greatest is from it.
fn range(values: &[i64]) -> (i64, u64) {
    let deltas = || values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let (least, most) = (deltas().min().unwrap_or(0), deltas().max().unwrap_or(0));
    (least, most.abs_diff(least))
}

fn encode_on(out: &mut Vec<u8>, values: &[i64], base: Option<i64>) {
    put_varint(out, BLOCK as u64);
    put_varint(out, MINIBLOCKS as u64);
    put_varint(out, values.len() as u64);
    let Some(first) = values.first() else {
        put_varint(out, 0);
        return;
    };
    put_varint(out, zigzag(*first));
    let mut deltas = [0i64; BLOCK];
    let mut packed = [0u64; BLOCK];
    // Each block starts at the last value of the one before it.
    let mut at = 0;
    while at + 1 < values.len() {
        let n = BLOCK.min(values.len() - at - 1);
        let (old, new) = (&values[at..at + n], &values[at + 1..at + 1 + n]);
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for ((delta, a), b) in deltas.iter_mut().zip(old).zip(new) {
            *delta = b.wrapping_sub(*a);
            least = least.min(*delta);
            most = most.max(*delta);
        }
        let byte = u64::from(u8::MAX);
        let bytes = base.is_some() && most.abs_diff(least) <= byte;
        if let Some(base) = base.filter(|b| bytes && *b <= least && most.abs_diff(*b) <= byte) {
            least = base;
        }
        for (word, delta) in packed.iter_mut().zip(&deltas[..n]) {
            *word = delta.wrapping_sub(least).cast_unsigned();
        }
        packed[n..].fill(0);
        put_varint(out, zigzag(least));
        put_block(out, &packed, n, if bytes { 8 } else { 0 });
        at += n;
    }
}

/// The widths of the four miniblocks, at least `width_min`, then those of them that hold any of
/// the `n` values.
fn put_block(out: &mut Vec<u8>, packed: &[u64; BLOCK], n: usize, width_min: u32) {
    let used = n.div_ceil(MINIBLOCK);
    let mut widths = [0u32; MINIBLOCKS];
    let miniblocks = packed.chunks_exact(MINIBLOCK);
    for (width, words) in widths.iter_mut().zip(miniblocks).take(used) {
        *width = bits(words.iter().fold(0, |all, word| all | word)).max(width_min);
    }
    out.extend(widths.iter().map(|w| *w as u8));
    for (width, words) in widths.iter().zip(packed.chunks_exact(MINIBLOCK)).take(used) {
        if *width > 0 {
            pack(out, words, *width);
        }
    }
}

/// Appends the `n` encoded values to `into` and returns the bytes after them; `None` when `bytes`
/// does not begin with exactly `n`.
pub(crate) fn decode<'a>(mut bytes: &'a [u8], n: usize, into: &mut Vec<i64>) -> Option<&'a [u8]> {
    let input = &mut bytes;
    let (block, miniblocks) = (take_varint(input)?, take_varint(input)?);
    if block != BLOCK as u64 || miniblocks != MINIBLOCKS as u64 || take_varint(input)? != n as u64 {
        return None;
    }
    let mut last = unzigzag(take_varint(input)?);
    if n == 0 {
        return Some(input);
    }
    into.reserve(n);
    into.push(last);
    let mut left = n - 1;
    let mut words = [0u64; MINIBLOCK];
    while left > 0 {
        let least = unzigzag(take_varint(input)?);
        let widths: [u8; MINIBLOCKS] = input.get(..MINIBLOCKS)?.try_into().ok()?;
        *input = &input[MINIBLOCKS..];
        for width in widths {
            let here = left.min(MINIBLOCK);
            if here == 0 {
                break;
            }
            let size = usize::from(width) * MINIBLOCK / 8;
            let packed = input.get(..size)?;
            *input = &input[size..];
            if width == 8 {
                into.extend(packed[..here].iter().map(|byte| {
                    last = last.wrapping_add(least).wrapping_add(i64::from(*byte));
                    last
                }));
            } else if width == 0 {
                for _ in 0..here {
                    last = last.wrapping_add(least);
                    into.push(last);
                }
            } else {
                if !unpack(packed, u32::from(width), &mut words) {
                    return None;
                }
                into.extend(words[..here].iter().map(|word| {
                    last = last.wrapping_add(least).wrapping_add(word.cast_signed());
                    last
                }));
            }
            left -= here;
        }
    }
    Some(input)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_are_read_back(values in prop_oneof![
            proptest::collection::vec(any::<i64>(), 0..400),
            proptest::collection::vec(-3i64..4, 0..400),
            proptest::collection::vec(prop_oneof![40 => 0i64..200, 1 => any::<i64>()], 0..400),
        ]) {
            let mut out = Vec::new();
            encode(&mut out, &values);
            let mut back = Vec::new();
            prop_assert!(decode(&out, values.len(), &mut back).is_some());
            prop_assert_eq!(&back, &values);
            prop_assert!(decode(&out, values.len() + 1, &mut back).is_none());
            let (mut wide, mut back) = (Vec::new(), Vec::new());
            if encode_bytes(&mut wide, &values) {
                prop_assert!(decode(&wide, values.len(), &mut back).is_some());
                prop_assert_eq!(&back, &values);
            }
        }

        #[test]
        fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..80), n in 0usize..300) {
            let mut forged = vec![128, 1, 4];
            put_varint(&mut forged, n as u64);
            forged.extend(bytes);
            let _ = decode(&forged, n, &mut Vec::new());
        }
    }
}
