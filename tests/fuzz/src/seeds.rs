//! Seeds of texts and sketches, and how a target writes its seeds.

use std::path::PathBuf;

use stele_model::{Aggregate, Extra};

/// The folder that a target writes its seeds to before it begins.
const FOLDER: &str = "STELE_FUZZ_SEEDS";

/// Writes seeds when the environment names a folder for them.
pub fn write(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&folder).expect("the folder of seeds is writable");
    for (n, seed) in seeds().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{n:03}")), seed).expect("it is writable");
    }
}

/// The bytes of texts.
pub fn texts<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Of [`crate::wire::line_protocol`].
pub fn line_protocol() -> Vec<Vec<u8>> {
    texts([
        "\0cpu,host=a usage=1.5,idle=2i 1795348800000000000\ncpu,host=a usage=2 1795348801000000000",
        "\u{3}cpu,host=a value=1e3,n=7u,ok=true,s=\"a\\\"b\" 1795348800\n# comment\n\nm x=-0.0",
        "\u{1}my\\ cpu\\,x,ho\\=st=a\\ b,c=d\\,e v\\ x=.5 1795348800000000\r\nbad\nm v=nan,w=1",
    ])
}

/// Of [`crate::wire::native_json`].
pub fn native_json() -> Vec<Vec<u8>> {
    texts([
        r#" {"samples":[{"metric":"cpu","tags":{"host":"a"},"ts":1795348800000000,"value":1.5}]}"#,
        r#" {"samples":[{"metric":"c\u00e9","ts":"2026-11-22T12:00:00Z","value":1e-7},{"metric":1}]}"#,
    ])
}

/// Of [`crate::sketch::sketch`].
pub fn sketch() -> Vec<Vec<u8>> {
    let of = |values: &[f64]| {
        let mut bin = Aggregate::empty(true);
        values
            .iter()
            .for_each(|v| bin.push(0, *v, &Extra::default()));
        let mut out = Vec::new();
        bin.sketch.expect("asked for").encode(&mut out);
        out
    };
    vec![
        of(&[]),
        of(&[50.0, 51.0, 51.0, 52.0, 53.0]),
        of(&[-1.0, 0.0, 0.0, 1e300, f64::INFINITY, f64::NEG_INFINITY]),
    ]
}

/// Of [`crate::names::names`].
pub fn names() -> Vec<Vec<u8>> {
    texts([
        "00112233445566778899aabbccddeeff-498000-498001.parquet",
        "00112233445566778899aabbccddeeff",
        "team_1-x",
        "2026-11-22",
        "2026-11",
        "2026-11-22T12:00:00.000001+01:00",
        "SHOW DATABASES; CREATE DATABASE \"x\"",
        "ms",
    ])
}
