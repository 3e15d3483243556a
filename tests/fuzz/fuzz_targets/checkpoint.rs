//! Checkpoints.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::checkpoint,
    stele_fuzz::table::checkpoint
);
