//! The stack of `infra/template.yaml` on LocalStack: the real functions, deployed once per test
//! process, behind their URLs and schedules. Between the functions and S3 is a [`Proxy`].
//!
//! Every test has a tenant of its own, and they take turns: what one breaks, another relies on.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::localstack::{LocalStack, aws_env, free_port};
use crate::proxy::Proxy;
use crate::reader::Reader;
use crate::server::run;
use crate::store::Store;
use crate::{binary, python};

const BUCKET: &str = "stele-data";
const INVOKE_SECS_MAX: u64 = 330;
const SETTLE_ROUNDS_MAX: u32 = 20;

/// One of the four functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Function {
    Ingest,
    Query,
    Compact,
    Protect,
}

/// The running stack.
#[derive(Debug)]
pub struct Stack {
    server: LocalStack,
    s3: Proxy,
    outputs: BTreeMap<String, String>,
    tokens: BTreeMap<String, String>,
}

/// The stack, held by one test.
#[derive(Debug)]
pub struct Turn(MutexGuard<'static, Option<Stack>>);

impl Deref for Turn {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        self.0.as_ref().expect("deployed before it was handed out")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// What became of an invocation that was waited for.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Whether the function failed, crashed or timed out.
    pub is_error: bool,
    /// What it answered.
    pub answer: Value,
}

/// What the executor counted.
#[derive(Debug, Clone)]
pub struct Census(Value);

impl Stack {
    /// The stack of this test process, for as long as its holder wants it alone. Who asks first
    /// deploys it, with a token for each of `tenants`; later callers name the same.
    ///
    /// # Errors
    /// When it cannot be deployed.
    pub fn take(tenants: &[&str]) -> Result<Turn> {
        static STACK: Mutex<Option<Stack>> = Mutex::new(None);
        // A test that failed has let go of the lock; what it left behind is put right here.
        let mut stack = STACK.lock().unwrap_or_else(PoisonError::into_inner);
        match &*stack {
            None => *stack = Some(Self::deploy(tenants)?),
            Some(stack) => stack.s3.set_faults(None),
        }
        Ok(Turn(stack))
    }

    fn deploy(tenants: &[&str]) -> Result<Self> {
        let binaries = binary::functions()?;
        let port = free_port()?;
        let s3 = Proxy::start(&format!("127.0.0.1:{port}"), &[])?;
        let server = LocalStack::with_functions(port, Some(s3.url()))?;
        let binaries = binaries.to_str().context("the target folder is UTF-8")?;
        let mut args = vec!["--endpoint", server.endpoint(), "--binaries", binaries];
        let bucket = format!("BucketName={BUCKET}");
        // A window is sealed as soon as it is over, so that a test need not wait for it.
        for parameter in [bucket.as_str(), "SealDelaySecs=0", "Snapshots=off"] {
            args.extend(["--parameter", parameter]);
        }
        let outputs = python::run_localstack("deploy.py", &args)
            .with_context(|| format!("LocalStack says\n{}", tail(&server.log(), 40)))?;
        let mut stack = Self {
            outputs: serde_json::from_str(&outputs)?,
            server,
            s3,
            tokens: BTreeMap::new(),
        };
        for tenant in tenants {
            let token = stack.create_token(tenant)?;
            stack.tokens.insert((*tenant).to_owned(), token);
        }
        Ok(stack)
    }

    fn create_token(&self, tenant: &str) -> Result<String> {
        let (store, scopes) = (self.store(), "ingest,query");
        let url = store.url();
        let args = ["token", "create", "--store", &url, "--tenant", tenant];
        let args = [args.as_slice(), &["--scope", scopes]].concat();
        let made = run(&store, Path::new("/"), &args)?;
        let error = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "stele token create: {error}");
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    }

    /// The store of the stack, reached without the proxy.
    #[must_use]
    pub fn store(&self) -> Store {
        let url = self.output("Store").unwrap_or_default();
        Store::other(url, aws_env(self.server.endpoint()))
    }

    /// What is between the functions and S3.
    #[must_use]
    pub fn s3(&self) -> &Proxy {
        &self.s3
    }

    /// The token of a tenant.
    ///
    /// # Errors
    /// When the stack was not deployed for it.
    pub fn token(&self, tenant: &str) -> Result<&str> {
        let token = self.tokens.get(tenant);
        token
            .map(String::as_str)
            .with_context(|| format!("no token for {tenant}"))
    }

    /// The URL of `function` under a name that needs no name server. With a `tenant` its token is
    /// set in every request, else a client must send one.
    ///
    /// # Errors
    /// When the function has no URL, or the tenant no token.
    pub fn front(&self, function: Function, tenant: Option<&str>) -> Result<Proxy> {
        let url = self.output(&format!("{function:?}Url"))?;
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        let token = tenant.map(|tenant| self.token(tenant)).transpose()?;
        let token = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("Host", host)];
        headers.extend(token.iter().map(|t| ("Authorization", t.as_str())));
        Proxy::start(self.server.endpoint(), &headers)
    }

    /// Invokes `function` with `event` and waits for its end; `None` when too many run already.
    ///
    /// # Errors
    /// When Lambda does not take it for another reason.
    pub fn invoke(&self, function: Function, event: &Value) -> Result<Option<Invocation>> {
        let path = format!("{}/invocations", self.path(function)?);
        let mut response = self.send_request("POST", &path, &[], event)?;
        if response.status() == 429 {
            return Ok(None);
        }
        ensure_success(&mut response, &path)?;
        let is_error = response.headers().contains_key("x-amz-function-error");
        let body = response.body_mut().read_to_string()?;
        let answer = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&body).with_context(|| body.clone())?
        };
        Ok(Some(Invocation { is_error, answer }))
    }

    /// Invokes `function` with `event` as a schedule does, without waiting.
    ///
    /// # Errors
    /// When Lambda does not take it.
    pub fn send(&self, function: Function, event: &Value) -> Result<()> {
        let path = format!("{}/invocations", self.path(function)?);
        self.request("POST", &path, &[("X-Amz-Invocation-Type", "Event")], event)?;
        Ok(())
    }

    /// Changes the time limit of a function; its environments are replaced.
    ///
    /// # Errors
    /// When that does not come about within 30 s.
    pub fn set_timeout(&self, function: Function, secs: u64) -> Result<()> {
        let path = format!("{}/configuration", self.path(function)?);
        self.request("PUT", &path, &[], &json!({ "Timeout": secs }))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let mut reply = self.request("GET", &path, &[], &Value::Null)?;
            let now: Value = serde_json::from_str(&reply.body_mut().read_to_string()?)?;
            if now["LastUpdateStatus"] == "Successful" && now["Timeout"] == secs {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{function:?} has no time limit of {secs} s after 30 s")
    }

    /// What the executor has counted so far.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn census(&self) -> Result<Census> {
        let mut reply = self.request("GET", "/_host_executor/census", &[], &Value::Null)?;
        let body = reply.body_mut().read_to_string()?;
        Ok(Census(serde_json::from_str(&body)?))
    }

    /// How often `what` has happened to `function`: `cold_starts`, `invocations`, `answered`,
    /// `failed`, `timed_out`, `exited` or `init_errors`.
    ///
    /// # Errors
    /// When the executor does not answer.
    pub fn count(&self, function: Function, what: &str) -> Result<u64> {
        let name = self.name(function)?;
        let census = self.census()?;
        Ok(census.0["functions"][name][what].as_u64().unwrap_or(0))
    }

    /// The processes of `function` that work on an invocation, or all of them.
    ///
    /// # Errors
    /// When the executor does not answer.
    pub fn processes(&self, function: Function, busy_only: bool) -> Result<Vec<u64>> {
        let (name, census) = (self.name(function)?, self.census()?);
        let all = census.0["environments"].as_array().into_iter().flatten();
        let meant = all.filter(|e| e["function"] == name && (!busy_only || e["is_busy"] == true));
        Ok(meant.filter_map(|e| e["pid"].as_u64()).collect())
    }

    /// Invokes compact until no object waits to be absorbed and no window to be sealed for the
    /// first time. (A reopened one is sealed again when it is worth its cost; its answers are exact
    /// before.)
    ///
    /// # Errors
    /// When a run fails, or something waits after 20 of them.
    pub fn settle(&self, reader: Reader<'_>) -> Result<()> {
        let waits = "SELECT count(*) FROM coverage WHERE state = 'open' OR objects > 0";
        for _ in 0..SETTLE_ROUNDS_MAX {
            let Some(done) = self.invoke(Function::Compact, &json!({"job": "compact"}))? else {
                std::thread::sleep(Duration::from_millis(200));
                continue;
            };
            ensure!(!done.is_error, "compact: {}", done.answer);
            if reader.sql_number(waits)? == 0 {
                return Ok(());
            }
        }
        let states = "SELECT state, count(*), sum(objects) FROM coverage GROUP BY state";
        bail!("not settled: {}", reader.sql(states, "json")?)
    }

    /// The last lines of what LocalStack and the functions printed, for a test that failed.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut said = tail(&self.server.log(), 20);
        let dir = std::fs::read_dir(self.server.function_logs());
        for entry in dir.into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let name = entry.file_name();
            said.push_str(&format!("\n== {}\n{}", name.display(), tail(&log, 10)));
        }
        said
    }

    fn output(&self, name: &str) -> Result<&str> {
        let value = self.outputs.get(name);
        value
            .map(String::as_str)
            .with_context(|| format!("the stack has no output {name}"))
    }

    fn name(&self, function: Function) -> Result<&str> {
        self.output(&format!("{function:?}FunctionName"))
    }

    fn path(&self, function: Function) -> Result<String> {
        Ok(format!("/2015-03-31/functions/{}", self.name(function)?))
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Response> {
        let mut response = self.send_request(method, path, headers, body)?;
        ensure_success(&mut response, path)?;
        Ok(response)
    }

    fn send_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Response> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(INVOKE_SECS_MAX)));
        let agent: ureq::Agent = config.build().into();
        let url = format!("{}{path}", self.server.endpoint());
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_null() {
            return Ok(agent.run(request.body(())?)?);
        }
        Ok(agent.run(request.body(serde_json::to_vec(body)?)?)?)
    }
}

type Response = ureq::http::Response<ureq::Body>;

fn ensure_success(response: &mut Response, path: &str) -> Result<()> {
    if !response.status().is_success() {
        let said = response.body_mut().read_to_string()?;
        bail!("{path}: {} {said}", response.status());
    }
    Ok(())
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
