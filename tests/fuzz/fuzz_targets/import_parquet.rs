//! Parquet for import.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::import_parquet,
    stele_fuzz::import::parquet
);
