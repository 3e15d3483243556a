//! Whether a store keeps the promises that correctness rests on, found out before it is used.

use std::fmt;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode};

use crate::error::{Error, Result};
use crate::tier::{CONTROL, Tier};

/// Writers that race for one key in one round.
const WRITERS: usize = 16;
/// Races with a clear outcome that must be seen.
const ROUNDS: usize = 3;
/// Races without a clear outcome (the winner's reply was lost) before the probe gives up.
const UNCLEAR_MAX: usize = 3;
/// The greatest difference between the store's clock and ours, µs.
const CLOCK_DIFFERENCE_US_MAX: i64 = 60_000_000;

/// A promise of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Of racing creates of one key exactly one succeeds, and its bytes stay.
    ConditionalCreate,
    /// A LIST that starts after a PUT shows the object.
    ListAfterPut,
    /// A GET after a DELETE finds nothing.
    ReadAfterDelete,
    /// Its clock and ours differ by at most 60 s.
    Clock,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConditionalCreate => "conditional create (If-None-Match)",
            Self::ListAfterPut => "LIST after PUT",
            Self::ReadAfterDelete => "GET after DELETE",
            Self::Clock => "the clock check",
        })
    }
}

/// What a passed probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Writers that raced for one key in one round.
    pub writers: usize,
    /// Rounds, each with exactly one winner.
    pub rounds: usize,
    /// The store's clock less ours, µs.
    pub clock_difference_us: i64,
}

impl Tier {
    /// Proves the store's promises with objects under `control/`, and removes them again.
    ///
    /// `now_us` is the caller's clock just before the call; `nonce` must be new for each probe.
    ///
    /// # Errors
    /// [`Error::Incapable`] names the promise that was broken; any other error means that the
    /// store could not be asked.
    pub async fn probe(&self, now_us: i64, nonce: &str) -> Result<ProbeReport> {
        let difference = self.now_us().await?.saturating_sub(now_us);
        if difference.saturating_abs() > CLOCK_DIFFERENCE_US_MAX {
            return Err(Error::Incapable {
                which: Capability::Clock,
                why: format!(
                    "its clock differs from ours by {} s; the limit is {} s",
                    difference / 1_000_000,
                    CLOCK_DIFFERENCE_US_MAX / 1_000_000
                ),
            });
        }
        let mut clear = 0;
        let mut unclear = 0;
        let mut keys = Vec::new();
        let mut outcome = Ok(());
        while clear < ROUNDS && outcome.is_ok() {
            let key = format!("{CONTROL}/probe-{nonce}-{}", keys.len());
            keys.push(key.clone());
            match self.race(&key).await {
                Ok(true) => clear += 1,
                Ok(false) if unclear < UNCLEAR_MAX => unclear += 1,
                Ok(false) => outcome = Err(not_conditional("no writer was told that it won")),
                Err(e) => outcome = Err(e),
            }
        }
        if outcome.is_ok() {
            outcome = self.list_shows(&keys).await;
        }
        let cleaned = self.remove_probes(&keys).await;
        outcome.and(cleaned)?;
        Ok(ProbeReport {
            writers: WRITERS,
            rounds: clear,
            clock_difference_us: difference,
        })
    }

    /// One race; `Ok(false)` when the winner's reply was lost.
    async fn race(&self, key: &str) -> Result<bool> {
        let path = self.path(key);
        let body = |writer: usize| Bytes::from(format!("writer {writer}\n"));
        let puts = (0..WRITERS).map(|writer| self.create(&path, body(writer)));
        let mut winners = Vec::new();
        for (writer, put) in join_all(puts).await.into_iter().enumerate() {
            match put {
                Ok(()) => winners.push(writer),
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
                Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
                    return Err(not_conditional("it does not know conditional creates"));
                }
                Err(e) => return Err(Error::request("put", key, e)),
            }
        }
        if winners.len() > 1 {
            let why = format!("{} of {WRITERS} racing writers won", winners.len());
            return Err(not_conditional(&why));
        }
        let found = self.read(&path, key).await?;
        let Some(winner) = winners.first() else {
            return Ok(false);
        };
        if found != body(*winner) {
            return Err(not_conditional("the key does not hold the winner's bytes"));
        }
        let late = self.create(&path, Bytes::from_static(b"late\n")).await;
        if late.is_ok() || self.read(&path, key).await? != found {
            return Err(not_conditional("a later create replaced the object"));
        }
        Ok(true)
    }

    async fn create(&self, path: &Path, body: Bytes) -> object_store::Result<()> {
        let put = self
            .store()
            .put_opts(path, body.into(), PutMode::Create.into());
        put.await.map(|_| ())
    }

    async fn read(&self, path: &Path, key: &str) -> Result<Bytes> {
        let answer = self.store().get(path).await;
        let answer = answer.map_err(|e| Error::request("get", key, e))?;
        answer
            .bytes()
            .await
            .map_err(|e| Error::request("get", key, e))
    }

    async fn list_shows(&self, keys: &[String]) -> Result<()> {
        let listed = self.store().list(Some(&self.path(CONTROL)));
        let listed: Vec<Path> = listed
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(|e| Error::request("list", CONTROL, e))?;
        match keys.iter().find(|key| !listed.contains(&self.path(key))) {
            None => Ok(()),
            Some(key) => Err(Error::Incapable {
                which: Capability::ListAfterPut,
                why: format!("{key} was written and is not listed"),
            }),
        }
    }

    async fn remove_probes(&self, keys: &[String]) -> Result<()> {
        for key in keys {
            let path = self.path(key);
            match self.store().delete(&path).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(Error::request("delete", key, e)),
            }
            match self.read(&path, key).await {
                Err(Error::NotFound { .. }) => {}
                Err(e) => return Err(e),
                Ok(_) => {
                    return Err(Error::Incapable {
                        which: Capability::ReadAfterDelete,
                        why: format!("{key} was deleted and is still read"),
                    });
                }
            }
        }
        Ok(())
    }
}

fn not_conditional(why: &str) -> Error {
    Error::Incapable {
        which: Capability::ConditionalCreate,
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
