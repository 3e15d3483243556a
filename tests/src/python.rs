//! What the tests run with Python: the environments that `tests/environment` makes below the cargo
//! target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{profile_dir, repository};

const LOCALSTACK: [&str; 2] = ["requirements.txt", "requirements-localstack-sources.txt"];
const READERS: [&str; 2] = ["requirements-readers.txt", "requirements-sources.txt"];

/// The interpreter of the environment that LocalStack lives in.
///
/// # Errors
/// When python3 is missing or the packages cannot be installed.
pub fn localstack() -> Result<PathBuf> {
    interpreter("localstack", &LOCALSTACK)
}

/// The same interpreter, and a folder for `PYTHONPATH` that holds the executor of Lambda functions
/// as pip installs it.
///
/// # Errors
/// When python3 is missing or something cannot be installed.
pub fn localstack_with_executor() -> Result<(PathBuf, PathBuf)> {
    let package = ["--package", "../localstack/executor"];
    let mut made = environment("localstack", &LOCALSTACK, &package)?.into_iter();
    let both = made.next().zip(made.next());
    both.context("no interpreter and executor were named")
}

/// The folder below which the environments are, for `infra/check`, too.
///
/// # Errors
/// When this test was not built by cargo.
pub fn environments() -> Result<PathBuf> {
    let profile = profile_dir()?;
    let target = profile.parent().context("the profile has a parent")?;
    Ok(target.join("python"))
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
    let (python, executor) = localstack_with_executor()?;
    run(Command::new(python)
        .env("PYTHONPATH", executor)
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
    interpreter("readers", &READERS)
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

/// The lines that `tests/environment` prints.
fn environment(name: &str, requirements: &[&str], more: &[&str]) -> Result<Vec<PathBuf>> {
    let tests = repository().join("tests");
    let mut script = Command::new("python3");
    script.arg(tests.join("environment")).arg(environments()?);
    script.arg(name).args(requirements).args(more);
    let printed = run(script.current_dir(tests))?;
    Ok(printed.lines().map(PathBuf::from).collect())
}

fn interpreter(name: &str, requirements: &[&str]) -> Result<PathBuf> {
    let mut made = environment(name, requirements, &[])?;
    made.pop().context("no interpreter was named")
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
