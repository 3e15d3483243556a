//! Pins and the marks of dropped ones.
#![no_main]

stele_fuzz::target!(stele_fuzz::stored_seeds::pin, stele_fuzz::table::pin);
