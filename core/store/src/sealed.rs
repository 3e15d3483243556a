//! Small JSON objects that carry a digest of their own text: a flipped bit in a setting, a token or
//! a marker must be an error, never another setting.

use bytes::Bytes;

const BEFORE: &[u8] = b",\"check\":\"";
const AFTER: &[u8] = b"\"}\n";
/// The digest: the first 16 bytes of BLAKE3 as lower-case hex.
const HEX: usize = 32;

/// `json`, a non-empty JSON object, with a last member `check`.
#[must_use]
pub fn seal(json: &[u8]) -> Bytes {
    let json = json.trim_ascii_end();
    let open = json.strip_suffix(b"}").unwrap_or(json).trim_ascii_end();
    let check = check_of(open);
    Bytes::from([open, BEFORE, check.as_bytes(), AFTER].concat())
}

/// The JSON object as it was before [`seal`]; `None` when any bit of it is another.
#[must_use]
pub fn unseal(sealed: &[u8]) -> Option<Vec<u8>> {
    let sealed = sealed.strip_suffix(AFTER)?;
    let (sealed, check) = sealed.split_at_checked(sealed.len().checked_sub(HEX)?)?;
    let open = sealed.strip_suffix(BEFORE)?;
    let is_whole = check_of(open).as_bytes() == check;
    is_whole.then(|| [open, b"}"].concat())
}

fn check_of(text: &[u8]) -> String {
    blake3::hash(text).to_hex()[..HEX].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_bit_is_found() {
        let json = b"{\"days\":7,\"note\":\"}\"}";
        let sealed = seal(json);
        assert!(sealed.starts_with(b"{\"days\":7,\"note\":\"}\",\"check\":\""));
        assert_eq!(unseal(&sealed).as_deref(), Some(json.as_slice()));
        assert_eq!(seal(b"{\"days\":7,\"note\":\"}\"\n}\n"), sealed);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.to_vec();
                damaged[at] ^= 1 << bit;
                assert_eq!(unseal(&damaged), None, "bit {bit} of byte {at}");
            }
            assert_eq!(unseal(&sealed[..at]), None);
        }
    }
}
