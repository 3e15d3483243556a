//! SQL texts before they are planned.
#![no_main]

stele_fuzz::target!(stele_fuzz::seeds::sql, stele_fuzz::sql::sql);
