//! Where a server under test keeps its data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tempfile::TempDir;

use crate::localstack::LocalStack;

/// A store that is gone when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Store(Arc<Place>);

#[derive(Debug)]
enum Place {
    Local(TempDir),
    S3(LocalStack),
    Other {
        url: String,
        env: Vec<(String, String)>,
    },
}

impl Store {
    /// A fresh local directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn local() -> Result<Self> {
        let dir = TempDir::with_prefix("stele-store-")?;
        Ok(Self(Arc::new(Place::Local(dir))))
    }

    /// A fresh bucket of an S3 server that is started for it.
    ///
    /// # Errors
    /// When the server does not start.
    pub fn s3() -> Result<Self> {
        let server = LocalStack::start()?;
        server.create_bucket("bucket")?;
        Ok(Self(Arc::new(Place::S3(server))))
    }

    /// Any store by URL and environment.
    #[must_use]
    pub fn other(url: &str, env: Vec<(String, String)>) -> Self {
        let url = url.to_owned();
        Self(Arc::new(Place::Other { url, env }))
    }

    /// The value of `--store`.
    #[must_use]
    pub fn url(&self) -> String {
        match &*self.0 {
            Place::Local(dir) => format!("file://{}", dir.path().display()),
            Place::S3(_) => "s3://bucket/prefix".to_owned(),
            Place::Other { url, .. } => url.clone(),
        }
    }

    /// The `AWS_*` variables that reach it.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        match &*self.0 {
            Place::Local(_) => Vec::new(),
            Place::S3(server) => server.env(),
            Place::Other { env, .. } => env.clone(),
        }
    }

    /// The directory of the tenant `default` of a local store.
    #[must_use]
    pub fn tenant_dir(&self) -> Option<PathBuf> {
        match &*self.0 {
            Place::Local(dir) => Some(dir.path().join("tenants/default")),
            Place::S3(_) | Place::Other { .. } => None,
        }
    }

    /// The URL of the Delta table of the tenant `default`.
    #[must_use]
    pub fn table_url(&self) -> String {
        format!("{}/tenants/default/table", self.url())
    }
}

/// The files below `dir`, as paths relative to it; a folder that is not there holds none.
#[must_use]
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found.extend(entry.path().strip_prefix(dir).map(Path::to_path_buf)),
            }
        }
    }
    found.sort();
    found
}
