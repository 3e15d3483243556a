//! Python virtual environments from hash-locked requirement files, made once per content of the
//! file under the cargo target directory. A file lock orders tests that want the same one.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{profile_dir, repository};

/// The interpreter of the environment that LocalStack lives in.
///
/// # Errors
/// When python3 is missing or the packages cannot be installed.
pub fn localstack() -> Result<PathBuf> {
    environment(&["requirements.txt"])
}

/// The interpreter of the environment that the second readers and writers live in.
///
/// # Errors
/// When python3 is missing or the packages cannot be installed.
pub fn readers() -> Result<PathBuf> {
    environment(&["requirements-readers.txt", "requirements-sources.txt"])
}

/// Runs `tests/readers/<script>` and returns what it printed.
///
/// # Errors
/// When it fails; the message holds its standard error.
pub fn run_reader(script: &str, args: &[&str], env: &[(String, String)]) -> Result<String> {
    let path = repository().join("tests/readers").join(script);
    let mut python = Command::new(readers()?);
    python.arg(path).args(args).envs(env.iter().cloned());
    run(&mut python)
}

/// Of several files each is installed before the next.
fn environment(requirements: &[&str]) -> Result<PathBuf> {
    let dir = repository().join("tests");
    let requirements: Vec<PathBuf> = requirements.iter().map(|name| dir.join(name)).collect();
    let mut hash = DefaultHasher::new();
    for file in &requirements {
        fs::read(file)?.hash(&mut hash);
    }
    let profile = profile_dir()?;
    let target = profile.parent().context("the profile has a parent")?;
    let base = target.join("stele-tests");
    fs::create_dir_all(&base)?;
    let dir = base.join(format!("venv-{:016x}", hash.finish()));
    let python = dir.join("bin/python");
    let lock = File::create(dir.with_extension("lock"))?;
    lock.lock()?;
    let ready = dir.join("ready");
    if !ready.exists() {
        create(&dir, &python, &requirements)?;
        File::create(&ready)?;
    }
    Ok(python)
}

fn create(dir: &Path, python: &Path, requirements: &[PathBuf]) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    for file in requirements {
        let mut pip = Command::new(python);
        // A build takes its tools from what is locked, not from the index of the day.
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
            .args(["--no-build-isolation", "--disable-pip-version-check"])
            .args(["--require-hashes", "-r"])
            .arg(file);
        run(&mut pip)?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let done = command.output();
    let done = done.with_context(|| format!("{command:?} does not start"))?;
    let error = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{command:?}: {}\n{error}",
        done.status
    );
    Ok(String::from_utf8(done.stdout)?)
}
