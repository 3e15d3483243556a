//! Which snapshots have been restored in a drill, and when: a snapshot that nobody has restored
//! lately is not proved to be one.
//!
//! A record is the name of an object, `control/drills/<snapshot>/<digest of the pin>-<µs>-<result>`,
//! so one LIST tells all of them; a later snapshot of the same name is another pin.

use std::collections::BTreeMap;

use stele_model::Digest;
use stele_model::time::DAY_US;
use stele_store::{TenantStore, keys, sealed};
use stele_table::PinName;

/// How long a drill proves a snapshot, µs.
pub const PROVEN_US: i64 = 7 * DAY_US;

const PASSED: &str = "passed";
const FAILED: &str = "failed";

/// The last drill of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drilled {
    /// When, µs by the clock of who did it.
    pub at_us: i64,
    /// Whether it could be restored and was equal.
    pub has_passed: bool,
}

impl Drilled {
    /// Whether the snapshot counts as proved at `now_us`.
    #[must_use]
    pub fn proves(&self, now_us: i64) -> bool {
        self.has_passed && now_us.saturating_sub(self.at_us) < PROVEN_US
    }
}

fn prefix() -> String {
    format!("{}/drills", keys::CONTROL)
}

/// Records a drill of the snapshot `name` whose pin has `digest`.
///
/// # Errors
/// The store's.
pub async fn record_drill(
    store: &TenantStore,
    name: &PinName,
    digest: Digest,
    drilled: Drilled,
) -> Result<(), stele_store::Error> {
    let result = if drilled.has_passed { PASSED } else { FAILED };
    let key = format!(
        "{}/{name}/{digest}-{:020}-{result}",
        prefix(),
        drilled.at_us
    );
    // The name says it all; verify asks every object here for the digest of its text.
    let text = format!("{{\"drill\":\"{result}\"}}");
    store.put_new(&key, sealed::seal(text.as_bytes())).await?;
    Ok(())
}

/// The last drill of each snapshot, by its name and the digest of its pin.
///
/// # Errors
/// The store's.
pub async fn last_drills(
    store: &TenantStore,
) -> Result<BTreeMap<(String, Digest), Drilled>, stele_store::Error> {
    let prefix = prefix();
    let mut last: BTreeMap<(String, Digest), Drilled> = BTreeMap::new();
    for object in store.list(&prefix).await? {
        let Some((of, drilled)) = read(&prefix, &object.key) else {
            tracing::warn!(key = object.key, "a foreign object among the drills");
            continue;
        };
        let known = last.entry(of).or_insert(drilled);
        if known.at_us < drilled.at_us {
            *known = drilled;
        }
    }
    Ok(last)
}

fn read(prefix: &str, key: &str) -> Option<((String, Digest), Drilled)> {
    let (name, rest) = key
        .strip_prefix(prefix)?
        .strip_prefix('/')?
        .split_once('/')?;
    let mut parts = rest.splitn(3, '-');
    let digest = parts.next()?.parse().ok()?;
    let at_us = parts.next()?.parse().ok()?;
    let has_passed = match parts.next()? {
        PASSED => true,
        FAILED => false,
        _ => return None,
    };
    let drilled = Drilled { at_us, has_passed };
    Some(((name.to_owned(), digest), drilled))
}

#[cfg(test)]
mod tests {
    use stele_model::TenantId;
    use stele_store::Tier;

    use super::*;

    #[tokio::test]
    async fn the_last_drill_counts_for_a_week_and_for_that_pin_alone() {
        let tier = Tier::open("memory://", &[]).unwrap();
        let store = tier.tenant(&TenantId::default());
        let name: PinName = "noon".parse().unwrap();
        let (pin, other) = (Digest([1; 16]), Digest([2; 16]));
        for (at_us, has_passed) in [(5, false), (7, true), (6, false)] {
            let drilled = Drilled { at_us, has_passed };
            record_drill(&store, &name, pin, drilled).await.unwrap();
        }
        let last = last_drills(&store).await.unwrap();
        let drilled = last[&("noon".to_owned(), pin)];
        assert_eq!((drilled.at_us, drilled.has_passed), (7, true));
        assert!(drilled.proves(7) && drilled.proves(6 + PROVEN_US));
        assert!(!drilled.proves(7 + PROVEN_US));
        assert!(!last.contains_key(&("noon".to_owned(), other)));
        let failed = Drilled {
            at_us: 9,
            has_passed: false,
        };
        record_drill(&store, &name, pin, failed).await.unwrap();
        let last = last_drills(&store).await.unwrap();
        assert!(!last[&("noon".to_owned(), pin)].proves(9));
        for object in store.list(keys::CONTROL).await.unwrap() {
            let bytes = store.get(&object.key).await.unwrap();
            assert!(sealed::unseal(&bytes).is_some(), "{}", object.key);
        }
    }
}
