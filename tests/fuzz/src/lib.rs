//! What the fuzz targets check. A target feeds bytes to one decoder and asserts more than that it
//! does not panic: what was accepted keeps the limits, says the same when it is encoded and
//! decoded again, and two forms of the same samples agree.
//!
//! Each target has seeds from the real encoders ([`seeds`]), so that they never fall behind the
//! format; what fuzzing found on top of them is kept in `corpus/`.

#[cfg(feature = "stored")]
pub mod files;
pub mod gzip;
#[cfg(feature = "stored")]
pub mod import;
#[cfg(feature = "stored")]
pub mod keys;
pub mod names;
pub mod seeds;
pub mod sketch;
pub mod sql;
#[cfg(feature = "stored")]
pub mod stored_seeds;
#[cfg(feature = "stored")]
pub mod table;
pub mod wire;

/// 2026-11-22T12:00:00Z, the receive time everywhere.
pub const NOW_US: i64 = 1_795_348_800_000_000;

/// A target: seeds on demand, then one function.
#[macro_export]
macro_rules! target {
    ($seeds:expr, $check:expr) => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::seeds::write($seeds),
            |data: &[u8]| $check(data)
        );
    };
}
