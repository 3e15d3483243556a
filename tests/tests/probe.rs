//! A store that breaks a promise is refused at the start, by the name of the promise.

#![allow(clippy::unwrap_used, clippy::panic)]

use stele_tests::fake_s3::{FakeS3, Lie};
use stele_tests::server::Server;

fn refusal(lie: Lie) -> String {
    let fake = FakeS3::start(lie).unwrap();
    let refused = Server::start(&fake.store(), &[]);
    let error = refused.expect_err("the server must not start");
    let error = format!("{error:#}");
    assert!(error.contains("exit status: 1"), "{error}");
    error
}

#[test]
fn an_honest_store_is_accepted() {
    let fake = FakeS3::start(Lie::Honest).unwrap();
    let server = Server::start(&fake.store(), &[]).unwrap();
    server.write("m value=1 1700000000000000\n").unwrap();
    assert_eq!(
        server.sql_number("SELECT count(*) FROM samples").unwrap(),
        1
    );
    server.stop().unwrap();
}

#[test]
fn a_store_that_ignores_if_none_match_is_refused() {
    let error = refusal(Lie::IgnoresConditions);
    assert!(error.contains("If-None-Match"), "{error}");
}

#[test]
fn a_store_whose_list_lags_is_refused() {
    let error = refusal(Lie::ListsLate);
    assert!(error.contains("LIST after PUT"), "{error}");
}

#[test]
fn a_store_whose_clock_is_five_minutes_behind_is_refused() {
    let error = refusal(Lie::ClockBehind);
    assert!(error.contains("clock"), "{error}");
}
