//! Parquet's page encodings over whole slices and runs.
//!
//! The Parquet library encodes value by value; here a column is known in runs (a series' metric
//! is one key for thousands of rows), and a run costs the same whether it holds one row or a page.

pub(crate) mod delta;
pub(crate) mod hybrid;
pub(crate) mod runs;
pub(crate) mod split;

/// Appends an unsigned LEB128 number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Splits an unsigned LEB128 number off `input`; `None` when it is cut short or over 64 bits.
pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// The number of bits that hold `n`.
pub(crate) fn bits(n: u64) -> u32 {
    64 - n.leading_zeros()
}

/// Appends `values`, each in its `width` lowest bits, packed from the least significant bit on
/// and padded to a whole byte.
pub(crate) fn pack(out: &mut Vec<u8>, values: &[u64], width: u32) {
    let (mut word, mut used) = (0u64, 0);
    for value in values {
        word |= value << used;
        used += width;
        if used >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            used -= 64;
            // What did not fit; `width - used` is at most 63 when bits are left over.
            word = if used == 0 {
                0
            } else {
                value >> (width - used)
            };
        }
    }
    let rest = used.div_ceil(8) as usize;
    out.extend_from_slice(&word.to_le_bytes()[..rest]);
}

/// Reads `out.len()` values of `width` bits, at most 64; `false` when `bytes` is too short.
pub(crate) fn unpack(bytes: &[u8], width: u32, out: &mut [u64]) -> bool {
    if width == 0 {
        out.fill(0);
        return true;
    }
    if width > 64 || (bytes.len() as u64) * 8 < out.len() as u64 * u64::from(width) {
        return false;
    }
    let mask = u64::MAX >> (64 - width);
    for (i, slot) in out.iter_mut().enumerate() {
        let bit = i * width as usize;
        let (at, shift) = (bit / 8, bit % 8);
        let word = match bytes.get(at..at + 8) {
            Some(eight) => u64::from_le_bytes(eight.try_into().unwrap_or_default()),
            None => {
                let mut eight = [0; 8];
                let tail = &bytes[at..];
                eight[..tail.len()].copy_from_slice(tail);
                u64::from_le_bytes(eight)
            }
        };
        let mut value = word >> shift;
        if shift as u32 + width > 64 {
            value |= u64::from(bytes[at + 8]) << (64 - shift);
        }
        *slot = value & mask;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_values_are_read_back(values in proptest::collection::vec(any::<u64>(), 0..200), width in 0u32..=64) {
            let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
            let values: Vec<u64> = values.into_iter().map(|v| v & mask).collect();
            let mut out = Vec::new();
            if width > 0 {
                pack(&mut out, &values, width);
            }
            prop_assert_eq!(out.len(), (values.len() * width as usize).div_ceil(8));
            let mut back = vec![1; values.len()];
            prop_assert!(unpack(&out, width, &mut back));
            prop_assert_eq!(&back, &values);
            if !out.is_empty() {
                prop_assert!(!unpack(&out[..out.len() - 1], width, &mut back));
            }
        }

        #[test]
        fn numbers_round_trip(n in any::<u64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            let mut input = out.as_slice();
            prop_assert_eq!(take_varint(&mut input), Some(n));
            prop_assert!(input.is_empty());
        }
    }
}
