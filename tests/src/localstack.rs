//! An S3 server on a free loopback port, started by a test and stopped with it.
//!
//! The server runs in a process group of its own under a shell that waits for the end of its
//! standard input: when the handle is dropped, or the test process dies in whatever way, the pipe
//! closes and the shell kills its own group. Nothing is ever killed by name.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::python;

const START_SECS_MAX: u64 = 120;
const WATCH: &str = r#""$@" & cat >/dev/null; kill -KILL 0"#;

/// A running LocalStack that serves S3 only.
#[derive(Debug)]
pub struct LocalStack {
    shell: Child,
    endpoint: String,
    _files: TempDir,
}

impl LocalStack {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be installed, or does not answer within 120 s.
    pub fn start() -> Result<Self> {
        let python = python::localstack()?;
        let files = TempDir::with_prefix("stele-localstack-")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = files.path().join("log");
        let shell = Command::new("sh")
            .args(["-c", WATCH, "localstack"])
            .arg(python)
            .args(["-m", "localstack.runtime.main"])
            .env("FILESYSTEM_ROOT", files.path().join("root"))
            // The plain form of the address would listen on every interface.
            .env("GATEWAY_LISTEN", format!("[::ffff:127.0.0.1]:{port}"))
            .env("DNS_ADDRESS", "0")
            .env("SKIP_SSL_CERT_DOWNLOAD", "1")
            .env("DISABLE_EVENTS", "1")
            .env("SERVICES", "s3")
            .env("STRICT_SERVICE_LOADING", "1")
            .env("EAGER_SERVICE_LOADING", "1")
            .stdin(Stdio::piped())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .process_group(0)
            .spawn()
            .context("sh does not start")?;
        let server = Self {
            shell,
            endpoint: format!("http://127.0.0.1:{port}"),
            _files: files,
        };
        server.wait_until_it_answers(&log)?;
        Ok(server)
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

impl Drop for LocalStack {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
