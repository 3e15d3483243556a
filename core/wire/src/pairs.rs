//! The pairs of a JSON object of tags, kept only as far as the limit on tags lets them count.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use stele_model::Limits;

use crate::check::NameFault;

/// A string, borrowed when it holds no escape.
#[derive(Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The pairs of a JSON object in the order they stand, a repeated name included.
pub(crate) struct Pairs<'a, V> {
    /// The first pairs, at most as many as a sample may have tags.
    kept: Vec<(Text<'a>, V)>,
    /// How many there are.
    count: usize,
}

impl<'a, V: Deserialize<'a>> Pairs<'a, V> {
    /// Reads `json`, one whole value. Beyond `tags_max` pairs values are only skipped, so that
    /// the memory taken does not grow with the object.
    ///
    /// # Errors
    /// When it is no object, or one of the pairs kept has no `V` for a value.
    pub(crate) fn read(json: &'a str, limits: &Limits) -> serde_json::Result<Self> {
        let mut parser = serde_json::Deserializer::from_str(json);
        let seed = Seed {
            kept_max: usize::try_from(limits.tags_max).unwrap_or(usize::MAX),
            value: PhantomData,
        };
        let pairs = seed.deserialize(&mut parser)?;
        parser.end()?;
        Ok(pairs)
    }

    /// Every pair, unless there are more than `tags_max` of them.
    pub(crate) fn all(&self, limits: &Limits) -> Result<&[(Text<'a>, V)], NameFault<'static>> {
        let (count, limit) = (self.count, limits.tags_max);
        if count > self.kept.len() {
            return Err(NameFault::Tags { count, limit });
        }
        Ok(&self.kept)
    }
}

struct Seed<V> {
    kept_max: usize,
    value: PhantomData<V>,
}

impl<'de, V: Deserialize<'de>> DeserializeSeed<'de> for Seed<V> {
    type Value = Pairs<'de, V>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, V: Deserialize<'de>> Visitor<'de> for Seed<V> {
    type Value = Pairs<'de, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tags with text values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.kept_max {
            match map.next_entry()? {
                Some(pair) => kept.push(pair),
                None => {
                    let count = kept.len();
                    return Ok(Pairs { kept, count });
                }
            }
        }
        let mut count = kept.len();
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Pairs { kept, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(tags_max: u64) -> Limits {
        Limits {
            tags_max,
            ..Limits::default()
        }
    }

    fn object(pairs: usize) -> String {
        let pairs = (0..pairs).map(|i| format!("\"t{i}\":\"{i}\""));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn no_more_pairs_are_kept_than_a_sample_may_have() {
        for (there, tags_max, kept) in [(0, 0, 0), (3, 4, 3), (4, 4, 4), (90_000, 4, 4)] {
            let (json, limits) = (object(there), limits(tags_max));
            let pairs = Pairs::<Text<'_>>::read(&json, &limits).unwrap();
            assert_eq!((pairs.kept.len(), pairs.count), (kept, there));
            assert!(pairs.kept.capacity() <= 8);
            match pairs.all(&limits) {
                Ok(all) => assert_eq!(all.len(), there),
                Err(fault) => insta::assert_snapshot!(
                    fault,
                    @"90000 tags are over the limit of 4 (tags_max)"
                ),
            }
        }
    }

    #[test]
    fn what_is_skipped_is_json_all_the_same() {
        let read = |json: &str| Pairs::<Text<'_>>::read(json, &limits(1)).map(|pairs| pairs.count);
        assert_eq!(read(r#"{"a":"1","b":"2","c":[null,{}]}"#).unwrap(), 3);
        for broken in [
            r#"{"a":"1","b":"2","c"}"#,
            r#"{"a":"1","b":"2""#,
            r#"{"a":"1","b":tru}"#,
            r#"{"a":"1","b":"2"} x"#,
            r#"[]"#,
            "null",
        ] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
