//! The pins of a tenant as they are stored, with their marks.

use std::collections::BTreeMap;
use std::str::FromStr;

use futures::{StreamExt, TryStreamExt, stream};
use stele_model::Digest;
use stele_store::{Stored, TenantStore, keys};

use crate::codec;
use crate::error::{Damage, Error, Result};
use crate::pin::{Mark, Pin, PinName};

/// Pins and marks fetched at once.
const READS: usize = 16;

/// A pin as it is stored.
#[derive(Debug)]
pub struct StoredPin {
    /// Its name.
    pub name: PinName,
    /// What it says, if it is whole.
    pub pin: Result<Pin, Damage>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// When the store says it was written, µs.
    pub stored_us: i64,
    /// The mark that it is dropped.
    pub mark: Option<StoredMark>,
}

/// A mark as it is stored.
#[derive(Debug)]
pub struct StoredMark {
    /// The name it marks.
    pub name: PinName,
    /// What it says, if it is whole.
    pub mark: Result<Mark, Damage>,
    /// When the store says it was written, µs.
    pub stored_us: i64,
}

/// Whether a pin protects its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// It does.
    Live,
    /// It is dropped, and still does until then: it can be undeleted.
    Dropped {
        /// Until when, µs by the store's clock.
        until_us: i64,
    },
    /// It was never acknowledged, and does not.
    Withdrawn,
    /// It or its mark is damaged: nothing is swept until it is dropped or mended.
    Damaged,
}

impl StoredPin {
    /// Whether it protects its version. A dropped pin does for the history from its mark on.
    #[must_use]
    pub fn state(&self, history_us: i64) -> PinState {
        match (
            &self.pin,
            self.mark.as_ref().map(|m| (&m.mark, m.stored_us)),
        ) {
            (_, Some((Err(_), _))) => PinState::Damaged,
            (_, Some((Ok(mark), _))) if mark.withdrawn => PinState::Withdrawn,
            (_, Some((Ok(_), stored_us))) => PinState::Dropped {
                until_us: stored_us.saturating_add(history_us),
            },
            (Err(_), None) => PinState::Damaged,
            (Ok(_), None) => PinState::Live,
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is damaged.
    pub fn whole(self) -> Result<Pin> {
        self.pin
            .map_err(|damage| Error::corrupt(self.name.key(), damage))
    }
}

/// All pins of a tenant.
#[derive(Debug, Default)]
pub struct Pins {
    /// By name.
    pub pins: BTreeMap<PinName, StoredPin>,
    /// Marks of pins that are gone.
    pub left: Vec<StoredMark>,
    /// Keys below `pins/` that nobody here wrote.
    pub foreign: Vec<String>,
}

enum Key {
    Pin(PinName),
    Mark(PinName),
}

fn key_of(key: &str) -> Option<Key> {
    let name = key.strip_prefix(keys::PINS)?.strip_prefix('/')?;
    let name = name.strip_suffix(".json")?;
    match name.strip_suffix(".dropped") {
        Some(name) => PinName::from_str(name).ok().map(Key::Mark),
        None => PinName::from_str(name).ok().map(Key::Pin),
    }
}

impl Pins {
    /// Lists and reads all pins and marks. One that is gone since the LIST is left out; one that
    /// is damaged is there as such.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(store: &TenantStore) -> Result<Self> {
        let listed = store.list(keys::PINS).await?;
        let reads = listed.into_iter().map(|object| async move {
            let stored = store.stored_opt(&object.key).await?;
            Ok::<_, Error>((object.key, stored))
        });
        let reads: Vec<(String, Option<Stored>)> =
            stream::iter(reads).buffered(READS).try_collect().await?;
        let mut all = Self::default();
        let mut marks = Vec::new();
        for (key, stored) in reads {
            match (key_of(&key), stored) {
                (None, _) => all.foreign.push(key),
                (Some(_), None) => {}
                (Some(Key::Pin(name)), Some(stored)) => {
                    let pin = stored_pin(name.clone(), &stored);
                    all.pins.insert(name, pin);
                }
                (Some(Key::Mark(name)), Some(stored)) => marks.push(stored_mark(name, &stored)),
            }
        }
        marks.into_iter().for_each(|mark| all.take(mark));
        Ok(all)
    }

    /// One pin and its mark; `None` when there is no such pin.
    ///
    /// # Errors
    /// The store's.
    pub async fn read_one(store: &TenantStore, name: &PinName) -> Result<Option<StoredPin>> {
        let Some(stored) = store.stored_opt(&name.key()).await? else {
            return Ok(None);
        };
        let pin = stored_pin(name.clone(), &stored);
        let mut all = Self::default();
        all.pins.insert(name.clone(), pin);
        if let Some(stored) = store.stored_opt(&name.mark_key()).await? {
            all.take(stored_mark(name.clone(), &stored));
        }
        Ok(all.pins.remove(name))
    }

    /// Puts a mark to the pin it drops. A damaged one counts as that of the pin there is.
    fn take(&mut self, mark: StoredMark) {
        let pin = self.pins.get_mut(&mark.name);
        let drops = |pin: &&mut StoredPin| match &mark.mark {
            Ok(mark) => mark.pin == pin.digest,
            Err(_) => true,
        };
        match pin.filter(drops) {
            Some(pin) => pin.mark = Some(mark),
            None => self.left.push(mark),
        }
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &PinName> {
        self.pins.keys()
    }
}

fn stored_pin(name: PinName, stored: &Stored) -> StoredPin {
    StoredPin {
        pin: Pin::decode(&name, &stored.bytes),
        name,
        digest: codec::digest(&stored.bytes),
        stored_us: stored.modified_us,
        mark: None,
    }
}

fn stored_mark(name: PinName, stored: &Stored) -> StoredMark {
    StoredMark {
        name,
        mark: Mark::decode(&stored.bytes),
        stored_us: stored.modified_us,
    }
}
