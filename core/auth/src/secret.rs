//! The text of a token, and its hash.
//!
//! `stele_<id>_<secret>`: 16 and 64 lower-case hex digits. The id finds the record, is public and
//! appears in logs; the secret is 256 random bits.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::record::TokenId;

const PREFIX: &str = "stele_";
const SECRET_BYTES: usize = 32;

/// A token in clear. It is shown once; `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    pub(crate) fn new(id: &TokenId, secret: [u8; SECRET_BYTES]) -> Self {
        Self(format!("{PREFIX}{id}_{}", hex(&secret)))
    }

    /// The token itself, for the one place that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(redacted)")
    }
}

/// The id within the text of a token; `None` when the text has not the form of one.
pub(crate) fn id_of(text: &str) -> Option<TokenId> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    unhex::<SECRET_BYTES>(secret)?;
    id.parse().ok()
}

/// SHA-256 of a token's whole text. A secret of 256 random bits needs no slow hash.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of exactly `2 * N` lower-case hex digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha256_of_the_text() {
        // FIPS 180-2, example B.1.
        assert_eq!(
            hex(&hash("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn only_the_exact_form_is_a_token() {
        let id: TokenId = "0123456789abcdef".parse().unwrap();
        let token = TokenText::new(&id, [0xa7; 32]);
        assert_eq!(id_of(token.reveal()), Some(id));
        let text = token.reveal();
        for bad in [
            text.to_uppercase(),
            text.replace("stele_", "stele-"),
            format!("{text}0"),
            format!("{text}\n"),
            text[..text.len() - 1].to_owned(),
            text.replace("0123", "012"),
            text.replace("0123", "é12"),
            String::new(),
            "stele__".to_owned(),
        ] {
            assert_eq!(id_of(&bad), None, "{bad}");
        }
    }
}
