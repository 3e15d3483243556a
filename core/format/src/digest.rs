//! Digests of bytes and batches, and the hash of a multiset of rows.
//!
//! A digest (BLAKE3, 16 bytes) names objects and batches; the rows hash (xxh3-128, added up)
//! proves that no step lost or doubled a row. Both cover every bit of a row: the sign of zero and
//! a NaN's payload included.

use stele_model::{Batch, Digest, Extra, Rows, RowsHash, Series};
use xxhash_rust::xxh3::xxh3_128;

/// First byte of the canonical form, so that it can change without two forms ever colliding.
const CANONICAL_FORM: u8 = 1;

/// The digest of an object's bytes: the first 16 bytes of its BLAKE3 hash.
#[must_use]
pub fn content_digest(bytes: &[u8]) -> Digest {
    truncate(&blake3::hash(bytes))
}

pub(crate) fn truncate(hash: &blake3::Hash) -> Digest {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    Digest(out)
}

/// The digest of canonical rows (see [`Rows`]): every field length-delimited, without receive
/// time, so the same samples have the same digest whatever request or encoder carried them.
#[must_use]
pub fn batch_digest(rows: &Rows) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut out = Vec::with_capacity(1 << 14);
    out.push(CANONICAL_FORM);
    for run in rows.rows.chunk_by(|a, b| a.series == b.series) {
        if let Some(series) = rows.series.get(run[0].series as usize) {
            push_text(&mut out, &series.metric);
            push_text(&mut out, &series.tags);
        }
        out.extend((run.len() as u64).to_le_bytes());
        for row in run {
            out.extend(row.ts_us.to_le_bytes());
            out.extend(row.value.to_bits().to_le_bytes());
            match rows.extras.get(row.extra as usize).filter(|e| !is_plain(e)) {
                None => out.push(0),
                Some(extra) => push_extra(&mut out, extra),
            }
            if out.len() > (1 << 14) - 256 {
                hasher.update(&out);
                out.clear();
            }
        }
    }
    hasher.update(&out);
    truncate(&hasher.finalize())
}

/// Brings rows into canonical form and digests them.
#[must_use]
pub fn batch(mut rows: Rows) -> Batch {
    rows.canonicalize();
    let digest = batch_digest(&rows);
    Batch { digest, rows }
}

/// The hash of a series' identity, one part of each of its rows' hashes.
#[must_use]
pub fn series_hash(series: &Series) -> u128 {
    let (metric, tags) = (series.metric.as_bytes(), series.tags.as_bytes());
    let mut buffer = [0u8; 512];
    let len = 8 + metric.len() + tags.len();
    let mut spill = Vec::new();
    let out = if len <= buffer.len() {
        &mut buffer[..len]
    } else {
        spill.resize(len, 0);
        &mut spill[..]
    };
    out[..8].copy_from_slice(&(metric.len() as u64).to_le_bytes());
    out[8..8 + metric.len()].copy_from_slice(metric);
    out[8 + metric.len()..].copy_from_slice(tags);
    xxh3_128(out)
}

/// The hash of one sample: its series (see [`series_hash`]), time, value and extra, bit for bit.
#[must_use]
#[inline]
pub fn row_hash(series_hash: u128, ts_us: i64, value: f64, extra: &Extra) -> u128 {
    let mut plain = [0u8; 32];
    plain[..16].copy_from_slice(&series_hash.to_le_bytes());
    plain[16..24].copy_from_slice(&ts_us.to_le_bytes());
    plain[24..].copy_from_slice(&value.to_bits().to_le_bytes());
    if is_plain(extra) {
        return xxh3_128(&plain);
    }
    let mut out = Vec::with_capacity(96);
    out.extend(plain);
    push_extra(&mut out, extra);
    xxh3_128(&out)
}

/// The hash of all rows as a multiset.
#[must_use]
pub fn rows_hash(rows: &Rows) -> RowsHash {
    let mut sum = RowsHash::default();
    for run in rows.rows.chunk_by(|a, b| a.series == b.series) {
        let Some(series) = rows.series.get(run[0].series as usize) else {
            continue;
        };
        let series = series_hash(series);
        for row in run {
            sum.add(row_hash(series, row.ts_us, row.value, &rows.extra(row)));
        }
    }
    sum
}

/// Whether an extra says nothing.
#[inline]
pub(crate) fn is_plain(extra: &Extra) -> bool {
    extra.summary.is_none() && extra.rank.is_none() && extra.kind as u8 == 0
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A byte of presence flags (never 0 for an extra that says something), then the present fields.
fn push_extra(out: &mut Vec<u8>, extra: &Extra) {
    let flag = |present: bool, bit: u8| if present { bit } else { 0 };
    let s = extra.summary.as_ref();
    let (min, max) = (s.and_then(|s| s.min), s.and_then(|s| s.max));
    let squares = s.and_then(|s| s.sum_squares);
    let kind = extra.kind as u8;
    out.push(
        flag(kind != 0, 1)
            | flag(extra.rank.is_some(), 2)
            | flag(s.is_some(), 4)
            | flag(min.is_some(), 8)
            | flag(max.is_some(), 16)
            | flag(squares.is_some(), 32),
    );
    if kind != 0 {
        out.push(kind);
    }
    out.extend(extra.rank.iter().flat_map(|r| r.to_le_bytes()));
    if let Some(s) = s {
        out.extend(s.count.to_le_bytes());
        out.extend(s.sum.to_bits().to_le_bytes());
    }
    for value in [min, max, squares].into_iter().flatten() {
        out.extend(value.to_bits().to_le_bytes());
    }
}
