//! Keys of objects.
#![no_main]

stele_fuzz::target!(stele_fuzz::stored_seeds::keys, stele_fuzz::keys::keys);
