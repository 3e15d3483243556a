//! Words for findings.

use std::error::Error;

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The object a failure of the table is about; `otherwise` when it names none.
pub(crate) fn object_of(error: &stele_table::Error, otherwise: &str) -> String {
    match error {
        stele_table::Error::Corrupt { key, .. } => key.clone(),
        _ => otherwise.to_owned(),
    }
}
