//! Files of samples.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::sample_file,
    stele_fuzz::files::sample_file
);
