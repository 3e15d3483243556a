//! A `stele serve` process: started on a free port, talked to over HTTP, stopped or killed.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::oracle::{Oracle, Present, Rollup, Sample};
use crate::reader::Reader;
use crate::store::Store;

const START_SECS_MAX: u64 = 60;
const STOP_SECS_MAX: u64 = 60;
const REQUEST_SECS_MAX: u64 = 300;

/// What makes the jobs of a server run so often that a test need not wait for them.
pub const EAGER: [(&str, &str); 3] = [
    ("STELE_ABSORB_EVERY_SECS", "1"),
    ("STELE_SEAL_EVERY_SECS", "1"),
    ("STELE_SWEEP_EVERY_SECS", "2"),
];

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
    store: Store,
    files: TempDir,
}

/// An answer whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The header `Stele-Receipt`.
    pub receipt: Option<String>,
    /// The body as text.
    pub body: String,
}

impl Server {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// When it exits or is not ready within 60 s; the message holds its log.
    pub fn start(store: &Store, env: &[(&str, &str)]) -> Result<Self> {
        let files = TempDir::with_prefix("stele-serve-")?;
        let (log, ready) = (files.path().join("log"), files.path().join("ready"));
        let mut command = stele(store)?;
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--store", &store.url()])
            .arg("--ready-file")
            .arg(&ready)
            .envs(env.iter().copied())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let mut server = Self {
            child: command.spawn()?,
            url: String::new(),
            store: store.clone(),
            files,
        };
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while Instant::now() < deadline {
            let url = std::fs::read_to_string(&ready).unwrap_or_default();
            if !url.trim().is_empty() {
                server.url = url.trim().trim_end_matches('/').to_owned();
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("stele serve: {status}\n{}", server.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("not ready within {START_SECS_MAX} s\n{}", server.log())
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The store it works on.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the process was gone already: then the test did not test what it meant to.
    pub fn kill_9(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("gone before it was killed: {status}\n{}", self.log());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM without waiting.
    ///
    /// # Errors
    /// When no signal can be sent.
    pub fn terminate(&self) -> Result<()> {
        let kill = format!("kill -TERM {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status()?;
        ensure!(status.success(), "{kill}: {status}");
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after 60 s.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(STOP_SECS_MAX);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "still running {STOP_SECS_MAX} s after SIGTERM\n{}",
            self.log()
        )
    }

    /// Stops it as an operator would and checks that it exits 0.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(mut self) -> Result<()> {
        self.terminate()?;
        let status = self.wait()?;
        ensure!(status.success(), "SIGTERM: {status}\n{}", self.log());
        Ok(())
    }

    /// Posts line protocol with timestamps in µs.
    ///
    /// # Errors
    /// When no answer came.
    pub fn write(&self, body: &str) -> Result<Reply> {
        write(&self.url, body)
    }

    /// What asks it in SQL.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { url: &self.url }
    }

    /// As [`Reader::sql`].
    ///
    /// # Errors
    /// As [`Reader::sql`].
    pub fn sql(&self, query: &str, format: &str) -> Result<String> {
        self.reader().sql(query, format)
    }

    /// As [`Reader::sql_number`].
    ///
    /// # Errors
    /// As [`Reader::sql_number`].
    pub fn sql_number(&self, query: &str) -> Result<i64> {
        self.reader().sql_number(query)
    }

    /// As [`Reader::samples`].
    ///
    /// # Errors
    /// As [`Reader::samples`].
    pub fn samples(&self) -> Result<Vec<Sample>> {
        self.reader().samples()
    }

    /// As [`Reader::rollup`].
    ///
    /// # Errors
    /// As [`Reader::rollup`].
    pub fn rollup(&self, table: &str) -> Result<Rollup> {
        self.reader().rollup(table)
    }

    /// As [`Reader::check_tables`].
    ///
    /// # Errors
    /// As [`Reader::check_tables`].
    pub fn check_tables(&self, oracle: &Oracle) -> Result<Present> {
        self.reader().check_tables(oracle)
    }

    /// Runs absorb, seal and consolidate to the end.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub fn settle(&self) -> Result<Value> {
        let reply = post(&self.url, "/admin/settle", b"")?;
        ensure!(
            reply.status == 200,
            "settle: {} {}",
            reply.status,
            reply.body
        );
        Ok(serde_json::from_str(&reply.body)?)
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// When the answer is not 200 or no JSON.
    pub fn status(&self) -> Result<Value> {
        let reply = get(&self.url, "/status")?;
        ensure!(
            reply.status == 200,
            "status: {} {}",
            reply.status,
            reply.body
        );
        Ok(serde_json::from_str(&reply.body)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the last lines of {}:\n{}", self.url, tail.join("\n"));
        }
    }
}

/// The binary with nothing in its environment but what it needs to reach `store`.
///
/// # Errors
/// When the binary cannot be built.
pub fn stele(store: &Store) -> Result<Command> {
    let mut command = Command::new(binary::stele()?);
    command.env_clear().envs(store.env()).stdin(Stdio::null());
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    Ok(command)
}

/// Runs a command of `stele` in `dir` to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(store: &Store, dir: &Path, args: &[&str]) -> Result<Output> {
    Ok(stele(store)?.current_dir(dir).args(args).output()?)
}

/// Posts line protocol with timestamps in µs to the server at `url`.
///
/// # Errors
/// When no answer came.
pub fn write(url: &str, body: &str) -> Result<Reply> {
    post(url, "/write?precision=u", body.as_bytes())
}

/// Posts `body`.
///
/// # Errors
/// When no answer came, or it ended before its end.
pub fn post(url: &str, path: &str, body: &[u8]) -> Result<Reply> {
    let request = agent().post(format!("{url}{path}"));
    reply(request.content_type("text/plain").send(body)?)
}

/// Gets `path`.
///
/// # Errors
/// When no answer came, or it ended before its end.
pub fn get(url: &str, path: &str) -> Result<Reply> {
    reply(agent().get(format!("{url}{path}")).call()?)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(REQUEST_SECS_MAX)));
    config.build().into()
}

fn reply(mut response: ureq::http::Response<ureq::Body>) -> Result<Reply> {
    let receipt = response.headers().get("stele-receipt");
    let receipt = receipt.and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = response.body_mut().with_config().limit(1 << 30);
    Ok(Reply {
        body: String::from_utf8(body.read_to_vec()?)?,
        receipt,
        status: response.status().as_u16(),
    })
}
