//! L0 objects, files of samples and rollups.
//!
//! Readers check an object's own digest first, so the targets put the right one on the damaged
//! bytes: the damage has to reach the decoders.

use bytes::Bytes;
use stele_format::{
    Error, RollupReader, RollupSource, RollupWriter, SampleReader, SampleSource, SampleWriter,
    content_digest, l0,
};
use stele_model::Series;

/// The bytes with the digest that they should have.
fn resealed(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    if bytes.len() > 20 {
        let digest = content_digest(&bytes[20..]);
        bytes[4..20].copy_from_slice(&digest.0);
    }
    bytes.into()
}

/// What decodes has the digests that it claims, and is the same after another encoding.
pub fn l0_object(data: &[u8]) {
    let bytes = resealed(data);
    let Ok(batches) = l0::decode(bytes.clone()) else {
        return;
    };
    let rows: usize = batches.iter().map(|batch| batch.rows.len()).sum();
    assert_eq!(
        l0::rows_claimed(bytes).expect("it was decoded"),
        rows as u64
    );
    let again = match l0::encode(&batches) {
        Ok(again) => again,
        Err(Error::Hours { .. }) => return,
        Err(error) => panic!("decoded batches have rows: {error}"),
    };
    let again = l0::decode(again.bytes).expect("it is ours");
    for batch in &again {
        assert!(batches.iter().any(|b| b.digest == batch.digest));
    }
}

type Samples = Vec<(Series, i64, u64)>;

fn samples(mut reader: SampleReader) -> Option<Samples> {
    let mut out = Samples::new();
    while let Some(chunk) = reader.next_chunk().ok()? {
        assert!(!chunk.rows.is_empty());
        let rows = chunk.rows.iter();
        let series = &*chunk.series;
        out.extend(rows.map(|row| (series.clone(), row.ts_us, row.value.to_bits())));
    }
    Some(out)
}

/// A filter returns a part of what reading all returns; what can be written again reads the same.
pub fn sample_file(data: &[u8]) {
    let bytes = resealed(data);
    let open = || SampleReader::open(bytes.clone()).ok();
    let Some(all) = open().and_then(samples) else {
        return;
    };
    let place = |row: &(Series, i64, u64)| (row.0.clone(), row.1);
    if !all.is_sorted_by(|a, b| place(a) < place(b)) {
        return; // No file of ours, and found by its check: filters search by order.
    }
    let Some((series, from, _)) = all.get(all.len() / 2).cloned() else {
        return;
    };
    if let Some(part) = open().and_then(|r| samples(r.with_ts_range(from, i64::MAX))) {
        let wanted: Samples = all.iter().filter(|row| row.1 >= from).cloned().collect();
        // The row groups' ranges are what the footer says, and that is the fuzzer's.
        assert!(part.len() <= wanted.len() && part.iter().all(|row| wanted.contains(row)));
    }
    let name = series.clone();
    let keep = std::sync::Arc::new(move |s: &Series| *s == name);
    if let Some(part) = open().and_then(|r| samples(r.with_series(keep))) {
        assert!(part.iter().all(|row| row.0 == series && all.contains(row)));
    }
    let mut writer = SampleWriter::new();
    let mut reader = open().expect("it opened before");
    while let Ok(Some(chunk)) = reader.next_chunk() {
        if writer.push(&chunk.series, &chunk.rows).is_err() {
            return; // Not ascending: no file of ours, and found by its check.
        }
    }
    let made = writer
        .finish()
        .expect("rows are encodable")
        .expect("there are rows");
    let again = SampleReader::open(made.bytes).expect("it is ours");
    assert!(samples(again).expect("it is ours") == all);
}

/// What can be written again reads the same.
pub fn rollup_file(data: &[u8]) {
    let bytes = resealed(data);
    let Ok(mut reader) = RollupReader::open(bytes) else {
        return;
    };
    let mut writer = RollupWriter::new(true);
    let mut all = Vec::new();
    while let Some(chunk) = match reader.next_chunk() {
        Ok(chunk) => chunk,
        Err(_) => return,
    } {
        assert!(!chunk.bins.is_empty());
        for (start_us, bin) in &chunk.bins {
            if writer.push(&chunk.series, *start_us, bin).is_err() {
                return;
            }
            all.push((chunk.series.clone(), *start_us, format!("{bin:?}")));
        }
    }
    let Some(made) = writer.finish().expect("bins are encodable") else {
        return;
    };
    let mut reader = RollupReader::open(made.bytes).expect("it is ours");
    let mut at = 0;
    while let Some(chunk) = reader.next_chunk().expect("it is ours") {
        for (start_us, bin) in &chunk.bins {
            let (series, start, was) = &all[at];
            assert!(**series == *chunk.series && start == start_us);
            assert_eq!(*was, format!("{bin:?}"));
            at += 1;
        }
    }
    assert_eq!(at, all.len());
}
