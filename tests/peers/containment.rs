//! What one connection, peer or handler does stays its own affair.

use std::{
    collections::BTreeSet,
    io::Read as _,
    time::{Duration, Instant},
};

use endpoint_core::{
    Access, Alpn, BindError, CloseCode, ConnectError, Connection, Endpoint, Handler, HandlerError,
    Limits, LinkError, Permit, RegisterError, Scope,
    endpoint::{DialOptions, FailureKind},
    handler::Echo,
};
use endpoint_tests::{
    node::{PEER, PUBLIC, Server, alpn, dialler, echo, identity},
    ports::free_port,
    relay::Relay,
    until,
    wire::{Client, close_code, socket},
    within,
};

use crate::process::{Given, Process, loopback, target};

fn line(options: &str, n: u8) -> String {
    format!("{options} {}\n", identity(n).fingerprint()).trim_start().to_owned()
}

/// Panics inside its future, once it has a stream.
#[derive(Debug)]
struct PanicsLate;

impl Handler for PanicsLate {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        let _streams = connection.accept_bi().await?;
        panic!("a handler's bug");
    }
}

/// Panics before there is a future.
#[derive(Debug)]
struct PanicsEarly;

impl Handler for PanicsEarly {
    #[allow(clippy::manual_async_fn, reason = "the panic must come before the future")]
    fn serve(
        &self,
        _connection: Connection,
        permit: Permit,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        assert!(permit.has_scope(&Scope::new("luck").unwrap()), "a handler's bug");
        async { Ok(()) }
    }
}

/// Gives up with an error.
#[derive(Debug)]
struct Fails;

impl Handler for Fails {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        connection.accept_bi().await?;
        Err("no more".into())
    }
}

#[tokio::test]
async fn a_handlers_panic_ends_its_own_connection_only() {
    let server = Server::start(&line("", 2)).await;
    server.endpoint.handle(alpn(b"late/1"), Access::default(), PanicsLate).unwrap();
    server.endpoint.handle(alpn(b"early/1"), Access::default(), PanicsEarly).unwrap();
    server.endpoint.handle(alpn(b"fails/1"), Access::default(), Fails).unwrap();
    let client = dialler(2).await;
    let bystander = client.connect(&server.target(), PEER).await.unwrap();
    for protocol in [&b"late/1"[..], b"early/1", b"fails/1", b"late/1"] {
        // A connection that dies before its first stream shows that as an error of the dial.
        if let Ok(connection) = client.connect(&server.target(), protocol).await {
            let _ = echo(&connection, b"boo").await;
            let told = within(5, "the peer is told", connection.closed()).await;
            assert!(matches!(told, LinkError::Closed(CloseCode::HandlerFailed)), "{told:?}");
        }
        assert_eq!(echo(&bystander, b"untouched").await.unwrap(), b"untouched");
    }
    let counters = server.endpoint.counters();
    assert_eq!((counters.handler_panics, counters.handler_errors), (3, 1));
    let next = client.connect(&server.target(), PEER).await.unwrap();
    assert_eq!(echo(&next, b"as before").await.unwrap(), b"as before");
    until("the dead are not listed", || server.endpoint.connections().len() == 2).await;
}

#[tokio::test]
async fn a_panic_is_told_with_its_own_code() {
    let server = Server::start("").await;
    server.endpoint.handle(alpn(b"early/1"), Access::Public, PanicsEarly).unwrap();
    let client = Client::new(&[b"early/1"]);
    let connection = client.dial(&socket(), server.addr(), "localhost").await.unwrap();
    let told = within(5, "the peer is told", connection.closed()).await;
    assert_eq!(close_code(&told), Some(6), "{told}");
}

#[tokio::test]
async fn handlers_come_and_go_while_the_endpoint_runs() {
    let server = Server::start(&line("", 2)).await;
    let (endpoint, client) = (&server.endpoint, dialler(2).await);
    let new = alpn(b"new/1");
    let before = client.connect(&server.target(), new.clone()).await;
    assert!(matches!(before, Err(ConnectError::NoCommonAlpn { .. })), "{before:?}");

    endpoint.handle(new.clone(), Access::default(), Echo).unwrap();
    let live = client.connect(&server.target(), new.clone()).await.unwrap();
    echo(&live, b"served").await.unwrap();
    let twice = endpoint.handle(new.clone(), Access::Public, Echo);
    assert_eq!(twice, Err(RegisterError::Duplicate { alpn: new.clone() }));
    assert_eq!(endpoint.handlers().last(), Some(&(new.clone(), Access::default())));

    assert_eq!(endpoint.remove(&new), Ok(true));
    assert_eq!(endpoint.remove(&new), Ok(false));
    echo(&live, b"live connections go on").await.unwrap();
    let after = client.connect(&server.target(), new.clone()).await;
    assert!(matches!(after, Err(ConnectError::NoCommonAlpn { .. })), "{after:?}");
    endpoint.handle(new.clone(), Access::Public, Echo).unwrap();
    client.connect(&server.target(), new).await.unwrap();
}

#[tokio::test]
async fn a_protocol_that_may_not_be_registered_stops_the_bind() {
    let bind = |alpn: Alpn, access: Access| {
        Endpoint::builder(identity(1))
            .handle(Alpn::ECHO_1, Access::default(), Echo)
            .handle(alpn, access, Echo)
            .bind()
    };
    let refused = bind(Alpn::ECHO_1, Access::Public).await.unwrap_err();
    let duplicate = RegisterError::Duplicate { alpn: Alpn::ECHO_1 };
    assert!(matches!(&refused, BindError::Handler(e) if *e == duplicate), "{refused}");
    let refused = bind(Alpn::ACME_TLS_1, Access::Public).await.unwrap_err();
    assert!(matches!(refused, BindError::Handler(RegisterError::Reserved { .. })), "{refused}");
    let refused = bind(Alpn::PING_1, Access::Enroll).await.unwrap_err();
    assert!(matches!(refused, BindError::Handler(RegisterError::EnrollOnly { .. })), "{refused}");
}

#[tokio::test]
async fn the_order_of_registration_is_the_servers_preference_in_every_start() {
    let names: [&[u8]; 5] = [b"c/1", b"a/1", b"e/1", b"b/1", b"d/1"];
    let mut reversed = names;
    reversed.reverse();
    let socket = socket();
    let mut chosen = BTreeSet::new();
    for start in 0..20 {
        let mut builder = Endpoint::builder(identity(1)).listen("127.0.0.1:0".parse().unwrap());
        for name in names {
            builder = builder.handle(alpn(name), Access::Public, Echo);
        }
        let server = builder.bind().await.unwrap();
        let offers = if start % 2 == 0 { &names } else { &reversed };
        let client = Client::new(offers);
        let dialled = client.dial(&socket, server.local_addrs()[0], "localhost").await.unwrap();
        let data = dialled.handshake_data().unwrap();
        let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
        chosen.insert(data.protocol.unwrap());
    }
    assert_eq!(chosen, BTreeSet::from([b"c/1".to_vec()]));
}

#[tokio::test]
async fn a_full_table_ends_its_longest_silent_stranger_for_a_newcomer() {
    let limits = Limits::default().connections(2);
    let server = Server::start_with("", limits).await;
    let client = dialler(2).await;
    let first = client.connect(&server.target(), PUBLIC).await.unwrap();
    let second = client.connect(&server.target(), PUBLIC).await.unwrap();
    echo(&first, b"one").await.unwrap();
    echo(&second, b"two").await.unwrap();
    // Nobody gives way before its answer is acknowledged, which may take a client 25 ms.
    let third = async {
        loop {
            match client.connect(&server.target(), PUBLIC).await {
                Err(ConnectError::Overloaded { .. }) => {}
                connected => return connected.unwrap(),
            }
        }
    };
    let third = within(5, "a place", third).await;
    echo(&third, b"three").await.unwrap();
    until("one has given way", || server.endpoint.connections().len() == 2).await;
    let ended = within(5, "the first is told", first.closed()).await;
    assert!(matches!(ended, LinkError::Closed(CloseCode::Overloaded)), "{ended:?}");
    echo(&second, b"lives").await.unwrap();
    assert_eq!(server.endpoint.counters().gave_way, 1);
}

#[tokio::test]
async fn connections_of_one_key_are_limited_and_its_grant_can_change_the_limit() {
    let limits = Limits::default().connections_per_peer(2);
    let lines = [line("", 2), line("max-connections=\"1\"", 3), line("max-connections=\"3\"", 4)];
    let server = Server::start_with(&lines.concat(), limits).await;
    for (key, limit) in [(2, 2), (3, 1), (4, 3)] {
        let client = dialler(key).await;
        let mut live = Vec::new();
        for _ in 0..limit {
            live.push(client.connect(&server.target(), PEER).await.unwrap());
        }
        let over = client.connect(&server.target(), PEER).await;
        assert!(
            matches!(over, Err(ConnectError::TooManyConnections { .. })),
            "key {key}: {over:?}"
        );
        for connection in &live {
            echo(connection, b"the others live").await.unwrap();
        }
        live.remove(0).close();
        let mine = || {
            let all = server.endpoint.connections();
            all.iter().filter(|c| c.peer == Some(identity(key).fingerprint())).count()
        };
        until("the place is free", || mine() == limit - 1).await;
        client.connect(&server.target(), PEER).await.unwrap();
    }
}

#[tokio::test]
async fn half_a_hello_is_given_up_at_the_deadline_and_its_slot_with_it() {
    let limits =
        Limits::default().handshake_deadline(Duration::from_millis(500)).unvalidated_in_flight(1);
    let server = Server::start_with("", limits).await;
    let relay = Relay::before(server.addr()).await;
    // A post-quantum hello is two datagrams; the second never comes.
    relay.pass_only(1);
    let slow = tokio::spawn({
        let addr = relay.addr();
        async move { Client::new(&[PUBLIC]).dial(&socket(), addr, "localhost").await.map(drop) }
    });
    until("the half has arrived", || server.endpoint.counters().arrivals == 1).await;
    let client = Client::new(&[PUBLIC]);
    let socket = socket();
    client.dial(&socket, server.addr(), "localhost").await.unwrap();
    assert!(server.endpoint.counters().retries > 0, "the one slot is taken");
    until("the half is given up", || server.endpoint.counters().handshake_failures == 1).await;
    client.dial(&socket, server.addr(), "localhost").await.unwrap();
    slow.abort();
}

#[tokio::test]
async fn a_silent_tcp_client_is_cut_off_at_the_deadline() {
    let limits = Limits::default().handshake_deadline(Duration::from_millis(300));
    let server = Server::start_with("", limits).await;
    let addr = server.addr();
    for bytes in [&b""[..], &[22, 3, 1, 2, 0, 1, 0]] {
        let began = Instant::now();
        let ended = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            std::io::Write::write_all(&mut stream, bytes).unwrap();
            stream.read(&mut [0; 16])
        });
        let ended = within(5, "the client is cut off", ended).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert!(began.elapsed() >= Duration::from_millis(290));
    }
    assert_eq!(server.endpoint.counters().handshake_failures, 2);
}

#[tokio::test]
async fn with_no_budget_for_unvalidated_addresses_every_arrival_gets_a_retry_and_connects() {
    let server = Server::start_with("", Limits::default().unvalidated_in_flight(0)).await;
    for n in 1..=20 {
        // A socket and a token store of its own each time: nothing is remembered.
        let connection = Client::new(&[PUBLIC]);
        let connection = connection.dial(&socket(), server.addr(), "localhost").await.unwrap();
        let counters = server.endpoint.counters();
        // The second datagram of a hello may get a Retry of its own.
        assert!(counters.retries >= n, "{counters:?}");
        assert_eq!(counters.refused, 0);
        connection.close(0_u32.into(), b"");
    }
}

#[tokio::test]
async fn a_failed_dial_is_not_repeated_at_once_and_success_clears_the_memory() {
    let addr = loopback(free_port());
    let target = target(addr);
    let limits = Limits::default().handshake_deadline(Duration::from_millis(700));
    let client = Endpoint::builder(identity(2)).limits(limits).bind().await.unwrap();
    let tcp = DialOptions::default().tcp();

    let first = client.connect(&target, PUBLIC).await;
    let dead = |dialled: &Result<Connection, ConnectError>| {
        matches!(dialled, Err(ConnectError::Timeout { .. } | ConnectError::Unreachable { .. }))
    };
    assert!(dead(&first), "{first:?}");
    let second = client.connect(&target, PUBLIC).await;
    let Err(ConnectError::RecentlyFailed { kind, wait, .. }) = second else {
        panic!("dialled again: {second:?}");
    };
    assert_eq!(kind, FailureKind::Unreachable);
    assert!(wait <= Duration::from_secs(1));
    // The other carrier is another matter: it is tried, and remembered by itself.
    let over_tcp = client.connect_with(&target, PUBLIC, tcp.clone()).await;
    assert!(dead(&over_tcp), "{over_tcp:?}");
    let over_tcp = client.connect_with(&target, PUBLIC, tcp).await;
    assert!(matches!(over_tcp, Err(ConnectError::RecentlyFailed { .. })), "{over_tcp:?}");

    let server = Endpoint::builder(identity(1))
        .listen(addr)
        .handle(alpn(PUBLIC), Access::Public, Echo)
        .bind()
        .await
        .unwrap();
    tokio::time::sleep(wait).await;
    client.connect(&target, PUBLIC).await.unwrap();
    server.shutdown_within(Duration::from_secs(1)).await;
    drop(server);
    // Cleared by the success: the pause after the next failure is that of a first one.
    until("the server is gone", || std::net::UdpSocket::bind(addr).is_ok()).await;
    let failed = client.connect(&target, PUBLIC).await;
    assert!(dead(&failed), "{failed:?}");
    let remembered = client.connect(&target, PUBLIC).await;
    match remembered {
        Err(ConnectError::RecentlyFailed { wait, .. }) => assert!(wait <= Duration::from_secs(1)),
        other => panic!("not remembered: {other:?}"),
    }
}

#[tokio::test]
async fn a_server_out_of_file_descriptors_keeps_its_connections_and_recovers() {
    let state = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = Process::start(port, state.path(), Given { files: 48, ..Given::default() });
    let (target, client) = (target(loopback(port)), dialler(2).await);
    let live = client.connect(&target, PEER).await.unwrap();
    let crowd: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(loopback(port)).unwrap()).collect();
    for _ in 0..5 {
        assert_eq!(echo(&live, b"served in need").await.unwrap(), b"served in need");
    }
    drop(crowd);
    let tcp = DialOptions::default().tcp();
    let again = client.connect_with(&target, PEER, tcp);
    let again = within(10, "it accepts again", again).await.unwrap();
    assert_eq!(echo(&again, b"recovered").await.unwrap(), b"recovered");
}

/// Takes streams and never reads from them.
#[derive(Debug)]
struct Hoards;

impl Handler for Hoards {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        let mut held = Vec::new();
        while let Ok(streams) = connection.accept_bi().await {
            held.push(streams);
        }
        Ok(())
    }
}

/// Bytes that the client can hand over to a handler that reads none of them.
async fn hoarded(connection: &Connection) -> usize {
    let mut held = Vec::new();
    let mut sent = 0;
    for _ in 0..6 {
        let opening = tokio::time::timeout(Duration::from_secs(1), connection.open_bi());
        let Ok(Ok((mut send, receive))) = opening.await else { break };
        let chunk = [0; 16 * 1024];
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_millis(300), send.write_all(&chunk)).await
        {
            sent += chunk.len();
        }
        held.push((send, receive));
    }
    sent
}

#[tokio::test]
async fn a_stranger_makes_a_public_handler_hold_little_and_an_authorised_key_more() {
    let server = Server::start(&line("", 2)).await;
    server.endpoint.handle(alpn(b"hoard/1"), Access::Public, Hoards).unwrap();
    for (n, most) in [(3, 256 * 1024), (2, 4 * 1024 * 1024)] {
        let client = dialler(n).await;
        let connection =
            within(9, "dial", client.connect(&server.target(), b"hoard/1")).await.unwrap();
        let held = hoarded(&connection).await;
        assert!(held <= most, "key {n}: {held} bytes");
        assert!(held > most / 8, "key {n}: {held} bytes");
    }
}
