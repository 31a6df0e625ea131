//! A peer shows another address: forged, or because it moved.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use endpoint_core::{
    Access, Connection, Handler, HandlerError, Permit, endpoint::DialOptions, facts::Address,
};
use endpoint_tests::{
    forge::Forge,
    node::{PEER, Server, alpn, echo, identity},
    until,
    wire::{Client, Shown, socket},
    within,
};

const HOME: &str = "127.0.0.2";
const INSIDE: &str = "127.0.0.3";
const ALSO_INSIDE: &str = "127.0.0.5";
const ELSEWHERE: &str = "127.0.0.6";

fn is_inside(host: IpAddr) -> bool {
    [INSIDE, ALSO_INSIDE].contains(&host.to_string().as_str())
}

/// What was thought of the peer's address when a piece of its stream was read.
#[derive(Clone, Copy, Debug)]
struct Look {
    address: Address,
    /// What quinn shows.
    present: SocketAddr,
    /// Answers to challenges that came, asked for or not.
    responses: u64,
}

impl Look {
    fn allows(self) -> bool {
        self.address.satisfies(is_inside)
    }

    /// A judge that believes what quinn shows.
    fn weak_allows(self) -> bool {
        is_inside(self.present.ip())
    }

    /// A judge that takes any answer to a challenge for the right one.
    fn counting_allows(self) -> bool {
        self.weak_allows() && self.responses > 0
    }
}

/// Notes where the peer is at each piece that it sends.
#[derive(Clone, Debug, Default)]
struct Looks(Arc<Mutex<Vec<Look>>>);

impl Looks {
    fn all(&self) -> Vec<Look> {
        self.0.lock().unwrap().clone()
    }

    fn last(&self) -> Look {
        *self.all().last().unwrap()
    }
}

impl Handler for Looks {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        let (mut send, mut recv) = connection.accept_bi().await?;
        let mut piece = [0; 64];
        while let Some(length) = recv.read(&mut piece).await? {
            let quinn = connection.quic().ok_or("quic")?;
            let look = Look {
                present: quinn.remote_address(),
                responses: quinn.stats().frame_rx.path_response,
                address: connection.address(),
            };
            self.0.lock().unwrap().push(look);
            // Something to acknowledge.
            send.write_all(&piece[..length]).await?;
        }
        Ok(())
    }
}

const LOOKS: &[u8] = b"looks/1";

struct Scene {
    _server: Server,
    looks: Looks,
    forge: Forge,
    _connection: quinn::Connection,
    send: quinn::SendStream,
    _recv: quinn::RecvStream,
}

/// A peer that shook hands from the first of `hosts` and has a stream.
async fn scene(hosts: &[(&str, bool)]) -> Scene {
    let server = Server::start("").await;
    let looks = Looks::default();
    server.endpoint.handle(alpn(LOOKS), Access::Public, looks.clone()).unwrap();
    let forge = Forge::before(server.addr(), hosts).await;
    let client = Client::new(&[LOOKS]).showing(Shown::raw(2));
    let connection = client.dial(&socket(), forge.addr(), "localhost").await.unwrap();
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(b"home").await.unwrap();
    until("the first piece is read", || looks.all().len() == 1).await;
    Scene { _server: server, looks, forge, _connection: connection, send, _recv: recv }
}

impl Scene {
    /// Sends a small piece every few milliseconds for `time`.
    async fn speak(&mut self, time: Duration) {
        let ends = Instant::now() + time;
        while Instant::now() < ends {
            self.send.write_all(b"piece").await.unwrap();
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_address_never_becomes_the_proven_one() {
    let hosts = [(HOME, true), (INSIDE, false), (ALSO_INSIDE, false)];
    let mut scene = scene(&hosts).await;
    // Longer than quinn tries a path (3 s), so that it falls back and is led away again; then from
    // changing hosts, so that each packet begins a trial of its own.
    for (hosts, seconds) in [(&[1][..], 4), (&[1, 2], 3), (&[0, 1], 2), (&[0, 1, 2], 2)] {
        scene.forge.leave_from(hosts);
        scene.speak(Duration::from_secs(seconds)).await;
    }
    let looks = scene.looks.all();
    for look in &looks {
        assert_eq!(look.address.proven().ip().to_string(), HOME, "{look:?}");
        assert!(!look.allows(), "{look:?}");
    }
    assert!(scene.forge.heard(1) > 0 && scene.forge.heard(2) > 0, "quinn did move");
    let fooled = |judge: fn(Look) -> bool| looks.iter().filter(|look| judge(**look)).count();
    assert!(fooled(Look::weak_allows) > 10, "a judge by the present address is fooled");
    assert!(fooled(Look::counting_allows) > 0, "and one that counts answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moved_is_followed_once_it_answered() {
    let mut scene = scene(&[(HOME, true), (INSIDE, true), (ELSEWHERE, true)]).await;
    let proven = |looks: &Looks| looks.last().address.proven().ip().to_string();
    scene.forge.leave_from(&[1]);
    let began = Instant::now();
    let first = loop {
        scene.speak(Duration::from_millis(40)).await;
        if let Some(look) = scene.looks.all().iter().find(|look| look.weak_allows()) {
            break *look;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "never seen at the new address");
    };
    assert!(!first.allows(), "not before it answered: {first:?}");
    assert_eq!(first.address.proven().ip().to_string(), HOME);
    let began = Instant::now();
    while proven(&scene.looks) != INSIDE {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", scene.looks.last());
        scene.speak(Duration::from_millis(40)).await;
    }
    assert!(scene.looks.last().allows());
    scene.forge.leave_from(&[2]);
    while proven(&scene.looks) != ELSEWHERE {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", scene.looks.last());
        scene.speak(Duration::from_millis(40)).await;
        let look = scene.looks.last();
        let moved = look.present.ip().to_string() == ELSEWHERE;
        assert!(!(moved && look.allows()), "{look:?}");
    }
}

/// A line that lets identity 2 in from these networks.
fn from(networks: &str) -> String {
    format!("from=\"{networks}\" {}\n", identity(2).fingerprint())
}

async fn peer(server: &Server, hosts: &[(&str, bool)]) -> (Forge, quinn::Connection) {
    let forge = Forge::before(server.addr(), hosts).await;
    let client = Client::new(&[PEER]).showing(Shown::raw(2));
    let connection = client.dial(&socket(), forge.addr(), "localhost").await.unwrap();
    (forge, connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_shown_where_it_answered_and_lives_while_both_addresses_are_allowed() {
    let server = Server::start(&from("127.0.0.2,127.0.0.3/32")).await;
    let (forge, connection) = peer(&server, &[(HOME, true), (INSIDE, false)]).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"home").await.unwrap();
    let mut piece = [0; 4];
    within(5, "an echo", recv.read_exact(&mut piece)).await.unwrap();
    forge.leave_from(&[1]);
    send.write_all(b"away").await.unwrap();
    let shown = || server.endpoint.connections().first().cloned();
    until("the move is seen", || shown().is_some_and(|info| info.unproven.is_some())).await;
    let info = shown().unwrap();
    assert_eq!(info.remote.ip().to_string(), HOME);
    assert_eq!(info.unproven.unwrap().ip().to_string(), INSIDE);
    forge.leave_from(&[0]);
    send.write_all(b"back").await.unwrap();
    within(10, "both echoes", recv.read_exact(&mut [0; 8])).await.unwrap();
    until("it is at home", || shown().is_some_and(|info| info.unproven.is_none())).await;
    assert_eq!(shown().unwrap().remote.ip().to_string(), HOME);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_that_came_with_an_address_outside() {
    let server = Server::start(&from("127.0.0.2")).await;
    let (forge, connection) = peer(&server, &[(HOME, true), (INSIDE, false)]).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"home").await.unwrap();
    within(5, "an echo", recv.read_exact(&mut [0; 4])).await.unwrap();
    forge.leave_from(&[1]);
    send.write_all(b"away").await.unwrap();
    until("it is cut off", || server.endpoint.connections().is_empty()).await;
    assert_eq!(server.endpoint.counters().ended_by_policy, 1);
    forge.leave_from(&[0]);
    // The close went where nobody reads.
    within(10, "the peer learns that it is gone", connection.closed()).await;
    let echoed = recv.read_to_end(64).await;
    assert!(!echoed.is_ok_and(|echoed| !echoed.is_empty()), "the forged piece was echoed");
}

#[tokio::test]
async fn a_dialled_connection_and_one_over_tcp_are_where_they_were_dialled() {
    let server = Server::start(&from("127.0.0.1")).await;
    let client = endpoint_tests::node::dialler(2).await;
    for options in [DialOptions::default(), DialOptions::default().tcp()] {
        let connection = client.connect_with(&server.target(), PEER, options).await.unwrap();
        assert_eq!(connection.address(), Address::at(server.addr()));
        echo(&connection, b"x").await.unwrap();
        let info = server.endpoint.connections();
        assert!(info.iter().all(|info| info.unproven.is_none()), "{info:?}");
        connection.close();
    }
}
