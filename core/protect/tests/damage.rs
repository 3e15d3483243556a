//! Damage to any byte of any object: `verify` names the object, and a reader returns the very same
//! rows or an error, never other rows.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use stele_compact::reader::{all_rollups, all_samples};
use stele_compact::{Budget, Compactor, Options};
use stele_format::{RollupSource, SampleSource, batch, l0};
use stele_model::time::{DAY_US, HOUR_US};
use stele_model::{Clock, Digest, L0Name, Resolution, TenantId};
use stele_protect::{VerifyReport, verify, verify_control};
use stele_store::{TenantStore, Tier, keys, sealed};
use stele_table::{TableLog, TableState, View, set_rollups_paused};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::{ManualClock, MemoryStore, Rng, SeededIds};

/// An object of at most this many bytes has every byte flipped.
const SMALL_BYTES: usize = 128;
/// Flips in a larger one.
const FLIPS: usize = 3;

struct World {
    memory: MemoryStore,
    store: TenantStore,
    clock: ManualClock,
}

impl World {
    /// A tenant with sealed, open and unabsorbed samples, some late, some sent twice, a checkpoint,
    /// the pause switch and a marker.
    async fn busy() -> Self {
        let clock = ManualClock::new(20_779 * DAY_US + 12 * HOUR_US);
        let memory = MemoryStore::new(clock.clone());
        let tier = Tier::from_store(Arc::new(memory.clone()), "", "memory://");
        let store = tier.tenant(&TenantId::default());
        let world = Self {
            memory,
            store,
            clock,
        };
        let all = Budget::unlimited();
        let compactor = Compactor::new(
            world.store.clone(),
            Arc::new(world.log()),
            Options::default(),
            Arc::new(world.clock.clone()),
            Arc::new(SeededIds::new(4)),
        );
        let mut random = RowGen::new(Rng::new(11), 4);
        for n in 0..14 {
            world.accept(&mut random).await;
            world.accept(&mut random).await;
            compactor.absorb(&all).await.unwrap();
            world.clock.advance(HOUR_US / 2);
            if n % 3 == 0 {
                compactor.seal(&all, true).await.unwrap();
            }
        }
        compactor.settle(&all, &|_| ()).await.unwrap();
        world.clock.advance(HOUR_US);
        world.accept(&mut random).await;
        compactor.absorb(&all).await.unwrap();
        world.accept(&mut random).await;
        let now_us = world.clock.now_us();
        set_rollups_paused(&world.store, true, now_us)
            .await
            .unwrap();
        let marker = sealed::seal(b"{\"received_us\":1}");
        let key = keys::marker(&Digest([7; 16]));
        world.store.put_new(&key, marker).await.unwrap();
        world
    }

    async fn accept(&self, random: &mut RowGen) {
        let rows = random.rows(self.clock.now_us(), 20, 20);
        let encoded = l0::encode(&[batch(rows)]).unwrap();
        let put = self.store.l0_put(&encoded.name, encoded.bytes);
        put.await.unwrap();
    }

    /// The log as another process sees it: nothing remembered.
    fn log(&self) -> TableLog {
        let clock = Arc::new(self.clock.clone());
        TableLog::new(self.store.clone(), stele_table::Options::default(), clock)
    }

    async fn verify(&self) -> VerifyReport {
        verify(&self.store, &self.log(), &|_| ()).await
    }

    /// Every sample and every bin as text; `None` when something says that it is damaged.
    async fn read(&self) -> Option<Vec<String>> {
        let view = View::read(&self.log(), None).await.ok()?;
        let mut out = Vec::new();
        let mut samples = all_samples(&self.store, &view).await.ok()?;
        while let Some(chunk) = samples.next_chunk().ok()? {
            for row in &chunk.rows {
                out.push(format!("{:?} {row:?}", chunk.series));
            }
        }
        for resolution in Resolution::ROLLUPS {
            let mut bins = all_rollups(&self.store, &view, resolution).await.ok()?;
            while let Some(chunk) = bins.next_chunk().ok()? {
                for bin in &chunk.bins {
                    out.push(format!("{resolution:?} {:?} {bin:?}", chunk.series));
                }
            }
        }
        Some(out)
    }

    fn objects(&self) -> Vec<(Path, String, Bytes)> {
        let root = self.store.path("l0");
        let root = root.as_ref().strip_suffix("l0").unwrap();
        let keys = self.memory.keys("").into_iter();
        let object = |key: Path| {
            let name = key.as_ref().strip_prefix(root)?.to_owned();
            let bytes = self.memory.bytes(&key)?;
            Some((key, name, bytes))
        };
        keys.filter_map(object).collect()
    }
}

/// What an object is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// It counts, and every bit of it is protected.
    Counts,
    /// It counts, but no object names it yet: that it is gone cannot be known.
    Waits,
    /// It shortens a way that is there without it.
    Shortcut,
    /// Nothing reads it; sweep takes it later.
    Garbage,
}

fn worth(name: &str, state: &TableState) -> Worth {
    if let Some(object) = name.strip_prefix("l0/") {
        let object: L0Name = object.parse().unwrap();
        let absorbed = state.unswept.contains_key(&object.digest);
        return if absorbed {
            Worth::Garbage
        } else {
            Worth::Waits
        };
    }
    if name.starts_with("table/heads/") || name.ends_with("_last_checkpoint") {
        return Worth::Shortcut;
    }
    if name.starts_with("control/") || name.starts_with("idem/") {
        return Worth::Waits;
    }
    if let Some(version) = keys::checkpoint_version(name) {
        return match version == state.ledger.manifest_version {
            true => Worth::Shortcut,
            false => Worth::Garbage,
        };
    }
    let retired = state
        .ledger
        .retired
        .iter()
        .any(|retired| retired.key == name);
    let file = name.strip_prefix("table/resolution=");
    let live = state
        .files
        .values()
        .any(|f| keys::data_file(&f.path) == name);
    if retired || file.is_some() && !live {
        return Worth::Garbage;
    }
    Worth::Counts
}

fn named(report: &VerifyReport, name: &str) -> bool {
    report.findings.iter().any(|f| f.object == name)
}

/// The bytes of an object with one thing wrong, and what that is.
fn damages(bytes: &Bytes, flips: usize, random: &mut Rng) -> Vec<(String, Bytes)> {
    let at: Vec<usize> = match bytes.len() <= SMALL_BYTES {
        true => (0..bytes.len()).collect(),
        false => (0..flips).map(|_| random.below(bytes.len())).collect(),
    };
    let mut all = Vec::new();
    for at in at {
        let bit = random.below(8);
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << bit;
        all.push((format!("bit {bit} of byte {at} flipped"), damaged.into()));
    }
    for cut in [random.below(bytes.len()), bytes.len() - 1] {
        all.push((format!("cut to {cut} bytes"), bytes.slice(..cut)));
    }
    all
}

#[tokio::test]
async fn a_damaged_object_is_named_and_never_read_as_other_rows() {
    let world = World::busy().await;
    assert_eq!(world.verify().await.findings, []);
    let whole = world.read().await.unwrap();
    let state = world.log().load().await.unwrap().unwrap();
    let mut random = Rng::new(1);
    for (key, name, bytes) in world.objects() {
        let worth = worth(&name, &state);
        let flips = if worth == Worth::Garbage { 1 } else { FLIPS };
        for (what, damaged) in damages(&bytes, flips, &mut random) {
            world.memory.damage(&key, damaged);
            let report = world.verify().await;
            let read = world.read().await;
            world.memory.damage(&key, bytes.clone());
            assert!(
                read.is_none_or(|read| read == whole),
                "{name}: other rows are read with {what}"
            );
            match worth {
                Worth::Counts | Worth::Waits | Worth::Shortcut => {
                    assert!(named(&report, &name), "{name}: {what}: {report:?}");
                }
                Worth::Garbage => assert!(report.is_clean(), "{name}: {what}: {report:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_missing_object_is_named_and_never_read_as_other_rows() {
    let world = World::busy().await;
    let whole = world.read().await.unwrap();
    let state = world.log().load().await.unwrap().unwrap();
    // From the last: what is put back is younger, as nothing below it may be.
    for (key, name, bytes) in world.objects().into_iter().rev() {
        world.memory.lose(&key);
        let report = world.verify().await;
        let read = world.read().await;
        world.store.put_new(&name, bytes).await.unwrap();
        let same = read.is_none_or(|read| read == whole);
        match worth(&name, &state) {
            Worth::Counts => {
                // What is older than the checkpoint may have been swept.
                let swept = keys::log_entry_version(&name) == Some(0);
                assert!(named(&report, &name) || swept, "{name}: {report:?}");
                assert!(same, "{name}");
            }
            // That it was ever there, only its sender's receipt says.
            Worth::Waits => assert!(report.is_clean(), "{name}: {report:?}"),
            Worth::Shortcut => assert!(same, "{name}"),
            Worth::Garbage => assert!(report.is_clean() && same, "{name}: {report:?}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_token_is_named() {
    let world = World::busy().await;
    let control = world.store.tier().control();
    for name in ["tokens/a.json", "tokens/a.revoked.json"] {
        let bytes = sealed::seal(b"{\"tenant\":\"a\"}");
        control.put_new(name, bytes.clone()).await.unwrap();
        assert_eq!(verify_control(&control).await, []);
        let key = Path::from(format!("control/{name}"));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << (at % 8);
            world.memory.damage(&key, damaged.into());
            let findings = verify_control(&control).await;
            assert_eq!(findings.len(), 1, "byte {at}");
            assert_eq!(findings[0].object, format!("control/{name}"));
        }
        world.memory.damage(&key, bytes);
    }
}
