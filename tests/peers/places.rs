//! How many connections a key may have, which of them give way, and what its holder is told.

use std::time::{Duration, Instant};

use endpoint_core::{Access, CloseCode, ConnectError, Limits, LinkError, handler::Echo};
use endpoint_tests::{
    forge::Forge,
    node::{PEER, PUBLIC, Server, alpn, dialler, echo, identity},
    until,
    wire::{Client, Shown, socket},
    within,
};
use futures_util::future::join_all;

/// A line that lets identity `n` in.
fn line(options: &str, n: u8) -> String {
    format!("{options} {}\n", identity(n).fingerprint()).trim_start().to_owned()
}

/// Connections of a key unless told otherwise.
const MOST: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_connections_give_way_to_a_peer_that_comes_back() {
    let server = Server::start(&line("", 2)).await;
    let forge = Forge::before(server.addr(), &[("127.0.0.1", true)]).await;
    let (client, socket) = (Client::new(&[PEER]).showing(Shown::raw(2)), socket());
    let mut cut_off = Vec::new();
    for _ in 0..MOST - 1 {
        let connection = client.dial(&socket, forge.addr(), "localhost").await.unwrap();
        cut_off.push(connection);
    }
    until("they are served", || server.endpoint.connections().len() == MOST - 1).await;
    // One that lives, as silent as the others.
    let friend = dialler(2).await;
    let alive = friend.connect(&server.target(), PEER).await.unwrap();
    drop(forge);

    let began = Instant::now();
    let target = server.target();
    let back = join_all((1..MOST).map(|_| friend.connect(&target, PEER))).await;
    // One after the other, each for as long as a dead one is asked, it would be ten times that.
    let most = Duration::from_secs(if endpoint_tests::long() { 4 } else { 20 });
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
    for connection in &back {
        let connection = connection.as_ref().unwrap();
        within(5, "an echo", echo(connection, b"back")).await.unwrap();
    }
    within(5, "an echo", echo(&alive, b"untouched")).await.unwrap();
    assert_eq!(server.endpoint.connections().len(), MOST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_has_all_its_connections_is_told_its_limit_at_once() {
    let lines = [line("", 2), line("max-connections=\"1\"", 3)].concat();
    let server = Server::start(&lines).await;
    for (key, protocol, limit) in [(2, PEER, MOST), (3, PEER, 1), (3, PUBLIC, 1)] {
        let client = dialler(key).await;
        let mut live = Vec::new();
        for _ in 0..limit {
            live.push(client.connect(&server.target(), protocol).await.unwrap());
        }
        let began = Instant::now();
        let over = client.connect(&server.target(), protocol).await.unwrap_err();
        // All of them answer, so nothing is waited for.
        let most = Duration::from_millis(if endpoint_tests::long() { 900 } else { 9_000 });
        assert!(began.elapsed() < most, "{:?}", began.elapsed());
        let told = Some(u32::try_from(limit).unwrap());
        let known =
            matches!(&over, ConnectError::TooManyConnections { limit, .. } if *limit == told);
        assert!(known, "{over:?}");
        assert!(over.to_string().contains(&format!("of your key ({limit}) at ")), "{over}");
        for connection in &live {
            echo(connection, b"the others live").await.unwrap();
            connection.close();
        }
        until("they are gone", || server.endpoint.connections().is_empty()).await;
    }
}

#[tokio::test]
async fn a_lowered_limit_reaches_connections_that_are_there_the_longest_silent_first() {
    let server = Server::start(&(line("", 2) + &line("", 3))).await;
    let (client, other) = (dialler(2).await, dialler(3).await);
    let bystander = other.connect(&server.target(), PEER).await.unwrap();
    let mut live = Vec::new();
    for protocol in [PEER, PUBLIC, PEER] {
        live.push(client.connect(&server.target(), protocol).await.unwrap());
        until("it is served", || server.endpoint.connections().len() == live.len() + 1).await;
    }
    let lowered = line("max-connections=\"1\"", 2) + &line("", 3);
    assert_eq!(server.trust(&lowered).await, 2);
    let newest = live.pop().unwrap();
    for connection in live {
        let told = within(5, "the peer is told", connection.closed()).await;
        assert!(matches!(told, LinkError::Closed(CloseCode::TooManyConnections)), "{told:?}");
    }
    echo(&newest, b"the newest lives").await.unwrap();
    echo(&bystander, b"another key lives").await.unwrap();
    assert_eq!(server.trust(&lowered).await, 0, "once is enough");
}

#[tokio::test]
async fn lowered_limits_of_the_endpoint_end_what_is_above_them_and_tell_keys_the_number() {
    let limits = Limits::default().connections_per_peer(4);
    let server = Server::start_with(&line("", 2), limits.clone()).await;
    let (client, stranger) = (dialler(2).await, dialler(9).await);
    let mut live = Vec::new();
    for _ in 0..4 {
        live.push(client.connect(&server.target(), PEER).await.unwrap());
    }
    let mut strangers = Vec::new();
    for _ in 0..2 {
        strangers.push(stranger.connect(&server.target(), PUBLIC).await.unwrap());
    }
    until("they are served", || server.endpoint.connections().len() == 6).await;
    assert_eq!(server.endpoint.set_limits(limits.clone()), 0, "the same ones end nobody");

    // The first has just said something, so the second has been silent for longest.
    echo(&live[0], b"word").await.unwrap();
    assert_eq!(server.endpoint.set_limits(limits.clone().connections_per_peer(3)), 1);
    let told = within(5, "the peer is told", live.remove(1).closed()).await;
    assert!(matches!(told, LinkError::Closed(CloseCode::TooManyConnections)), "{told:?}");
    let over = client.connect(&server.target(), PEER).await.unwrap_err();
    let new = matches!(&over, ConnectError::TooManyConnections { limit: Some(3), .. });
    assert!(new, "{over:?}");

    // Peers fill all that there may be, and give way to nobody.
    assert_eq!(server.endpoint.set_limits(limits.connections(2)), 2);
    for connection in &strangers {
        let told = within(5, "the stranger is told", connection.closed()).await;
        assert!(matches!(told, LinkError::Closed(CloseCode::Overloaded)), "{told:?}");
    }
    for connection in &live {
        echo(connection, b"lives").await.unwrap();
    }
}

#[tokio::test]
async fn a_handler_registered_anew_with_a_stricter_rule_reaches_live_connections() {
    let server = Server::start(&line("", 2)).await;
    let friend = dialler(2).await.connect(&server.target(), PUBLIC).await.unwrap();
    let stranger = dialler(9).await.connect(&server.target(), PUBLIC).await.unwrap();
    echo(&stranger, b"public").await.unwrap();
    let public = alpn(PUBLIC);
    server.endpoint.remove(&public).unwrap();
    echo(&stranger, b"goes on").await.unwrap();
    server.endpoint.handle(public, Access::default(), Echo).unwrap();
    let told = within(5, "the stranger is told", stranger.closed()).await;
    assert!(matches!(told, LinkError::Closed(CloseCode::Revoked)), "{told:?}");
    echo(&friend, b"allowed by the new rule").await.unwrap();
    let shown = server.endpoint.connections();
    assert_eq!(shown.iter().map(|info| info.access.as_str()).collect::<Vec<_>>(), ["peer"]);
    // From now on the connection hangs on its grant.
    assert_eq!(server.trust("").await, 1);
    within(5, "the friend is told", friend.closed()).await;
}
