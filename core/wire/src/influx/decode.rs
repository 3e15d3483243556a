//! The decoder's loop. A body repeats the same series line after line, so everything that depends
//! only on a line's prefix (measurement and tags) is worked out once and found again: first by
//! guessing that lines and fields come in the order of last time, then by hash.

use std::collections::HashMap;

use memchr::memchr;
use stele_model::Limits;

use super::line::{
    LineFault, field_name_len, line_len, prefix_len, read_prefix, string_len, unescape,
};
use super::number::{ends_value, value};
use crate::check::{Builder, Quoted, TimeRange, check_metric};
use crate::{Decoded, Error, Precision};

/// Decodes the body of one write. `now_us` is the receive time: it stamps points without a
/// timestamp, and bounds the others together with `limits`.
///
/// # Errors
/// [`Error::Samples`] and [`Error::SeriesBytes`] when the request as a whole is too large. A bad
/// line or field is a rejection (its position is the 1-based line), never an error.
pub fn decode(
    body: &[u8],
    precision: Precision,
    now_us: i64,
    limits: &Limits,
) -> Result<Decoded, Error> {
    let mut decoder = Decoder {
        body,
        at: 0,
        line: 1,
        precision,
        now_us,
        range: TimeRange::new(now_us, limits),
        limits,
        out: Builder::new(limits),
        rejections: stele_model::Rejections::default(),
        prefixes: Vec::new(),
        prefix_ids: HashMap::new(),
        field_ids: HashMap::new(),
        last_prefix: 0,
    };
    while decoder.at < body.len() {
        decoder.line()?;
    }
    Ok(Decoded {
        rows: decoder.out.rows,
        rejections: decoder.rejections,
        positions: decoder.out.positions,
    })
}

/// One field of one prefix and the series it is.
#[derive(Debug, Clone, Copy)]
struct Slot<'a> {
    /// The field's name as written.
    raw: &'a [u8],
    series: u32,
}

/// What is known of a prefix.
#[derive(Debug)]
struct Known<'a> {
    /// The prefix as written; what follows it is a space.
    raw: &'a [u8],
    measurement: String,
    tags: String,
    /// In the order of first appearance.
    slots: Vec<Slot<'a>>,
    /// The prefix that came after this one last time.
    next: usize,
}

struct Decoder<'a> {
    body: &'a [u8],
    at: usize,
    /// 1-based, of `at`.
    line: u64,
    precision: Precision,
    now_us: i64,
    range: TimeRange,
    limits: &'a Limits,
    out: Builder,
    rejections: stele_model::Rejections,
    prefixes: Vec<Known<'a>>,
    prefix_ids: HashMap<&'a [u8], usize>,
    /// (prefix, field name as written) to the index of its slot.
    field_ids: HashMap<(usize, &'a [u8]), usize>,
    last_prefix: usize,
}

/// Why a line is given up: its own fault, or the request's.
enum Stop<'a> {
    Line(LineFault<'a>),
    /// A limit that the whole line breaks.
    Limit(String),
    Request(Error),
}

impl<'a> From<LineFault<'a>> for Stop<'a> {
    fn from(fault: LineFault<'a>) -> Self {
        Self::Line(fault)
    }
}

impl From<Error> for Stop<'_> {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

impl<'a> Decoder<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.body[self.at..]
    }

    /// Takes one line with its newline.
    fn line(&mut self) -> Result<(), Error> {
        while let Some(b' ' | b'\t' | b'\r') = self.body.get(self.at) {
            self.at += 1;
        }
        let (start, kept) = (self.at, self.out.rows.rows.len());
        match self.body.get(start) {
            None => return Ok(()),
            Some(b'\n') => {}
            Some(b'#') => {
                self.at = memchr(b'\n', self.rest()).map_or(self.body.len(), |n| start + n)
            }
            Some(_) => {
                let line = self.line;
                match self.point() {
                    Ok(()) => {
                        let rows = self.out.rows.rows.len() - kept;
                        self.out.positions.note(kept, rows, line);
                    }
                    Err(Stop::Request(error)) => return Err(error),
                    Err(Stop::Line(fault)) => {
                        self.drop_line(line, start, kept, || fault.to_string())
                    }
                    Err(Stop::Limit(reason)) => self.drop_line(line, start, kept, || reason),
                }
            }
        }
        // What was taken ends before a newline or at the end of the body.
        self.at += 1;
        self.line += 1;
        Ok(())
    }

    /// Refuses the line that began at `start` and goes to its end; samples since `kept` go too.
    fn drop_line(&mut self, line: u64, start: usize, kept: usize, why: impl FnOnce() -> String) {
        let samples = self.out.rows.rows.len() - kept;
        self.out.rows.rows.truncate(kept);
        self.rejections.push(line, why);
        self.rejections.total += (samples as u64).saturating_sub(1);
        self.at = start + line_len(&self.body[start..]);
        let inner = self.body[start..self.at].iter().filter(|b| **b == b'\n');
        self.line = line + inner.count() as u64;
    }

    fn point(&mut self) -> Result<(), Stop<'a>> {
        let line = self.line;
        let kept = self.out.rows.rows.len();
        let prefix = self.prefix()?;
        while self.body.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        let mut guess = 0;
        loop {
            guess = self.field(line, prefix, guess)? + 1;
            if self.body.get(self.at) != Some(&b',') {
                break;
            }
            self.at += 1;
        }
        let Some(ts_us) = self.timestamp(line, kept)? else {
            return Ok(());
        };
        for row in &mut self.out.rows.rows[kept..] {
            row.ts_us = ts_us;
        }
        Ok(())
    }

    /// Takes the prefix and returns its index.
    #[inline]
    fn prefix(&mut self) -> Result<usize, Stop<'a>> {
        let rest = self.rest();
        if let Some(last) = self.prefixes.get(self.last_prefix) {
            let raw = self.prefixes[last.next].raw;
            // A known prefix does not end in a backslash, so the space after it is its end.
            if rest.starts_with(raw) && rest.get(raw.len()) == Some(&b' ') {
                self.at += raw.len();
                self.last_prefix = last.next;
                return Ok(last.next);
            }
        }
        let raw = &rest[..prefix_len(rest)?];
        let index = match self.prefix_ids.get(raw) {
            Some(index) => *index,
            None => {
                let read = read_prefix(raw, self.limits)?.map_err(Stop::Limit)?;
                let index = self.prefixes.len();
                self.prefix_ids.insert(raw, index);
                self.prefixes.push(Known {
                    raw,
                    measurement: read.measurement,
                    tags: read.tags,
                    slots: Vec::new(),
                    next: index,
                });
                index
            }
        };
        if let Some(last) = self.prefixes.get_mut(self.last_prefix) {
            last.next = index;
        }
        self.last_prefix = index;
        self.at += raw.len();
        Ok(index)
    }

    /// Takes one `name=value`; `guess` is the slot it probably is. Returns its slot.
    #[inline]
    fn field(&mut self, line: u64, prefix: usize, guess: usize) -> Result<usize, Stop<'a>> {
        let rest = self.rest();
        let known = &self.prefixes[prefix];
        let guessed = known
            .slots
            .get(guess)
            .filter(|slot| rest.starts_with(slot.raw) && rest.get(slot.raw.len()) == Some(&b'='));
        let (index, slot) = match guessed {
            Some(slot) => (guess, Ok(*slot)),
            None => {
                let raw = &rest[..field_name_len(rest)?];
                match self.slot(prefix, raw)? {
                    Ok(index) => (index, Ok(self.prefixes[prefix].slots[index])),
                    Err(reason) => (guess, Err((raw, reason))),
                }
            }
        };
        let raw = slot.as_ref().map_or_else(|(raw, _)| *raw, |slot| slot.raw);
        self.at += raw.len() + 1;
        let value = self.value(line, raw)?;
        match (slot, value) {
            (Ok(slot), Some(value)) => self.out.push(slot.series, 0, value)?,
            (Err((_, reason)), Some(_)) => self.rejections.push(line, || reason),
            (_, None) => {}
        }
        Ok(index)
    }

    /// The slot of a field by name; the inner error says which limit its metric breaks.
    fn slot(&mut self, prefix: usize, raw: &'a [u8]) -> Result<Result<usize, String>, Stop<'a>> {
        if let Some(index) = self.field_ids.get(&(prefix, raw)) {
            return Ok(Ok(*index));
        }
        let name = std::str::from_utf8(raw).map_err(|_| LineFault::NotUtf8(raw))?;
        let name = unescape(name, b",= \\")?;
        let known = &mut self.prefixes[prefix];
        let metric = if name == "value" {
            known.measurement.clone()
        } else {
            format!("{}.{name}", known.measurement)
        };
        if let Err(fault) = check_metric(&metric, self.limits) {
            return Ok(Err(fault.to_string()));
        }
        let series = self.out.series(metric, &known.tags)?;
        let index = known.slots.len();
        known.slots.push(Slot { raw, series });
        self.field_ids.insert((prefix, raw), index);
        Ok(Ok(index))
    }

    /// Takes a value; `None` when the field is refused, which is then recorded.
    #[inline]
    fn value(&mut self, line: u64, field: &'a [u8]) -> Result<Option<f64>, Stop<'a>> {
        let rest = self.rest();
        match rest.first() {
            Some(b'"') => {
                let len = string_len(rest).ok_or(LineFault::OpenString(field))?;
                if rest.get(len).is_some_and(|b| !ends_value(*b)) {
                    return Err(LineFault::OpenString(field).into());
                }
                self.at += len;
                self.line += rest[..len].iter().filter(|b| **b == b'\n').count() as u64;
                self.rejections.push(line, || {
                    format!("field {} is a string; only numbers are kept", Quoted(field))
                });
                Ok(None)
            }
            None => Err(LineFault::Field(field).into()),
            Some(b) if ends_value(*b) => Err(LineFault::Field(field).into()),
            Some(_) => match value(rest) {
                Ok((value, len)) => {
                    self.at += len;
                    Ok(Some(value))
                }
                Err((fault, len)) => {
                    self.at += len;
                    self.rejections
                        .push(line, || format!("field {}: {fault}", Quoted(field)));
                    Ok(None)
                }
            },
        }
    }

    /// Takes the timestamp, if any, up to the end of the line. `None`: it is out of range, which
    /// is recorded and costs the samples since `kept`.
    #[inline]
    fn timestamp(&mut self, line: u64, kept: usize) -> Result<Option<i64>, Stop<'a>> {
        while self.body.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        let rest = self.rest();
        let (raw, len) = match integer(rest) {
            Some((raw, 0)) => (Some(raw), 0),
            Some((raw, len)) => (Some(raw), len),
            None => (
                None,
                rest.iter()
                    .position(|b| ends_value(*b))
                    .unwrap_or(rest.len()),
            ),
        };
        let token = &rest[..len];
        let tail = rest[len..].iter().position(|b| *b != b' ' && *b != b'\r');
        let end = tail.map_or(rest.len(), |n| len + n);
        if rest.get(end).is_some_and(|b| *b != b'\n') {
            let stop = memchr(b'\n', rest).unwrap_or(rest.len());
            return Err(match raw {
                Some(_) if len > 0 && rest[len] == b' ' => LineFault::Trailing(&rest[end..stop]),
                _ => LineFault::Timestamp(&rest[..stop]),
            }
            .into());
        }
        let ts_us = match raw {
            Some(_) if len == 0 => Some(self.now_us),
            Some(raw) => self
                .precision
                .to_us(raw)
                .filter(|ts| self.range.contains(*ts)),
            None if !digits(token) => return Err(LineFault::Timestamp(token).into()),
            None => None,
        };
        self.at += end;
        if ts_us.is_none() {
            let samples = self.out.rows.rows.len() - kept;
            self.out.rows.rows.truncate(kept);
            if samples > 0 {
                let (range, precision) = (self.range, self.precision);
                self.rejections
                    .push(line, || refused(range, precision, token, raw));
                self.rejections.total += samples as u64 - 1;
            }
        }
        Ok(ts_us)
    }
}

/// The integer at the start of `text` and its length; 0 and 0 when nothing stands there, `None`
/// when it is no integer or over 64 bits.
#[inline]
fn integer(text: &[u8]) -> Option<(i64, usize)> {
    let negative = text.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut n: i64 = 0;
    while let Some(digit) = text
        .get(at)
        .map(|b| b.wrapping_sub(b'0'))
        .filter(|d| *d < 10)
    {
        // Down, because the least integer has no positive counterpart.
        n = n.checked_mul(10)?.checked_sub(i64::from(digit))?;
        at += 1;
    }
    match text.get(at) {
        Some(b) if !ends_value(*b) => None,
        _ if at == usize::from(negative) && negative => None,
        _ => Some((if negative { n } else { n.checked_neg()? }, at)),
    }
}

fn digits(token: &[u8]) -> bool {
    let token = token.strip_prefix(b"-").unwrap_or(token);
    !token.is_empty() && token.iter().all(u8::is_ascii_digit)
}

/// Why a timestamp is refused, with the precision the sender probably meant.
fn refused(range: TimeRange, given: Precision, token: &[u8], raw: Option<i64>) -> String {
    let at = raw.and_then(|raw| given.to_us(raw));
    let reason = at.map_or_else(
        || {
            format!(
                "timestamp {} with precision={given} is over 64 bits of µs",
                Quoted(token)
            )
        },
        |ts_us| range.reason(ts_us),
    );
    let fits = |unit: &&Precision| {
        let ts_us = raw.and_then(|raw| unit.to_us(raw));
        ts_us.is_some_and(|ts_us| range.contains(ts_us))
    };
    match Precision::ALL.iter().find(fits) {
        Some(meant) => format!("{reason}: is precision={meant} meant?"),
        None => reason,
    }
}

#[cfg(test)]
mod tests;
