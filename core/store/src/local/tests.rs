//! The durable store under a power cut between any two of its file-system calls.
//!
//! [`PowerDisk`] does every call for real and keeps a model of what would survive: a file's bytes
//! once they are synced, a name once its directory is synced.

use std::collections::{BTreeSet, HashMap};

use object_store::ObjectStoreExt;
use stele_model::ErrorKind;

use super::*;
use crate::{Put, Tier};

#[derive(Default)]
struct Survivors {
    /// Calls until the power goes; `None` means never.
    left: Option<u32>,
    calls: u32,
    /// Every name, and whether the bytes behind it are whole (directories always are).
    names: HashMap<PathBuf, bool>,
    /// Names that survive a power loss.
    durable: BTreeSet<PathBuf>,
}

#[derive(Clone, Default)]
struct PowerDisk(Arc<Mutex<Survivors>>);

impl PowerDisk {
    fn state(&self) -> std::sync::MutexGuard<'_, Survivors> {
        self.0.lock().unwrap()
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.state();
        state.calls += 1;
        match &mut state.left {
            Some(0) => Err(io::Error::other("power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Every name that exists, surviving or not, holds whole bytes.
    fn assert_nothing_is_torn(&self, stage: &str) {
        for (path, whole) in &self.state().names {
            let staged = path.to_str().unwrap().contains(stage);
            assert!(*whole || staged, "{} is torn", path.display());
        }
    }

    fn survives(&self, root: &FsPath, path: &FsPath) -> bool {
        let state = self.state();
        path.ancestors()
            .take_while(|at| *at != root)
            .all(|at| state.durable.contains(at))
    }
}

impl Disk for PowerDisk {
    fn write_new(&self, path: &FsPath, chunks: &[Bytes]) -> io::Result<()> {
        if let Err(gone) = self.step() {
            self.state().names.insert(path.to_owned(), false);
            return Err(gone);
        }
        SystemDisk.write_new(path, chunks)?;
        self.state().names.insert(path.to_owned(), true);
        Ok(())
    }

    fn link(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        self.step()?;
        SystemDisk.link(from, to)?;
        let mut state = self.state();
        let whole = state.names[from];
        state.names.insert(to.to_owned(), whole);
        Ok(())
    }

    fn rename(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        self.step()?;
        SystemDisk.rename(from, to)?;
        let mut state = self.state();
        let whole = state.names.remove(from).unwrap();
        state.names.insert(to.to_owned(), whole);
        Ok(())
    }

    fn remove(&self, path: &FsPath) -> io::Result<()> {
        self.step()?;
        SystemDisk.remove(path)?;
        self.state().names.remove(path);
        Ok(())
    }

    fn make_dir(&self, path: &FsPath) -> io::Result<()> {
        self.step()?;
        SystemDisk.make_dir(path)?;
        self.state().names.insert(path.to_owned(), true);
        Ok(())
    }

    fn sync_dir(&self, path: &FsPath) -> io::Result<()> {
        self.step()?;
        SystemDisk.sync_dir(path)?;
        let mut state = self.state();
        let inside: Vec<PathBuf> = state.names.keys().cloned().collect();
        let inside = inside
            .into_iter()
            .filter(|name| name.parent() == Some(path));
        state.durable.extend(inside);
        Ok(())
    }
}

const KEY: &str = "tenants/a/l0/x";

fn open(root: &FsPath, disk: &PowerDisk) -> DurableLocal {
    DurableLocal::open_on(root, Box::new(disk.clone())).unwrap()
}

async fn put(store: &DurableLocal, mode: PutMode) -> StoreResult<PutResult> {
    let bytes = Bytes::from_static(b"whole");
    store
        .put_opts(&Path::from(KEY), bytes.into(), mode.into())
        .await
}

/// The number of disk calls of one PUT into an empty store.
async fn calls_of(mode: PutMode) -> u32 {
    let dir = tempfile::tempdir().unwrap();
    let disk = PowerDisk::default();
    let store = open(dir.path(), &disk);
    let before = disk.state().calls;
    put(&store, mode).await.unwrap();
    disk.state().calls - before
}

#[tokio::test]
async fn an_answered_put_survives_a_power_cut_and_no_cut_tears_a_key() {
    for mode in [PutMode::Create, PutMode::Overwrite] {
        let calls = calls_of(mode.clone()).await;
        assert!(
            calls >= 9,
            "3 directories, their parents, the file: {calls}"
        );
        let mut answered = 0;
        for cut in 0..=calls {
            let dir = tempfile::tempdir().unwrap();
            let root = std::fs::canonicalize(dir.path()).unwrap();
            let disk = PowerDisk::default();
            let store = open(&root, &disk);
            disk.state().left = Some(cut);
            let done = put(&store, mode.clone()).await;
            disk.assert_nothing_is_torn(STAGE);
            if done.is_ok() {
                answered += 1;
                assert!(
                    disk.survives(&root, &root.join(KEY)),
                    "{mode:?} cut at {cut}"
                );
            }
        }
        assert!(answered >= 1, "the last cut comes after the answer");
    }
}

#[tokio::test]
async fn already_exists_is_answered_only_once_the_name_is_durable() {
    let calls = calls_of(PutMode::Create).await;
    for cut in 0..calls {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        let disk = PowerDisk::default();
        let first = open(&root, &disk);
        disk.state().left = Some(cut);
        // This writer dies here: its process is gone, the machine goes on.
        drop(put(&first, PutMode::Create).await);
        disk.state().left = None;
        let second = Tier::from_store(Arc::new(open(&root, &disk)), "", "test");
        let second = second.tenant(&"a".parse().unwrap());
        let put = second.put_new("l0/x", Bytes::from_static(b"whole")).await;
        assert!(matches!(put, Ok(Put::Created | Put::Same)), "{put:?}");
        assert!(disk.survives(&root, &root.join(KEY)), "cut at {cut}");
    }
}

#[tokio::test]
async fn staged_leftovers_are_not_listed_and_go_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let stage = dir.path().join(STAGE);
    let store = DurableLocal::open(dir.path()).unwrap();
    put(&store, PutMode::Create).await.unwrap();
    let (old, young) = (stage.join("1-old"), stage.join("1-young"));
    for path in [&old, &young] {
        std::fs::write(path, b"torn").unwrap();
    }
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    let now = file.metadata().unwrap().modified().unwrap();
    file.set_modified(now - STAGE_AGE_MAX - Duration::from_secs(60))
        .unwrap();

    let store = DurableLocal::open(dir.path()).unwrap();
    let listed: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let listed: Vec<&str> = listed.iter().map(|meta| meta.location.as_ref()).collect();
    assert_eq!(listed, [KEY]);
    assert!(!old.exists() && young.exists());
    let staged = store
        .put(&Path::from(".stage/x"), Bytes::new().into())
        .await;
    assert!(staged.is_err(), "the staging area holds no keys");
}

#[tokio::test]
async fn a_directory_removed_behind_our_back_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(dir.path()).unwrap();
    put(&store, PutMode::Create).await.unwrap();
    std::fs::remove_dir_all(dir.path().join("tenants")).unwrap();
    std::fs::remove_dir_all(dir.path().join(STAGE)).unwrap();
    put(&store, PutMode::Create).await.unwrap();
    let bytes = store
        .get(&Path::from(KEY))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(bytes, "whole");
}

#[test]
fn a_file_in_the_place_of_the_directory_is_named_in_the_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = DurableLocal::open(file.path()).expect_err("a file");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(file.path().to_str().unwrap()));
}
