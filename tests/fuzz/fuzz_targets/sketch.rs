//! Quantile sketches.
#![no_main]

stele_fuzz::target!(stele_fuzz::seeds::sketch, stele_fuzz::sketch::sketch);
