//! Finds the `stele` binary, building it first unless `TEST_STELE_BIN` names one.
//!
//! Building is cargo's own decision of what is stale, so a test never runs yesterday's binary.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::{profile_dir, repository};

/// The path of the binary.
///
/// # Errors
/// When the build fails.
pub fn stele() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| find_or_build().map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// The folder that holds the Lambda functions, `stele-fn-*`: that of `TEST_STELE_BIN`, or else they
/// are built first.
///
/// # Errors
/// When the build fails.
pub fn functions() -> Result<PathBuf> {
    if let Some(stele) = std::env::var_os("TEST_STELE_BIN") {
        let stele = PathBuf::from(stele);
        let dir = stele.parent().context("TEST_STELE_BIN has no folder")?;
        return Ok(dir.to_path_buf());
    }
    // The whole workspace, so that no crate is compiled with fewer features than it has elsewhere.
    build(&["--workspace", "--bins"])
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TEST_STELE_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "TEST_STELE_BIN={} is no file",
            path.display()
        );
        return Ok(path);
    }
    Ok(build(&["--package", "stele", "--bin", "stele"])?.join("stele"))
}

/// Builds what `args` name, in the profile of this test, and returns the folder of the binaries.
fn build(args: &[&str]) -> Result<PathBuf> {
    let dir = profile_dir()?;
    let target = dir.parent().context("the profile has a parent")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(repository())
        .args(["build", "--quiet"])
        .args(args)
        .arg("--target-dir")
        .arg(target);
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cargo does not start")?;
    ensure!(status.success(), "cargo build {}: {status}", args.join(" "));
    Ok(dir)
}
