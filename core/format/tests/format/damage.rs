//! Damaged bytes are an error, never fewer rows and never a panic.

use bytes::Bytes;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use proptest::prelude::*;
use stele_format::{
    EncodedFile, PageSums, RollupReader, RollupSource, RollupWriter, SampleOrRollup, SampleReader,
    SampleSource, batch, check_file, content_digest, l0,
};
use stele_model::{Aggregate, ErrorKind, Extra, Series};

use crate::gen_rows::*;

fn samples() -> Vec<Loose> {
    let mut noise = Noise(3);
    let one = |i: i64| {
        let series = Series {
            metric: format!("m{}", i / 20),
            tags: format!("{{\"host\":\"{}\"}}", i / 5),
        };
        let value = match i % 3 {
            0 => i as f64,
            1 => i as f64 / 8.0,
            _ => f64::from_bits(noise.next()),
        };
        let rank = (i % 17 == 0).then_some(i as i32);
        (
            series,
            1_760_000_000_000_000 + i * 1_000_000,
            value,
            Some(Extra {
                rank,
                ..Extra::default()
            }),
        )
    };
    (0..60).map(one).collect()
}

fn rollup_file() -> EncodedFile {
    let mut writer = RollupWriter::new(true);
    for i in 0..40 {
        let mut bin = Aggregate::empty(true);
        (0..i % 5).for_each(|n| bin.push(i * 60 + n, (i * n) as f64 / 3.0, &Extra::default()));
        writer.push(&Series::default(), i * 60, &bin).unwrap();
    }
    writer.finish().unwrap().unwrap()
}

/// Puts the right digest on damaged bytes, so that the damage reaches the decoders.
fn resealed(mut bytes: Vec<u8>) -> Bytes {
    if bytes.len() > 20 {
        let digest = content_digest(&bytes[20..]);
        bytes[4..20].copy_from_slice(&digest.0);
    }
    bytes.into()
}

fn read_samples(bytes: Bytes) {
    if let Ok(mut reader) = SampleReader::open(bytes) {
        while let Ok(Some(_)) = reader.next_chunk() {}
    }
}

fn read_rollups(bytes: Bytes) {
    if let Ok(mut reader) = RollupReader::open(bytes) {
        while let Ok(Some(_)) = reader.next_chunk() {}
    }
}

#[test]
fn any_flipped_byte_of_an_l0_object_is_corrupt() {
    let object = l0::encode(&[batch(rows_of(&samples()))]).unwrap();
    for at in 0..object.bytes.len() {
        let mut bytes = object.bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let error = l0::decode(bytes.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
    }
    for cut in 0..object.bytes.len() {
        assert!(
            l0::decode(object.bytes.slice(..cut)).is_err(),
            "cut at {cut}"
        );
    }
}

#[test]
fn any_flipped_byte_of_a_file_is_corrupt() {
    let (sample, rollup) = (file_of(&canonical(&samples())).0, rollup_file());
    for (file, kind) in [
        (sample, SampleOrRollup::Sample),
        (rollup, SampleOrRollup::Rollup),
    ] {
        check_file(&file.bytes, &file.stats, kind).unwrap();
        for at in 0..file.bytes.len() {
            let mut bytes = file.bytes.to_vec();
            bytes[at] ^= 1 << (at % 8);
            let bytes = Bytes::from(bytes);
            let opened = match kind {
                SampleOrRollup::Sample => SampleReader::open(bytes.clone()).map(|_| ()),
                SampleOrRollup::Rollup => RollupReader::open(bytes.clone()).map(|_| ()),
            };
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            let error = check_file(&bytes, &file.stats, kind).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
        }
    }
}

#[test]
fn a_file_that_is_not_the_recorded_one_is_found_out() {
    let (file, _) = file_of(&canonical(&samples()));
    let (other, _) = file_of(&canonical(&samples()[1..]));
    assert!(check_file(&other.bytes, &file.stats, SampleOrRollup::Sample).is_err());
    type Change = fn(&mut stele_model::FileStats);
    let changes: [Change; 8] = [
        |s| s.rows += 1,
        |s| s.rows_hash.add(1),
        |s| s.ts_min_us += 1,
        |s| s.ts_max_us += 1,
        |s| s.metric_min.push('x'),
        |s| s.metric_max.push('x'),
        |s| s.series += 1,
        |s| s.footer_digest.0[3] ^= 1,
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut stats = file.stats.clone();
        change(&mut stats);
        let error = check_file(&file.bytes, &stats, SampleOrRollup::Sample).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "change {at}: {error}");
    }
}

#[test]
fn damage_behind_a_right_digest_never_panics() {
    let object = l0::encode(&[batch(rows_of(&samples()))]).unwrap().bytes;
    let (sample, rollup) = (file_of(&canonical(&samples())).0.bytes, rollup_file().bytes);
    for original in [object, sample, rollup] {
        for at in 20..original.len() {
            for bit in [0, 3, 7] {
                let mut bytes = original.to_vec();
                bytes[at] ^= 1 << bit;
                let bytes = resealed(bytes);
                let _ = l0::decode(bytes.clone());
                read_samples(bytes.clone());
                read_rollups(bytes);
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tail in any::<bool>()) {
        let _ = l0::decode(bytes.clone().into());
        let mut dressed = b"PAR1".to_vec();
        dressed.extend([0; 16]);
        dressed.extend(&bytes);
        if tail {
            dressed.extend((bytes.len() as u32).to_le_bytes());
            dressed.extend(b"PAR1");
        }
        let dressed = resealed(dressed);
        prop_assert!(l0::decode(dressed.clone()).is_err());
        prop_assert!(SampleReader::open(dressed.clone()).is_err() || !tail);
        read_samples(dressed.clone());
        read_rollups(dressed);
    }
}

/// Every page of a file on its own, as a query reads it.
#[test]
fn any_flipped_bit_of_a_page_read_alone_is_corrupt() {
    for file in [file_of(&canonical(&samples())).0, rollup_file()] {
        let data_end = file.bytes.len() - file.stats.footer_bytes as usize;
        let metadata = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&file.bytes)
            .unwrap();
        let sums = PageSums::read(&file.bytes[data_end..], &metadata).unwrap();
        let mut pages = Vec::new();
        let groups = metadata.row_groups().iter();
        for (group, index) in groups.zip(metadata.offset_index().unwrap()) {
            for (column, index) in group.columns().iter().zip(index) {
                if let Some(start) = column.dictionary_page_offset() {
                    pages.push(start as usize..column.data_page_offset() as usize);
                }
                pages.extend(index.page_locations().iter().map(|page| {
                    let start = page.offset as usize;
                    start..start + page.compressed_page_size as usize
                }));
            }
        }
        assert!(pages.len() > 5, "{}", pages.len());
        sums.check(20, &file.bytes[20..data_end]).unwrap();
        for page in pages {
            let start = page.start as u64;
            let bytes = &file.bytes[page];
            sums.check(start, bytes).unwrap();
            for at in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << (at % 8);
                let error = sums.check(start, &damaged).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
            // Less than a page cannot be checked, and so is not read.
            assert!(sums.check(start, &bytes[..bytes.len() - 1]).is_err());
            assert!(sums.check(start + 1, &bytes[1..]).is_err());
        }
        assert!(
            sums.check(data_end as u64, &file.bytes[data_end..])
                .is_err()
        );
        let short = PageSums::read(&file.bytes[file.bytes.len() - 8..], &metadata);
        assert_eq!(short.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
