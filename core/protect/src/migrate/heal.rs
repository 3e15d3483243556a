//! Objects that one tier has lost and another still holds.

use std::collections::BTreeSet;

use stele_format::content_digest;
use stele_store::keys;
use stele_table::{Loss, LostObject, TableLog, change_losses};

use crate::replicate::ReplicateError;

/// Where data files and the log are.
const TABLE: &str = "table";

/// Brings back live data files that `at` has lost and `from` holds, with the digest that the log of
/// `at` names, and takes back their losses; how many. What neither holds stays lost, and whoever reads it says so.
pub(super) async fn heal(at: &TableLog, from: &TableLog) -> Result<u64, ReplicateError> {
    let Some(state) = at.load().await? else {
        return Ok(0);
    };
    // After the state: what is then not listed is gone, or was superseded and swept meanwhile.
    let listed = at.store().list(TABLE).await?;
    let listed: BTreeSet<String> = listed.into_iter().map(|object| object.key).collect();
    let mut healed = BTreeSet::new();
    for file in state.files.values() {
        let key = keys::data_file(&file.path);
        if listed.contains(&key) {
            continue;
        }
        let Some(bytes) = from.store().get_opt(&key).await? else {
            continue;
        };
        if content_digest(&bytes) != file.stats.digest {
            tracing::error!(
                key,
                store = from.store().tier().url(),
                "the object is damaged"
            );
            continue;
        }
        at.store().put_new(&key, bytes).await?;
        tracing::warn!(
            key,
            store = at.store().tier().url(),
            "a lost object was brought back"
        );
        healed.insert(&file.path);
    }
    if !healed.is_empty() {
        let is_over = |loss: &Loss| match &loss.object {
            LostObject::File(path) => healed.contains(path),
            _ => false,
        };
        // What cannot be taken back now, the next verify takes back.
        if let Err(error) = change_losses(at.store(), &[], is_over).await {
            tracing::error!(%error, "losses that are over were not withdrawn");
        }
    }
    Ok(healed.len() as u64)
}
