//! Names and other short texts.
#![no_main]

stele_fuzz::target!(stele_fuzz::seeds::names, stele_fuzz::names::names);
