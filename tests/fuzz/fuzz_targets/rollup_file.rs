//! Files of rollups.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::rollup_file,
    stele_fuzz::files::rollup_file
);
