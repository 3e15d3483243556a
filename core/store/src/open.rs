//! From a URL to a tier. Variables come from the caller; no environment is read here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::ClientConfigKey;
use object_store::memory::InMemory;
use object_store::{BackoffConfig, RetryConfig};
use url::Url;

use crate::error::{Error, Result};
use crate::local::DurableLocal;
use crate::tier::Tier;

/// How long one request is retried inside `object_store`.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take.
const REQUEST_TIMEOUT: &str = "30 seconds";
const EXPECTED: &str = "expected file:///path, a path, s3://bucket/prefix or memory://";
const QUERY: &str =
    "the one thing after a ? is the region of a bucket: s3://bucket/prefix?region=NAME";

impl Tier {
    /// Opens `file:///path` or a plain path (created when absent), `s3://bucket/prefix`, or
    /// `memory://` (a new empty store each time). `vars` are the `AWS_*` pairs of `object_store`;
    /// names it does not know are ignored. `s3://bucket/prefix?region=NAME` is for a bucket in
    /// another region than `AWS_REGION`, as that of a mirror may be.
    ///
    /// # Errors
    /// [`Error::Url`] for any other text or a URL with a user or password in it,
    /// [`Error::Directory`] when the path cannot be used, [`Error::Configure`] when the S3
    /// settings do not fit. No request is sent to S3.
    pub fn open(url: &str, vars: &[(String, String)]) -> Result<Self> {
        if !url.contains("://") {
            if url.is_empty() {
                return Err(refuse(url, EXPECTED));
            }
            return open_local(PathBuf::from(url), url);
        }
        let parsed = Url::parse(url).map_err(|_| refuse(url, EXPECTED))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(refuse(
                url,
                "credentials belong in AWS_* variables, not in a URL",
            ));
        }
        if parsed.fragment().is_some() {
            return Err(refuse(url, "a store URL has no #fragment"));
        }
        if parsed.query().is_some() && parsed.scheme() != "s3" {
            return Err(refuse(url, QUERY));
        }
        match parsed.scheme() {
            "file" => {
                let path = parsed.to_file_path();
                let path = path.map_err(|()| refuse(url, "expected file:///absolute/path"))?;
                open_local(path, url)
            }
            "memory" => Ok(Self::build(Arc::new(InMemory::new()), "", url, true)),
            "s3" => open_s3(&parsed, url, vars),
            _ => Err(refuse(url, EXPECTED)),
        }
    }
}

fn open_local(path: PathBuf, url: &str) -> Result<Tier> {
    let store = DurableLocal::open(&path)?;
    Ok(Tier::build(Arc::new(store), "", url, false))
}

fn open_s3(parsed: &Url, url: &str, vars: &[(String, String)]) -> Result<Tier> {
    let bucket = parsed.host_str().unwrap_or_default();
    if bucket.is_empty() {
        return Err(refuse(url, "expected s3://bucket/prefix"));
    }
    let region = parsed.query().map(|query| {
        let region = query.strip_prefix("region=");
        let region = region.filter(|name| is_region(name));
        region.ok_or_else(|| refuse(url, QUERY))
    });
    let region = region.transpose()?;
    let retry = RetryConfig {
        backoff: BackoffConfig {
            max_backoff: Duration::from_secs(2),
            ..BackoffConfig::default()
        },
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
    let mut builder = AmazonS3Builder::new()
        .with_config(timeout, REQUEST_TIMEOUT)
        .with_retry(retry);
    for (name, value) in vars {
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else {
            continue;
        };
        let endpoint = matches!(key, AmazonS3ConfigKey::Endpoint);
        if endpoint && value.starts_with("http://") {
            builder = builder.with_allow_http(true);
        }
        builder = builder.with_config(key, value);
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    let store = builder.with_bucket_name(bucket).build();
    let store = store.map_err(|source| Error::Configure {
        url: url.to_owned(),
        source: Box::new(source),
    })?;
    Ok(Tier::build(Arc::new(store), parsed.path(), url, true))
}

/// It becomes a part of a host's name.
fn is_region(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 63 && name.chars().all(is_part)
}

fn refuse(url: &str, why: &'static str) -> Error {
    Error::Url {
        url: without_credentials(url),
        why,
    }
}

/// Drops everything between `://` and the last `@` before the path, and any query.
fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use stele_model::ErrorKind;

    use super::*;

    #[test]
    fn a_refused_url_is_named_without_its_secret() {
        for url in [
            "s3://key:planted-secret@bucket/x",
            "s3://planted-secret@bucket",
            "ftp://user:planted/secret@host/",
            "s3://bucket/x?token=planted-secret",
            "s3://bucket/x?region=a&secret=b",
            "s3://bucket/x?region=evil.example/",
            "s3://bucket/x?region=",
            "s3://bucket/x?",
            "file:///tmp/x?region=eu-west-1",
            "s3://bucket/x#secret",
            "s3:///x",
            "gopher://x",
            "file://host/relative",
            "",
        ] {
            let error = Tier::open(url, &[]).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Malformed, "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_s3_url_opens_without_a_request_and_keeps_its_prefix() {
        let vars = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_NOT_A_SETTING", "ignored"),
        ];
        let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let tier = Tier::open("s3://bucket/deep/prefix/", &vars).unwrap();
        let path = tier.tenant(&"a".parse().unwrap()).path("l0/x");
        assert_eq!(path.as_ref(), "deep/prefix/tenants/a/l0/x");
        assert_eq!(tier.url(), "s3://bucket/deep/prefix/");
    }

    /// Answers one request as S3 answers a wrong signature: with the request as it came.
    fn echo() -> std::net::SocketAddr {
        use std::io::{Read, Write};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 16 << 10];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]);
            let body = format!("<Error><CanonicalRequest>{request}</CanonicalRequest></Error>");
            let head = format!(
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n",
                body.len()
            );
            write!(stream, "{head}Connection: close\r\n\r\n{body}").unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_secret_is_in_no_message_even_when_the_store_repeats_it() {
        let endpoint = format!("http://{}", echo());
        let vars = [
            ("AWS_ENDPOINT_URL", &*endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "planted-key"),
            ("AWS_SESSION_TOKEN", "planted-session"),
        ];
        let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let tier = Tier::open("s3://bucket/x", &vars).unwrap();
        let error = tier.tenant(&"a".parse().unwrap()).get("l0/y").await;
        let error = error.unwrap_err();
        let whole = format!("{} {error:?} {tier:?}", stele_model::chain(&error));
        assert!(!whole.contains("planted-key"), "{whole}");
        // The cause is for the log, which leaves out every value of a secret variable.
        assert!(whole.contains("planted-session"), "{whole}");
        assert!(!error.to_string().contains("planted"), "{error}");
    }

    #[tokio::test]
    async fn a_request_is_signed_for_the_region_that_the_url_names() {
        for (query, region) in [("", "us-east-1"), ("?region=eu-west-1", "eu-west-1")] {
            let endpoint = format!("http://{}", echo());
            let vars = [
                ("AWS_ENDPOINT_URL", &*endpoint),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "k"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
            ];
            let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned()));
            let url = format!("s3://bucket/x{query}");
            let tier = Tier::open(&url, &vars).unwrap();
            assert_eq!(tier.url(), url);
            let error = tier.tenant(&"a".parse().unwrap()).get("l0/y").await;
            let error = format!("{:?}", error.unwrap_err());
            let scope = format!("/{region}/s3/aws4_request");
            assert!(error.contains(&scope), "{error}");
            assert!(error.contains("/bucket/x/tenants/a/l0/y "), "{error}");
        }
    }

    #[test]
    fn paths_and_file_urls_open_the_same_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let text = path.to_str().unwrap();
        Tier::open(text, &[]).unwrap();
        assert!(path.is_dir());
        Tier::open(&format!("file://{text}"), &[]).unwrap();
    }
}
