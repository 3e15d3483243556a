//! Influx line protocol: `measurement,tag=value field=1,other=2i 1700000000000000000`.
//!
//! Source of the rules: the line protocol reference of InfluxDB 2.x and its Go parser
//! (`models/points.go`). A field is a sample of metric `<measurement>.<field>`; of
//! `<measurement>` when the field is `value`. Integers become floats (beyond 2^53 rounded to the
//! nearest), booleans 1 and 0; strings are refused by name while the point's other fields are
//! kept. Nanoseconds are floored to the µs; a point without a timestamp gets the receive time.
//!
//! Where this reader differs on purpose: a newline ends a line unless it is inside a quoted
//! string, also after a backslash; a bad field does not cost the point's other fields; a tag name
//! must not hold an unescaped comma. All are for one rule: a bad sample never drops its
//! neighbours, and nothing is stored that was not sent.

mod decode;
mod line;
mod number;
mod query;
mod reply;

pub use decode::decode;
pub use query::query_reply;
pub use reply::{error_v1, error_v2, partial_v1, partial_v2};
