//! Bodies in gzip.
#![no_main]

stele_fuzz::target!(stele_fuzz::seeds::gzip, stele_fuzz::gzip::gzip);
