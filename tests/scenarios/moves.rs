//! Clients that move while they are served, and rules that follow them.

use std::time::{Duration, Instant};

use endpoint_core::{Limits, TlsIdentity};
use endpoint_tests::{
    node::identity,
    path::{Impairment, Moves, Path},
    wire::{close_code, socket},
    within,
};

use crate::site::{Site, browser, dial, dial_and_keep_alive, echo, fetch, peer, socket_of};

/// Requests over a path on which the client moves after 1 s and then every 5 s.
async fn moving(address: bool) {
    let site = Site::start().await;
    let moves = Moves { address, first: Duration::from_secs(1), every: Duration::from_secs(5) };
    let path =
        Path::to(site.addr(), 19, Impairment { moves: Some(moves), ..Impairment::default() });
    let mut connection = dial_and_keep_alive(path.addr()).await.unwrap();
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(7) {
        let asked = Instant::now();
        fetch(&mut connection, 30_000).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let moved = path.tally().moved;
    println!("acceptance: moved {moved} times (address: {address}): slowest answer {slowest:.0?}");
    assert!(moved >= 2);
    let most = Duration::from_secs(if endpoint_tests::long() { 3 } else { 30 });
    assert!(slowest < most, "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rebind_port() {
    moving(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebind_addr() {
    moving(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connectionmigration() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 20, Impairment::default());
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, 1_000).await.unwrap();
    for address in ["127.0.0.1:0", "127.0.0.9:0", "127.0.0.1:0"] {
        let other = std::net::UdpSocket::bind(address).unwrap();
        socket_of(&connection).rebind(other).unwrap();
        within(10, "an answer after a move", fetch(&mut connection, 50_000)).await.unwrap();
    }
}

fn line(options: &str) -> String {
    format!("{options} {}\n", identity(2).fingerprint()).trim_start().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_from_rule_follows_a_peer_that_moves() {
    // The path's own address, from which the client seems to come at first, and nothing else.
    let only = line("from=\"127.0.0.1/32\"");
    let site = Site::with(Limits::default(), &only, TlsIdentity::SelfSigned).await;
    let path = Path::to(site.addr(), 21, Impairment::default());
    let connection = peer().dial(&socket(), path.addr(), "localhost").await.unwrap();
    assert_eq!(echo(&connection, b"here").await.unwrap(), b"here");
    path.move_clients(false);
    assert_eq!(echo(&connection, b"another port").await.unwrap(), b"another port");
    path.move_clients(true);
    // What it asks from there is not answered, and the connection ends.
    assert!(echo(&connection, b"elsewhere").await.is_err(), "answered from outside of its network");
    let end = within(5, "the peer is told", connection.closed()).await;
    println!("moved out of its network: {end} ({:?})", close_code(&end));
    assert_eq!(site.peer.calls(), 1);
}

/// The twin: with a network that holds every address of the path the same peer is served wherever it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_moves_within_its_network_is_served_on() {
    let wide = line("from=\"127.0.0.0/8\"");
    let site = Site::with(Limits::default(), &wide, TlsIdentity::SelfSigned).await;
    let path = Path::to(site.addr(), 22, Impairment::default());
    let connection = peer().dial(&socket(), path.addr(), "localhost").await.unwrap();
    for place in [&b"here"[..], b"there", b"elsewhere"] {
        assert_eq!(echo(&connection, place).await.unwrap(), place);
        let before = place_of(&site);
        path.move_clients(true);
        // The server learns that the new address answers when something crosses between them. Who moves again
        // before that has been nobody knows where.
        let settles = async {
            loop {
                assert_eq!(echo(&connection, b"moved").await.unwrap(), b"moved");
                if place_of(&site).is_some_and(|place| Some(place) != before) {
                    return;
                }
            }
        };
        within(10, "the new address has answered", settles).await;
    }
}

/// Where the one peer has answered from, if nothing newer is open.
fn place_of(site: &Site) -> Option<std::net::SocketAddr> {
    let connections = site.endpoint.connections();
    connections.iter().find(|one| one.unproven.is_none()).map(|one| one.remote)
}
