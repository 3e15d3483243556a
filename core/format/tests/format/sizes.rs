//! What a sample costs: bounds a little above what was measured, so that a regression shows.

use crate::gen_rows::*;

const HOSTS: usize = 60;
const ROWS: usize = 8640;

fn bytes_per_sample(value: impl FnMut(usize, usize) -> f64) -> f64 {
    let (file, _) = file_of(&regular(HOSTS, ROWS, value));
    file.bytes.len() as f64 / (HOSTS * ROWS) as f64
}

#[test]
fn integer_walks_take_a_third_of_a_byte() {
    let (mut noise, mut at) = (Noise(11), 50i64);
    let size = bytes_per_sample(|_, _| {
        at = (at + (noise.next() % 5) as i64 - 2).clamp(0, 100);
        at as f64
    });
    assert!(size < 0.43, "{size} bytes");
}

#[test]
fn two_decimals_take_less_than_a_float_would() {
    let (mut noise, mut at) = (Noise(13), 5000i64);
    let size = bytes_per_sample(|_, _| {
        at = (at + (noise.next() % 401) as i64 - 200).clamp(0, 10_000);
        at as f64 / 100.0
    });
    assert!(size < 1.4, "{size} bytes");
}

#[test]
fn full_precision_takes_less_than_eight_bytes() {
    let (mut noise, mut at) = (Noise(17), 50.0f64);
    let size = bytes_per_sample(|_, _| {
        at += (noise.next() as f64 / u64::MAX as f64) - 0.5;
        at
    });
    assert!(size < 7.0, "{size} bytes");
}

#[test]
fn constants_and_stale_markers_take_next_to_nothing() {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let size = bytes_per_sample(|host, i| {
        if host % 2 == 0 && i % 100 == 0 {
            stale
        } else {
            1.0
        }
    });
    assert!(size < 0.1, "{size} bytes");
}
