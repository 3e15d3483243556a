//! "Did you mean": the existing name nearest to one that does not exist.

use datafusion::common::SchemaError;

use crate::error::Error;

/// The number of single-character edits (insert, delete, replace, swap) between two names,
/// ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (
        a.to_lowercase().chars().collect(),
        b.to_lowercase().chars().collect(),
    );
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let replace = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

/// The one of `names` nearest to `name` when it is near enough; otherwise all, if they are few.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<&str> = names.collect();
    all.sort_unstable();
    all.dedup();
    let best = all
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .min();
    match best {
        Some((edits, candidate)) if edits <= 1 + name.chars().count() / 3 => {
            vec![candidate.to_owned()]
        }
        _ if all.len() <= 20 => all.into_iter().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// The end of an error message: one name as a question, several as a list.
pub(crate) fn hint(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("; did you mean {one:?}?"),
        many => format!("; there are {}", many.join(", ")),
    }
}

/// The error for an unknown column; `None` for other schema errors.
pub(crate) fn column_error(error: &SchemaError) -> Option<Error> {
    let SchemaError::FieldNotFound {
        field,
        valid_fields,
    } = error
    else {
        return None;
    };
    Some(Error::NoSuchColumn {
        name: field.name.clone(),
        nearest: nearest(&field.name, valid_fields.iter().map(|c| c.name.as_str())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_inserts_deletes_replacements_and_swaps() {
        for (a, b, edits) in [
            ("", "ab", 2),
            ("samples", "sample", 1),
            ("smaples", "samples", 1),
            ("TS", "ts", 0),
            ("value", "volume", 2),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn a_near_name_is_asked_for_and_a_far_one_gets_the_list() {
        let names = || ["samples", "series", "rollup_60s"].into_iter();
        assert_eq!(
            hint(&nearest("sample", names())),
            "; did you mean \"samples\"?"
        );
        assert_eq!(
            hint(&nearest("metrics_of_mine", names())),
            "; there are rollup_60s, samples, series"
        );
    }
}
