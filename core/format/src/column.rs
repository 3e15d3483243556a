//! Columns in memory, as a row group gathers them before it is encoded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64;

use crate::codec::runs::Runs;

/// Passes 64-bit hashes through.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// A map whose keys are hashes already.
pub(crate) type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

/// A dictionary of texts, kept as the dictionary page it becomes: `length (u32 LE), bytes` each.
#[derive(Default)]
pub(crate) struct Texts {
    page: Vec<u8>,
    /// Where each text lies in the page.
    spans: Vec<(usize, usize)>,
    index: ByHash<u32>,
}

impl Texts {
    /// The key of `text`, new or known.
    pub fn key(&mut self, text: &str) -> u32 {
        let hash = xxh3_64(text.as_bytes());
        let known = self.index.get(&hash).copied();
        if let Some(key) = known.filter(|key| self.get(*key) == text.as_bytes()) {
            return key;
        }
        // Of two texts with one hash the second is stored anew each time: rare and harmless.
        let key = u32::try_from(self.spans.len()).unwrap_or(u32::MAX);
        self.index.entry(hash).or_insert(key);
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.page.extend_from_slice(&len.to_le_bytes());
        let start = self.page.len();
        self.page.extend_from_slice(text.as_bytes());
        self.spans.push((start, self.page.len()));
        key
    }

    pub fn get(&self, key: u32) -> &[u8] {
        let (start, end) = self.spans[key as usize];
        &self.page[start..end]
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn page(&self) -> &[u8] {
        &self.page
    }

    pub fn clear(&mut self) {
        self.page.clear();
        self.spans.clear();
        self.index.clear();
    }
}

/// A column of few values: those that are there, and which rows have one.
#[derive(Default)]
pub(crate) struct Optional<T> {
    pub presence: Runs<bool>,
    pub values: Vec<T>,
}

impl<T> Optional<T> {
    #[inline]
    pub fn push(&mut self, value: Option<T>) {
        self.presence.push(value.is_some(), 1);
        self.values.extend(value);
    }

    pub fn push_none(&mut self, n: usize) {
        self.presence.push(false, n);
    }

    pub fn clear(&mut self) {
        self.presence.clear();
        self.values.clear();
    }
}

/// Byte strings end to end.
#[derive(Default)]
pub(crate) struct Blobs {
    pub bytes: Vec<u8>,
    /// The length of each.
    pub lengths: Vec<i64>,
}

/// A dictionary of fixed-width values made for one column: its page, size and keys.
pub(crate) struct Keyed {
    pub page: Vec<u8>,
    pub entries: usize,
    pub keys: Runs<u32>,
}

/// Dictionary-encodes values by their bits; `None` beyond `entries_max` distinct ones.
pub(crate) fn keyed<const N: usize, T: Copy>(
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
    entries_max: usize,
) -> Option<Keyed> {
    let mut index: ByHash<u32> = ByHash::default();
    let mut keyed = Keyed {
        page: Vec::new(),
        entries: 0,
        keys: Runs::default(),
    };
    let mut last: Option<([u8; N], u32)> = None;
    for value in values {
        let value = bytes(*value);
        if let Some((same, key)) = last
            && same == value
        {
            keyed.keys.push(key, 1);
            continue;
        }
        let mut word = [0; 8];
        word[..N].copy_from_slice(&value);
        // A bijection of the bits, so equal hashes are equal values.
        let word = u64::from_le_bytes(word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let next = keyed.entries;
        let key = *index.entry(word.rotate_left(32)).or_insert_with(|| {
            keyed.page.extend_from_slice(&value);
            keyed.entries += 1;
            u32::try_from(next).unwrap_or(u32::MAX)
        });
        if keyed.entries > entries_max {
            return None;
        }
        keyed.keys.push(key, 1);
        last = Some((value, key));
    }
    Some(keyed)
}
