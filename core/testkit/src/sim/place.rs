//! One store of a run, and what is known of it: the only one, or a tier.

use std::sync::Arc;

use stele_store::Tier;

use super::observer::Observer;
use super::process::{Node, Settings};
use super::registry::Registry;
use crate::memory::MemoryStore;

/// A store of a run.
pub(super) struct Place {
    /// Its URL, which is its name as a tier.
    pub name: String,
    /// What all its keys begin with.
    pub root: String,
    pub registry: Registry,
    pub observer: Observer,
    /// Whether its table must load at any instant.
    pub is_watched: bool,
}

impl Place {
    /// The place of `name`, where nobody has been yet.
    pub fn new(name: &str, root: &str, store: &MemoryStore, settings: &Settings) -> Self {
        let tier = Self::tier(name, root, store);
        let clock = Arc::new(settings.clock.clone());
        let node = Node::over(&tier, &(clock as _), 0, settings);
        Self {
            name: name.to_owned(),
            root: root.to_owned(),
            registry: Registry::default(),
            observer: Observer::new(store.clone(), root, node),
            is_watched: root.is_empty(),
        }
    }

    fn tier(name: &str, root: &str, store: &MemoryStore) -> Tier {
        Tier::from_store(Arc::new(store.clone()), root, name)
    }

    /// The place as a tier in which nothing fails.
    pub fn as_tier(&self, store: &MemoryStore) -> Tier {
        Self::tier(&self.name, &self.root, store)
    }

    /// The keys of the tenant below `folder`.
    pub fn keys(&self, store: &MemoryStore, folder: &str) -> Vec<object_store::path::Path> {
        store.keys(&format!("{}tenants/default/{folder}/", self.root))
    }
}
