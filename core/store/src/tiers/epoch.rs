//! The chain of sets on a tier: `control/epoch/<n>.json`, created once each, with a digest of
//! their own text.

use bytes::Bytes;

use super::set::TierSet;
use crate::control::ControlStore;
use crate::error::{Error, Result};
use crate::sealed;
use crate::tenant::{Put, Stored};
use crate::tier::Tier;

const PREFIX: &str = "epoch";

/// A set that a tier holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedSet {
    /// The set.
    pub set: TierSet,
    /// Since when, µs by that tier's clock.
    pub modified_us: i64,
}

fn key(epoch: u64) -> String {
    format!("{PREFIX}/{epoch:020}.json")
}

fn epoch_of(key: &str) -> Option<u64> {
    let name = key.strip_prefix(PREFIX)?.strip_prefix('/')?;
    name.strip_suffix(".json")?.parse().ok()
}

/// The set of the highest epoch that `tier` holds; `None` when it holds none.
///
/// # Errors
/// [`Error::Request`] when the tier cannot be read, [`Error::Epoch`] for a damaged set.
pub async fn newest_epoch(tier: &Tier) -> Result<Option<PublishedSet>> {
    let control = tier.control();
    let listed = control.list(PREFIX).await?;
    match listed.iter().filter_map(|o| epoch_of(&o.key)).max() {
        Some(epoch) => follow(&control, epoch).await,
        None => Ok(None),
    }
}

/// The set of `epoch` or, when there is one, of the newest after it.
pub(super) async fn follow(control: &ControlStore, epoch: u64) -> Result<Option<PublishedSet>> {
    let mut newest = None;
    for epoch in epoch.. {
        match read(control, epoch).await? {
            Some(published) => newest = Some(published),
            None => break,
        }
    }
    Ok(newest)
}

async fn read(control: &ControlStore, epoch: u64) -> Result<Option<PublishedSet>> {
    let stored = control.stored_opt(&key(epoch)).await?;
    stored.map(|stored| decode(epoch, &stored)).transpose()
}

fn decode(epoch: u64, stored: &Stored) -> Result<PublishedSet> {
    let damaged = |why: String| Error::Epoch {
        key: format!("control/{}", key(epoch)),
        why,
    };
    let json = sealed::unseal(&stored.bytes);
    let json = json.ok_or_else(|| damaged("its check is not that of its text".to_owned()))?;
    let set: TierSet = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
    set.check().map_err(|e| damaged(e.to_string()))?;
    match set.epoch == epoch {
        true => Ok(PublishedSet {
            set,
            modified_us: stored.modified_us,
        }),
        false => Err(damaged(format!("it says epoch {}", set.epoch))),
    }
}

fn encode(set: &TierSet) -> Result<Bytes> {
    set.check()?;
    let json = serde_json::to_vec(set).map_err(|error| Error::Epoch {
        key: format!("control/{}", key(set.epoch)),
        why: error.to_string(),
    })?;
    Ok(sealed::seal(&json))
}

/// Puts `set` on `tier`, unless the tier has it. Whoever makes a set puts it on the primary of the
/// set before first: that decides between two that were made at once.
///
/// # Errors
/// [`Error::EpochTaken`] when the tier holds another set of that epoch; else as
/// [`ControlStore::put_new`].
pub async fn publish_epoch(tier: &Tier, set: &TierSet) -> Result<()> {
    match tier
        .control()
        .put_new(&key(set.epoch), encode(set)?)
        .await?
    {
        Put::Created | Put::Same => Ok(()),
        Put::Other(_) => Err(Error::EpochTaken {
            epoch: set.epoch,
            url: tier.url().to_owned(),
        }),
    }
}
