//! Names and other short texts.

use stele_model::{Day, Digest, L0Name, Month, TenantId, time};
use stele_wire::{Precision, influx};

/// Every parser of a short text on the same text.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = text.parse::<L0Name>() {
        assert_eq!(name.to_string(), text);
        assert!(name.first <= name.last);
        let hours = i64::from(name.last.0) - i64::from(name.first.0);
        if hours < 1 << 16 {
            assert_eq!(name.windows().len() as i64, hours + 1);
        }
    }
    if let Ok(tenant) = text.parse::<TenantId>() {
        assert_eq!(tenant.as_str(), text);
        assert!(!text.contains(['/', '.', '\\', '%']));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Some(day) = Day::parse(text) {
        assert_eq!(Day::parse(&day.period()), Some(day));
    }
    if let Some(month) = Month::parse(text) {
        assert_eq!(Month::parse(&month.period()), Some(month));
        assert!(month.start_us() < month.end_us());
    }
    if let Some(ts_us) = time::parse_rfc3339(text) {
        assert_eq!(time::parse_rfc3339(&time::rfc3339(ts_us)), Some(ts_us));
    }
    if let Ok(precision) = text.parse::<Precision>() {
        assert_eq!(
            precision.as_str().parse::<Precision>().expect("it is ours"),
            precision
        );
    }
    let (status, body) = influx::query_reply(text);
    assert!(matches!(status, 200 | 400));
    serde_json::from_str::<serde_json::Value>(&body).expect("a reply is JSON");
}
