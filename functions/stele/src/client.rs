//! The commands that talk to a running server: plain HTTP, errors as the server words them.

use anyhow::{Context, bail};
use futures::StreamExt;
use serde_json::Value;

/// The body of a successful reply; the server's own message otherwise.
async fn checked(response: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    let message = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|v| Some(v.get("error")?.get("message")?.as_str()?.to_owned()))
        .unwrap_or(body);
    bail!("{status}: {}", crate::output::escape(message.trim()));
}

fn unreachable(url: &str) -> String {
    format!(
        "no answer from {url}; is `stele serve` running there? (--store reads a store without it)"
    )
}

/// Runs a query and hands each piece of the body on as it arrives.
///
/// # Errors
/// When the server cannot be reached, refuses the query, or breaks off.
pub async fn sql(
    url: &str,
    query: String,
    format: &str,
    mut piece: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let request = reqwest::Client::new()
        .post(format!("{url}/sql?format={format}"))
        .body(query);
    let response = checked(request.send().await.with_context(|| unreachable(url))?).await?;
    let mut body = response.bytes_stream();
    while let Some(bytes) = body.next().await {
        piece(&bytes.context("the answer broke off; what was printed is not complete")?)?;
    }
    Ok(())
}

/// `GET path` as JSON.
///
/// # Errors
/// When the server cannot be reached or answers an error.
pub async fn get(url: &str, path: &str) -> anyhow::Result<Value> {
    let request = reqwest::Client::new().get(format!("{url}{path}"));
    Ok(
        checked(request.send().await.with_context(|| unreachable(url))?)
            .await?
            .json()
            .await?,
    )
}

/// `POST path` with no body, as JSON.
///
/// # Errors
/// When the server cannot be reached or answers an error.
pub async fn post(url: &str, path: &str) -> anyhow::Result<Value> {
    let request = reqwest::Client::new().post(format!("{url}{path}"));
    Ok(
        checked(request.send().await.with_context(|| unreachable(url))?)
            .await?
            .json()
            .await?,
    )
}
