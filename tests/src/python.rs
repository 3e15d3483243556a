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
    environment(&["requirements.txt", "requirements-localstack-sources.txt"])
}

/// A folder for `PYTHONPATH` that holds the executor of Lambda functions as pip installs it.
///
/// # Errors
/// When python3 is missing or it cannot be installed.
pub fn executor() -> Result<PathBuf> {
    let python = localstack()?;
    let source = repository().join("localstack/executor");
    let package = source.join("host_executor");
    let mut files = vec![source.join("pyproject.toml")];
    for entry in fs::read_dir(&package)? {
        let path = entry?.path();
        files.extend(path.is_file().then_some(path));
    }
    files.sort();
    made_once("executor", &files, |dir| {
        // A build leaves its own files beside the sources.
        let copy = tempfile::tempdir()?;
        fs::create_dir(copy.path().join("host_executor"))?;
        for file in &files {
            fs::copy(file, copy.path().join(file.strip_prefix(&source)?))?;
        }
        let mut pip = pip(&python);
        run(pip.arg("--target").arg(dir).arg(copy.path()))?;
        Ok(())
    })
}

/// Runs the unit tests of the executor.
///
/// # Errors
/// When one fails; the message names it.
pub fn test_executor() -> Result<()> {
    let tests = repository().join("localstack/executor/tests");
    let mut python = Command::new(localstack()?);
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    run(python.args(["-m", "unittest", "discover"]).arg(tests))?;
    Ok(())
}

/// Runs `localstack/up` and returns what it printed.
///
/// # Errors
/// When it fails; the message holds its standard error.
pub fn up(args: &[&str]) -> Result<String> {
    let script = repository().join("localstack/up.py");
    let mut python = Command::new(localstack()?);
    python.env("PYTHONPATH", executor()?);
    run(python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args(args))
}

/// Runs `localstack/<script>` in the environment of LocalStack and returns what it printed.
///
/// # Errors
/// When it fails; the message holds its standard error.
pub fn run_localstack(script: &str, args: &[&str]) -> Result<String> {
    let path = repository().join("localstack").join(script);
    let mut python = Command::new(localstack()?);
    run(python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(path)
        .args(args))
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
    let dir = made_once("venv", &requirements, |dir| create(dir, &requirements))?;
    Ok(dir.join("bin/python"))
}

/// The folder that `make` has filled from `files`; there is one for each content of them.
fn made_once(
    name: &str,
    files: &[PathBuf],
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    for file in files {
        fs::read(file)
            .with_context(|| file.display().to_string())?
            .hash(&mut hash);
    }
    let profile = profile_dir()?;
    let target = profile.parent().context("the profile has a parent")?;
    let base = target.join("stele-tests");
    fs::create_dir_all(&base)?;
    let dir = base.join(format!("{name}-{:016x}", hash.finish()));
    let lock = File::create(dir.with_extension("lock"))?;
    lock.lock()?;
    let ready = dir.join("ready");
    if !ready.exists() {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        make(&dir)?;
        File::create(&ready)?;
    }
    Ok(dir)
}

fn create(dir: &Path, requirements: &[PathBuf]) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    for file in requirements {
        let mut pip = pip(&dir.join("bin/python"));
        run(pip.args(["--require-hashes", "-r"]).arg(file))?;
    }
    Ok(())
}

/// `pip install` without the index of the day: a build takes its tools from what is locked.
fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--no-build-isolation", "--disable-pip-version-check"]);
    pip
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
