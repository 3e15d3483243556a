//! An HTTP proxy in the test's own process: before a function URL it names the host that the URL is
//! known by, before an S3 server it breaks what a network and a store break.
//!
//! One request is one connection, to either side. It changes no byte of a body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503, and the request never arrives.
    Unavailable,
    /// The connection is reset, and the request never arrives.
    Reset,
    /// The request has its effect; its sender gets a 500.
    CommitThenFail,
    /// The request has its effect; its sender gets no answer.
    CommitThenDrop,
    /// The request has its effect so many ms later than it was sent.
    DelayMs(u64),
    /// The request has its effect at once; the answer comes so many ms later.
    CommitThenDelayMs(u64),
}

/// Which requests meet which faults.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Of the requests with this method, or of all.
    pub method: Option<&'static str>,
    /// So many of a hundred.
    pub percent: u32,
    /// Each as often as any other.
    pub kinds: Vec<Fault>,
    /// Every choice follows from it.
    pub seed: u64,
}

/// The running proxy; it ends with the handle.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    url: String,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    /// In place of what the sender says, or beside it.
    headers: Vec<(&'static str, String)>,
    is_closed: AtomicBool,
    plan: Mutex<Option<(Faults, StdRng)>>,
    met: Mutex<Vec<Fault>>,
    /// Requests that have not been served to their end, whether or not their senders still wait.
    held: AtomicUsize,
}

struct Message {
    /// The request line or the status line.
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Proxy {
    /// Starts a proxy to `upstream` (`host:port`) that sets `headers` in every request.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(upstream: &str, headers: &[(&'static str, &str)]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            upstream: upstream.trim_start_matches("http://").to_owned(),
            headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
            is_closed: AtomicBool::new(false),
            plan: Mutex::default(),
            met: Mutex::default(),
            held: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.is_closed.load(Ordering::SeqCst) {
                    break;
                }
                let serving = Arc::clone(&serving);
                // A sender that went away is no error of the proxy.
                std::thread::spawn(move || drop(serving.serve(&stream)));
            }
        });
        Ok(Self { shared, url })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on these faults, or none.
    pub fn set_faults(&self, faults: Option<Faults>) {
        let plan = faults.map(|faults| {
            let random = StdRng::seed_from_u64(faults.seed);
            (faults, random)
        });
        *lock(&self.shared.plan) = plan;
    }

    /// The faults that requests have met so far.
    #[must_use]
    pub fn met(&self) -> Vec<Fault> {
        lock(&self.shared.met).clone()
    }

    /// Waits until no request is held: what was sent before has had its effect by then, however
    /// late, or never has one.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub fn wait_until_idle(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.shared.held.load(Ordering::SeqCst) > 0 {
            ensure!(Instant::now() < deadline, "requests are held after 30 s");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is closed.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> Result<()> {
        let Some(request) = read(&mut BufReader::new(stream), false)? else {
            return Ok(());
        };
        self.held.fetch_add(1, Ordering::SeqCst);
        let served = self.serve_request(&request, stream);
        self.held.fetch_sub(1, Ordering::SeqCst);
        served
    }

    fn serve_request(&self, request: &Message, stream: &TcpStream) -> Result<()> {
        let fault = self.draw(request);
        match fault {
            Some(Fault::Unavailable) => return refuse(stream, "503 Service Unavailable"),
            // What was not read yet makes the closing a reset; what was read makes it an end.
            // Either way the sender has no answer.
            Some(Fault::Reset) => return Ok(stream.shutdown(Shutdown::Both)?),
            Some(Fault::DelayMs(ms)) => std::thread::sleep(Duration::from_millis(ms)),
            _ => {}
        }
        let answer = self.forward(request)?;
        match fault {
            Some(Fault::CommitThenFail) => refuse(stream, "500 Internal Server Error"),
            Some(Fault::CommitThenDrop) => Ok(stream.shutdown(Shutdown::Both)?),
            Some(Fault::CommitThenDelayMs(ms)) => {
                std::thread::sleep(Duration::from_millis(ms));
                write(stream, &answer)
            }
            _ => write(stream, &answer),
        }
    }

    fn draw(&self, request: &Message) -> Option<Fault> {
        let mut plan = lock(&self.plan);
        let (faults, random) = plan.as_mut()?;
        let method = request.start.split(' ').next();
        let is_meant = faults.method.is_none() || faults.method == method;
        if !is_meant || !random.random_ratio(faults.percent, 100) {
            return None;
        }
        let fault = faults.kinds[random.random_range(0..faults.kinds.len())];
        lock(&self.met).push(fault);
        Some(fault)
    }

    fn forward(&self, request: &Message) -> Result<Message> {
        let mut headers = request.headers.clone();
        let is_set = |name: &str| {
            let own = name.eq_ignore_ascii_case("connection");
            own || self
                .headers
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        headers.retain(|(name, _)| !is_set(name));
        let own = self
            .headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.clone()));
        headers.extend(own);
        headers.push(("Connection".to_owned(), "close".to_owned()));
        let upstream = TcpStream::connect(&self.upstream)?;
        let request = Message {
            start: request.start.clone(),
            headers,
            body: request.body.clone(),
        };
        write(&upstream, &request)?;
        let head = request.start.starts_with("HEAD ");
        let answer = read(&mut BufReader::new(&upstream), head)?;
        answer.context("the server gave no answer")
    }
}

fn refuse(stream: &TcpStream, status: &str) -> Result<()> {
    let answer = Message {
        start: format!("HTTP/1.1 {status}"),
        headers: vec![("Content-Length".to_owned(), "0".to_owned())],
        body: Vec::new(),
    };
    write(stream, &answer)
}

/// Writes a message and says that no other follows.
fn write(mut stream: &TcpStream, message: &Message) -> Result<()> {
    let mut out = format!("{}\r\n", message.start).into_bytes();
    for (name, value) in &message.headers {
        if !name.eq_ignore_ascii_case("connection") {
            out.extend(format!("{name}: {value}\r\n").bytes());
        }
    }
    out.extend(b"Connection: close\r\n\r\n");
    out.extend(&message.body);
    stream.write_all(&out)?;
    Ok(())
}

/// Reads a request, or an answer to HEAD or to anything else; a chunked body keeps its framing.
fn read(reader: &mut BufReader<&TcpStream>, is_head: bool) -> Result<Option<Message>> {
    let mut start = String::new();
    if reader.read_line(&mut start)? == 0 {
        return Ok(None);
    }
    let start = start.trim_end().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the head has no end");
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let header = |wanted: &str| {
        let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if is_head {
        // It tells a length and has no body.
    } else if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        read_chunks(reader, &mut body)?;
    } else if let Some(length) = header("content-length") {
        body.resize(length.parse()?, 0);
        reader.read_exact(&mut body)?;
    } else if start.starts_with("HTTP/") && !start.contains(" 204") && !start.contains(" 304") {
        reader.read_to_end(&mut body)?;
    }
    Ok(Some(Message {
        start,
        headers,
        body,
    }))
}

fn read_chunks(reader: &mut BufReader<&TcpStream>, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let from = body.len();
        ensure!(reader.read_until(b'\n', body)? > 0, "a chunk is missing");
        let size = std::str::from_utf8(&body[from..])?;
        let size = size.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16)?;
        let from = body.len();
        if size == 0 {
            // No trailers: what speaks to this proxy sends none.
            reader.read_until(b'\n', body)?;
            return Ok(());
        }
        body.resize(from + size + 2, 0);
        reader.read_exact(&mut body[from..])?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::server::get;

    fn proxy(kinds: &[Fault]) -> (Proxy, Proxy) {
        // The second, without an upstream, is the server: it answers 503 to all.
        let server = Proxy::start("127.0.0.1:1", &[]).unwrap();
        let all = |kinds: &[Fault]| {
            Some(Faults {
                method: None,
                percent: 100,
                kinds: kinds.to_vec(),
                seed: 1,
            })
        };
        server.set_faults(all(&[Fault::Unavailable]));
        let proxy = Proxy::start(server.url(), &[]).unwrap();
        proxy.set_faults((!kinds.is_empty()).then(|| all(kinds)).flatten());
        (proxy, server)
    }

    #[test]
    fn each_fault_is_what_its_name_says() {
        for (kinds, answer, arrives) in [
            (&[][..], Some(503), true),
            (&[Fault::Unavailable], Some(503), false),
            (&[Fault::Reset], None, false),
            (&[Fault::CommitThenFail], Some(500), true),
            (&[Fault::CommitThenDrop], None, true),
            (&[Fault::DelayMs(1)], Some(503), true),
            (&[Fault::CommitThenDelayMs(1)], Some(503), true),
        ] {
            let (proxy, server) = proxy(kinds);
            let got = get(proxy.url(), "/x").ok().map(|reply| reply.status);
            assert_eq!(got, answer, "{kinds:?}");
            assert_eq!(!server.met().is_empty(), arrives, "{kinds:?}");
            assert_eq!(proxy.met(), kinds);
        }
    }

    #[test]
    fn it_is_idle_when_what_was_delayed_has_arrived() {
        let (proxy, server) = proxy(&[Fault::DelayMs(300)]);
        let mut sender = TcpStream::connect(proxy.url().trim_start_matches("http://")).unwrap();
        sender.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        while proxy.met().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(sender);
        proxy.wait_until_idle().unwrap();
        assert_eq!(server.met().len(), 1);
    }
}
