//! The structure of one line: where its parts begin and end, and what its escapes mean.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};
use stele_model::{Limits, tags};

use crate::check::{NameFault, Quoted, check_tags, over};

/// Why a whole line is refused.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum LineFault<'a> {
    #[error("the line has no fields")]
    NoFields,
    #[error("the measurement has no name")]
    NoMeasurement,
    #[error("{} ends in a backslash", Quoted(.0))]
    EndsWithBackslash(&'a [u8]),
    #[error("{} holds a tab or a NUL", Quoted(.0))]
    Control(&'a [u8]),
    #[error("{} is not UTF-8", Quoted(.0))]
    NotUtf8(&'a [u8]),
    #[error("tag {} is not name=value", Quoted(.0))]
    Tag(&'a [u8]),
    #[error("field {} is not name=value", Quoted(.0))]
    Field(&'a [u8]),
    #[error("a field has no name")]
    NoFieldName,
    #[error("the string of field {} has no end", Quoted(.0))]
    OpenString(&'a [u8]),
    #[error("timestamp {} is no integer", Quoted(.0))]
    Timestamp(&'a [u8]),
    #[error("{} stands after the timestamp", Quoted(.0))]
    Trailing(&'a [u8]),
}

/// Measurement and canonical tags of a line's prefix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub measurement: String,
    pub tags: String,
}

/// The length of `measurement[,tag=value…]` at the start of `text`: up to the first space that no
/// backslash escapes.
pub(super) fn prefix_len(text: &[u8]) -> Result<usize, LineFault<'_>> {
    let mut at = 0;
    while let Some(found) = memchr3(b' ', b'\\', b'\n', &text[at..]) {
        at += found;
        match text[at] {
            b' ' => return Ok(at),
            b'\\' if text.get(at + 1).is_some_and(|b| *b != b'\n') => at += 2,
            _ => break,
        }
    }
    Err(LineFault::NoFields)
}

/// Reads a prefix. The outer error refuses the line, the inner one says which limit it breaks.
pub(super) fn read_prefix<'a>(
    text: &'a [u8],
    limits: &Limits,
) -> Result<Result<Prefix, String>, LineFault<'a>> {
    if memchr2(b'\t', 0, text).is_some() {
        return Err(LineFault::Control(text));
    }
    let text = std::str::from_utf8(text).map_err(|_| LineFault::NotUtf8(text))?;
    let (measurement, mut rest) = cut(text, b",");
    let measurement = unescape(measurement, b", \\")?;
    if measurement.is_empty() {
        return Err(LineFault::NoMeasurement);
    }
    // Pairs beyond the limit are counted and not kept: a line may be as long as its body.
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    let (mut count, limit) = (0, limits.tags_max);
    while let Some(tag) = rest {
        let (pair, next) = cut(tag, b",");
        rest = next;
        let (name, value) = cut(pair, b"=");
        let value = value.ok_or(LineFault::Tag(pair.as_bytes()))?;
        let pair = (unescape(name, b",= \\")?, unescape(value, b",= \\")?);
        if !over(pairs.len() + 1, limit) {
            pairs.push(pair);
        }
        count += 1;
    }
    if over(count, limit) {
        return Ok(Err(NameFault::Tags { count, limit }.to_string()));
    }
    let mut sorted: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
    sorted.sort_unstable();
    if let Err(fault) = check_tags(&sorted, limits) {
        return match fault {
            NameFault::NoTagName => Err(LineFault::Tag(text.as_bytes())),
            fault => Ok(Err(fault.to_string())),
        };
    }
    Ok(Ok(Prefix {
        measurement: measurement.into_owned(),
        tags: tags::canonical(&sorted),
    }))
}

/// Splits `text` at the first `stop` byte that no backslash escapes, which is left out.
fn cut<'a>(text: &'a str, stop: &[u8; 1]) -> (&'a str, Option<&'a str>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = memchr2(stop[0], b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == stop[0] {
            return (&text[..at], Some(&text[at + 1..]));
        }
        at += 2;
        if at >= bytes.len() {
            break;
        }
    }
    (text, None)
}

/// Resolves `\x` for every `x` of `escapable`; any other backslash stands for itself.
pub(super) fn unescape<'a>(text: &'a str, escapable: &[u8]) -> Result<Cow<'a, str>, LineFault<'a>> {
    if memchr(b'\\', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(next) if next.is_ascii() && escapable.contains(&(next as u8)) => out.push(next),
            Some(next) => out.extend([c, next]),
            None => out.push(c),
        }
    }
    if out.ends_with('\\') {
        return Err(LineFault::EndsWithBackslash(text.as_bytes()));
    }
    Ok(Cow::Owned(out))
}

/// The length of a field's name at the start of `text`: up to the first `=` that no backslash
/// escapes, before any space, comma or line end.
pub(super) fn field_name_len(text: &[u8]) -> Result<usize, LineFault<'_>> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'=' if at == 0 => return Err(LineFault::NoFieldName),
            b'=' => return Ok(at),
            b'\\' if text.get(at + 1).is_some_and(|b| *b != b'\n') => at += 2,
            b' ' | b',' | b'\n' | b'\t' | 0 => break,
            _ => at += 1,
        }
    }
    Err(match text.first() {
        None | Some(b'\n' | b'\r') => LineFault::NoFields,
        Some(_) if at == 0 => LineFault::NoFieldName,
        Some(_) => LineFault::Field(&text[..at]),
    })
}

/// The length of the quoted string at the start of `text`, both quotes included; `None` when it
/// has no end. A string that spans lines and is not followed by what may follow a value has no
/// end either: its quote is a slip on its first line, and the next lines are points.
pub(super) fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            break;
        }
        at += 2;
    }
    let len = at + 1;
    let followed = text.get(len).is_none_or(|b| super::number::ends_value(*b));
    (followed || memchr(b'\n', &text[..len]).is_none()).then_some(len)
}

/// The length of the line at the start of `text` up to its newline, which strings may hold too.
pub(super) fn line_len(text: &[u8]) -> usize {
    let newline = |from: usize| memchr(b'\n', &text[from..]).map_or(text.len(), |n| from + n);
    let Ok(mut at) = prefix_len(text) else {
        return newline(0);
    };
    while let Some(found) = memchr3(b'"', b'\\', b'\n', &text[at..]) {
        at += found;
        match text[at] {
            b'\n' => return at,
            b'"' if text[at - 1] == b'=' => match string_len(&text[at..]) {
                Some(len) => at += len,
                None => return newline(at),
            },
            b'\\' if text.get(at + 1).is_some_and(|b| *b != b'\n') => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> (String, String) {
        let len = prefix_len(text.as_bytes()).unwrap();
        let read = read_prefix(&text.as_bytes()[..len], &Limits::default());
        let prefix = read.unwrap().unwrap();
        (prefix.measurement, prefix.tags)
    }

    #[test]
    fn escapes_keep_separators_in_names() {
        assert_eq!(
            prefix("my\\ cpu\\,x,ho\\=st=a\\ b,c=d\\,e v=1"),
            (
                "my cpu,x".into(),
                "{\"c\":\"d,e\",\"ho=st\":\"a b\"}".into()
            )
        );
        assert_eq!(
            prefix("a\\\\b\\=c,t=\\n\\\\x v=1"),
            ("a\\b\\=c".into(), "{\"t\":\"\\\\n\\\\x\"}".into())
        );
    }

    #[test]
    fn a_string_may_span_lines_but_an_open_quote_may_not() {
        assert_eq!(string_len(b"\"a\nb\" 1"), Some(5));
        assert_eq!(string_len(b"\"a\\\"b\""), Some(6));
        assert_eq!(string_len(b"\"a\nb s=\"x\""), None);
        assert_eq!(string_len(b"\"abc"), None);
        assert_eq!(string_len(b"\"abc\\"), None);
        assert_eq!(line_len(b"c a=\"x\ny\",=2\nd v=1"), 12);
        assert_eq!(line_len(b"c a=\"x\nd v=1"), 6);
        assert_eq!(line_len(b"c\nd v=1"), 1);
    }
}
