//! A revocation that races the handshake, and the gate that would lose the race.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use endpoint_core::{Access, Clock, Connection, Handler, HandlerError, Limits, Permit};
use endpoint_tests::{
    count,
    node::{self, Server, alpn},
    wire::{self, Client, Shown},
};
use tokio::time::timeout;

use super::{VICTIM, asks, gullible, victim};
use endpoint_tests::weak::{Form, Weak};

/// Serves until it is dropped, and counts how many of it do.
#[derive(Clone, Debug, Default)]
struct Held(Arc<AtomicUsize>);

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Held {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.0));
        connection.closed().await;
        Ok(())
    }
}

/// Numbers from a seed (SplitMix64), so that a failing run can be made again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_races_the_handshake_leaves_nothing_alive() {
    let server = Server::start_with("", Limits::default().connections_per_peer(64)).await;
    let held = Held::default();
    server.endpoint.handle(alpn(b"held/1"), Access::default(), held.clone()).unwrap();
    let given = std::env::var("ENDPOINT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| Clock::system().now().as_nanosecond() as u64);
    let mut random = Random(seed);
    let tries = count(200, 1_000);
    let (mut admitted, mut cut) = (0, 0);
    for n in 0..tries {
        server.trust(&victim()).await;
        let client = Client::new(&[b"held/1"]).showing(Shown::raw(VICTIM));
        let address = server.addr();
        let dial = tokio::spawn(async move {
            let socket = wire::socket();
            let connection = client.dial(&socket, address, "localhost").await.ok()?;
            let opened = connection.open_bi().await.is_ok();
            Some((socket, connection, opened))
        });
        tokio::time::sleep(Duration::from_micros(random.below(6_000))).await;
        server.trust("").await;
        let alive = server.endpoint.connections();
        assert!(alive.is_empty(), "try {n}, seed {seed}: {alive:?} right after the revocation");
        let dialled = timeout(Duration::from_secs(15), dial).await.expect("an answer").unwrap();
        let alive = server.endpoint.connections();
        assert!(alive.is_empty(), "try {n}, seed {seed}: {alive:?} after the handshake");
        if let Some((_socket, connection, opened)) = dialled {
            let told = timeout(Duration::from_secs(2), connection.closed()).await;
            let told = told.unwrap_or_else(|_| panic!("try {n}, seed {seed}: not told"));
            let code = wire::close_code(&told);
            // A busy dialler may look after a stateless reset that came behind the close: quinn gives the last.
            let ended = matches!(code, Some(1 | 2)) || told == quinn::ConnectionError::Reset;
            assert!(ended, "try {n}, seed {seed}: {told}");
            admitted += usize::from(opened);
            cut += usize::from(code == Some(2));
        }
        let idle = async {
            while held.0.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        };
        let idle = timeout(Duration::from_secs(2), idle).await;
        assert!(idle.is_ok(), "try {n}, seed {seed}: a handler runs on");
    }
    println!("acceptance: {tries} races: {admitted} admitted first, {cut} cut off, 0 left alive");
    assert!(cut > 0 && cut < tries, "the revocation never raced: {cut} of {tries}");
}

/// A gate that asks first and registers afterwards, as one would write it at first.
#[derive(Default)]
struct HastyGate {
    allowed: Mutex<bool>,
    live: Mutex<Vec<quinn::Connection>>,
}

#[tokio::test]
async fn a_gate_that_registers_after_it_asked_lets_a_revoked_key_live() {
    let weak = Weak::start(gullible(Form::Raw)).await;
    let client = Client::new(&[node::PEER]).showing(Shown::raw(VICTIM));
    let connection = asks(&client, weak.addr()).await.expect("served");
    let gate = HastyGate { allowed: Mutex::new(true), ..HastyGate::default() };
    let asked = *gate.allowed.lock().unwrap();
    // Here the revocation comes: it ends what is registered, and this is not.
    *gate.allowed.lock().unwrap() = false;
    gate.live.lock().unwrap().drain(..).for_each(|link| link.close(2_u32.into(), b""));
    if asked {
        gate.live.lock().unwrap().push(connection.clone());
    }
    assert!(connection.close_reason().is_none());
    assert_eq!(gate.live.lock().unwrap().len(), 1, "alive, and nobody will end it");
}
