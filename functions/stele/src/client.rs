//! The commands that talk to a running server: plain HTTP, errors as the server words them.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::StreamExt;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;
use stele_table::AsOf;

/// How often a request that may succeed later is sent.
const ATTEMPTS_MAX: u32 = 8;
/// What is known to be lost of what a query read.
const COVERAGE: &str = "stele-coverage";

/// A server and the token it is shown.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// The body of a successful reply; the server's own message otherwise.
async fn checked(response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    let message = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|v| {
            let error = v.get("error")?;
            Some(error.get("message").unwrap_or(error).as_str()?.to_owned())
        })
        .unwrap_or(body);
    bail!("{status}: {}", crate::output::escape(message.trim()));
}

impl Client {
    /// A client of the server at `url`.
    pub fn new(url: String, token: Option<String>) -> Self {
        Self {
            http: reqwest::Client::new(),
            url,
            token,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.with_context(|| {
            format!(
                "no answer from {}; is `stele serve` running there? \
                 (--store reads a store without it)",
                self.url
            )
        })
    }

    /// Runs a query and hands each piece of the body on as it arrives. With `covered` it is asked
    /// what is lost of what the query reads; the answer is the server's word for it.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses the query, or breaks off.
    pub async fn sql(
        &self,
        query: String,
        format: &str,
        as_of: Option<&AsOf>,
        covered: bool,
        mut piece: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<String>> {
        let request = self.http.post(format!("{}/sql", self.url));
        let as_of = as_of.map(|as_of| ("as_of", as_of.to_string()));
        let request = request.query(&[("format", format)]).query(&[as_of]);
        let request = match covered {
            true => request.query(&[("coverage", "1")]),
            false => request,
        };
        let response = checked(self.send(request.body(query)).await?).await?;
        let coverage = response.headers().get(COVERAGE);
        let coverage = coverage.and_then(|value| value.to_str().ok().map(str::to_owned));
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            piece(&bytes.context("the answer broke off; what was printed is not complete")?)?;
        }
        Ok(coverage)
    }

    /// `GET path` as JSON.
    ///
    /// # Errors
    /// When the server cannot be reached or answers an error.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.url));
        Ok(checked(self.send(request).await?).await?.json().await?)
    }

    /// `POST path` with a JSON body, as JSON.
    ///
    /// # Errors
    /// When the server cannot be reached or answers an error.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        Ok(checked(self.send(request).await?).await?.json().await?)
    }

    /// `POST path` with bytes that may be sent again, until the server can take them; the reply
    /// of 200 or 400 as JSON.
    ///
    /// # Errors
    /// When the server cannot be reached or answers another error.
    pub async fn post_again(&self, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let mut attempt = 1;
        loop {
            let request = self.http.post(format!("{}{path}", self.url));
            let sent = self.send(request.body(body.clone())).await;
            let is_last = attempt == ATTEMPTS_MAX;
            match sent {
                Ok(response) if is_later(response.status()) && !is_last => {}
                Ok(response) if response.status() == StatusCode::BAD_REQUEST => {
                    let body: Value = response.json().await?;
                    match body.get("error").and_then(Value::as_str) {
                        Some(error) => bail!("400: {}", crate::output::escape(error)),
                        None => return Ok(body),
                    }
                }
                Ok(response) => return Ok(checked(response).await?.json().await?),
                Err(error) if is_last => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            attempt += 1;
        }
    }
}

fn is_later(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
}
