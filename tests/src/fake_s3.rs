//! A small S3 server in the test's own process that is honest or breaks one promise on purpose.
//!
//! It knows what `object_store` sends: PUT with `If-None-Match`, GET with a range, HEAD, LIST
//! version 2, DELETE one and many. It proves nothing about a good store (LocalStack does); it is
//! for what no good store does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::localstack::aws_env;
use crate::now_secs;
use crate::store::Store;

/// The promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// None.
    Honest,
    /// `If-None-Match` is ignored: every PUT overwrites.
    IgnoresConditions,
    /// A LIST does not show what was written in the last 30 s.
    ListsLate,
    /// Its clock is five minutes behind.
    ClockBehind,
    /// Every fourth PUT lands, but its sender gets a 500 or no answer at all.
    LosesReplies,
}

/// The running server; it ends with the handle.
#[derive(Debug)]
pub struct FakeS3 {
    state: Arc<State>,
    endpoint: String,
}

#[derive(Debug)]
struct State {
    lie: Lie,
    closed: AtomicBool,
    puts: AtomicU64,
    objects: Mutex<BTreeMap<String, Object>>,
}

#[derive(Debug, Clone)]
struct Object {
    body: Vec<u8>,
    secs: i64,
    written: Instant,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Response {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl FakeS3 {
    /// Starts the server on a free loopback port.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(lie: Lie) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(State {
            lie,
            closed: AtomicBool::new(false),
            puts: AtomicU64::new(0),
            objects: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Ok(Self { state, endpoint })
    }

    /// The store that it is.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::other("s3://bucket/prefix", aws_env(&self.endpoint))
    }

    /// PUTs that reached it.
    #[must_use]
    pub fn puts(&self) -> u64 {
        self.state.puts.load(Ordering::SeqCst)
    }
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is closed.
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Ok(Some(request)) = read_request(&mut reader) {
            let head = request.method == "HEAD";
            let Some(mut response) = self.answer(&request) else {
                return;
            };
            let length = response.body.len().to_string();
            response.headers.push(("Content-Length", length));
            let date = http_date(self.now_secs());
            response.headers.push(("Date", date));
            let mut out = format!("HTTP/1.1 {}\r\n", response.status).into_bytes();
            for (name, value) in &response.headers {
                out.extend(format!("{name}: {value}\r\n").bytes());
            }
            out.extend(b"\r\n");
            if !head {
                out.extend(&response.body);
            }
            let mut stream = stream;
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn now_secs(&self) -> i64 {
        let late = if self.lie == Lie::ClockBehind { 300 } else { 0 };
        now_secs() - late
    }

    /// `None` closes the connection without an answer.
    fn answer(&self, request: &Request) -> Option<Response> {
        let path = request.path.trim_start_matches('/');
        let (_, key) = path.split_once('/').unwrap_or((path, ""));
        Some(match (request.method.as_str(), key) {
            ("PUT", key) => return self.put(request, key),
            ("GET", "") => self.list(&request.query),
            ("GET" | "HEAD", key) => self.get(request, key),
            ("DELETE", key) => {
                self.objects().remove(key);
                plain("204 No Content")
            }
            ("POST", _) => self.delete_many(&request.body),
            _ => plain("501 Not Implemented"),
        })
    }

    fn objects(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, request: &Request, key: &str) -> Option<Response> {
        let number = self.puts.fetch_add(1, Ordering::SeqCst);
        let create = request.headers.contains_key("if-none-match");
        let mut objects = self.objects();
        if create && self.lie != Lie::IgnoresConditions && objects.contains_key(key) {
            return Some(error("412 Precondition Failed", "PreconditionFailed"));
        }
        let object = Object {
            body: request.body.clone(),
            secs: self.now_secs(),
            written: Instant::now(),
        };
        objects.insert(key.to_owned(), object);
        match (self.lie, number % 8) {
            (Lie::LosesReplies, 3) => return None,
            (Lie::LosesReplies, 7) => {
                return Some(error("500 Internal Server Error", "InternalError"));
            }
            _ => {}
        }
        let mut response = plain("200 OK");
        response.headers.push(("ETag", format!("\"{number}\"")));
        Some(response)
    }

    fn get(&self, request: &Request, key: &str) -> Response {
        let Some(object) = self.objects().get(key).cloned() else {
            return error("404 Not Found", "NoSuchKey");
        };
        let length = object.body.len();
        let mut response = plain("200 OK");
        response.body = object.body;
        let range = request.headers.get("range");
        if let Some((from, to)) = range.and_then(|r| byte_range(r, length)) {
            response.status = "206 Partial Content";
            response.body = response.body[from..to].to_vec();
            let content = format!("bytes {from}-{}/{length}", to - 1);
            response.headers.push(("Content-Range", content));
        }
        let modified = http_date(object.secs);
        response.headers.push(("Last-Modified", modified));
        response.headers.push(("ETag", "\"x\"".to_owned()));
        response
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Response {
        let asked = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (prefix, delimiter) = (asked("prefix"), asked("delimiter"));
        let after = asked("start-after");
        let mut xml = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
        let mut folders: Vec<String> = Vec::new();
        for (key, object) in self.objects().iter() {
            let fresh = object.written.elapsed() < Duration::from_secs(30);
            if self.lie == Lie::ListsLate && fresh || *key <= after && !after.is_empty() {
                continue;
            }
            let Some(rest) = key.strip_prefix(&prefix) else {
                continue;
            };
            match rest
                .split_once(&delimiter)
                .filter(|_| !delimiter.is_empty())
            {
                Some((folder, _)) => folders.push(format!("{prefix}{folder}{delimiter}")),
                None => xml.push_str(&format!(
                    "<Contents><Key>{key}</Key><LastModified>{}</LastModified>\
                     <ETag>\"x\"</ETag><Size>{}</Size></Contents>",
                    iso_date(object.secs),
                    object.body.len()
                )),
            }
        }
        folders.dedup();
        for folder in folders {
            xml.push_str(&format!(
                "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            ));
        }
        xml.push_str("</ListBucketResult>");
        xml_body("200 OK", &xml)
    }

    fn delete_many(&self, body: &[u8]) -> Response {
        let body = String::from_utf8_lossy(body);
        let mut objects = self.objects();
        let mut xml = String::from("<DeleteResult>");
        for part in body.split("<Key>").skip(1) {
            let key = part.split("</Key>").next().unwrap_or_default();
            objects.remove(key);
            xml.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
        }
        xml.push_str("</DeleteResult>");
        xml_body("200 OK", &xml)
    }
}

fn plain(status: &'static str) -> Response {
    Response {
        status,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn error(status: &'static str, code: &str) -> Response {
    xml_body(status, &format!("<Error><Code>{code}</Code></Error>"))
}

fn xml_body(status: &'static str, xml: &str) -> Response {
    Response {
        status,
        headers: vec![("Content-Type", "application/xml".to_owned())],
        body: xml.as_bytes().to_vec(),
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().context("no method")?.to_owned();
    let target = words.next().context("no target")?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length");
    let length = length.map_or(Ok(0), |text| text.parse())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(name), unescape(value))
    });
    Ok(Some(Request {
        method,
        path: unescape(path),
        query: query.collect(),
        headers,
        body,
    }))
}

fn unescape(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let hex: Vec<u8> = bytes.by_ref().take(2).collect();
            let hex = std::str::from_utf8(&hex).unwrap_or_default();
            out.push(u8::from_str_radix(hex, 16).unwrap_or(b'%'));
        } else {
            out.push(b);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The half-open range of `bytes=A-B`, `bytes=A-` and `bytes=-N`.
fn byte_range(header: &str, length: usize) -> Option<(usize, usize)> {
    let (from, to) = header.strip_prefix("bytes=")?.split_once('-')?;
    if from.is_empty() {
        return Some((length.saturating_sub(to.parse().ok()?), length));
    }
    let end = to.parse::<usize>().map_or(length, |to| to + 1);
    let from: usize = from.parse().ok()?;
    (from < length).then_some((from, end.min(length)))
}

/// Year, month, day, hour, minute, second of seconds since the epoch (days to civil date, by
/// Howard Hinnant's `civil_from_days`).
fn civil(secs: i64) -> (i64, usize, i64, i64, i64, i64) {
    let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = usize::try_from(month).unwrap_or(1);
    (
        year,
        month,
        day,
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

fn http_date(secs: i64) -> String {
    let (year, month, day, h, m, s) = civil(secs);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let weekday = weekday[usize::try_from(secs.div_euclid(86_400).rem_euclid(7)).unwrap_or(0)];
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = &months[(month - 1) * 3..month * 3];
    format!("{weekday}, {day:02} {month} {year} {h:02}:{m:02}:{s:02} GMT")
}

fn iso_date(secs: i64) -> String {
    let (year, month, day, h, m, s) = civil(secs);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.000Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_and_as_xml_have_them() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso_date(951_782_400), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn ranges_are_cut_to_the_object() {
        assert_eq!(byte_range("bytes=2-3", 10), Some((2, 4)));
        assert_eq!(byte_range("bytes=-3", 10), Some((7, 10)));
        assert_eq!(byte_range("bytes=8-99", 10), Some((8, 10)));
        assert_eq!(byte_range("bytes=10-", 10), None);
    }
}
