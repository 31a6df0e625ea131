//! One address, one site, many prefixes: whatever they do, others are served.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use endpoint_core::{Limits, event::CounterSnapshot};
use endpoint_tests::{
    count,
    crowd::{Crowd, WAYS, Way},
    long,
    node::{Server, identity},
    wire::Client,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

use crate::{
    ALONE,
    honest::{Served, client, over_quic, over_tcp},
};

/// A peer from elsewhere that keeps its address.
const SETTLED: (u8, &str) = (2, "127.0.1.2");
/// A peer that comes from another address of the crowd's /24 each time. Of a key eight addresses are remembered,
/// the oldest goes first: with more of them in turn, each is one from which no peer was authorised.
const NEWCOMER: u8 = 3;
const NEW_PLACES: RangeInclusive<u8> = 238..=254;

fn lines() -> String {
    [SETTLED.0, NEWCOMER].map(|n| format!("{}\n", identity(n).fingerprint())).concat()
}

/// Smaller than the default, so that a small crowd fills it.
pub fn limits() -> Limits {
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

/// All of 127.0.9.0/24 but the newcomer's own.
pub fn one_site() -> Vec<IpAddr> {
    (1..*NEW_PLACES.start()).map(|n| Ipv4Addr::new(127, 0, 9, n).into()).collect()
}

/// So many /24, an address of each.
pub fn many_prefixes(number: usize) -> Vec<IpAddr> {
    let place = |n: usize| Ipv4Addr::new(127, 64 + (n >> 8) as u8, n as u8, 1).into();
    (0..number).map(place).collect()
}

/// Waits, with more patience than for anything that is quick, until `is` holds of what the server has counted.
pub async fn counted(server: &Server, what: &str, is: impl Fn(&CounterSnapshot) -> bool) {
    let ends = Instant::now() + Duration::from_secs(60);
    while !is(&server.endpoint.counters()) {
        assert!(Instant::now() < ends, "waited in vain: {what}: {:?}", server.endpoint.counters());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until newcomers over TCP wait for their turn, and those over QUIC have to prove their address.
async fn door_is_full(server: &Server) {
    counted(server, "the door is full", |counters| counters.held > 0 && counters.retries > 0).await;
}

/// Peers and strangers come on both carriers for at least `lasts`, until the crowd came from each of its places.
async fn visit(server: &Server, lasts: Duration, strangers: bool, crowd: &Crowd) -> [Served; 2] {
    let address = server.addr();
    let [mut peers, mut others] = [Served::default(), Served::default()];
    let began = Instant::now();
    let mut new_places = NEW_PLACES.cycle().map(|n| format!("127.0.9.{n}"));
    for round in 0_usize.. {
        let over = began.elapsed() >= lasts;
        if over && crowd.places_used() == crowd.places() || began.elapsed() >= 10 * lasts {
            break;
        }
        for key in [SETTLED.0, NEWCOMER] {
            let mut place = || match key {
                NEWCOMER => new_places.next().expect("they begin anew"),
                _ => SETTLED.1.to_owned(),
            };
            let (client, place_of_quic, place_of_tcp) = (client(Some(key)), place(), place());
            let began = Instant::now();
            let visit = over_quic(&client, address, &place_of_quic).await;
            peers.add(&format!("peer {key} over QUIC"), began, visit);
            let began = Instant::now();
            let visit = over_tcp(&client, address, &place_of_tcp).await;
            peers.add(&format!("peer {key} over TCP"), began, visit);
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

async fn serves_others_under(what: &str, places: Vec<IpAddr>, strangers: bool, limits: Limits) {
    let _alone = ALONE.lock().await;
    let server = Server::start_with(&lines(), limits).await;
    let crowd = Crowd::gather(server.addr(), places, &WAYS, 100);
    door_is_full(&server).await;
    let lasts = Duration::from_secs(count(4, 60) as u64);
    let [peers, others] = visit(&server, lasts, strangers, &crowd).await;
    let counters = server.endpoint.counters();
    println!(
        "acceptance: {what} on both carriers for {lasts:?}, {} tries from {} places: peers {} of {}, p99 {:?}; \
         strangers {} of {}, p99 {:?}; {} held, {} gave way, {} retries",
        crowd.tries(),
        crowd.places_used(),
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
    assert_eq!(crowd.places_used(), crowd.places(), "the crowd came from each of its places");
    if long() {
        assert!(peers.p99() <= Duration::from_millis(1_500), "{:?}", peers.p99());
        assert!(others.p99() <= Duration::from_millis(1_500), "{:?}", others.p99());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_that_does_its_worst_keeps_nobody_else_out() {
    serves_others_under("one address", one_address(), true, limits()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_site_that_does_its_worst_keeps_out_neither_a_peer_in_it_nor_anybody_else() {
    serves_others_under("one /24", one_site(), true, limits()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_without_number_keep_no_peer_out() {
    let prefixes = count(1_000, 10_000);
    let what = format!("{prefixes} prefixes");
    serves_others_under(&what, many_prefixes(prefixes), false, limits()).await;
}

/// Without shares, reserve and an end of patience, a crowd at `places` keeps a client with this key and address
/// waiting for longer than anybody waits otherwise.
async fn keeps_out(places: Vec<IpAddr>, key: Option<u8>, place: &str) {
    let _alone = ALONE.lock().await;
    let server = Server::start_with(&lines(), weakened()).await;
    // It was here before, which helps it as little as anything.
    over_tcp(&client(key), server.addr(), place).await.expect("there is room");
    let _crowd = Crowd::gather(server.addr(), places, &[Way::HalfHello], 300);
    counted(&server, "all handshakes are taken", |counters| counters.held > 0).await;
    let began = Instant::now();
    let client = client(key);
    let visit = over_tcp(&client, server.addr(), place);
    let visit = tokio::time::timeout(Duration::from_millis(1_500), visit).await;
    assert!(!matches!(visit, Ok(Ok(()))), "served within {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakened_one_address_keeps_others_out() {
    keeps_out(one_address(), None, "127.0.20.7").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakened_one_site_keeps_out_a_peer_in_it() {
    keeps_out(one_site(), Some(NEWCOMER), "127.0.9.254").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakened_many_prefixes_keep_a_peer_out() {
    keeps_out(many_prefixes(1_000), Some(SETTLED.0), SETTLED.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_exempt_networks_who_offends_is_penalised_and_nobody_else() {
    let none: [(IpAddr, u8); 0] = [];
    let limits = limits().penalty_exempt(none);
    let _alone = ALONE.lock().await;
    let server = Server::start_with(&lines(), limits).await;
    let offender = one_address();
    let crowd = Crowd::gather(server.addr(), offender.clone(), &WAYS, 20);
    counted(&server, "the offender is penalised", |counters| counters.penalised > 0).await;
    let lasts = Duration::from_secs(count(2, 20) as u64);
    let [peers, others] = visit(&server, lasts, true, &crowd).await;
    // Whoever it is, at the offender's address.
    let before = server.endpoint.counters().penalised;
    let inside = over_tcp(&client(None), server.addr(), &offender[0].to_string()).await;
    println!(
        "acceptance: an address that offends: {before} of {} tries refused for it; peers {} of {}, strangers {} of {}",
        crowd.tries(),
        peers.waits.len(),
        peers.waits.len() + peers.failures.len(),
        others.waits.len(),
        others.waits.len() + others.failures.len(),
    );
    assert!(inside.is_err(), "who offends is refused");
    assert!(server.endpoint.counters().penalised > before);
    assert!(peers.failures.is_empty(), "{:#?}", peers.failures);
    assert!(others.failures.is_empty(), "{:#?}", others.failures);
    assert!(!peers.waits.is_empty() && !others.waits.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_honest_clients_of_one_address_is_served_to_the_last() {
    // The long run is optimised and alone, and keeps to what is shipped. In the short one fewer clients fill a
    // smaller budget, and the deadline is out of reach of a machine that is busy with something else.
    let deadline = Duration::from_secs(60);
    let (clients, at_once, limits) = match long() {
        true => (2_000, 512, Limits::default()),
        false => (300, 48, Limits::default().handshakes_in_flight(48).handshake_deadline(deadline)),
    };
    let (served, counters) = burst(clients, limits, |counters| counters.held > 0).await;
    assert!(clients > at_once);
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
    let thrown_out = |counters: &CounterSnapshot| counters.refused + counters.gave_way > 20;
    let (served, _) = burst(200, limits, thrown_out).await;
    assert!(served.failures.len() > 20, "{} failed", served.failures.len());
}

/// So many `clients` at once, none of which listens before `full` holds: then the burst does not depend on
/// whether they come faster than they are served.
async fn burst(
    clients: usize,
    limits: Limits,
    full: impl Fn(&CounterSnapshot) -> bool,
) -> (Served, CounterSnapshot) {
    let _alone = ALONE.lock().await;
    let server = Server::start_with("", limits).await;
    let address = server.addr();
    let (listen, may_listen) = tokio::sync::watch::channel(false);
    let visits: Vec<_> = (0..clients)
        .map(|_| {
            let mut may_listen = may_listen.clone();
            tokio::spawn(async move {
                let began = Instant::now();
                let visit = async {
                    let socket = TcpSocket::new_v4()?;
                    socket.bind((Ipv4Addr::new(127, 0, 30, 1), 0).into())?;
                    let (read, write) = socket.connect(address).await?.into_split();
                    let listens = async move { drop(may_listen.wait_for(|may| *may).await) };
                    let read = Deaf { until: Some(Box::pin(listens)), then: read };
                    let connector = TlsConnector::from(Arc::new(client(None).config()));
                    let name = "localhost".try_into().expect("a name");
                    let stream = tokio::io::join(read, write);
                    let mut stream = connector.connect(name, stream).await?;
                    stream.write_all(b"word").await?;
                    stream.read_exact(&mut [0; 4]).await
                };
                (began, visit.await.map(drop).map_err(|error| error.to_string()))
            })
        })
        .collect();
    counted(&server, "more have come than there is room for", full).await;
    listen.send(true).expect("they wait");
    let mut served = Served::default();
    for visit in visits {
        let (began, visit) = visit.await.expect("a visit ends");
        served.add("client", began, visit);
    }
    (served, server.endpoint.counters())
}

/// Reads nothing before something has happened.
struct Deaf<R> {
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    then: R,
}

impl<R: AsyncRead + Unpin> AsyncRead for Deaf<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(until) = &mut self.until {
            ready!(until.as_mut().poll(cx));
            self.until = None;
        }
        Pin::new(&mut self.then).poll_read(cx, into)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_looks_for_a_challenge_gets_its_answer_under_fire() {
    let _alone = ALONE.lock().await;
    let server = Server::start_with("", limits()).await;
    let _crowd = Crowd::gather(server.addr(), one_site(), &WAYS, 100);
    door_is_full(&server).await;
    let most = Duration::from_secs(count(15, 5) as u64);
    let authority = Client::new(&[b"acme-tls/1"]).wants_x509();
    for n in 0..10 {
        let began = Instant::now();
        // None is pending, which is an answer too, and it has to be the server's.
        let answer = authority.dial_tcp("127.0.40.1", server.addr(), "web.example", &[]).await;
        let answer = answer.map(drop).unwrap_err().to_string();
        assert!(answer.contains("NoApplicationProtocol"), "{answer}");
        assert!(began.elapsed() < most, "look {n} took {:?}", began.elapsed());
    }
}
