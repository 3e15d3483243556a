//! CSV for import.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::import_csv,
    stele_fuzz::import::csv
);
