//! Idempotency keys: every attempt at one submission makes the same batch.
//!
//! A keyed request first creates `idem/<digest of key>` with the digest of its body and its
//! receive time. An attempt that finds the marker there uses the stored receive time, which stamps
//! the samples that carry none: the same rows, the same digest, and the ledger counts a batch once.
//! Without the marker two requests with one body and no timestamps are two submissions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_format::content_digest;
use stele_model::Digest;
use stele_model::time::{MINUTE_US, SECOND_US};
use stele_store::{Stored, TenantStore, keys, sealed};

use crate::error::{Error, Result};

/// The layout of a marker.
const FORMAT: u32 = 1;
/// The most characters of a key.
const KEY_BYTES_MAX: usize = 255;
/// Our clock and the store's are taken to differ by less; a store is refused at 1 min.
const CLOCKS_DIFFER_US_MAX: i64 = 2 * MINUTE_US;

/// A key that a sender chose for one submission, by its digest: the text goes into no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey(Digest);

impl IdempotencyKey {
    /// The key of a header's value.
    ///
    /// # Errors
    /// [`Error::KeyText`] unless it is 1 to 255 visible ASCII characters.
    pub fn new(text: &[u8]) -> Result<Self> {
        let is_visible = text.iter().all(u8::is_ascii_graphic);
        if !is_visible || !(1..=KEY_BYTES_MAX).contains(&text.len()) {
            return Err(Error::KeyText {
                bytes_min: 1,
                bytes_max: KEY_BYTES_MAX,
            });
        }
        Ok(Self(content_digest(text)))
    }

    /// The name of its marker, relative to the tenant.
    #[must_use]
    pub fn marker(&self) -> String {
        keys::marker(&self.0)
    }
}

/// The digest of what a keyed request asks for: `body` as it is after unpacking, and `meaning`,
/// all else that decides which samples it makes (the route, the precision).
#[must_use]
pub fn body_digest(meaning: &str, body: &[u8]) -> Digest {
    let parts = [meaning.as_bytes(), body].map(|part| content_digest(part).0);
    content_digest(&parts.concat())
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    body: Digest,
    received_us: i64,
}

/// One attempt at a submission that came with a key.
pub(crate) struct Attempt {
    pub key: IdempotencyKey,
    /// The digest of the request.
    pub body: Digest,
    /// When it came, µs.
    pub now_us: i64,
    /// How old its marker may be, µs.
    pub age_us_max: i64,
}

impl Attempt {
    /// The receive time of the first attempt, which may be this one; and the marker's bytes.
    pub async fn received_us(&self, store: &TenantStore) -> Result<(i64, Bytes)> {
        let marker = Marker {
            format: FORMAT,
            body: self.body,
            received_us: self.now_us,
        };
        let name = self.key.marker();
        let damaged = |source| Error::MarkerDamaged {
            key: name.clone(),
            source,
        };
        let bytes = serde_json::to_vec(&marker).map_err(damaged)?;
        let sealed = sealed::seal(&bytes);
        let found = store.put_or_get(&name, sealed.clone()).await;
        let Some(found) = found.map_err(Error::Marker)? else {
            return Ok((self.now_us, sealed));
        };
        self.check_age(store, &found).await?;
        let Some(json) = sealed::unseal(&found.bytes) else {
            let text = "its check is not that of its text";
            return Err(damaged(serde::de::Error::custom(text)));
        };
        let stored: Marker = serde_json::from_slice(&json).map_err(damaged)?;
        if stored.format != FORMAT {
            let text = format!("format {} is not {FORMAT}", stored.format);
            return Err(damaged(serde::de::Error::custom(text)));
        }
        match stored.body == self.body {
            true => Ok((stored.received_us, found.bytes)),
            false => Err(Error::KeyReused),
        }
    }

    /// [`Error::KeyOld`] for a marker that sweep may delete at any moment, or has deleted on
    /// another tier.
    pub async fn check_age(&self, store: &TenantStore, found: &Stored) -> Result<()> {
        let age_us_max = self.age_us_max;
        let age_us = age_us(store, found, self.now_us, age_us_max).await?;
        if age_us > age_us_max {
            return Err(Error::KeyOld {
                age_secs: age_us / SECOND_US,
                age_secs_max: age_us_max / SECOND_US,
            });
        }
        Ok(())
    }
}

/// The age of a marker by the store's clock, which is asked only when ours does not decide.
async fn age_us(store: &TenantStore, found: &Stored, now_us: i64, age_us_max: i64) -> Result<i64> {
    let age_us = now_us.saturating_sub(found.modified_us);
    if age_us.abs_diff(age_us_max) > CLOCKS_DIFFER_US_MAX.unsigned_abs() {
        return Ok(age_us);
    }
    let store_now_us = store.tier().now_us().await.map_err(Error::Marker)?;
    Ok(store_now_us.saturating_sub(found.modified_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_within_its_limit() {
        for good in ["a", "~!\"/..", &"k".repeat(255)] {
            assert!(IdempotencyKey::new(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "a b", "é", "a\t", "\u{7f}", &"k".repeat(256)] {
            let error = IdempotencyKey::new(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::KeyText { .. }), "{bad}");
        }
    }

    #[test]
    fn the_digest_of_a_body_tells_what_means_something_else() {
        let digests = [("/a", "bc"), ("/ab", "c"), ("/a", "bd"), ("/b", "bc")]
            .map(|(meaning, body)| body_digest(meaning, body.as_bytes()));
        let unique: std::collections::BTreeSet<Digest> = digests.into_iter().collect();
        assert_eq!(unique.len(), digests.len());
    }
}
