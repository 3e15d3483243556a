//! The canonical text of a tag set: a JSON object with sorted keys, no spaces and string values.
//!
//! One tag set has exactly one text, so equality of series is equality of bytes. `get` reads one
//! value without building a tree; it accepts canonical text only.

use std::borrow::Cow;

/// The canonical text of no tags.
pub const EMPTY: &str = "{}";

/// Writes the canonical JSON of `pairs`, which must be sorted by key with no key twice.
#[must_use]
pub fn canonical(pairs: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(
        2 + pairs
            .iter()
            .map(|(k, v)| k.len() + v.len() + 6)
            .sum::<usize>(),
    );
    out.push('{');
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(&mut out, key);
        out.push(':');
        push_string(&mut out, value);
    }
    out.push('}');
    out
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
    }
    out.push('"');
}

/// The value of tag `key` in canonical text, or `None` when it is absent or the text is not
/// canonical.
#[must_use]
pub fn get<'a>(tags: &'a str, key: &str) -> Option<Cow<'a, str>> {
    iter(tags).find(|(k, _)| k == key).map(|(_, v)| v)
}

/// The pairs of canonical text, in key order; stops at the first byte that is not canonical.
pub fn iter(tags: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let mut rest = tags.strip_prefix('{').unwrap_or("");
    std::iter::from_fn(move || {
        rest = rest.strip_prefix(',').unwrap_or(rest);
        let (key, after) = take_string(rest)?;
        let (value, after) = take_string(after.strip_prefix(':')?)?;
        rest = after;
        Some((key, value))
    })
}

/// Splits a leading JSON string off `text`.
fn take_string(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let body = text.strip_prefix('"')?;
    let stop = body.find(['"', '\\'])?;
    if body.as_bytes()[stop] == b'"' {
        return Some((Cow::Borrowed(&body[..stop]), &body[stop + 1..]));
    }
    let mut out = String::from(&body[..stop]);
    let mut chars = body[stop..].char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(out), &body[stop + i + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'u' => {
                    let code =
                        (0..4).try_fold(0, |n, _| Some(n * 16 + chars.next()?.1.to_digit(16)?))?;
                    out.push(char::from_u32(code)?);
                }
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_text_is_json_without_spaces() {
        assert_eq!(
            canonical(&[("a", "x"), ("b", "q\"\\\n\u{1}é")]),
            "{\"a\":\"x\",\"b\":\"q\\\"\\\\\\n\\u0001é\"}"
        );
        assert_eq!(canonical(&[]), EMPTY);
        assert_eq!(get("{\"host\":\"a\"}", "hos"), None);
        assert_eq!(get("not json", "hos"), None);
    }

    proptest! {
        #[test]
        fn every_pair_is_read_back(map in proptest::collection::btree_map(".{0,6}", ".{0,9}", 0..6)) {
            let pairs: Vec<(&str, &str)> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let text = canonical(&pairs);
            let back: Vec<_> = iter(&text).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(back, map.clone().into_iter().collect::<Vec<_>>());
            for (key, value) in &map {
                let got = get(&text, key);
                prop_assert_eq!(got.as_deref(), Some(value.as_str()));
            }
        }
    }
}
