//! The tokens as a server knows them.
//!
//! Records are created once and never change, so refreshing is one LIST and a GET of each record
//! not read before; a revocation is seen in the LIST alone. Control data is younger than
//! [`AGE_MAX_US`], or nothing is allowed.
//!
//! ```text
//! age   0 s ────────── 30 s ─────────────── 60 s ──────────►
//!       used as it is │ one request refreshes │ no request passes
//!                     │ the others use it     │ before a refresh
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use stele_model::Clock;
use stele_model::time::SECOND_US;
use stele_store::{ControlStore, ObjectInfo, Tiers};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;

use crate::admin::{READS_MAX, read};
use crate::error::{Damage, Error, Result};
use crate::record::{Key, Principal, TOKENS, TokenId, TokenRecord};
use crate::secret::{hash, id_of};

/// The greatest age of what is known of the tokens, µs: a revoked token stops within it.
pub const AGE_MAX_US: i64 = 60 * SECOND_US;

/// From this age on a request refreshes, µs: one failed attempt is no outage.
const REFRESH_US: i64 = 30 * SECOND_US;

/// The least time between refreshes because of a token that is not known, µs: a new token works
/// soon, and a stranger cannot make one LIST per request.
const UNKNOWN_US: i64 = 5 * SECOND_US;

/// The least time after a failed refresh before the next one, µs.
const PAUSE_US: i64 = SECOND_US;

/// How long a refresh may take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(10);

/// All tokens of a store, as of at most [`AGE_MAX_US`] ago.
pub struct Tokens {
    tiers: Tiers,
    clock: Arc<dyn Clock>,
    known: RwLock<Arc<Known>>,
    /// Held by the one request that refreshes.
    refreshing: Mutex<Option<Failed>>,
}

/// A refresh that failed.
struct Failed {
    at_us: i64,
    source: Option<Arc<stele_store::Error>>,
}

/// What one LIST showed.
#[derive(Default)]
struct Known {
    /// Before the LIST began; `None` before the first one.
    as_of_us: Option<i64>,
    tokens: HashMap<TokenId, Entry>,
    revoked: HashSet<TokenId>,
}

#[derive(Clone)]
struct Entry {
    object: ObjectInfo,
    record: std::result::Result<Arc<TokenRecord>, Damage>,
}

impl Known {
    /// The age, µs. A clock that went back makes it unknown.
    fn age_us(&self, now_us: i64) -> Option<i64> {
        let age_us = now_us.checked_sub(self.as_of_us?)?;
        (age_us >= 0).then_some(age_us)
    }

    fn is_younger(&self, now_us: i64, than_us: i64) -> bool {
        self.age_us(now_us).is_some_and(|age_us| age_us < than_us)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known();
        f.debug_struct("Tokens")
            .field("tokens", &known.tokens.len())
            .field("as_of_us", &known.as_of_us)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// The tokens of `tiers`: the primary's or, while that cannot be read, a mirror's. No request
    /// is made yet.
    #[must_use]
    pub fn new(tiers: Tiers, clock: Arc<dyn Clock>) -> Self {
        Self {
            tiers,
            clock,
            known: RwLock::default(),
            refreshing: Mutex::new(None),
        }
    }

    /// Whose token `text` is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything that is no token of this store, a damaged one included;
    /// [`Error::Revoked`]; [`Error::Stale`] when the tokens are not known well enough.
    pub async fn authenticate(&self, text: &str) -> Result<Principal> {
        let id = id_of(text).ok_or(Error::Invalid)?;
        let mut known = self.fresh(None).await?;
        if !known.tokens.contains_key(&id) {
            known = self.fresh(Some(&id)).await?;
        }
        check(&known, &id, text)
    }

    /// How many tokens are accepted now.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub async fn active(&self) -> Result<usize> {
        let known = self.fresh(None).await?;
        let active = known.tokens.iter();
        let active = active.filter(|(id, t)| t.record.is_ok() && !known.revoked.contains(*id));
        Ok(active.count())
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known, refreshed when it is due, or when `unknown` may be a new token.
    async fn fresh(&self, unknown: Option<&TokenId>) -> Result<Arc<Known>> {
        let due_us = if unknown.is_some() {
            UNKNOWN_US
        } else {
            REFRESH_US
        };
        let known = self.known();
        if known.is_younger(self.clock.now_us(), due_us) {
            return Ok(known);
        }
        let usable = known.is_younger(self.clock.now_us(), AGE_MAX_US);
        let mut failed = match self.refreshing.try_lock() {
            Ok(turn) => turn,
            // Another request refreshes already.
            Err(_) if usable && unknown.is_none() => return Ok(known),
            Err(_) => self.refreshing.lock().await,
        };
        let known = self.known();
        let now_us = self.clock.now_us();
        if known.is_younger(now_us, due_us) {
            return Ok(known);
        }
        let paused = failed
            .as_ref()
            .is_some_and(|f| (0..PAUSE_US).contains(&now_us.saturating_sub(f.at_us)));
        if !paused {
            *failed = self.refresh(&known).await.err();
        }
        let (known, now_us) = (self.known(), self.clock.now_us());
        if known.is_younger(now_us, AGE_MAX_US) {
            return Ok(known);
        }
        Err(Error::Stale {
            limit_secs: AGE_MAX_US / SECOND_US,
            source: failed.as_ref().and_then(|f| f.source.clone()),
        })
    }

    async fn refresh(&self, known: &Known) -> std::result::Result<(), Failed> {
        let as_of_us = self.clock.now_us();
        let loaded = tokio::time::timeout(REFRESH_TIMEOUT, self.load(known, as_of_us)).await;
        let source = match loaded {
            Ok(Ok(loaded)) => {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                *known = Arc::new(loaded);
                return Ok(());
            }
            Ok(Err(Error::Store(source))) => Some(source),
            Ok(Err(_)) | Err(_) => None,
        };
        let cause = source.as_deref().map(tracing::field::debug);
        tracing::error!(cause, "the tokens could not be refreshed");
        let at_us = self.clock.now_us();
        Err(Failed { at_us, source })
    }

    async fn load(&self, known: &Known, as_of_us: i64) -> Result<Known> {
        let current = self.tiers.current().await?;
        let mut loaded = load(&current.primary.control(), known, as_of_us).await;
        for mirror in current.complete_mirrors() {
            if !matches!(loaded, Err(Error::Store(_))) {
                break;
            }
            loaded = load(&mirror.tier.control(), known, as_of_us).await;
        }
        loaded
    }
}

/// What `store` says now; records that `known` has need not be read again.
async fn load(store: &ControlStore, known: &Known, as_of_us: i64) -> Result<Known> {
    let mut loaded = Known {
        as_of_us: Some(as_of_us),
        ..Known::default()
    };
    let mut to_read = Vec::new();
    for object in store.list(TOKENS).await? {
        match Key::of(&object.key) {
            Some(Key::Revoked(id)) => {
                loaded.revoked.insert(id);
            }
            Some(Key::Token(id)) => match known.tokens.get(&id) {
                // A damaged record is read again: damage on the way heals.
                Some(entry) if entry.object == object && entry.record.is_ok() => {
                    loaded.tokens.insert(id, entry.clone());
                }
                _ => to_read.push((id, object)),
            },
            None => tracing::warn!(key = object.key, "a foreign object among the tokens"),
        }
    }
    let reads = to_read.into_iter().map(|(id, object)| async move {
        let record = read(store, &id).await?.map(Arc::new);
        if let Err(damage) = &record {
            tracing::error!(token = %id, %damage, "a token is damaged and not accepted");
        }
        Ok::<_, Error>((id, Entry { object, record }))
    });
    let mut reads = futures::stream::iter(reads).buffer_unordered(READS_MAX);
    while let Some((id, entry)) = reads.try_next().await? {
        loaded.tokens.insert(id, entry);
    }
    Ok(loaded)
}

/// Compares hashes in constant time. Whatever is wrong, before the secret is known to be right
/// the answer is the same.
fn check(known: &Known, id: &TokenId, text: &str) -> Result<Principal> {
    let record = known.tokens.get(id).and_then(|t| t.record.as_ref().ok());
    let record = record.ok_or(Error::Invalid)?;
    if !bool::from(hash(text).ct_eq(&record.sha256)) {
        return Err(Error::Invalid);
    }
    if known.revoked.contains(id) {
        return Err(Error::Revoked { id: id.clone() });
    }
    Ok(record.principal())
}
