//! What the store keeps of a token.
//!
//! `control/tokens/<id>.json`, and `control/tokens/<id>.revoked.json` once it is revoked. An
//! unknown field makes a record damaged: it may be a restriction that this program would ignore.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_model::TenantId;
use stele_store::sealed;

use crate::error::{Damage, Error, Result};
use crate::secret::{hex, unhex};

/// Where tokens are, relative to `<tier>/control/`.
pub(crate) const TOKENS: &str = "tokens";
const VERSION: u64 = 1;

/// The greatest length of a note, bytes.
pub const NOTE_BYTES_MAX: usize = 200;

/// The public name of a token: 16 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TokenId(String);

impl TokenId {
    pub(crate) fn new(bytes: [u8; 8]) -> Self {
        Self(hex(&bytes))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&self) -> String {
        format!("{TOKENS}/{self}.json")
    }

    pub(crate) fn revoked_key(&self) -> String {
        format!("{TOKENS}/{self}.revoked.json")
    }
}

impl FromStr for TokenId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match unhex::<8>(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(Error::NotAnId),
        }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a token allows. No scope includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Writing samples.
    Ingest,
    /// Reading samples, receipts, status and metrics.
    Query,
    /// Operating the store.
    Admin,
}

impl Scope {
    /// The word in records, on the command line and in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ingest" => Ok(Self::Ingest),
            "query" => Ok(Self::Query),
            "admin" => Ok(Self::Admin),
            other => Err(Error::UnknownScope {
                scope: other.chars().take(20).collect(),
            }),
        }
    }
}

/// Who a request is from, as far as Stele is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token.
    pub token: TokenId,
    /// The only tenant the request may touch.
    pub tenant: TenantId,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
}

/// A token as the store keeps it, without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// The token.
    pub id: TokenId,
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// What it allows; not empty.
    pub scopes: BTreeSet<Scope>,
    /// What it is for, in its maker's words.
    pub note: String,
    /// When it was made, µs since the epoch.
    pub created_us: i64,
    pub(crate) sha256: [u8; 32],
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("scopes", &self.scopes)
            .field("note", &self.note)
            .field("created_us", &self.created_us)
            .finish_non_exhaustive()
    }
}

impl TokenRecord {
    pub(crate) fn principal(&self) -> Principal {
        Principal {
            token: self.id.clone(),
            tenant: self.tenant.clone(),
            scopes: self.scopes.clone(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        let stored = Stored {
            version: VERSION,
            id: self.id.to_string(),
            sha256: hex(&self.sha256),
            tenant: self.tenant.to_string(),
            scopes: self.scopes.clone(),
            note: self.note.clone(),
            created_us: self.created_us,
        };
        let text = serde_json::to_vec_pretty(&stored);
        sealed::seal(&text.expect("a struct of texts and numbers is JSON"))
    }

    /// Reads the object of token `id`.
    pub(crate) fn from_bytes(id: &TokenId, bytes: &[u8]) -> std::result::Result<Self, Damage> {
        let json = known_version(bytes)?;
        let stored: Stored = serde_json::from_slice(&json).map_err(form)?;
        if stored.id != id.as_str() {
            return Err(Damage::OtherId);
        }
        if stored.scopes.is_empty() {
            return Err(Damage::NoScope);
        }
        Ok(Self {
            id: id.clone(),
            tenant: stored.tenant.parse().map_err(|_| Damage::Tenant)?,
            scopes: stored.scopes,
            note: stored.note,
            created_us: stored.created_us,
            sha256: unhex(&stored.sha256).ok_or(Damage::Hash)?,
        })
    }
}

/// That a token is revoked. The object's existence revokes; its content says when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    version: u64,
    id: String,
    /// When it was revoked, µs since the epoch.
    pub revoked_us: i64,
}

impl Revocation {
    pub(crate) fn new(id: &TokenId, revoked_us: i64) -> Self {
        Self {
            version: VERSION,
            id: id.to_string(),
            revoked_us,
        }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        let text = serde_json::to_vec_pretty(self);
        sealed::seal(&text.expect("a struct of texts and numbers is JSON"))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, Damage> {
        let json = known_version(bytes)?;
        serde_json::from_slice(&json).map_err(form)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u64,
    id: String,
    sha256: String,
    tenant: String,
    scopes: BTreeSet<Scope>,
    note: String,
    created_us: i64,
}

/// The JSON in an object, when it is whole and of a version that this program knows.
fn known_version(bytes: &[u8]) -> std::result::Result<Vec<u8>, Damage> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let json = sealed::unseal(bytes).ok_or(Damage::Check)?;
    let Version { version } = serde_json::from_slice(&json).map_err(form)?;
    if version == VERSION {
        Ok(json)
    } else {
        let known = VERSION;
        Err(Damage::Version { version, known })
    }
}

/// Only where reading stopped: serde's message repeats what it read.
fn form(error: serde_json::Error) -> Damage {
    Damage::Form {
        line: error.line(),
        column: error.column(),
    }
}

/// What a key below `tokens/` is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Token(TokenId),
    Revoked(TokenId),
}

impl Key {
    /// `None` for a key that no version of this program writes.
    pub(crate) fn of(key: &str) -> Option<Self> {
        let name = key.strip_prefix(TOKENS)?.strip_prefix('/')?;
        let name = name.strip_suffix(".json")?;
        match name.strip_suffix(".revoked") {
            Some(id) => id.parse().ok().map(Self::Revoked),
            None => name.parse().ok().map(Self::Token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> TokenRecord {
        TokenRecord {
            id: TokenId::new([0xab; 8]),
            tenant: "team".parse().unwrap(),
            scopes: [Scope::Query, Scope::Ingest].into(),
            note: "collectd \"eu\"".to_owned(),
            created_us: 1,
            sha256: [7; 32],
        }
    }

    #[test]
    fn a_record_round_trips() {
        let record = record();
        let bytes = record.to_bytes();
        assert_eq!(TokenRecord::from_bytes(&record.id, &bytes), Ok(record));
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_flipped_bit_of_a_record_is_found() {
        let record = record();
        let revocation = Revocation::new(&record.id, 7).to_bytes();
        let bytes = record.to_bytes();
        for at in 0..bytes.len().max(revocation.len()) {
            for (whole, is_token) in [(&bytes, true), (&revocation, false)] {
                let mut damaged = whole.to_vec();
                let Some(byte) = damaged.get_mut(at) else {
                    continue;
                };
                *byte ^= 1 << (at % 8);
                let read = match is_token {
                    true => TokenRecord::from_bytes(&record.id, &damaged).map(drop),
                    false => Revocation::from_bytes(&damaged).map(drop),
                };
                assert_eq!(read, Err(Damage::Check), "byte {at}");
            }
        }
    }

    /// Another text under a right check.
    fn changed(good: &Bytes, from: &str, to: &str) -> Bytes {
        let json = String::from_utf8(sealed::unseal(good).unwrap()).unwrap();
        let bad = json.replacen(from, to, 1);
        assert_ne!(bad, json);
        sealed::seal(bad.as_bytes())
    }

    #[test]
    fn every_damage_of_a_record_has_its_name() {
        let (record, good) = (record(), record().to_bytes());
        for (from, to, damage) in [
            ("\"team\"", "\"../x\"", Damage::Tenant),
            ("abab", "aaaa", Damage::OtherId),
            ("0707", "070", Damage::Hash),
            (
                "\"version\": 1",
                "\"version\": 2",
                Damage::Version {
                    version: 2,
                    known: 1,
                },
            ),
        ] {
            let bad = changed(&good, from, to);
            assert_eq!(TokenRecord::from_bytes(&record.id, &bad), Err(damage));
        }
        for (from, to) in [
            ("\"ingest\"", "\"all\""),
            ("\"version\"", "\"expires_us\": 1, \"version\""),
            ("\"id\"", "id"),
        ] {
            let bad = changed(&good, from, to);
            let read = TokenRecord::from_bytes(&record.id, &bad);
            assert!(matches!(read, Err(Damage::Form { .. })), "{read:?}");
        }
        let mut none = record;
        none.scopes.clear();
        let read = TokenRecord::from_bytes(&none.id, &none.to_bytes());
        assert_eq!(read, Err(Damage::NoScope));
    }

    #[test]
    fn keys_say_what_they_are() {
        let id = TokenId::new([1; 8]);
        assert_eq!(Key::of(&id.key()), Some(Key::Token(id.clone())));
        assert_eq!(Key::of(&id.revoked_key()), Some(Key::Revoked(id)));
        for foreign in ["tokens/x.json", "tokens/", "clock", "tokens/a.revoked.json"] {
            assert_eq!(Key::of(foreign), None, "{foreign}");
        }
    }
}
