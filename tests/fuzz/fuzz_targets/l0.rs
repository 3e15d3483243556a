//! L0 objects.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::l0_object,
    stele_fuzz::files::l0_object
);
