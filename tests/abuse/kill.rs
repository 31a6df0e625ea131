//! An observer who was given pairs of connection id and reset token ends the connections of others with them:
//! a token that belongs to an id on the wire is a stateless reset (RFC 9000 §10.3).

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use endpoint_tests::{
    count,
    wire::{self, Client},
};
use quinn::{ConnectionError, ConnectionId, ConnectionIdGenerator};

use crate::{
    harvest::{greedy, harvest},
    raw::server,
};

/// Ids of the endpoint, and of the weak server.
const ID_BYTES: usize = 20;
/// As long as a packet of theirs, and shorter than what it answers.
const UNPREDICTABLE: [u8; 24] = [0x55; 24];

/// Ids with their reset tokens.
type Pairs = HashMap<Vec<u8>, Vec<u8>>;

/// The way of one client, as somebody sees it who can send from any address.
struct Wire {
    at: SocketAddr,
    client: Arc<Mutex<Option<SocketAddr>>>,
    /// Ids that the client sent to.
    seen: Arc<Mutex<HashSet<Vec<u8>>>>,
    socket: UdpSocket,
    ends: Arc<AtomicBool>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let [socket, out] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        out.connect(server).unwrap();
        let wire = Self {
            at: socket.local_addr().unwrap(),
            client: Arc::default(),
            seen: Arc::default(),
            socket,
            ends: Arc::default(),
        };
        for socket in [&wire.socket, &out] {
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        }
        let (from, to) = (wire.socket.try_clone().unwrap(), out.try_clone().unwrap());
        let (client, seen) = (Arc::clone(&wire.client), Arc::clone(&wire.seen));
        wire.carry(move |packet| {
            let Ok((length, remote)) = from.recv_from(packet) else { return };
            *client.lock().unwrap() = Some(remote);
            // RFC 9000 §17.3: a short header, and the id.
            if packet[0] & 0x80 == 0 && length > ID_BYTES {
                seen.lock().unwrap().insert(packet[1..=ID_BYTES].to_vec());
            }
            let _lost = to.send(&packet[..length]);
        });
        let (back, client) = (wire.socket.try_clone().unwrap(), Arc::clone(&wire.client));
        wire.carry(move |packet| {
            let Ok(length) = out.recv(packet) else { return };
            if let Some(client) = *client.lock().unwrap() {
                let _lost = back.send_to(&packet[..length], client);
            }
        });
        wire
    }

    fn carry(&self, mut once: impl FnMut(&mut [u8]) + Send + 'static) {
        let ends = Arc::clone(&self.ends);
        thread::spawn(move || {
            let mut packet = [0; 2048];
            while !ends.load(Ordering::Relaxed) {
                once(&mut packet);
            }
        });
    }

    fn seen(&self) -> HashSet<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }

    /// Sends the client a reset with this token, as if from the server.
    fn forge(&self, token: &[u8]) {
        let client = self.client.lock().unwrap().unwrap();
        self.socket.send_to(&[&UNPREDICTABLE[..], token].concat(), client).unwrap();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// What so many connections are given, each until it is closed or for so long.
async fn collect(server: SocketAddr, connections: usize, patience: Duration) -> Pairs {
    let collecting = tokio::task::spawn_blocking(move || {
        let mut pairs = Pairs::new();
        for _ in 0..connections {
            let mut quic = greedy(server);
            harvest(&mut quic, patience, false);
            pairs.extend(quic.given.into_iter().map(|(_, id, token)| (id, token)));
        }
        pairs
    });
    collecting.await.unwrap()
}

/// Sends something and waits until it was acknowledged, after everything that came before it was looked at.
async fn lives(connection: &quinn::Connection) -> Result<(), ConnectionError> {
    let acks = || connection.stats().frame_rx.acks;
    let before = acks();
    let mut send = connection.open_uni().await?;
    // A stream of no known type: RFC 9114 §9.
    send.write_all(&[0x40, 0x21, 0, 0]).await.map_err(|_| ConnectionError::Reset)?;
    loop {
        match tokio::time::timeout(Duration::from_millis(5), connection.closed()).await {
            Ok(error) => return Err(error),
            Err(_) if acks() > before => return Ok(()),
            Err(_) => {}
        }
    }
}

/// How many of so many victims, one after the other, are ended with `pairs`, and how many of their ids were known.
async fn attack(server: SocketAddr, pairs: &Pairs, victims: usize) -> (usize, usize) {
    let (mut killed, mut known) = (0, 0);
    for _ in 0..victims {
        let (wire, socket) = (Wire::to(server), wire::socket());
        let client = Client::new(&[b"h3"]).wants_x509();
        let connection = client.dial(&socket, wire.at, "localhost").await.unwrap();
        lives(&connection).await.unwrap();
        let tokens: Vec<_> = wire.seen().iter().filter_map(|id| pairs.get(id)).collect();
        known += tokens.len();
        // Whoever knows none tries some that he has.
        let guesses = pairs.values().take(if tokens.is_empty() { 100 } else { 0 });
        tokens.iter().copied().chain(guesses).for_each(|token| wire.forge(token));
        match lives(&connection).await {
            Ok(()) => {}
            Err(ConnectionError::Reset) => killed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    (killed, known)
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_id_and_token_that_were_collected_end_nobody_s_connection() {
    let endpoint = server().await;
    let address = endpoint.local_addrs()[0];
    let pairs = collect(address, count(4, 100), Duration::from_secs(10)).await;
    assert!(pairs.len() >= 4 * 20, "{}", pairs.len());
    let victims = count(20, 500);
    let (killed, known) = attack(address, &pairs, victims).await;
    assert_eq!((killed, known), (0, 0));
    println!("acceptance: {} pairs collected, {victims} victims, none ended", pairs.len());
}

/// Ids of which few bits are random.
#[derive(Debug)]
struct FewBits(Arc<Mutex<u8>>);

impl ConnectionIdGenerator for FewBits {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut next = self.0.lock().unwrap();
        *next = next.wrapping_mul(5).wrapping_add(1);
        let mut id = [0x2a; ID_BYTES];
        id[0] = *next & 63;
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A server whose ids come again while its reset key stays, and that gives as many as a client retires.
fn weak() -> quinn::Endpoint {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[7; 32]);
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    let numbers = Arc::new(Mutex::new(0));
    config.cid_generator(move || Box::new(FewBits(Arc::clone(&numbers))));
    let server = wire::weak_server(&[b"h3"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    quinn::Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_pairs_end_connections_where_ids_come_again() {
    let endpoint = weak();
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await?;
                Err::<(), _>(connection.closed().await)
            });
        }
    });
    let pairs = collect(address, 1, Duration::from_secs(2)).await;
    assert!(pairs.len() > 32, "most of the 64 there are: {}", pairs.len());
    let (killed, known) = attack(address, &pairs, 10).await;
    assert!(killed > 0 && known >= killed, "{killed} of {known} known with {} pairs", pairs.len());
}
