//! Gzip as a body may have it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use stele_model::Limits;
use stele_wire::gzip::{GzipError, unpack};

/// The gzip of `bytes`.
pub fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// The first byte chooses the limits and whether the rest is gzip or what is packed.
pub fn gzip(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let default = Limits::default();
    let limits = match choice & 1 {
        0 => default,
        _ => Limits {
            unpacked_bytes_max: 300,
            ..default
        },
    };
    if choice & 2 == 0 {
        unpacked(body, &limits);
        return;
    }
    let (first, second) = body.split_at(body.len() / 2);
    let mut members = packed(first);
    members.extend(packed(second));
    let got = unpacked(&members, &limits);
    let fits = body.len() as u64 <= limits.unpacked_bytes_max;
    assert_eq!(got.as_deref(), fits.then_some(body));
    // A member cut short is never a shorter body.
    let cut = members.len() - 1 - usize::from(*choice) % packed(second).len();
    if let Some(got) = unpacked(&members[..cut], &limits) {
        assert!(got == first, "{} of {} bytes", got.len(), body.len());
    }
}

/// What is unpacked was granted to the byte, and is within the limits.
fn unpacked(body: &[u8], limits: &Limits) -> Option<Vec<u8>> {
    let mut granted = 0;
    let got = unpack(body, limits, |bytes| {
        granted += bytes;
        Ok::<_, GzipError>(())
    });
    assert!(granted as u64 <= limits.unpacked_bytes_max);
    let got = got.ok()?;
    assert_eq!(got.len(), granted);
    Some(got)
}
