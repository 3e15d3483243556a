//! Heads, and entries applied to them.
#![no_main]

stele_fuzz::target!(stele_fuzz::stored_seeds::head, stele_fuzz::table::head);
