//! What a tier set is, and which sets may follow one another. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stele_model::TierId;

/// The layout of a set.
const FORMAT: u32 = 1;
/// Members, retired ones included.
const MEMBERS_MAX: usize = 32;

/// What a tier is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Complete at any instant; may become the primary.
    Mirror,
    /// Follows by `sync` alone; never the primary.
    Backup,
}

/// Where a tier is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierState {
    /// Gets new batches; history is being copied to it.
    Joining,
    /// Holds everything that the primary holds.
    Mirror,
    /// Compaction runs on it, and reads are served from it.
    Primary,
    /// Gets no new batches; may be retired when the proof says so.
    Draining,
    /// No part of the set any more.
    Retired,
    /// Another was promoted while it could not be read: it may only come back as a new tier.
    Lost,
}

impl TierState {
    /// The name in the set.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Mirror => "mirror",
            Self::Primary => "primary",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Lost => "lost",
        }
    }
}

/// Which tiers must hold a batch before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritePolicy {
    /// The primary, and every joining tier and mirror.
    All,
    /// The primary; for every other that could not be written, it holds a repair intent.
    Primary,
}

/// One tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name; never used for another.
    pub id: TierId,
    /// Where it is, without credentials.
    pub url: String,
    /// What it is kept for.
    pub role: Role,
    /// Where it is in its life.
    pub state: TierState,
}

impl Member {
    /// Whether new batches go to it.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        let is_open = matches!(self.state, TierState::Joining | TierState::Mirror);
        self.state == TierState::Primary || (is_open && self.role == Role::Mirror)
    }

    /// Whether it is no part of the set any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, TierState::Retired | TierState::Lost)
    }

    /// Whether deletion must heed it: nothing goes that it still needs.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let active = [TierState::Joining, TierState::Mirror, TierState::Primary];
        active.contains(&self.state)
    }
}

/// The tiers as of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSet {
    format: u32,
    /// Counts up by one with every change.
    pub epoch: u64,
    /// The epoch at which the primary became it; 0 for the first one.
    pub primary_since: u64,
    /// The primary before, whose logs the promotion fences; `None` for the first primary of all
    /// and when the one before is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_from: Option<TierId>,
    /// Which tiers must hold a batch before it is acknowledged.
    pub policy: WritePolicy,
    /// Of the first set alone: it was made while nobody wrote to the store, as who made it said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_quiet: bool,
    /// How long a process may act on the set after it began to fetch it, ms.
    pub lease_ms: u64,
    /// The longest that one request may take, ms.
    pub request_ms: u64,
    /// The tiers.
    pub members: Vec<Member>,
}

/// A set that cannot be, or a change that the rules forbid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TierSetError {
    /// No tier of this name.
    #[error("there is no tier {id}; there are {known}")]
    NoTier {
        /// The name.
        id: TierId,
        /// The names there are.
        known: String,
    },
    /// The name or the URL is in use.
    #[error("{what} is tier {id} ({}) already", state.as_str())]
    Taken {
        /// The name or URL.
        what: String,
        /// Whose it is.
        id: TierId,
        /// The state of that tier.
        state: TierState,
    },
    /// The tier is not in a state from which this can be done.
    #[error("tier {id} is {}; only {wanted} can be {done}", state.as_str())]
    State {
        /// The tier.
        id: TierId,
        /// Its state.
        state: TierState,
        /// The states from which it can.
        wanted: &'static str,
        /// What was asked for.
        done: &'static str,
    },
    /// A rule that every set keeps is broken.
    #[error("a tier set {0}")]
    Rule(&'static str),
}

type Result<T> = std::result::Result<T, TierSetError>;

impl TierSet {
    /// How long a process acts on "there is no tier set" before it looks again, ms.
    pub const LEASE_MS_WITHOUT: u64 = 10_000;
    /// The default lease, ms.
    pub const LEASE_MS: u64 = 60_000;
    /// The default longest request, ms.
    pub const REQUEST_MS: u64 = 60_000;

    /// The first set: one primary.
    #[must_use]
    pub fn first(id: TierId, url: &str) -> Self {
        Self {
            format: FORMAT,
            epoch: 1,
            primary_since: 0,
            promoted_from: None,
            policy: WritePolicy::All,
            is_quiet: false,
            lease_ms: Self::LEASE_MS,
            request_ms: Self::REQUEST_MS,
            members: vec![Member {
                id,
                url: url.to_owned(),
                role: Role::Mirror,
                state: TierState::Primary,
            }],
        }
    }

    /// The tier on which compaction runs.
    ///
    /// # Errors
    /// [`TierSetError::Rule`] when there is none, which [`TierSet::check`] excludes.
    pub fn primary(&self) -> Result<&Member> {
        let primary = self.members.iter().find(|m| m.state == TierState::Primary);
        primary.ok_or(TierSetError::Rule("has no primary"))
    }

    /// The tier of this name.
    ///
    /// # Errors
    /// [`TierSetError::NoTier`].
    pub fn member(&self, id: &TierId) -> Result<&Member> {
        let known = || {
            let ids = self.members.iter().map(|member| member.id.as_str());
            ids.collect::<Vec<_>>().join(", ")
        };
        let member = self.members.iter().find(|member| member.id == *id);
        member.ok_or_else(|| TierSetError::NoTier {
            id: id.clone(),
            known: known(),
        })
    }

    /// How old this set must be before anything may be done that relies on nobody acting on the
    /// one before, µs: the lease and the longest request, which no set but the first changes.
    #[must_use]
    pub fn wait_us(&self) -> i64 {
        let (lease_ms, request_ms) = match (self.epoch, self.is_quiet) {
            (1, true) => (0, 0),
            (1, false) => (Self::LEASE_MS_WITHOUT, Self::REQUEST_MS),
            _ => (self.lease_ms, self.request_ms),
        };
        let wait_ms = lease_ms.saturating_add(request_ms);
        i64::try_from(wait_ms.saturating_mul(1000)).unwrap_or(i64::MAX)
    }

    /// Whether every rule holds that a set keeps by itself.
    ///
    /// # Errors
    /// [`TierSetError::Rule`].
    pub fn check(&self) -> Result<()> {
        let rule = |holds: bool, text| match holds {
            true => Ok(()),
            false => Err(TierSetError::Rule(text)),
        };
        let ids: BTreeSet<&TierId> = self.members.iter().map(|member| &member.id).collect();
        let in_use = self.members.iter().filter(|m| !m.is_over());
        let urls: Vec<&str> = in_use.map(|member| member.url.as_str()).collect();
        let distinct: BTreeSet<&&str> = urls.iter().collect();
        let of_state = |state| self.members.iter().filter(move |m| m.state == state);
        rule(self.format == FORMAT, "has an unknown format")?;
        rule(self.epoch > 0, "has no epoch")?;
        rule(self.lease_ms > 0, "has no lease")?;
        rule(
            self.members.len() <= MEMBERS_MAX,
            "has more than 32 members",
        )?;
        rule(ids.len() == self.members.len(), "names a tier twice")?;
        rule(distinct.len() == urls.len(), "names a URL twice")?;
        let mut primaries = of_state(TierState::Primary);
        let is_mirror = primaries.next().is_some_and(|p| p.role == Role::Mirror);
        rule(is_mirror, "has no primary that is no backup")?;
        rule(primaries.next().is_none(), "has two primaries")?;
        rule(
            self.primary_since <= self.epoch,
            "has a primary of a later epoch",
        )
    }

    /// The next set, with one tier more, which joins.
    ///
    /// # Errors
    /// [`TierSetError::Taken`], [`TierSetError::Rule`].
    pub fn adding(&self, id: TierId, url: &str, role: Role) -> Result<Self> {
        let mut in_use = self.members.iter().filter(|member| !member.is_over());
        let of_url = in_use.find(|member| member.url == url);
        let of_id = self.members.iter().find(|member| member.id == id);
        for (taken, what) in [(of_id, id.to_string()), (of_url, url.to_owned())] {
            if let Some(member) = taken {
                return Err(TierSetError::Taken {
                    what,
                    id: member.id.clone(),
                    state: member.state,
                });
            }
        }
        let next = self.next(|set| {
            set.members.push(Member {
                id,
                url: url.to_owned(),
                role,
                state: TierState::Joining,
            });
        });
        next.check()?;
        Ok(next)
    }

    /// The next set, in which a joining tier has become a mirror.
    ///
    /// # Errors
    /// [`TierSetError::NoTier`], [`TierSetError::State`].
    pub fn joined(&self, id: &TierId) -> Result<Self> {
        self.to(id, TierState::Mirror, "joined", "a joining tier", |m| {
            m.state == TierState::Joining
        })
    }

    /// The next set, in which `id` is the primary. The one before becomes a mirror, or is lost when
    /// it cannot be read.
    ///
    /// # Errors
    /// [`TierSetError::NoTier`], [`TierSetError::State`].
    pub fn promoting(&self, id: &TierId, is_forced: bool) -> Result<Self> {
        let old = self.primary()?.id.clone();
        let mut next = self.to(
            id,
            TierState::Primary,
            "promoted",
            "a mirror that is no backup",
            |m| m.state == TierState::Mirror && m.role == Role::Mirror,
        )?;
        next.primary_since = next.epoch;
        next.promoted_from = (!is_forced).then(|| old.clone());
        for member in next.members.iter_mut().filter(|member| member.id == old) {
            member.state = match is_forced {
                true => TierState::Lost,
                false => TierState::Mirror,
            };
        }
        next.check()?;
        Ok(next)
    }

    /// The next set, in which `id` gets no new batches.
    ///
    /// # Errors
    /// [`TierSetError::NoTier`], [`TierSetError::State`].
    pub fn draining(&self, id: &TierId) -> Result<Self> {
        let wanted = "a mirror or a joining tier";
        self.to(id, TierState::Draining, "drained", wanted, |m| {
            matches!(m.state, TierState::Joining | TierState::Mirror)
        })
    }

    /// The next set, in which `id` is no part any more.
    ///
    /// # Errors
    /// [`TierSetError::NoTier`], [`TierSetError::State`].
    pub fn retiring(&self, id: &TierId) -> Result<Self> {
        let wanted = "a draining tier";
        self.to(id, TierState::Retired, "retired", wanted, |m| {
            m.state == TierState::Draining
        })
    }

    /// The next set, with another write policy. Under [`WritePolicy::Primary`] a mirror may lack
    /// batches; back to [`WritePolicy::All`] it joins again, until it has been seen to be complete.
    #[must_use]
    pub fn writing(&self, policy: WritePolicy) -> Self {
        let was = self.policy;
        self.next(|set| {
            set.policy = policy;
            if was == policy || policy != WritePolicy::All {
                return;
            }
            let mirrors = set.members.iter_mut();
            for mirror in mirrors.filter(|m| m.state == TierState::Mirror) {
                mirror.state = TierState::Joining;
            }
        })
    }

    fn next(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        next.epoch = next.epoch.saturating_add(1);
        next.is_quiet = false;
        change(&mut next);
        next
    }

    fn to(
        &self,
        id: &TierId,
        state: TierState,
        done: &'static str,
        wanted: &'static str,
        may: impl FnOnce(&Member) -> bool,
    ) -> Result<Self> {
        let member = self.member(id)?;
        if !may(member) {
            return Err(TierSetError::State {
                id: id.clone(),
                state: member.state,
                wanted,
                done,
            });
        }
        Ok(self.next(|set| {
            for member in set.members.iter_mut().filter(|member| member.id == *id) {
                member.state = state;
            }
        }))
    }
}
