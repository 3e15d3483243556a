//! Entries of the log.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::log_entry,
    stele_fuzz::table::log_entry
);
