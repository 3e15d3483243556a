//! The native JSON format.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::seeds::native_json,
    stele_fuzz::wire::native_json
);
