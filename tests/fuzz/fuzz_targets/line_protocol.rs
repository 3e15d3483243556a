//! Influx line protocol, all precisions.
#![no_main]

stele_fuzz::target!(
    stele_fuzz::seeds::line_protocol,
    stele_fuzz::wire::line_protocol
);
