//! The few file-system calls that durability rests on, behind a seam, so that a test can cut the
//! power between any two of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;

/// What [`crate::DurableLocal`] asks of a disk. Every call blocks.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Creates `path`, which must not exist, writes all of `chunks` and syncs the file.
    fn write_new(&self, path: &Path, chunks: &[Bytes]) -> io::Result<()>;
    /// Gives the file `from` a second name; fails with `AlreadyExists` when `to` exists.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Moves `from` over `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes one name of a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates one directory; one that exists is success.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Syncs a directory: the names in it survive a power loss.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// The real disk.
#[derive(Debug)]
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn write_new(&self, path: &Path, chunks: &[Bytes]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        for chunk in chunks {
            file.write_all(chunk)?;
        }
        file.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
