//! Datagrams without end from strangers whose addresses nobody proved: garbage, and handshakes that never go on.
//!
//! The program is a process of its own, so that its memory and its panics can be seen. The tests have a binary of
//! their own, because a flood takes a core from whatever runs beside it.

mod sender;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use endpoint_core::{Access, Endpoint, Limits, TlsIdentity};
use endpoint_tests::{
    count, http as client,
    machine::{Machine, Server},
    node::identity,
    served::Served,
    wire::{Client, socket_at},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::sender::{Rate, Strangers, garbage, half_open, hello, initial};

/// What a flood may make the program grow by.
const MOST_GROWTH: u64 = 32 << 20;
/// What one of a hundred honest clients may wait at the most while it lasts; a short run shares the machine.
fn slowest() -> Duration {
    Duration::from_millis(if endpoint_tests::long() { 1_500 } else { 3_000 })
}

async fn ask(from: &str, server: SocketAddr) -> Result<(), String> {
    let (socket, browser) = (socket_at(from), Client::new(&[b"h3"]).wants_x509());
    let quinn = browser.dial(&socket, server, "localhost").await.map_err(|e| e.to_string())?;
    let mut connection = client::over_quic(socket, quinn).await?;
    let answer = connection.send(client::get("localhost", "/a.txt")).await?;
    match answer.body == BODY {
        true => Ok(()),
        false => Err(format!("{} {}", answer.status, answer.body.len())),
    }
}

const BODY: &[u8] = b"honest";

/// Whether a penalty holds shows over TCP, where an address is proven before anything is said: over QUIC who comes
/// without a token, as a victim of forgers would, is not refused while there is room.
async fn is_let_in(from: &str, server: SocketAddr) -> std::io::Result<()> {
    let browser = Client::new(&[b"http/1.1"]).wants_x509();
    let mut stream = browser.dial_tcp(from, server, "localhost", b"").await?;
    stream.write_all(b"GET /a.txt HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    assert_eq!(&head, b"HTTP/1.1 200");
    Ok(())
}

/// Asks again and again from `from` until it is stopped, and at least `least` times.
async fn keep_asking(
    from: &'static str,
    server: SocketAddr,
    least: usize,
    stop: Arc<AtomicBool>,
) -> Served {
    let mut served = Served::default();
    while served.all() < least || !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        match ask(from, server).await {
            Ok(()) => served.waits.push(began.elapsed()),
            Err(error) => served.failures.push(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    served
}

/// Penalises whoever deserves it, loopback too.
fn program() -> (Machine, Server) {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    std::fs::write(machine.file("endpoint.toml"), "[limits]\npenalty_exempt = []\n").unwrap();
    let root = machine.state().parent().unwrap().join("www");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("a.txt"), BODY).unwrap();
    let server = machine.serve_with(&["--root", root.to_str().unwrap()]);
    (machine, server)
}

/// A number of the program's status.
fn counter(machine: &Machine, name: &str) -> u64 {
    machine.json(&["status"])["counters"][name].as_u64().unwrap()
}

/// Serves honest clients at `from` while `flood` runs; the flood's rate and what they were given.
async fn flooded(
    what: &str,
    from: &'static str,
    flood: impl FnOnce(SocketAddr) -> Rate + Send + 'static,
) {
    let (machine, mut server) = program();
    let address: SocketAddr = server.address().parse().unwrap();
    let warm = keep_asking(from, address, 10, Arc::new(AtomicBool::new(true))).await;
    assert!(warm.failures.is_empty(), "{warm:?}");
    let (before, permitted) = (server.status_bytes("VmRSS"), counter(&machine, "permitted"));
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(keep_asking(from, address, 20, Arc::clone(&stop)));
    let rate = tokio::task::spawn_blocking(move || flood(address)).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let during = asking.await.unwrap();
    let after = keep_asking(from, address, count(50, 500), Arc::new(AtomicBool::new(true))).await;
    let grown = server.status_bytes("VmHWM").saturating_sub(before);
    let handlers = counter(&machine, "permitted") - permitted;
    println!(
        "acceptance: {} {what}, {:.0} a second: {} of {} honest clients served, p99 {:.1?}, after it {:.1?}; \
         memory {} KiB more",
        rate.sent,
        rate.a_second(),
        during.waits.len(),
        during.all(),
        during.p99(),
        after.p99(),
        grown >> 10
    );
    assert!(server.running.runs(), "the program ended");
    assert_eq!(counter(&machine, "handler_panics"), 0);
    is_let_in(from, address).await.unwrap();
    assert_eq!(counter(&machine, "penalised"), 0, "somebody was penalised for what others sent");
    assert!(!server.running.err().contains("panicked"), "{}", server.running.err());
    assert!(during.failures.is_empty() && after.failures.is_empty(), "{during:?} {after:?}");
    assert_eq!(handlers as usize, during.all() + after.all(), "a handler was reached");
    assert!(during.p99() <= slowest(), "{during:?}");
    assert!(grown <= MOST_GROWTH, "{grown} bytes more");
    if endpoint_tests::long() {
        assert!(after.p99() <= Duration::from_millis(5), "{after:?}");
    }
}

/// First packets and packets behind them of real handshakes.
fn real() -> Vec<Vec<u8>> {
    let hello = hello();
    let one = |id| {
        let mut datagram = vec![0; 1_200];
        initial(id, &hello, &mut datagram);
        datagram
    };
    (1..=16).map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_garbage_reaches_no_handler_and_keeps_nobody_out() {
    let _alone = ALONE.lock().await;
    let datagrams = count(200_000, 5_000_000) as u64;
    flooded("garbage datagrams", "127.0.0.1", move |to| {
        let rate = garbage(to, datagrams, &real(), 1);
        if endpoint_tests::long() {
            assert!(rate.a_second() >= 100_000.0, "only {} a second", rate.a_second());
        }
        rate
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_go_on_reach_no_handler_and_keep_nobody_out() {
    let _alone = ALONE.lock().await;
    let (handshakes, addresses) = (count(2_000, 100_000) as u64, count(100, 1_000));
    flooded("handshakes that never go on", "127.0.0.1", move |to| {
        half_open(to, handshakes, Strangers::many(addresses))
    })
    .await;
}

/// Everything seems to come from the victim's own address.
#[tokio::test(flavor = "multi_thread")]
async fn forged_sources_never_get_their_victim_punished() {
    let _alone = ALONE.lock().await;
    let handshakes = count(2_000, 50_000) as u64;
    flooded("handshakes from the victim's address", "127.0.0.77", move |to| {
        let victim = IpAddr::from(Ipv4Addr::new(127, 0, 0, 77));
        half_open(to, handshakes, Strangers::at([victim; 100].into_iter()))
    })
    .await;
}

/// The twin: the same address, proven, shakes hands and asks for nothing, over and over.
#[tokio::test(flavor = "multi_thread")]
async fn a_proven_address_that_misbehaves_is_punished() {
    const AT: &str = "127.0.0.77";
    let _alone = ALONE.lock().await;
    let (machine, server) = program();
    let address: SocketAddr = server.address().parse().unwrap();
    is_let_in(AT, address).await.unwrap();
    let (browser, ends) =
        (Client::new(&[b"h3"]).wants_x509(), Instant::now() + Duration::from_secs(60));
    while is_let_in(AT, address).await.is_ok() {
        assert!(Instant::now() < ends, "never punished");
        for _ in 0..20 {
            let quinn = browser.dial(&socket_at(AT), address, "localhost").await.unwrap();
            // With the server's first stream the handshake is over, and the address proven.
            let _ = tokio::time::timeout(Duration::from_secs(5), quinn.accept_uni()).await;
            quinn.close(0_u32.into(), b"");
        }
    }
    assert!(counter(&machine, "penalised") > 0);
    is_let_in("127.0.0.78", address).await.unwrap();
}

/// One flood at a time: each takes a core.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The most handshakes that are under way while 1,000 begin and none goes on; looks no further at `enough`.
async fn most_under_way(limits: Limits, enough: usize) -> usize {
    let endpoint = Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("localhost", TlsIdentity::SelfSigned)
        .limits(limits)
        .http(Access::Public, axum::Router::new())
        .bind()
        .await
        .unwrap();
    let to = endpoint.local_addrs()[0];
    let mut most = 0;
    // On a busy machine a socket loses much of a flood: what is sent again fills the gaps.
    for _ in 0..3 {
        let flood = tokio::task::spawn_blocking(move || half_open(to, 1_000, Strangers::many(50)));
        let mut ended = None;
        // What the flood left in the socket is still to be read when it has ended.
        while ended.is_none_or(|ended: Instant| ended.elapsed() < Duration::from_millis(500)) {
            if ended.is_none() && flood.is_finished() {
                ended = Some(Instant::now());
            }
            most = most.max(endpoint.held().handshakes);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        flood.await.unwrap();
        if most >= enough {
            break;
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_unproven_addresses_bounds_what_is_under_way() {
    let _alone = ALONE.lock().await;
    let kept = most_under_way(Limits::default(), usize::MAX).await;
    // The twin has no budget, and keeps whatever it is sent.
    let weak = most_under_way(Limits::default().unvalidated_in_flight(1_000_000), 301).await;
    println!(
        "acceptance: handshakes under way of 1,000 half-open: {kept}; without the budget {weak}"
    );
    assert!((1..=64).contains(&kept), "{kept}");
    assert!(weak > 300, "{weak}");
}
