//! Words for findings.

/// The object a failure of the table is about; `otherwise` when it names none.
pub(crate) fn object_of(error: &stele_table::Error, otherwise: &str) -> String {
    match error {
        stele_table::Error::Corrupt { key, .. } => key.clone(),
        _ => otherwise.to_owned(),
    }
}
