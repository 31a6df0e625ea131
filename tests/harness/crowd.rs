//! A crowd of strangers: each way in which one can take up room without being served.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, EndpointConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::JoinSet,
};

use crate::wire::{Client, socket_at};

/// How long acknowledgements are held back; a handshake has ten seconds.
const HELD_BACK: Duration = Duration::from_secs(4);
/// For how long a member waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a member of the crowd does, again and again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Connects over TCP and says nothing.
    Silent,
    /// Says the beginning of a hello, and no more.
    HalfHello,
    /// Shakes hands over TCP and asks for nothing.
    Shaken,
    /// Sends a whole first flight over QUIC and reads no answer.
    FirstFlight,
    /// Answers a Retry, which proves its address, and nothing after that.
    ProvesOnly,
    /// Shakes hands over QUIC for a protocol that nobody serves, which fails at once, and so without a pause.
    Unserved,
    /// Holds its acknowledgements back before it shakes hands over QUIC, and closes: what is kept of it is kept
    /// for nine times as long.
    Late,
}

/// The ways of which each takes up room for a while.
pub const WAYS: [Way; 5] =
    [Way::Silent, Way::HalfHello, Way::Shaken, Way::FirstFlight, Way::ProvesOnly];

/// Where a crowd comes from: whoever begins takes the next place.
#[derive(Debug)]
struct Places {
    all: Vec<IpAddr>,
    next: AtomicUsize,
    /// Those from which something was sent.
    used: Mutex<HashSet<IpAddr>>,
}

impl Places {
    fn next(&self) -> IpAddr {
        self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }

    fn used(&self, place: IpAddr) {
        self.used.lock().expect("a lock").insert(place);
    }
}

/// A crowd at work on a thread of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    ends: Arc<AtomicBool>,
    places: Arc<Places>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// For each of `ways` so many `members` who do it again and again, each time from the next of `places`.
    #[must_use]
    pub fn gather(server: SocketAddr, places: Vec<IpAddr>, ways: &[Way], members: usize) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let places = Places { all: places, next: AtomicUsize::new(0), used: Mutex::default() };
        let places = Arc::new(places);
        let (ways, over, from) = (ways.to_vec(), Arc::clone(&ends), Arc::clone(&places));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for way in ways {
                    for _ in 0..members {
                        tasks.spawn(keep_on(server, way, Arc::clone(&from)));
                    }
                }
                while !over.load(Ordering::Relaxed) {
                    while let Some(ended) = tasks.try_join_next() {
                        ended.expect("a member goes on");
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Self { ends, places, thread: Some(thread) }
    }

    /// How often somebody of the crowd began anew.
    #[must_use]
    pub fn tries(&self) -> usize {
        self.places.next.load(Ordering::Relaxed)
    }

    /// From how many places something was sent.
    #[must_use]
    pub fn places_used(&self) -> usize {
        self.places.used.lock().expect("a lock").len()
    }

    /// How many places there are.
    #[must_use]
    pub fn places(&self) -> usize {
        self.places.all.len()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        let failed = thread.join().is_err();
        assert!(!failed || std::thread::panicking(), "a member of the crowd failed; see above");
    }
}

async fn keep_on(server: SocketAddr, way: Way, places: Arc<Places>) {
    loop {
        let place = places.next();
        let _ = match way {
            Way::Silent => hold(server, place, &places, &[]).await,
            Way::HalfHello => hold(server, place, &places, &[22, 3, 1, 2, 0, 1, 0]).await,
            Way::Shaken => shaken(server, place, &places).await,
            Way::FirstFlight => datagrams(server, place, &places, false).await,
            Way::ProvesOnly => datagrams(server, place, &places, true).await,
            Way::Late => late(server, place, &places).await,
            Way::Unserved => {
                unserved(server, place, &places).await;
                continue;
            }
        };
        // A crowd that spins takes the core from those whose latency is measured.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Connects, says `bytes`, and waits until it is cut off.
async fn hold(
    server: SocketAddr,
    place: IpAddr,
    places: &Places,
    bytes: &[u8],
) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((place, 0).into())?;
    let mut stream = socket.connect(server).await?;
    places.used(place);
    stream.write_all(bytes).await?;
    let _came = stream.read(&mut [0; 64]).await?;
    Ok(())
}

async fn shaken(server: SocketAddr, place: IpAddr, places: &Places) -> std::io::Result<()> {
    let client = Client::new(&[b"http/1.1"]).wants_x509();
    let mut stream = client.dial_tcp(&place.to_string(), server, "localhost", &[]).await?;
    places.used(place);
    let _came = stream.read(&mut [0; 64]).await?;
    Ok(())
}

async fn unserved(server: SocketAddr, place: IpAddr, places: &Places) {
    let socket = socket_at(&place.to_string());
    places.used(place);
    let client = Client::new(&[b"nobody/1"]).wants_x509();
    let dialled = tokio::time::timeout(PATIENCE, client.dial(&socket, server, "localhost")).await;
    assert!(!matches!(dialled, Ok(Ok(_))), "nobody serves it");
}

/// A QUIC client that sends its first flight and then reads nothing but, perhaps, a Retry.
async fn datagrams(
    server: SocketAddr,
    place: IpAddr,
    places: &Places,
    answers: bool,
) -> std::io::Result<()> {
    // A protocol that every server of the tests has: without any the handshake fails at once, and holds nothing.
    let mut dial = Dial::new(server, place, &Client::new(&[b"h3"])).await?;
    dial.send().await?;
    places.used(place);
    let heard = tokio::time::timeout(Duration::from_millis(500), dial.hear()).await;
    let Ok(Ok(data)) = heard else { return Ok(()) };
    if !answers || !is_retry(&data) {
        return Ok(());
    }
    dial.take(data);
    dial.send().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// A QUIC client that reads the answer to its first flight long after it came.
async fn late(server: SocketAddr, place: IpAddr, places: &Places) -> std::io::Result<()> {
    let mut dial = Dial::new(server, place, &Client::new(&[b"h3"]).wants_x509()).await?;
    dial.send().await?;
    places.used(place);
    let mut heard = Vec::new();
    let mut waits = tokio::time::Instant::now() + PATIENCE;
    while let Ok(data) = tokio::time::timeout_at(waits, dial.hear()).await {
        let data = data?;
        if is_retry(&data) {
            dial.take(data);
            dial.send().await?;
        } else {
            if heard.is_empty() {
                waits = tokio::time::Instant::now() + HELD_BACK;
            }
            // What is sent again comes after it.
            if heard.len() < FIRST_ANSWER {
                heard.push(data);
            }
        }
    }
    heard.into_iter().for_each(|data| dial.take(data));
    dial.send().await?;
    dial.connection.close(Instant::now(), 0_u32.into(), bytes::Bytes::new());
    dial.send().await
}

/// Datagrams of a server's first flight.
const FIRST_ANSWER: usize = 2;

/// RFC 9000 §17.2.5: a long header whose type is 3.
fn is_retry(packet: &[u8]) -> bool {
    packet[0] & 0xf0 == 0xf0
}

/// A dialled connection that does nothing by itself.
struct Dial {
    socket: tokio::net::UdpSocket,
    server: SocketAddr,
    endpoint: quinn_proto::Endpoint,
    connection: quinn_proto::Connection,
}

impl Dial {
    async fn new(server: SocketAddr, place: IpAddr, client: &Client) -> std::io::Result<Self> {
        let socket = tokio::net::UdpSocket::bind((place, 0)).await?;
        let mut endpoint =
            quinn_proto::Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let dialled = endpoint.connect(Instant::now(), client.quic(), server, "localhost");
        let (_handle, connection) = dialled.expect("a dial begins");
        Ok(Self { socket, server, endpoint, connection })
    }

    /// The next datagram.
    async fn hear(&self) -> std::io::Result<BytesMut> {
        let mut packet = [0; 2048];
        let length = self.socket.recv(&mut packet).await?;
        Ok(BytesMut::from(&packet[..length]))
    }

    fn take(&mut self, data: BytesMut) {
        let mut answer = Vec::new();
        let event =
            self.endpoint.handle(Instant::now(), self.server, None, None, data, &mut answer);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
        }
    }

    async fn send(&mut self) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        while self.connection.poll_transmit(Instant::now(), 1, &mut buffer).is_some() {
            self.socket.send_to(&buffer, self.server).await?;
            buffer.clear();
        }
        Ok(())
    }
}
