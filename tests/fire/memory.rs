//! What a crowd makes the program grow by, which is a process of its own for that.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use endpoint_tests::{
    count,
    crowd::{Crowd, WAYS, Way},
    http as client, long,
    machine::Machine,
    wire::{Client, socket_at},
};

use http::Version;

use crate::{
    ALONE,
    honest::{PATIENCE, Served},
    strangers::many_prefixes,
};

/// What a crowd may make the program grow by.
const MOST_GROWTH: u64 = 32 << 20;
const BODY: &[u8] = b"honest";

fn counter(machine: &Machine, name: &str) -> u64 {
    machine.json(&["status"])["counters"][name].as_u64().unwrap()
}

/// Shakes hands from `place` and asks for the page.
async fn ask(version: Version, server: SocketAddr, place: &str) -> Result<(), String> {
    let browser = Client::new(&[client::alpn(version)]).wants_x509();
    let visit = async {
        let mut connection = if version == Version::HTTP_3 {
            let socket = socket_at(place);
            let dialled = browser.dial(&socket, server, "localhost").await;
            client::over_quic(socket, dialled.map_err(|error| error.to_string())?).await?
        } else {
            let stream = browser.dial_tcp(place, server, "localhost", b"").await;
            client::over_tcp(version, stream.map_err(|error| error.to_string())?).await?
        };
        let answer = connection.send(client::get("localhost", "/a.txt")).await?;
        (answer.body == BODY).then_some(()).ok_or_else(|| format!("{}", answer.status))
    };
    tokio::time::timeout(PATIENCE, visit).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// Asks over both carriers until `lasts` is over and `goes_on` does not hold any more.
async fn keep_asking(server: SocketAddr, lasts: Duration, goes_on: impl Fn() -> bool) -> Served {
    let (mut served, began) = (Served::default(), Instant::now());
    for round in 0_usize.. {
        let place = format!("127.0.{}.7", 20 + round % 200);
        for version in [Version::HTTP_3, Version::HTTP_2] {
            let began = Instant::now();
            served.add(&format!("{version:?}"), began, ask(version, server, &place).await);
        }
        let over = began.elapsed() >= lasts && !goes_on();
        if over || began.elapsed() >= 10 * lasts {
            break;
        }
    }
    served
}

/// The limits under which the crowds are met elsewhere, which a crowd of this size fills.
const SMALL: &str = "[limits]\nhandshakes_in_flight = 64\nconnections = 400\n";

/// The shipped ones without what bounds handshakes.
const WEAKENED: &str = "[limits]\nhandshakes_in_flight = 100000\nhandshakes_per_address = 100000\n\
    handshakes_per_prefix = 100000\nunvalidated_in_flight = 100000\n";

fn a_while() -> Duration {
    Duration::from_secs(count(6, 60) as u64)
}

/// A crowd at the program.
struct Met {
    /// By how many bytes the program grew.
    grown: u64,
    served: Served,
}

/// What the program with this configuration makes of a crowd, which goes on for as long as it `lasts` and until it
/// has come from everywhere and made the program grow by `more` bytes.
async fn meet(
    config: &str,
    places: Vec<IpAddr>,
    ways: &[Way],
    members: usize,
    lasts: Duration,
    more: u64,
) -> Met {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let root = machine.state().parent().unwrap().join("www");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("a.txt"), BODY).unwrap();
    std::fs::write(machine.file("endpoint.toml"), config).unwrap();
    let mut server = machine.serve_with(&["--root", root.to_str().unwrap()]);
    let address: SocketAddr = server.address().parse().unwrap();
    let warm = keep_asking(address, Duration::from_millis(500), || false).await;
    assert!(warm.failures.is_empty(), "{warm:?}");

    let before = server.status_bytes("VmRSS");
    let crowd = Crowd::gather(address, places, ways, members);
    let grown = || server.status_bytes("VmHWM").saturating_sub(before);
    let goes_on = || crowd.places_used() < crowd.places() || grown() < more;
    let served = keep_asking(address, lasts, goes_on).await;
    let grown = grown();
    println!(
        "acceptance: {ways:?} {} times from {} prefixes at the program with {config:?}: memory {} KiB more; \
         strangers {} of {}, p99 {:?}",
        crowd.tries(),
        crowd.places_used(),
        grown >> 10,
        served.waits.len(),
        served.waits.len() + served.failures.len(),
        served.p99(),
    );
    assert_eq!(crowd.places_used(), crowd.places(), "the crowd came from each of its places");
    drop(crowd);
    assert!(server.running.runs(), "the program ended");
    assert_eq!(counter(&machine, "handler_panics"), 0);
    assert!(!server.running.err().contains("panicked"), "{}", server.running.err());
    assert!(!served.waits.is_empty(), "{:#?}", served.failures);
    Met { grown, served }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_makes_the_program_grow_by_no_more_than_32_mib() {
    let _alone = ALONE.lock().await;
    let places = || many_prefixes(count(1_000, 10_000));
    let Met { grown, .. } = meet(SMALL, places(), &WAYS, 100, a_while(), 0).await;
    if long() {
        assert!(grown <= MOST_GROWTH, "{grown} bytes more");
        let Met { grown, .. } = meet("", places(), &WAYS, 100, a_while(), 0).await;
        assert!(grown <= MOST_GROWTH, "{grown} bytes more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_fail_on_purpose_hold_no_more_than_others() {
    let _alone = ALONE.lock().await;
    let one = || vec![IpAddr::from([127, 0, 0, 9])];
    let Met { grown, served } = meet("", one(), &[Way::Unserved], 300, a_while(), 0).await;
    assert!(served.failures.is_empty(), "{:#?}", served.failures);
    assert!(grown <= MOST_GROWTH, "{grown} bytes more");
    // The twin, where nothing stops them but the core's speed.
    let more = grown + grown / 4;
    let Met { grown: most, .. } =
        meet(WEAKENED, one(), &[Way::Unserved], 300, a_while(), more).await;
    assert!(most >= more, "{most} bytes without limits, {grown} with them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_with_long_round_trips_hold_no_more_than_others() {
    let _alone = ALONE.lock().await;
    let one = || vec![IpAddr::from([127, 0, 0, 9])];
    // Time for more than one of each member.
    let lasts = Duration::from_secs(count(15, 60) as u64);
    let Met { grown, served } = meet("", one(), &[Way::Late], 300, lasts, 0).await;
    assert!(served.failures.is_empty(), "{:#?}", served.failures);
    assert!(grown <= MOST_GROWTH, "{grown} bytes more");
    // The twin, where nothing stops them but their own number.
    let more = grown + grown / 4;
    let Met { grown: most, .. } = meet(WEAKENED, one(), &[Way::Late], 300, lasts, more).await;
    assert!(most >= more, "{most} bytes without limits, {grown} with them");
}
