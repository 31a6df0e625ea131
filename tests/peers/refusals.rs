//! What `connect` says: no to a peer that may not, within two round trips, and never to one that may.

use std::time::Duration;

use endpoint_core::{ConnectError, Endpoint, Limits, Target, endpoint::DialOptions};
use endpoint_tests::{
    count,
    node::{self, Server},
    relay::Relay,
};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

const FRIEND: u8 = 2;
const STRANGER: u8 = 9;
const AT_ONCE: usize = 16;
const ONE_WAY: Duration = Duration::from_millis(200);

async fn server() -> Server {
    let limits = Limits::default().connections_per_peer(10_000);
    let friend = node::identity(FRIEND).fingerprint();
    Server::start_with(&format!("{friend}\n"), limits).await
}

/// Dials `tries` times; gives how often the answer was yes, "not authorised", and anything else.
async fn answers(dialler: &Endpoint, server: &Server, tries: usize) -> (usize, usize, Vec<String>) {
    let target = server.target();
    stream::iter(0..tries)
        .map(|_| dialler.connect(&target, node::PEER))
        .buffer_unordered(AT_ONCE)
        .fold((0, 0, Vec::new()), |(yes, no, mut other), answer| async move {
            match answer {
                Ok(connection) => {
                    connection.close();
                    (yes + 1, no, other)
                }
                Err(ConnectError::NotAuthorized { .. }) => (yes, no + 1, other),
                Err(error) => {
                    other.push(error.to_string());
                    (yes, no, other)
                }
            }
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_tells_every_refused_peer_and_no_other() {
    let server = server().await;
    let (friend, stranger) = (node::dialler(FRIEND).await, node::dialler(STRANGER).await);
    let tries = count(200, 1_000);
    // At the same time, so that a refusal of one could hit the other.
    let (refused, served) =
        tokio::join!(answers(&stranger, &server, tries), answers(&friend, &server, tries));
    println!("acceptance: {} of {tries} refused, {} of {tries} served", refused.1, served.0);
    assert_eq!(refused, (0, tries, vec![]));
    assert_eq!(served, (tries, 0, vec![]));
    // `connect` opens the stream that is the server's yes; the handler runs for the friend alone.
    assert_eq!(server.calls(), tries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_the_first_answer_tells_every_refused_peer_and_no_other() {
    let server = server().await;
    let (friend, stranger) = (node::dialler(FRIEND).await, node::dialler(STRANGER).await);
    for n in 0..count(100, 1_000) {
        for (dialler, may) in [(&friend, true), (&stranger, false)] {
            let options = DialOptions::default().tcp();
            // A server says nothing over TCP before it is asked, so an end before the first byte is its no.
            let answer = match dialler.connect_with(&server.target(), node::PEER, options).await {
                Ok(connection) => node::echo(&connection, b"hello").await.map_err(|error| {
                    assert!(error.is_not_authorized(), "try {n}: {error}");
                }),
                Err(error) => {
                    assert!(matches!(error, ConnectError::NotAuthorized { .. }), "{n}: {error}");
                    Err(())
                }
            };
            match may {
                true => assert_eq!(answer.as_deref(), Ok(&b"hello"[..]), "try {n}"),
                false => assert_eq!(answer, Err(()), "try {n}"),
            }
        }
    }
}

/// How many round trips a dial over a long line took, and what it said.
async fn round_trips(dialler: &Endpoint, server: &Server) -> (f64, Result<(), ConnectError>) {
    let relay = Relay::delaying(server.addr(), ONE_WAY).await;
    let target: Target =
        format!("peer://{}@{}", server.endpoint.fingerprint().hex(), relay.addr()).parse().unwrap();
    let begun = Instant::now();
    let answer = dialler.connect(&target, node::PEER).await;
    let trips = begun.elapsed().as_secs_f64() / (2.0 * ONE_WAY.as_secs_f64());
    let (up, down) = relay.datagrams();
    println!(
        "acceptance: {trips:.2} round trips, {up} datagrams up, {down} down: {}",
        answer.is_ok()
    );
    (trips, answer.map(|connection| connection.close()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yes_and_no_come_within_two_round_trips() {
    let server = server().await;
    let (friend, stranger) = (node::dialler(FRIEND).await, node::dialler(STRANGER).await);
    for _ in 0..count(3, 10) {
        let (no, yes) =
            tokio::join!(round_trips(&stranger, &server), round_trips(&friend, &server));
        assert!(matches!(no.1, Err(ConnectError::NotAuthorized { .. })), "{:?}", no.1);
        assert!(yes.1.is_ok(), "{:?}", yes.1);
        // Two round trips and what the machines take; a third one would show.
        assert!((2.0..2.9).contains(&no.0), "a no took {:.2} round trips", no.0);
        assert!((2.0..2.9).contains(&yes.0), "a yes took {:.2} round trips", yes.0);
    }
}
