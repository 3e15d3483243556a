//! Without tokens: is the request addressed to the loopback interface, and sent from there?
//!
//! A browser sends a page's request wherever the page's names resolve to, with the name in `Host`
//! (DNS rebinding), and a cross-site POST with the page in `Origin`. Neither can be forged by a
//! page.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::header::{HOST, HeaderName, ORIGIN};

use super::refusal::Refusal;

/// How much of a foreign value a message repeats, characters.
const SHOWN_MAX: usize = 100;

pub(super) fn check(request: &Request) -> Result<(), Refusal> {
    let mut hosts = values(request, HOST).peekable();
    if hosts.peek().is_none() {
        return Err(Refusal::NoHost);
    }
    // An absolute target overrides the header.
    let target = request.uri().authority().map(|a| a.as_str().to_owned());
    for host in hosts.chain(target) {
        if !is_loopback(&host) {
            return Err(refused("Host", &host));
        }
    }
    for origin in values(request, ORIGIN) {
        let host = origin.split_once("://").map(|(_, host)| host);
        if !host.is_some_and(is_loopback) {
            return Err(refused("Origin", &origin));
        }
    }
    Ok(())
}

fn values(request: &Request, name: HeaderName) -> impl Iterator<Item = String> {
    let values = request.headers().get_all(name).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn refused(header: &'static str, value: &str) -> Refusal {
    let value = value.chars().take(SHOWN_MAX).collect();
    Refusal::NotLoopback { header, value }
}

/// Whether `host`, with or without a port, names the loopback interface.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else {
                return false;
            };
            let Ok(address) = address.parse::<Ipv6Addr>() else {
                return false;
            };
            return address.is_loopback() && (after.is_empty() || is_port(after.strip_prefix(':')));
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let address = name.parse::<Ipv4Addr>();
    let local = name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback());
    local && (port.is_none() || is_port(port))
}

fn is_port(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        for host in [
            "localhost",
            "LocalHost:8686",
            "127.0.0.1",
            "127.255.0.9:1",
            "[::1]",
            "[::1]:65535",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "example.com",
            "localhost.example.com",
            "example.com:localhost",
            "localhost.",
            "127.0.0.1.nip.io",
            "128.0.0.1",
            "0.0.0.0",
            "127.1",
            "0x7f000001",
            "2130706433",
            "localhost@example.com",
            "localhost:80@example.com",
            "localhost:65536",
            "localhost:",
            "localhost:+80",
            "[::1",
            "[::1]x",
            "[::2]",
            "::1",
            "[::ffff:127.0.0.1]",
            "localhost, example.com",
            "169.254.169.254",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
