//! Keys of objects: each has one spelling.

use stele_store::keys;

/// Every parser of a key, and of the windows in an entry, on the same text.
pub fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(version) = keys::head_version(text) {
        assert_eq!(keys::head(version), text);
    }
    if let Some(version) = keys::log_entry_version(text) {
        assert_eq!(keys::log_entry(version), text);
    }
    if let Some(version) = keys::checkpoint_version(text) {
        assert_eq!(keys::checkpoint(version), text);
    }
    if let Ok((windows, again)) = stele_table::raw::windows(text) {
        assert_eq!(
            stele_table::raw::windows(&again).expect("it is ours").0,
            windows
        );
        assert_eq!(windows.iter().count() as u64, windows.len() as u64);
    }
}
