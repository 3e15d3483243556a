//! What a request with an `Idempotency-Key` asks for.

use axum::http::{HeaderMap, HeaderName, Uri};
use stele_ingest::IdempotencyKey;

use crate::error::Error;

const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a request, if it has one. Two keys are none that the sender can mean.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Error> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let text = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => &[],
    };
    Ok(Some(IdempotencyKey::new(text)?))
}

/// Parameters that decide which samples a body makes.
const PARAMETERS: [&str; 2] = ["precision", "correct"];

/// What decides, beside the body, which samples a request makes: its route, and the parameters
/// that change their meaning.
pub(crate) fn meaning(uri: &Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let mut meaning = uri.path().to_owned();
    for parameter in PARAMETERS {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let value = pairs.find(|(name, _)| name == parameter);
        let value = value.map_or_else(String::new, |(_, value)| value.into_owned());
        meaning.push_str(&format!("?{parameter}={value}"));
    }
    meaning
}
