//! How an endpoint ends and begins again: drain, kill -9, restart.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use endpoint_core::{
    Access, CloseCode, ConnectError, Connection, Endpoint, Handler, HandlerError, Limits,
    LinkError, Permit, RecvStream, SendStream, endpoint::DialOptions, handler::Echo,
};
use endpoint_tests::{
    node::{PEER, alpn, dialler, echo, identity},
    ports::free_port,
    relay::Relay,
    until,
    wire::Client,
    within,
};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::{sync::watch, task::JoinSet};

use crate::process::{Given, Process, loopback, target, trusting};

async fn serving(handler: impl Handler, deadline: Duration) -> Endpoint {
    Endpoint::builder(identity(1))
        .listen(loopback(0))
        .authorized(trusting(2))
        .handle(alpn(PEER), Access::default(), handler)
        .drain_deadline(deadline)
        .bind()
        .await
        .unwrap()
}

/// Takes streams, and answers each only when the test says so.
#[derive(Clone, Debug)]
struct Patient {
    accepted: Arc<AtomicUsize>,
    go: watch::Receiver<bool>,
}

impl Handler for Patient {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        let mut streams = JoinSet::new();
        while let Ok((send, recv)) = connection.accept_bi().await {
            self.accepted.fetch_add(1, Ordering::SeqCst);
            streams.spawn(answer(send, recv, self.go.clone()));
        }
        while streams.join_next().await.is_some() {}
        Ok(())
    }

    fn takes_tcp(&self) -> bool {
        true
    }
}

async fn answer(
    mut send: SendStream,
    mut recv: RecvStream,
    mut go: watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let request = recv.read_to_end(1 << 20).await?;
    let _ = go.wait_for(|go| *go).await;
    send.write_all(&request).await?;
    send.finish_and_wait().await
}

/// Sends `bytes` many bytes on a stream of its own; whether all of them came back.
async fn asks(connection: Connection, n: usize, bytes: usize) -> bool {
    let request: Vec<u8> = (0..bytes).map(|i| (i * 31 + n) as u8).collect();
    echo(&connection, &request).await.is_ok_and(|answer| answer == request)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_no_accepted_stream_and_refuses_newcomers_at_once() {
    const CONNECTIONS: usize = 5;
    const STREAMS: usize = 50;
    let (begin, go) = watch::channel(false);
    let accepted = Arc::new(AtomicUsize::new(0));
    let patient = Patient { accepted: Arc::clone(&accepted), go };
    let server = serving(patient, Duration::from_secs(20)).await;
    let target = target(server.local_addrs()[0]);
    let client = dialler(2).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(client.connect(&target, PEER).await.unwrap());
    }
    let mut requests = JoinSet::new();
    for n in 0..CONNECTIONS * STREAMS {
        requests.spawn(asks(connections[n % CONNECTIONS].clone(), n, 8 * 1024));
    }
    until("all streams are in flight", || accepted.load(Ordering::SeqCst) == CONNECTIONS * STREAMS)
        .await;

    let began = Instant::now();
    let shutdown = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown().await }
    });
    // Newcomers are told no, on both carriers, while the old are still served.
    let newcomer = dialler(2).await;
    loop {
        let asked = Instant::now();
        match newcomer.connect(&target, PEER).await {
            // The shutdown had not begun yet.
            Ok(early) => early.close(),
            Err(ConnectError::Overloaded { .. } | ConnectError::ShuttingDown { .. }) => {
                let took = asked.elapsed();
                assert!(took < Duration::from_millis(500), "the refusal took {took:?}");
                break;
            }
            Err(other) => panic!("not a refusal: {other:?}"),
        }
    }
    let tcp = newcomer.connect_with(&target, PEER, DialOptions::default().tcp()).await;
    assert!(tcp.is_err(), "{tcp:?}");
    // Streams opened now may be taken or not; those that are taken count.
    for n in 0..CONNECTIONS * 10 {
        requests.spawn(asks(connections[n % CONNECTIONS].clone(), n, 100));
    }
    assert!(!shutdown.is_finished(), "the shutdown waits for what was accepted");
    begin.send(true).unwrap();

    let report = within(20, "the shutdown ends", shutdown).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(report.cut, 0, "{report:?}");
    let answered = within(20, "every request ends", requests.join_all()).await;
    let answered = answered.into_iter().filter(|answered| *answered).count();
    assert_eq!(answered, accepted.load(Ordering::SeqCst), "streams accepted and streams answered");
    assert!(answered >= CONNECTIONS * STREAMS);
    for connection in connections {
        let told = within(5, "the peer is told", connection.closed()).await;
        assert!(matches!(told, LinkError::Closed(CloseCode::ShuttingDown)), "{told:?}");
    }
}

#[tokio::test]
async fn a_drain_carries_a_tcp_stream_to_its_end() {
    let (begin, go) = watch::channel(false);
    let accepted = Arc::new(AtomicUsize::new(0));
    let patient = Patient { accepted: Arc::clone(&accepted), go };
    let server = serving(patient, Duration::from_secs(20)).await;
    let target = target(server.local_addrs()[0]);
    let tcp = DialOptions::default().tcp();
    let connection = dialler(2).await.connect_with(&target, PEER, tcp).await.unwrap();
    let request = tokio::spawn(asks(connection, 1, 1 << 20));
    until("the stream is accepted", || accepted.load(Ordering::SeqCst) == 1).await;
    let shutdown = tokio::spawn(async move { server.shutdown().await });
    begin.send(true).unwrap();
    assert!(within(20, "the request ends", request).await.unwrap());
    let report = within(20, "the shutdown ends", shutdown).await.unwrap();
    assert_eq!((report.finished, report.cut), (1, 0));
}

/// Never returns.
#[derive(Debug)]
struct Stubborn;

impl Handler for Stubborn {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        connection.draining().await;
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_handler_that_never_ends_is_cut_at_the_deadline() {
    let deadline = Duration::from_millis(1200);
    let server = serving(Stubborn, deadline).await;
    let client = dialler(2).await;
    let connection = client.connect(&target(server.local_addrs()[0]), PEER).await.unwrap();
    until("the peer is served", || server.connections().len() == 1).await;
    let began = Instant::now();
    let report = server.shutdown().await;
    let took = began.elapsed();
    assert!(took < deadline + Duration::from_millis(300), "the shutdown took {took:?}");
    assert_eq!((report.finished, report.cut), (0, 1));
    let told = within(5, "the peer is told", connection.closed()).await;
    assert!(matches!(told, LinkError::Closed(CloseCode::ShuttingDown)), "{told:?}");
}

#[tokio::test]
async fn an_idle_endpoint_shuts_down_at_once() {
    let server = serving(Echo, Duration::from_secs(20)).await;
    let client = dialler(2).await;
    let connection = client.connect(&target(server.local_addrs()[0]), PEER).await.unwrap();
    echo(&connection, b"hello").await.unwrap();
    let began = Instant::now();
    let report = server.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((report.finished, report.cut), (1, 0));
    let told = within(5, "the peer is told", connection.closed()).await;
    assert!(matches!(told, LinkError::Closed(CloseCode::ShuttingDown)), "{told:?}");
}

async fn lively_dialler(idle: Duration) -> Endpoint {
    let limits = Limits::default()
        .keep_alive(Duration::from_millis(200))
        .idle_timeout(idle)
        .handshake_deadline(idle);
    Endpoint::builder(identity(2)).limits(limits).bind().await.unwrap()
}

/// What the client learns when its server is killed and started again.
async fn learns_of_a_restart(first: &Path, second: &Path, idle: Duration) -> LinkError {
    let port = free_port();
    let server = Process::start(port, first, Given::default());
    let client = lively_dialler(idle).await;
    let connection = client.connect(&target(loopback(port)), PEER).await.unwrap();
    echo(&connection, b"before").await.unwrap();
    drop(server);
    let _again = Process::start(port, second, Given::default());
    within(30, "the client learns of it", connection.closed()).await
}

#[tokio::test]
async fn a_peer_learns_of_kill_nine_and_restart_by_stateless_reset() {
    let state = tempfile::tempdir().unwrap();
    let told = learns_of_a_restart(state.path(), state.path(), Duration::from_secs(25)).await;
    assert!(matches!(told, LinkError::PeerRestarted), "{told:?}");
}

#[tokio::test]
async fn a_server_with_other_secrets_cannot_reset_its_predecessors_connections() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let told = learns_of_a_restart(first.path(), second.path(), Duration::from_secs(3)).await;
    assert!(matches!(told, LinkError::TimedOut), "{told:?}");
}

/// Takes a client's Retry token from one process to the next.
async fn carries_a_retry_token(first: &Path, second: &Path) -> Result<Connection, ConnectError> {
    let retry = Given { unvalidated_in_flight: 0, ..Given::default() };
    let port = free_port();
    let server = Process::start(port, first, retry);
    let relay = Relay::before(loopback(port)).await;
    relay.hold_after_retry();
    let client = lively_dialler(Duration::from_secs(8)).await;
    let target = target(relay.addr());
    let dial = tokio::spawn(async move {
        let connection = client.connect(&target, PEER).await?;
        echo(&connection, b"with a token").await.unwrap();
        Ok(connection)
    });
    until("the client has a token", || relay.retries() > 0).await;
    drop(server);
    let _again = Process::start(port, second, retry);
    relay.release();
    within(30, "the dial ends", dial).await.unwrap()
}

#[tokio::test]
async fn a_retry_token_survives_a_restart() {
    let state = tempfile::tempdir().unwrap();
    carries_a_retry_token(state.path(), state.path()).await.unwrap();
}

#[tokio::test]
async fn a_retry_token_of_another_server_is_worth_nothing() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dialled = carries_a_retry_token(first.path(), second.path()).await;
    assert!(dialled.is_err(), "{dialled:?}");
}

#[tokio::test]
async fn neither_a_second_listener_nor_a_dialler_of_one_identity_resets_the_firsts_connections() {
    let state = tempfile::tempdir().unwrap();
    let listener = |port| {
        Endpoint::builder(identity(1))
            .listen(loopback(port))
            .state_dir(state.path())
            .authorized(trusting(2))
            .handle(alpn(PEER), Access::default(), Echo)
            .bind()
    };
    let (first, second) =
        (listener(free_port()).await.unwrap(), listener(free_port()).await.unwrap());
    // A dialler with the listeners' identity; the server that it dials sees its address.
    let elsewhere = Endpoint::builder(identity(3))
        .listen(loopback(0))
        .authorized(trusting(1))
        .handle(alpn(PEER), Access::default(), Echo)
        .bind()
        .await
        .unwrap();
    let dialling = Endpoint::builder(identity(1)).state_dir(state.path()).bind().await.unwrap();
    let there =
        format!("peer://{}@{}", identity(3).fingerprint().hex(), elsewhere.local_addrs()[0]);
    let _dialled = dialling.connect(&there.parse().unwrap(), PEER).await.unwrap();
    let dialler_addr = loopback(elsewhere.connections()[0].remote.port());

    let relay = Relay::before(first.local_addrs()[0]).await;
    let client = dialler(2).await;
    let connection = client.connect(&target(relay.addr()), PEER).await.unwrap();
    echo(&connection, b"before").await.unwrap();
    for oracle in [second.local_addrs()[0], dialler_addr] {
        relay.reset_through(oracle).await;
        let answer = within(5, "it still answers", echo(&connection, b"after")).await;
        assert_eq!(answer.unwrap(), b"after");
    }
}

/// A plain quinn listener with the given reset key and mark of connection ids.
fn stand_in(key: &[u8; 32], mark: u64) -> quinn::Endpoint {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(mark)));
    let server = endpoint_tests::wire::weak_server(&[PEER]);
    let socket = std::net::UdpSocket::bind(loopback(0)).unwrap();
    quinn::Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

#[tokio::test]
async fn the_same_attack_works_on_two_listeners_that_share_a_reset_key() {
    let (first, second) = (stand_in(&[7; 32], 1), stand_in(&[7; 32], 1));
    let relay = Relay::before(first.local_addr().unwrap()).await;
    let client = Client::new(&[PEER]).wants_x509();
    let socket = endpoint_tests::wire::socket();
    let accept = tokio::spawn(async move { first.accept().await.unwrap().await.unwrap() });
    let connection = client.dial(&socket, relay.addr(), "localhost").await.unwrap();
    let served = accept.await.unwrap();
    let mut send = connection.open_uni().await.unwrap();
    send.write_all(b"a packet").await.unwrap();
    served.accept_uni().await.unwrap();
    assert!(relay.reset_through(second.local_addr().unwrap()).await > 0);
    let told = within(5, "the connection dies", connection.closed()).await;
    assert!(matches!(told, quinn::ConnectionError::Reset), "{told}");
}
