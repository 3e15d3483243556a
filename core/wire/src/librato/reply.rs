//! Reply bodies of Librato's API. A full success has none.
//!
//! python-librato and ruby's librato-metrics read `errors`; a 4xx raises, is never sent again and
//! leaves the rest of a client's queue behind it, and Telegraf sends whatever was not answered 200
//! for ever. So a request of which anything was stored is a success, whose body names the rest.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::json;
use stele_model::{ErrorKind, Rejections};

/// `{"accepted":1,"rejected":1,"errors":{"params":{"gauges[1]":["…"]}}}` for a request with
/// rejections. `accepted` counts stored samples, after merging.
#[must_use]
pub fn partial(accepted: u64, rejections: &Rejections) -> String {
    #[derive(Serialize)]
    struct Reply<'r> {
        accepted: u64,
        rejected: u64,
        errors: Errors<'r>,
    }
    #[derive(Serialize)]
    struct Errors<'r> {
        params: Params<'r>,
    }
    let reply = Reply {
        accepted,
        rejected: rejections.total,
        errors: Errors {
            params: Params(rejections),
        },
    };
    // Maps with text keys and numbers always have a JSON text.
    serde_json::to_string(&reply).unwrap_or_default()
}

/// Item to reasons, in the order of the request.
struct Params<'r>(&'r Rejections);

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.named.len()))?;
        for rejection in &self.0.named {
            // The decoders begin every reason with its item, which holds no colon.
            let (item, reason) = rejection
                .reason
                .split_once(": ")
                .unwrap_or(("request", &rejection.reason));
            map.serialize_entry(item, &[reason])?;
        }
        map.end()
    }
}

/// The body of an error of `kind`: `{"errors":{"request":["…"]}}`, or `system` when the fault is
/// not the sender's.
#[must_use]
pub fn error(kind: ErrorKind, message: &str) -> String {
    let of = if kind.status() >= 500 {
        "system"
    } else {
        "request"
    };
    json!({ "errors": { of: [message] } }).to_string()
}
