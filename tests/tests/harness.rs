//! The tests' own S3 server is what they take it for.

#![allow(clippy::unwrap_used, clippy::panic)]

use stele_tests::localstack::LocalStack;
use stele_tests::server::get;

fn endpoint(server: &LocalStack) -> String {
    let env = server.env();
    let endpoint = env.iter().find(|(name, _)| name == "AWS_ENDPOINT_URL");
    endpoint.unwrap().1.clone()
}

fn create(url: &str, body: &str) -> u16 {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    let put = agent.put(url).header("If-None-Match", "*");
    put.send(body).unwrap().status().as_u16()
}

#[test]
fn of_racing_creates_one_wins_and_the_server_ends_with_its_handle() {
    let server = LocalStack::start().unwrap();
    server.create_bucket("race").unwrap();
    let endpoint = endpoint(&server);
    for round in 0..5 {
        let url = format!("{endpoint}/race/{round}");
        let url = url.as_str();
        let winners: Vec<u16> = std::thread::scope(|scope| {
            let race = |n: u32| scope.spawn(move || create(url, &n.to_string()));
            let racers: Vec<_> = (0..16).map(race).collect();
            racers.into_iter().map(|r| r.join().unwrap()).collect()
        });
        let won = winners.iter().filter(|status| **status == 200).count();
        assert_eq!(won, 1, "{winners:?}");
    }
    drop(server);
    assert!(get(&endpoint, "/_localstack/health").is_err());
}
