//! Finding the token of a request, in all the places where clients put one.
//!
//! `Authorization: Bearer <token>`, `Token <token>` (InfluxDB 2.x) or `Token <user>:<token>` (its
//! 1.x compatibility), `Basic <user>:<token>` or `<token>:<anything>` (Librato, InfluxDB 1.x), and
//! on the routes of InfluxDB 1.x the parameters `u` and `p`. The header wins.

use std::fmt;

use axum::extract::Request;
use axum::http::Uri;
use axum::http::header::AUTHORIZATION;
use axum::http::uri::PathAndQuery;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::refusal::Refusal;

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How every token begins.
const TOKEN_PREFIX: &str = "stele_";

/// What may be a token. `Debug` does not show it.
pub(super) struct Presented(String);

impl Presented {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// Of a user name and a password the one that looks like a token; else the password.
    fn of_pair(user: &str, password: &str) -> Self {
        if user.starts_with(TOKEN_PREFIX) && !password.starts_with(TOKEN_PREFIX) {
            Self(user.to_owned())
        } else {
            Self(password.to_owned())
        }
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(redacted)")
    }
}

/// Takes the credentials out of the request. With `by_query` they may be in the query string.
pub(super) fn take(request: &mut Request, by_query: bool) -> Result<Presented, Refusal> {
    let in_query = if by_query { from_query(request)? } else { None };
    let headers = request.headers().get_all(AUTHORIZATION);
    let mut headers = headers.iter();
    let (first, second) = (headers.next(), headers.next());
    if second.is_some() {
        return Err(Refusal::Unreadable);
    }
    let presented = match first {
        Some(header) => {
            let text = header.to_str().map_err(|_| Refusal::Unreadable)?;
            from_header(text).ok_or(Refusal::Unreadable)?
        }
        None => in_query.ok_or(Refusal::NoToken)?,
    };
    request.headers_mut().remove(AUTHORIZATION);
    Ok(presented)
}

fn from_header(text: &str) -> Option<Presented> {
    let (scheme, rest) = text.trim().split_once(' ')?;
    let rest = rest.trim();
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    if is("bearer") {
        return Some(Presented(rest.to_owned()));
    }
    if is("token") {
        return Some(match rest.split_once(':') {
            Some((user, password)) => Presented::of_pair(user, password),
            None => Presented(rest.to_owned()),
        });
    }
    if is("basic") {
        let bytes = BASE64.decode(rest).ok()?;
        let pair = String::from_utf8(bytes).ok()?;
        let (user, password) = pair.split_once(':')?;
        return Some(Presented::of_pair(user, password));
    }
    None
}

/// Reads `u` and `p`, and removes them from the request's address.
fn from_query(request: &mut Request) -> Result<Option<Presented>, Refusal> {
    let Some(query) = request.uri().query() else {
        return Ok(None);
    };
    let (mut user, mut password) = (None, None);
    let mut others = Vec::new();
    for pair in query.split('&') {
        let mut read = url::form_urlencoded::parse(pair.as_bytes());
        match read.next() {
            Some((name, value)) if name == "u" => user = Some(value.into_owned()),
            Some((name, value)) if name == "p" => password = Some(value.into_owned()),
            _ => others.push(pair),
        }
    }
    if user.is_none() && password.is_none() {
        return Ok(None);
    }
    let (user, password) = (user.unwrap_or_default(), password.unwrap_or_default());
    let presented = Presented::of_pair(&user, &password);
    let path = request.uri().path();
    let address = if others.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", others.join("&"))
    };
    let mut parts = request.uri().clone().into_parts();
    let address: PathAndQuery = address.parse().map_err(|_| Refusal::Unreadable)?;
    parts.path_and_query = Some(address);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::Unreadable)?;
    let empty = presented.reveal().is_empty();
    Ok((!empty).then_some(presented))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const TOKEN: &str = "stele_0123_abc";

    fn request(uri: &str, header: Option<&str>) -> Request {
        let mut request = axum::http::Request::get(uri);
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        request.body(Body::empty()).unwrap()
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64.encode(pair))
    }

    #[test]
    fn a_token_is_found_wherever_clients_put_it() {
        for header in [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN} "),
            format!("Token {TOKEN}"),
            format!("Token user:{TOKEN}"),
            format!("Token {TOKEN}:x"),
            basic(&format!("me@example.com:{TOKEN}")),
            basic(&format!("{TOKEN}:")),
            basic(&format!("{TOKEN}:x:y")),
            basic(&format!("user:{TOKEN}"))
                .trim_end_matches('=')
                .to_owned(),
        ] {
            let mut request = request("/write?u=x&p=y", Some(&header));
            let found = take(&mut request, true).unwrap();
            assert_eq!(found.reveal(), TOKEN, "{header}");
            assert!(!request.headers().contains_key(AUTHORIZATION), "{header}");
        }
        for query in [
            format!("u=me&p={TOKEN}"),
            format!("p={TOKEN}&db=x"),
            format!("u={TOKEN}"),
            format!("u={TOKEN}&p=x"),
            "p=stele%5F0123%5Fabc".to_owned(),
        ] {
            let mut request = request(&format!("/write?{query}"), None);
            assert_eq!(take(&mut request, true).unwrap().reveal(), TOKEN, "{query}");
        }
    }

    #[test]
    fn credentials_leave_the_address_and_nothing_else_does() {
        let uri = format!("/write?precision=s&u=a%20b&db=x%26y&p={TOKEN}&rp");
        let mut request = request(&uri, None);
        take(&mut request, true).unwrap();
        assert_eq!(request.uri(), "/write?precision=s&db=x%26y&rp");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for header in [
            "Bearer",
            "Digest username=\"x\"",
            "Basic !!!",
            "Basic eA==",
            TOKEN,
            "",
        ] {
            let refused = take(&mut request("/write", Some(header)), true).unwrap_err();
            assert!(
                matches!(refused, Refusal::Unreadable),
                "{header}: {refused}"
            );
        }
        let mut twice = request("/write", Some("Bearer a"));
        let second = "Bearer b".parse().unwrap();
        twice.headers_mut().append(AUTHORIZATION, second);
        assert!(matches!(take(&mut twice, true), Err(Refusal::Unreadable)));
        for (uri, by_query) in [
            ("/write", true),
            ("/write?u=&p=", true),
            ("/sql?p=stele_0123_abc", false),
        ] {
            let refused = take(&mut request(uri, None), by_query).unwrap_err();
            assert!(matches!(refused, Refusal::NoToken), "{uri}");
        }
    }
}
