//! BYTE_STREAM_SPLIT for doubles: first every value's lowest byte, then every second byte, …

/// Appends the encoding of `values`.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[f64]) {
    for plane in 0..8 {
        out.extend(values.iter().map(|v| (v.to_bits() >> (8 * plane)) as u8));
    }
}

/// Appends the `n` encoded values to `into`; `None` when `bytes` does not hold exactly `n`.
pub(crate) fn decode(bytes: &[u8], n: usize, into: &mut Vec<f64>) -> Option<()> {
    if Some(bytes.len()) != n.checked_mul(8) {
        return None;
    }
    let plane = |i: usize| &bytes[i * n..(i + 1) * n];
    let planes = [0, 1, 2, 3, 4, 5, 6, 7].map(plane);
    into.extend((0..n).map(|i| f64::from_le_bytes(planes.map(|p| p[i]))));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_read_back() {
        let values = [
            0.0,
            -0.0,
            f64::from_bits(0x7ff8_0102_0304_0506),
            1.5,
            f64::MIN,
        ];
        let mut out = Vec::new();
        encode(&mut out, &values);
        let mut back = Vec::new();
        assert_eq!(decode(&out, 5, &mut back), Some(()));
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&values));
        assert_eq!(decode(&out, 4, &mut back), None);
    }
}
