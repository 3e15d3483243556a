//! The routes of ingest, gzip included.
#![no_main]

stele_fuzz::target!(stele_fuzz::stored_seeds::http, stele_fuzz::http::http);
