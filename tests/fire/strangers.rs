//! One address, one site, many prefixes: whatever they do, others are served.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use endpoint_core::Limits;
use endpoint_tests::{
    count, long,
    node::{Server, identity},
    until,
    wire::{Client, socket_at},
};

use crate::{
    crowd::{Crowd, WAYS, Way},
    honest::{Served, client, over_quic, over_tcp},
};

/// Keys of peers: one from elsewhere, one that shares the crowd's /24 and was never seen before.
const PEERS: [(u8, &str); 2] = [(2, "127.0.1.2"), (3, "127.0.9.200")];

fn lines() -> String {
    PEERS.iter().map(|(n, _)| format!("{}\n", identity(*n).fingerprint())).collect()
}

/// Smaller than the default, so that a small crowd fills it.
fn limits() -> Limits {
    Limits::default().handshakes_in_flight(64).connections(400).connections_per_peer(1_000)
}

/// The same without what keeps a crowd in its place.
fn weakened() -> Limits {
    limits()
        .handshakes_per_address(64)
        .handshakes_per_prefix(64)
        .handshakes_reserved(0)
        .connections_per_address(300)
        .connections_per_prefix(300)
        .connections_reserved(0)
        .give_way_after(Duration::from_secs(3_600))
}

fn one_address() -> Vec<IpAddr> {
    vec![Ipv4Addr::new(127, 0, 9, 9).into()]
}

/// All of 127.0.9.0/24 but the peer's own.
fn one_site() -> Vec<IpAddr> {
    (1..=254).filter(|n| *n != 200).map(|n| Ipv4Addr::new(127, 0, 9, n).into()).collect()
}

fn many_prefixes(number: usize) -> Vec<IpAddr> {
    let place = |n: usize| Ipv4Addr::new(127, 64 + (n >> 8) as u8, n as u8, 1).into();
    (0..number).map(place).collect()
}

/// Peers and strangers come on both carriers as long as the crowd is there.
async fn visit(server: &Server, lasts: Duration, strangers: bool) -> [Served; 2] {
    let address = server.addr();
    let [mut peers, mut others] = [Served::default(), Served::default()];
    let ends = Instant::now() + lasts;
    for round in 0_u8.. {
        if Instant::now() >= ends {
            break;
        }
        for (key, place) in PEERS {
            let (client, began) = (client(Some(key)), Instant::now());
            let visit = over_quic(&client, address, place).await;
            peers.add(&format!("peer {key} over QUIC"), began, visit);
            let began = Instant::now();
            peers.add(
                &format!("peer {key} over TCP"),
                began,
                over_tcp(&client, address, place).await,
            );
        }
        if strangers {
            let (client, place) = (client(None), format!("127.0.{}.7", 20 + round % 200));
            let began = Instant::now();
            others.add("stranger over QUIC", began, over_quic(&client, address, &place).await);
            let began = Instant::now();
            others.add("stranger over TCP", began, over_tcp(&client, address, &place).await);
        }
    }
    [peers, others]
}

async fn serves_others_under(what: &str, places: Vec<IpAddr>, strangers: bool) {
    let server = Server::start_with(&lines(), limits()).await;
    let crowd = Crowd::gather(server.addr(), places, &WAYS, 100);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let lasts = Duration::from_secs(count(4, 60) as u64);
    let [peers, others] = visit(&server, lasts, strangers).await;
    let counters = server.endpoint.counters();
    println!(
        "acceptance: {what} on both carriers for {lasts:?}, {} tries: peers {} of {}, p99 {:?}; strangers {} of {}, p99 {:?}; {} held, {} gave way, {} retries",
        crowd.tries(),
        peers.waits.len(),
        peers.waits.len() + peers.failures.len(),
        peers.p99(),
        others.waits.len(),
        others.waits.len() + others.failures.len(),
        others.p99(),
        counters.held,
        counters.gave_way,
        counters.retries,
    );
    assert!(peers.failures.is_empty(), "{:#?}", peers.failures);
    assert!(others.failures.is_empty(), "{:#?}", others.failures);
    assert!(!peers.waits.is_empty() && (!others.waits.is_empty() || !strangers));
    assert!(counters.retries > 0, "the crowd fills the budget of unproven addresses");
    if long() {
        assert!(peers.p99() <= Duration::from_millis(1_500), "{:?}", peers.p99());
        assert!(others.p99() <= Duration::from_millis(1_500), "{:?}", others.p99());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_that_does_its_worst_keeps_nobody_else_out() {
    serves_others_under("one address", one_address(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_site_that_does_its_worst_keeps_out_neither_a_peer_in_it_nor_anybody_else() {
    serves_others_under("one /24", one_site(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_without_number_keep_no_peer_out() {
    let prefixes = count(1_000, 10_000);
    serves_others_under(&format!("{prefixes} prefixes"), many_prefixes(prefixes), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakened_one_address_keeps_others_out() {
    let server = Server::start_with(&lines(), weakened()).await;
    let _crowd = Crowd::gather(server.addr(), one_address(), &[Way::HalfHello], 300);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut others = Served::default();
    for _ in 0..3 {
        let began = Instant::now();
        let visit = over_tcp(&client(None), server.addr(), "127.0.20.7").await;
        others.add("stranger", began, visit);
    }
    let slow = others.waits.iter().filter(|wait| **wait > Duration::from_millis(1_500)).count();
    assert!(slow + others.failures.len() > 0, "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_honest_clients_of_one_address_is_served_to_the_last() {
    let (clients, limits) = match long() {
        true => (2_000, Limits::default().handshake_deadline(Duration::from_secs(20))),
        false => (
            300,
            Limits::default().handshakes_in_flight(48).handshake_deadline(Duration::from_secs(20)),
        ),
    };
    let (served, counters) = burst(clients, limits).await;
    println!(
        "acceptance: {clients} clients of one address at once: {} served, {} had to wait, slowest {:?}",
        served.waits.len(),
        counters.held,
        served.waits.iter().max(),
    );
    assert!(served.failures.is_empty(), "{:#?}", served.failures);
    assert_eq!((counters.refused, counters.gave_way), (0, 0));
    assert!(counters.held > 0, "there were more than can shake hands at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakened_a_queue_of_eight_throws_out_most_of_a_burst() {
    let limits = Limits::default().handshakes_in_flight(8).waiting_connections(8);
    let (served, _) = burst(200, limits).await;
    assert!(served.failures.len() > 20, "{} failed", served.failures.len());
}

async fn burst(clients: usize, limits: Limits) -> (Served, endpoint_core::event::CounterSnapshot) {
    let server = Server::start_with("", limits).await;
    let address = server.addr();
    let visits: Vec<_> = (0..clients)
        .map(|_| {
            tokio::spawn(async move {
                let began = Instant::now();
                let client = client(None);
                let visit = async {
                    let mut stream =
                        client.dial_tcp("127.0.30.1", address, "localhost", &[]).await?;
                    tokio::io::AsyncWriteExt::write_all(&mut stream, b"word").await?;
                    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut [0; 4]).await
                };
                (began, visit.await.map(drop).map_err(|error| error.to_string()))
            })
        })
        .collect();
    let mut served = Served::default();
    for visit in visits {
        let (began, visit) = visit.await.expect("a visit ends");
        served.add("client", began, visit);
    }
    (served, server.endpoint.counters())
}

/// Tokens of NEW_TOKEN frames that a client has kept.
#[derive(Debug, Default)]
struct Kept(std::sync::Mutex<Vec<bytes::Bytes>>);

impl quinn_proto::TokenStore for Kept {
    fn insert(&self, _: &str, token: bytes::Bytes) {
        self.0.lock().expect("a lock").push(token);
    }

    fn take(&self, _: &str) -> Option<bytes::Bytes> {
        self.0.lock().expect("a lock").pop()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_kept_a_token_is_no_worse_off_than_a_newcomer_and_no_better_once_room_is_scarce() {
    let server = Server::start_with("", limits()).await;
    let kept = std::sync::Arc::new(Kept::default());
    let mut config = client(None).quic();
    config.token_store(kept.clone());
    let tokens = || kept.0.lock().expect("a lock").len();
    let socket = socket_at("127.0.9.200");
    let visit = async || {
        let dialled = socket.connect_with(config.clone(), server.addr(), "localhost");
        let connection = dialled.map_err(|error| error.to_string())?;
        tokio::time::timeout(Duration::from_secs(5), connection)
            .await
            .map_err(|_| "no answer".to_owned())?
            .map_err(|error| error.to_string())
    };
    let first = visit().await.unwrap();
    until("a token has come", || tokens() > 0).await;
    first.close(0_u32.into(), b"");

    // While there is room the token saves the Retry.
    let before = (tokens(), server.endpoint.counters().retries);
    let second = visit().await.unwrap();
    assert!(tokens() != before.0 || before.0 > 0);
    assert_eq!(server.endpoint.counters().retries, before.1, "no Retry");
    until("more tokens have come", || tokens() > 0).await;
    second.close(0_u32.into(), b"");

    let _crowd = Crowd::gather(
        server.addr(),
        one_site(),
        &[Way::FirstFlight, Way::ProvesOnly, Way::HalfHello],
        100,
    );
    until("the budget is full", || server.endpoint.counters().retries > 50).await;
    for n in 0..10 {
        let had = tokens();
        let began = Instant::now();
        let connection =
            visit().await.unwrap_or_else(|why| panic!("visit {n}, {had} tokens: {why}"));
        println!("visit {n} with {had} tokens took {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
        connection.close(0_u32.into(), b"");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_looks_for_a_challenge_gets_its_answer_under_fire() {
    let server = Server::start_with("", limits()).await;
    let _crowd = Crowd::gather(server.addr(), one_site(), &WAYS, 100);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let authority = Client::new(&[b"acme-tls/1"]).wants_x509();
    for n in 0..10 {
        let began = Instant::now();
        // None is pending, which is an answer too, and it has to be the server's.
        let answer = authority.dial_tcp("127.0.40.1", server.addr(), "web.example", &[]).await;
        let answer = answer.map(drop).unwrap_err().to_string();
        assert!(answer.contains("NoApplicationProtocol"), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(5), "look {n} took {:?}", began.elapsed());
    }
}
