//! Parquet's RLE / bit-packing hybrid: dictionary keys and definition levels.

use super::runs::Runs;
use super::{pack, put_varint, take_varint, unpack};

/// Encodes runs of keys of `width` bits (1 to 32).
pub(crate) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    width: u32,
    /// Keys that wait to become bit-packed groups of eight.
    literals: Vec<u64>,
}

impl<'a> Encoder<'a> {
    pub fn new(out: &'a mut Vec<u8>, width: u32) -> Self {
        Self {
            out,
            width,
            literals: Vec::new(),
        }
    }

    /// Appends `n` repetitions of `key`.
    pub fn push(&mut self, key: u32, mut n: usize) {
        // Groups of literals must be whole, save for the last of the page.
        let open = self.literals.len() % 8;
        if open > 0 {
            let fill = n.min(8 - open);
            self.literals
                .extend(std::iter::repeat_n(u64::from(key), fill));
            n -= fill;
        }
        if n >= 8 {
            self.flush();
            put_varint(self.out, (n as u64) << 1);
            let bytes = self.width.div_ceil(8) as usize;
            self.out.extend_from_slice(&key.to_le_bytes()[..bytes]);
        } else {
            self.literals.extend(std::iter::repeat_n(u64::from(key), n));
        }
    }

    /// Ends the page; an unfinished group is padded with zeroes.
    pub fn finish(mut self) {
        self.flush();
    }

    fn flush(&mut self) {
        if self.literals.is_empty() {
            return;
        }
        let groups = self.literals.len().div_ceil(8);
        self.literals.resize(groups * 8, 0);
        put_varint(self.out, (groups as u64) << 1 | 1);
        pack(self.out, &self.literals, self.width);
        self.literals.clear();
    }
}

/// Appends `n` keys of `width` bits (0 to 32) to `into`; `None` when the bytes do not hold them.
pub(crate) fn decode(mut bytes: &[u8], width: u32, n: usize, into: &mut Runs<u32>) -> Option<()> {
    let key_bytes = width.div_ceil(8) as usize;
    if width > 32 {
        return None;
    }
    let mut left = n;
    while left > 0 {
        let head = take_varint(&mut bytes)?;
        let count = usize::try_from(head >> 1).ok()?;
        if head & 1 == 0 {
            let mut key = [0; 4];
            key[..key_bytes].copy_from_slice(bytes.get(..key_bytes)?);
            bytes = &bytes[key_bytes..];
            let here = count.min(left);
            if here == 0 {
                return None;
            }
            into.push(u32::from_le_bytes(key), here);
            left -= here;
        } else {
            let packed = count.checked_mul(width as usize)?.min(bytes.len());
            let here = left.min(count.checked_mul(8)?);
            if here == 0 {
                return None;
            }
            unpack_literals(&bytes[..packed], width, here, into)?;
            bytes = &bytes[packed..];
            left -= here;
        }
    }
    Some(())
}

fn unpack_literals(bytes: &[u8], width: u32, n: usize, into: &mut Runs<u32>) -> Option<()> {
    let mut group = [0u64; 64];
    let mut done = 0;
    while done < n {
        let here = (n - done).min(64);
        let at = done * width as usize / 8;
        if !unpack(bytes.get(at..)?, width, &mut group[..here]) {
            return None;
        }
        for key in &group[..here] {
            into.push(u32::try_from(*key).ok()?, 1);
        }
        done += here;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_read_back(runs in proptest::collection::vec((0u32..5, 1usize..30), 0..40), width in 3u32..=32) {
            let mut want = Runs::default();
            let mut out = Vec::new();
            let mut encoder = Encoder::new(&mut out, width);
            for (key, n) in runs {
                want.push(key, n);
                encoder.push(key, n);
            }
            encoder.finish();
            let mut got = Runs::default();
            prop_assert!(decode(&out, width, want.len(), &mut got).is_some());
            prop_assert_eq!(got.as_slice(), want.as_slice());
            prop_assert!(decode(&out, width, want.len() + 8, &mut got).is_none());
        }

        #[test]
        fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..60), width in 0u32..40, n in 0usize..500) {
            let _ = decode(&bytes, width, n, &mut Runs::default());
        }
    }
}
