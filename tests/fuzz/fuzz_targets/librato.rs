//! Librato bodies: JSON, forms and measurements.
#![no_main]

stele_fuzz::target!(stele_fuzz::seeds::librato, stele_fuzz::wire::librato);
