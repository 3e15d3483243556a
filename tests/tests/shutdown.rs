//! SIGTERM: stop accepting, finish what is in flight, exit 0.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use stele_tests::server::{Server, get};
use stele_tests::store::Store;

fn half_a_request(server: &Server, body: &str) -> TcpStream {
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /write?precision=u HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        body.len(),
        &body[..body.len() / 2]
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_request_in_flight_is_finished_and_its_sample_is_kept() {
    let store = Store::local().unwrap();
    let mut server = Server::start(&store, &[]).unwrap();
    let body = "in_flight value=42 1700000000000000\n";
    let mut stream = half_a_request(&server, body);
    // The server must have seen the request before the signal.
    std::thread::sleep(Duration::from_millis(300));
    server.terminate().unwrap();
    let refused = Instant::now() + Duration::from_secs(10);
    while get(server.url(), "/health").is_ok() {
        assert!(
            Instant::now() < refused,
            "still accepting 10 s after SIGTERM"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    stream
        .write_all(&body.as_bytes()[body.len() / 2..])
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert!(answer.to_lowercase().contains("stele-receipt:"), "{answer}");
    let status = server.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    let again = Server::start(&store, &[]).unwrap();
    let value = "SELECT CAST(value AS BIGINT) FROM samples WHERE metric = 'in_flight'";
    assert_eq!(again.sql_number(value).unwrap(), 42);
    again.stop().unwrap();
}

#[test]
fn an_idle_server_stops_at_once_with_exit_code_0() {
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let begun = Instant::now();
    server.stop().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}
