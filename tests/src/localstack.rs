//! An S3 server on a free loopback port, started by a test and stopped with it.
//!
//! The server runs in a process group of its own under a shell that waits for the end of its
//! standard input: when the handle is dropped, or the test process dies in whatever way, the pipe
//! closes and the shell kills its own group. Nothing is ever killed by name.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::python;

const START_SECS_MAX: u64 = 120;
// The files go here too: of a server that lives as long as the test process nobody drops the handle.
const WATCH: &str = r#"
files="$1"; shift
"$@" & server=$!
cat >/dev/null
kill -KILL $server; wait $server 2>/dev/null
rm -rf "$files"
kill -KILL 0"#;

/// What the functions of a stack need beside the object store.
const FUNCTION_SERVICES: &str = "s3,lambda,cloudformation,events,iam,sts,logs,sqs,cloudwatch,kms";

/// A running LocalStack.
#[derive(Debug)]
pub struct LocalStack {
    shell: Child,
    endpoint: String,
    files: TempDir,
}

impl LocalStack {
    /// Starts a server of S3 and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be installed, or does not answer within 120 s.
    pub fn start() -> Result<Self> {
        let env = [("SERVICES", "s3"), ("EAGER_SERVICE_LOADING", "1")];
        Self::launch(free_port()?, &env)
    }

    /// Starts a server that runs Lambda functions as processes of this machine, which reach S3 by
    /// `function_endpoint` when it is given. Their logs lie in [`LocalStack::function_logs`].
    ///
    /// # Errors
    /// As [`LocalStack::start`].
    pub fn with_functions(port: u16, function_endpoint: Option<&str>) -> Result<Self> {
        let (_, executor) = python::localstack_with_executor()?;
        let executor = executor.to_str().context("the executor's path is UTF-8")?;
        let mut env = vec![
            ("SERVICES", FUNCTION_SERVICES),
            ("LAMBDA_RUNTIME_EXECUTOR", "host"),
            ("PYTHONPATH", executor),
            // Not a minute, so that a test can wait for it.
            ("LAMBDA_RETRY_BASE_DELAY", "1"),
            // Binaries of the test profile are larger than what is deployed.
            ("LAMBDA_LIMITS_CODE_SIZE_UNZIPPED", "2000000000"),
        ];
        env.extend(function_endpoint.map(|url| ("HOST_EXECUTOR_ENDPOINT_URL", url)));
        Self::launch(port, &env)
    }

    fn launch(port: u16, env: &[(&str, &str)]) -> Result<Self> {
        let python = python::localstack()?;
        let files = TempDir::with_prefix("stele-localstack-")?;
        let log = files.path().join("log");
        let shell = Command::new("sh")
            .args(["-c", WATCH, "localstack"])
            .arg(files.path())
            .arg(python)
            .args(["-m", "localstack.runtime.main"])
            .env("FILESYSTEM_ROOT", files.path().join("root"))
            // Unpacked functions lie here, and go with it.
            .env("TMPDIR", files.path())
            .env("HOST_EXECUTOR_LOGS", files.path().join("functions"))
            // The plain form of the address would listen on every interface.
            .env("GATEWAY_LISTEN", format!("[::ffff:127.0.0.1]:{port}"))
            .env("DNS_ADDRESS", "0")
            .env("SKIP_SSL_CERT_DOWNLOAD", "1")
            .env("DISABLE_EVENTS", "1")
            .env("STRICT_SERVICE_LOADING", "1")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .process_group(0)
            .spawn()
            .context("sh does not start")?;
        let server = Self {
            shell,
            endpoint: format!("http://127.0.0.1:{port}"),
            files,
        };
        server.wait_until_it_answers(&log)?;
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    /// The folder of the functions' logs, one file for each environment.
    #[must_use]
    pub fn function_logs(&self) -> PathBuf {
        self.files.path().join("functions")
    }

    fn wait_until_it_answers(&self, log: &Path) -> Result<()> {
        let health = format!("{}/_localstack/health", self.endpoint);
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while Instant::now() < deadline {
            if ureq::get(&health).call().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let said = std::fs::read_to_string(log).unwrap_or_default();
        bail!("LocalStack did not answer within {START_SECS_MAX} s:\n{said}")
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        ureq::put(format!("{}/{name}", self.endpoint))
            .send_empty()
            .with_context(|| format!("bucket {name}"))?;
        Ok(())
    }

    /// The `AWS_*` variables of a client.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        aws_env(&self.endpoint)
    }
}

/// The `AWS_*` variables of a client of the S3 server at `endpoint`.
#[must_use]
pub fn aws_env(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .to_vec()
}

/// A port that is free at this moment.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
