//! The set a process acts on, and for how long it may.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use stele_model::{Clock, TierId};

use super::epoch::{self, PublishedSet};
use super::set::{Member, Role, TierSet, TierState, WritePolicy};
use super::unopened::unopened;
use crate::error::{Error, Result};
use crate::tier::Tier;

/// Opens the tier of a URL.
pub type Opener = Arc<dyn Fn(&str) -> Result<Tier> + Send + Sync>;

/// The tiers that one process works with. Clones share what was fetched.
#[derive(Clone)]
pub struct Tiers {
    inner: Arc<Inner>,
}

struct Inner {
    /// The stores the process was told of; the set names the others.
    seeds: Vec<Tier>,
    opener: Opener,
    clock: Arc<dyn Clock>,
    /// Tiers by URL, so that their connections are kept.
    opened: Mutex<BTreeMap<String, Tier>>,
    current: Mutex<Option<Arc<Current>>>,
    fetching: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tiers").field(&self.inner.seeds).finish()
    }
}

/// A member of the set, open.
#[derive(Debug, Clone)]
pub struct OpenTier {
    /// What the set says of it.
    pub member: Member,
    /// The tier.
    pub tier: Tier,
    /// What was wrong with it when the set was fetched.
    pub trouble: Option<Trouble>,
}

/// What is wrong with a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It could not be read; the text says why.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It holds no tier set, as an empty directory where nothing is mounted: nothing may be
    /// written to it, and its emptiness means nothing.
    #[error("it holds no tier set: is it the tier that was added, and mounted?")]
    Foreign,
}

/// A set as it was fetched.
#[derive(Debug, Clone)]
pub struct Current {
    /// The set; `None` for a store with no tier set, which is its own primary.
    pub set: Option<TierSet>,
    /// Where compaction runs, and reads go first.
    pub primary: Tier,
    /// The members that are still part of the set, the primary included. Empty without a set.
    pub members: Vec<OpenTier>,
    /// When fetching began, by the steady clock and by the wall clock, µs.
    begun_us: (i64, i64),
    /// Without end, for a tier that is used as it is.
    is_fixed: bool,
}

impl Current {
    /// One tier as it is, with no set and for ever.
    #[must_use]
    pub fn fixed(tier: Tier) -> Self {
        Self {
            set: None,
            primary: tier,
            members: Vec::new(),
            begun_us: (0, 0),
            is_fixed: true,
        }
    }

    /// The epoch; 0 without a set.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.set.as_ref().map_or(0, |set| set.epoch)
    }

    /// The tiers that get new batches beside the primary.
    pub fn mirrors(&self) -> impl Iterator<Item = &OpenTier> {
        let others = self.members.iter();
        others.filter(|m| m.member.takes_writes() && m.member.state != TierState::Primary)
    }

    /// The mirrors that hold whatever the primary holds, at any instant: none of them while the
    /// primary alone must hold a batch.
    pub fn complete_mirrors(&self) -> impl Iterator<Item = &OpenTier> {
        let policy = self.set.as_ref().map(|set| set.policy);
        self.members.iter().filter(move |tier| {
            let (state, role) = (tier.member.state, tier.member.role);
            let is_foreign = tier.trouble == Some(Trouble::Foreign);
            let is_complete = state == TierState::Mirror && role == Role::Mirror;
            is_complete && policy == Some(WritePolicy::All) && !is_foreign
        })
    }

    /// The other tiers that sweeps have to keep small as well: the active ones that answered.
    pub fn sweepable(&self) -> impl Iterator<Item = &OpenTier> {
        let others = self.members.iter();
        others.filter(|m| {
            let is_other = m.member.state != TierState::Primary && m.member.is_active();
            is_other && m.trouble.is_none()
        })
    }

    /// The tiers, beside `id`, that deletion on `id` must heed.
    pub fn witnesses<'a>(&'a self, id: &'a TierId) -> impl Iterator<Item = &'a OpenTier> {
        let others = self.members.iter();
        others.filter(move |m| m.member.is_active() && m.member.id != *id)
    }

    /// Whether its primary answered when it was fetched. A new set is put on the primary of the one
    /// before it, and then on the others: so a primary that answers knows of the newest, and one
    /// that does not may hold a set that the others have not got. A set that is not confirmed is
    /// good enough to read by, and for nothing else.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        let mut members = self.members.iter();
        let primary = members.find(|open| open.member.state == TierState::Primary);
        primary.is_none_or(|open| open.trouble.is_none())
    }

    /// How long it may be acted on, µs.
    fn lease_us(&self) -> i64 {
        let lease_ms = self
            .set
            .as_ref()
            .map_or(TierSet::LEASE_MS_WITHOUT, |set| set.lease_ms);
        i64::try_from(lease_ms.saturating_mul(1000)).unwrap_or(i64::MAX)
    }

    /// Whether it may be acted on now. A process that slept may find one of its clocks stopped
    /// and the other set, so neither may say that the lease is over.
    fn holds(&self, clock: &dyn Clock) -> bool {
        let (steady_us, wall_us) = self.begun_us;
        let lease = 0..self.lease_us();
        let steady_us = clock.steady_us().saturating_sub(steady_us);
        let wall_us = clock.now_us().saturating_sub(wall_us);
        self.is_fixed || (lease.contains(&steady_us) && lease.contains(&wall_us))
    }
}

/// Of what has no lease.
struct NoTime;

impl Clock for NoTime {
    fn now_us(&self) -> i64 {
        0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tiers {
    /// One tier as it is, whatever set it may be part of: for a tool that works on that very tier.
    #[must_use]
    pub fn fixed(tier: Tier) -> Self {
        let current = Current::fixed(tier.clone());
        let opener: Opener = Arc::new(move |_| Ok(tier.clone()));
        let tiers = Self::new(Vec::new(), opener, Arc::new(NoTime));
        *lock(&tiers.inner.current) = Some(Arc::new(current));
        tiers
    }

    /// The tiers that the store `url` is one of; it may be the only one. `aws` are the `AWS_*`
    /// pairs for all of them. Nothing is read yet.
    ///
    /// # Errors
    /// A URL that names no store.
    pub fn open(url: &str, aws: &[(String, String)], clock: Arc<dyn Clock>) -> Result<Self> {
        let seed = Tier::open(url, aws)?;
        let aws = aws.to_vec();
        let opener = move |url: &str| Tier::open(url, &aws);
        Ok(Self::new(vec![seed], Arc::new(opener), clock))
    }

    /// The tiers of which `seeds` are some. Nothing is read yet.
    #[must_use]
    pub fn new(seeds: Vec<Tier>, opener: Opener, clock: Arc<dyn Clock>) -> Self {
        let opened = seeds
            .iter()
            .map(|tier| (tier.url().to_owned(), tier.clone()));
        Self {
            inner: Arc::new(Inner {
                opened: Mutex::new(opened.collect()),
                seeds,
                opener,
                clock,
                current: Mutex::default(),
                fetching: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// The set to act on now: the known one while its lease holds, else what the tiers say.
    ///
    /// # Errors
    /// As [`Tiers::fetch`].
    pub async fn current(&self) -> Result<Arc<Current>> {
        if let Some(current) = self.known() {
            return Ok(current);
        }
        let _turn = self.inner.fetching.lock().await;
        match self.known() {
            Some(current) => Ok(current),
            None => self.fetch_now().await,
        }
    }

    /// The set to write and to delete by: as [`Tiers::current`], and its primary answered.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`]; else as [`Tiers::fetch`].
    pub async fn confirmed(&self) -> Result<Arc<Current>> {
        let mut current = self.current().await?;
        if !current.is_confirmed() {
            // It may answer again.
            current = self.fetch().await?;
        }
        match &current.set {
            Some(set) if !current.is_confirmed() => Err(Error::Unconfirmed {
                epoch: set.epoch,
                tier: set.primary()?.id.to_string(),
            }),
            _ => Ok(current),
        }
    }

    /// The known set, if it may still be acted on.
    #[must_use]
    pub fn known(&self) -> Option<Arc<Current>> {
        let current = lock(&self.inner.current).clone();
        current.filter(|current| current.holds(&*self.inner.clock))
    }

    /// Whether `current` may still be acted on: whoever writes asks that *after* its write, so that
    /// no sleep between fetching and writing can be missed.
    #[must_use]
    pub fn holds(&self, current: &Current) -> bool {
        current.holds(&*self.inner.clock)
    }

    /// What the tiers say now: the set of the highest epoch that any readable one holds.
    ///
    /// # Errors
    /// The first tier's when none could be read; [`Error::EpochConflict`] when two hold different
    /// sets of one epoch; [`Error::Epoch`] for a damaged set.
    pub async fn fetch(&self) -> Result<Arc<Current>> {
        let _turn = self.inner.fetching.lock().await;
        self.fetch_now().await
    }

    async fn fetch_now(&self) -> Result<Arc<Current>> {
        let inner = &*self.inner;
        let known = lock(&inner.current).clone();
        if let Some(fixed) = known.as_ref().filter(|known| known.is_fixed) {
            return Ok(Arc::clone(fixed));
        }
        let begun_us = (inner.clock.steady_us(), inner.clock.now_us());
        let from_epoch = known.as_ref().map_or(0, |known| known.epoch());
        let mut urls: Vec<String> = inner.seeds.iter().map(|t| t.url().to_owned()).collect();
        urls.extend(known.iter().flat_map(|known| known.urls()));
        let mut survey = Survey::default();
        loop {
            let new = urls.iter().filter(|url| !survey.seen.contains_key(*url));
            let new: Vec<String> = new.cloned().collect();
            if new.is_empty() {
                break;
            }
            let asked = new.iter().map(|url| self.ask(url, from_epoch));
            for (url, answer) in new.iter().zip(join_all(asked).await) {
                survey.seen.insert(url.clone(), answer);
            }
            if let Some(best) = survey.best()? {
                let members = best.members.iter().filter(|member| !member.is_over());
                urls = members.map(|member| member.url.clone()).collect();
            }
        }
        let current = Arc::new(self.resolve(survey, begun_us)?);
        *lock(&inner.current) = Some(Arc::clone(&current));
        Ok(current)
    }

    async fn ask(&self, url: &str, from_epoch: u64) -> Result<Option<PublishedSet>> {
        let tier = self.tier(url)?;
        if from_epoch > 0 {
            // Its own epoch again: a directory that is not mounted any more looks like an empty one.
            if let Some(published) = epoch::follow(&tier.control(), from_epoch).await? {
                return Ok(Some(published));
            }
        }
        epoch::newest_epoch(&tier).await
    }

    /// The tier of a URL, opened once.
    ///
    /// # Errors
    /// The opener's.
    pub fn tier(&self, url: &str) -> Result<Tier> {
        if let Some(tier) = lock(&self.inner.opened).get(url) {
            return Ok(tier.clone());
        }
        let tier = (self.inner.opener)(url)?;
        lock(&self.inner.opened).insert(url.to_owned(), tier.clone());
        Ok(tier)
    }

    /// The tier of a member; one that cannot be opened now answers every request with why.
    fn member_tier(&self, url: &str) -> Tier {
        self.tier(url).unwrap_or_else(|error| {
            let why = stele_model::chain(&error).to_string();
            unopened(url, why)
        })
    }

    fn resolve(&self, mut survey: Survey, begun_us: (i64, i64)) -> Result<Current> {
        let Some(set) = survey.best()?.cloned() else {
            return self.without_set(survey, begun_us);
        };
        let mut members = Vec::new();
        for member in set.members.iter().filter(|member| !member.is_over()) {
            let trouble = match survey.seen.remove(&member.url) {
                // One that joins may not have got the set yet.
                Some(Ok(None)) if member.state != TierState::Joining => Some(Trouble::Foreign),
                Some(Ok(_)) => None,
                Some(Err(error)) => {
                    let why = stele_model::chain(&error).to_string();
                    Some(Trouble::Unreadable(why))
                }
                None => Some(Trouble::Unreadable("it was not asked".to_owned())),
            };
            members.push(OpenTier {
                tier: self.member_tier(&member.url),
                member: member.clone(),
                trouble,
            });
        }
        let primary = self.member_tier(&set.primary()?.url);
        Ok(Current {
            set: Some(set),
            primary,
            members,
            begun_us,
            is_fixed: false,
        })
    }

    /// No readable store holds a set: there must be one store only, and it must have been read.
    fn without_set(&self, survey: Survey, begun_us: (i64, i64)) -> Result<Current> {
        for answer in survey.seen.into_values() {
            answer?;
        }
        match self.inner.seeds.as_slice() {
            [one] => Ok(Current {
                begun_us,
                is_fixed: false,
                ..Current::fixed(one.clone())
            }),
            seeds => Err(Error::NoTierSet {
                stores: seeds.len(),
            }),
        }
    }
}

impl Current {
    fn urls(&self) -> Vec<String> {
        let members = self.members.iter();
        members.map(|member| member.member.url.clone()).collect()
    }
}

/// What each store said.
#[derive(Default)]
struct Survey {
    seen: BTreeMap<String, Result<Option<PublishedSet>>>,
}

impl Survey {
    /// The set of the highest epoch.
    fn best(&self) -> Result<Option<&TierSet>> {
        let mut best: Option<(&TierSet, &str)> = None;
        for (url, answer) in &self.seen {
            let set = match answer {
                Ok(Some(published)) => &published.set,
                Ok(None) => continue,
                // A damaged set may hide a later one: nobody goes on with an older.
                Err(Error::Epoch { key, why }) => {
                    let (key, why) = (format!("{key} in {url}"), why.clone());
                    return Err(Error::Epoch { key, why });
                }
                Err(_) => continue,
            };
            best = match best {
                Some((known, _)) if known.epoch > set.epoch => best,
                Some((known, of)) if known.epoch == set.epoch && known != set => {
                    return Err(Error::EpochConflict {
                        epoch: set.epoch,
                        one: of.to_owned(),
                        other: url.clone(),
                    });
                }
                _ => Some((set, url)),
            };
        }
        Ok(best.map(|(set, _)| set))
    }
}
