//! Manifests.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::stored_seeds::manifest,
    stele_fuzz::table::manifest
);
