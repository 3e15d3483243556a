//! The table as it was: at a version, at a time, at a snapshot.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use stele_model::time;

use crate::error::{Error, Result};
use crate::index::LogIndex;
use crate::log::TableLog;
use crate::pin::PinName;
use crate::pins::{PinState, Pins};
use crate::state::TableState;

/// Snapshots named when one is not found.
const NAMES_SHOWN: usize = 10;
/// Attempts while sweep passes beneath.
const ATTEMPTS: u32 = 3;

/// Which version of the table to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// This one.
    Version(u64),
    /// The newest one committed at that time or before, µs.
    Time(i64),
    /// That of a snapshot.
    Pin(PinName),
}

/// What [`AsOf::from_str`] reads.
impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Time(us) => f.write_str(&time::rfc3339(*us)),
            Self::Pin(name) => name.fmt(f),
        }
    }
}

impl FromStr for AsOf {
    type Err = Error;

    /// Digits alone are a version, RFC 3339 is a time, and all else the name of a snapshot.
    fn from_str(text: &str) -> Result<Self> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        match time::parse_rfc3339(text) {
            Some(us) => Ok(Self::Time(us)),
            None => text.parse().map(Self::Pin).map_err(|_| Error::AsOf {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

impl TableLog {
    /// An old version: any within the history, and any that is pinned. A view of it has no L0:
    /// what was not absorbed then is not in it.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::FutureVersion`]; [`Error::Swept`] and
    /// [`Error::SweptTime`] when it is not kept any more; [`Error::NoTable`]; else the store's
    /// and [`Error::Corrupt`].
    pub async fn as_of(&self, at: &AsOf) -> Result<Arc<TableState>> {
        let mut attempt = 1;
        loop {
            match self.as_of_once(at).await {
                // Swept since the LIST, or damaged: another LIST tells.
                Err(Error::Corrupt { key, damage }) if attempt < ATTEMPTS => {
                    tracing::debug!(key, %damage, %at, "looking for an old version again");
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn as_of_once(&self, at: &AsOf) -> Result<Arc<TableState>> {
        match at {
            AsOf::Pin(name) => self.as_of_pin(name).await,
            AsOf::Version(version) => {
                let index = self.index().await?;
                self.as_of_version(&index, *version).await
            }
            AsOf::Time(us) => {
                let index = self.index().await?;
                let version = self.version_at(&index, *us).await?;
                self.as_of_version(&index, version).await
            }
        }
    }

    /// The error that says which snapshots there are instead of `name`.
    ///
    /// # Errors
    /// The store's.
    pub async fn no_snapshot(&self, name: &PinName) -> Result<Error> {
        let pins = Pins::read(&self.store).await?;
        Ok(Error::NoSnapshot {
            name: name.clone(),
            count: pins.pins.len(),
            nearest: nearest(name, &pins),
        })
    }

    async fn as_of_pin(&self, name: &PinName) -> Result<Arc<TableState>> {
        let Some(stored) = Pins::read_one(&self.store, name).await? else {
            return Err(self.no_snapshot(name).await?);
        };
        let pin = stored.whole()?;
        let state = self.load_version(pin.version).await?;
        pin.check(&state)
            .map_err(|damage| Error::corrupt(name.key(), damage))?;
        Ok(state)
    }

    async fn as_of_version(&self, index: &LogIndex, version: u64) -> Result<Arc<TableState>> {
        let newest = index.newest().ok_or(Error::NoTable)?;
        if version > newest {
            return Err(Error::FutureVersion { version, newest });
        }
        self.check_kept(index, version).await?;
        match self.head(version).await {
            Ok(Some(state)) => Ok(Arc::new(state)),
            _ => Ok(self.reach(index, version).await?.state),
        }
    }

    /// That sweep keeps what `version` names: it is of the history, or pinned.
    ///
    /// # Errors
    /// [`Error::Swept`] when not; else the store's.
    pub(crate) async fn check_kept(&self, index: &LogIndex, version: u64) -> Result<()> {
        let now_us = self.now_us();
        if index.is_kept(version, now_us) || self.is_pinned(version).await? {
            return Ok(());
        }
        let oldest = index.oldest_kept(now_us).or(index.newest());
        let oldest = oldest.unwrap_or(version);
        Err(Error::Swept { version, oldest })
    }

    async fn is_pinned(&self, version: u64) -> Result<bool> {
        let pins = Pins::read(&self.store).await?;
        Ok(pins.pins.values().any(|stored| {
            let state = stored.state(self.options.history_us);
            let protects = matches!(state, PinState::Live | PinState::Dropped { .. });
            let is_it = stored.pin.as_ref().is_ok_and(|pin| pin.version == version);
            protects && is_it
        }))
    }

    /// The newest version of the history committed at `us` or before, by the committers' clocks.
    async fn version_at(&self, index: &LogIndex, us: i64) -> Result<u64> {
        let newest = index.newest().ok_or(Error::NoTable)?;
        let oldest = index.oldest_kept(self.now_us()).unwrap_or(newest);
        let committed_us = async |version: u64| {
            let entry = self.entry(version).await?;
            let swept = Error::Swept { version, oldest };
            Ok::<_, Error>(entry.ok_or(swept)?.timestamp_us())
        };
        let oldest_us = committed_us(oldest).await?;
        if us < oldest_us {
            return Err(Error::SweptTime {
                us,
                oldest,
                oldest_us,
            });
        }
        // Committed at `us` or before: `low`; after, or beyond the newest: `high`.
        let (mut low, mut high) = (oldest, newest + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match committed_us(middle).await? <= us {
                true => low = middle,
                false => high = middle,
            }
        }
        Ok(low)
    }
}

/// The names that share most of their beginning with `name`.
fn nearest(name: &PinName, pins: &Pins) -> Vec<PinName> {
    let common = |other: &PinName| {
        let pairs = name.as_str().bytes().zip(other.as_str().bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    let mut names: Vec<&PinName> = pins.names().collect();
    names.sort_by_key(|other| std::cmp::Reverse(common(other)));
    names.into_iter().take(NAMES_SHOWN).cloned().collect()
}
