//! Ledger files.
#![no_main]

stele_fuzz::target!(stele_fuzz::stored_seeds::ledger, stele_fuzz::table::ledger);
