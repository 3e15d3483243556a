//! A store that writes down every request, for snapshots of a request list.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::fault::relative;

/// One request as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `PUT`, `PUT-NEW`, `GET`, `HEAD`, `LIST` or `DELETE`.
    pub method: &'static str,
    /// The key (or listed prefix) relative to its tenant.
    pub key: String,
    /// Bytes sent or received; 0 for a request without a body or without success.
    pub size_bytes: u64,
}

impl Request {
    /// Method and key with digests, operation ids and versions of heads replaced by a word, so
    /// that the list of one scenario is the same for every run.
    #[must_use]
    pub fn shape(&self) -> String {
        let mut out = format!("{} ", self.method);
        let mut rest = self.key.as_str();
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            let hex = |w: &str| w.bytes().all(|b| b.is_ascii_hexdigit());
            match word.len() {
                32 if hex(word) => out.push_str("<digest>"),
                20 if word.starts_with("0922337203685") => out.push_str("<reversed version>"),
                _ => out.push_str(word),
            }
            let separator = tail.chars().next();
            out.extend(separator);
            rest = &tail[separator.map_or(0, char::len_utf8)..];
        }
        out
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.method, self.key, self.size_bytes)
    }
}

/// A wrapper that records the requests which pass through it. Clones share the record.
#[derive(Debug, Clone)]
pub struct CountingStore {
    inner: Arc<dyn ObjectStore>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CountingStore({})", self.inner)
    }
}

impl CountingStore {
    /// Records what is sent to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            requests: Arc::default(),
        }
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything recorded since the last call, in the order it was sent.
    #[must_use]
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests())
    }

    /// [`Request::shape`] of everything since the last call, one per line.
    #[must_use]
    pub fn take_shapes(&self) -> String {
        let shapes: Vec<String> = self.take().iter().map(Request::shape).collect();
        shapes.join("\n")
    }

    /// Records a request when it is sent; returns its place, to add the bytes that came back.
    fn sent(&self, method: &'static str, path: Option<&Path>, size_bytes: usize) -> usize {
        let key = path.map_or("", |path| relative(path.as_ref())).to_owned();
        let mut requests = self.requests();
        requests.push(Request {
            method,
            key,
            size_bytes: size_bytes as u64,
        });
        requests.len() - 1
    }

    fn received(&self, at: usize, bytes: &Range<u64>) {
        if let Some(request) = self.requests().get_mut(at) {
            request.size_bytes = bytes.end - bytes.start;
        }
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let method = match opts.mode {
            PutMode::Create => "PUT-NEW",
            _ => "PUT",
        };
        self.sent(method, Some(location), payload.content_length());
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.sent("PUT-MULTIPART", Some(location), 0);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let at = self.sent(if head { "HEAD" } else { "GET" }, Some(location), 0);
        let got = self.inner.get_opts(location, options).await?;
        if !head {
            self.received(at, &got.range);
        }
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let at = self.sent("GET", Some(location), 0);
        let got = self.inner.get_ranges(location, ranges).await?;
        let bytes: u64 = got.iter().map(|bytes| bytes.len() as u64).sum();
        self.received(at, &(0..bytes));
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let noted = locations.inspect(move |location| {
            if let Ok(location) = location {
                this.sent("DELETE", Some(location), 0);
            }
        });
        self.inner.delete_stream(noted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.sent("LIST", prefix, 0);
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.sent("LIST", prefix, 0);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.sent("LIST", prefix, 0);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.sent("COPY", Some(to), 0);
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_hides_what_differs_between_runs() {
        let request = |key: &str| Request {
            method: "GET",
            key: key.to_owned(),
            size_bytes: 1,
        };
        let digest = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            request(&format!("l0/{digest}-12-13.parquet")).shape(),
            "GET l0/<digest>-12-13.parquet"
        );
        assert_eq!(
            request("table/heads/09223372036854775800.json.zst").shape(),
            "GET table/heads/<reversed version>.json.zst"
        );
        assert_eq!(request("l0").shape(), "GET l0");
    }
}
