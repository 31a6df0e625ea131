//! A UDP relay between a client and a server: it sees packets, can delay them and hold them back, and can
//! speak to the client from the server's address.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// A relay on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    front: UdpSocket,
    back: UdpSocket,
    seen: Mutex<Seen>,
    /// Datagrams of the client that still pass.
    passing: AtomicUsize,
    hold_after_retry: AtomicBool,
    from_client: AtomicUsize,
    from_server: AtomicUsize,
}

#[derive(Debug, Default)]
struct Seen {
    client: Option<SocketAddr>,
    /// The newest packet with a short header from the client (RFC 9000 §17.3).
    short: Option<Vec<u8>>,
    retries: usize,
}

impl Relay {
    /// Stands before `server`.
    pub async fn before(server: SocketAddr) -> Self {
        Self::delaying(server, Duration::ZERO).await
    }

    /// The same, every datagram `one_way` late: a round trip takes twice that. Order is kept; what the
    /// line has no room for is lost, as on any line.
    pub async fn delaying(server: SocketAddr, one_way: Duration) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let back = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        back.connect(server).await.expect("the server's address");
        let shared = Arc::new(Shared {
            front,
            back,
            seen: Mutex::default(),
            passing: AtomicUsize::new(usize::MAX),
            hold_after_retry: AtomicBool::new(false),
            from_client: AtomicUsize::new(0),
            from_server: AtomicUsize::new(0),
        });
        let (up, up_line) = mpsc::channel(LINE_DATAGRAMS);
        let (down, down_line) = mpsc::channel(LINE_DATAGRAMS);
        let tasks = vec![
            tokio::spawn(Arc::clone(&shared).run(up, down, one_way)),
            tokio::spawn(Arc::clone(&shared).carry(up_line, Direction::Up)),
            tokio::spawn(Arc::clone(&shared).carry(down_line, Direction::Down)),
        ];
        Self { shared, tasks }
    }

    /// Datagrams that came from the client and from the server so far, passed or not.
    #[must_use]
    pub fn datagrams(&self) -> (usize, usize) {
        let Shared { from_client, from_server, .. } = &*self.shared;
        (from_client.load(Ordering::SeqCst), from_server.load(Ordering::SeqCst))
    }

    /// Where clients dial.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.front.local_addr().expect("an address")
    }

    /// Lets only the next `count` datagrams of the client pass.
    pub fn pass_only(&self, count: usize) {
        self.shared.passing.store(count, Ordering::SeqCst);
    }

    /// Lets everything pass.
    pub fn release(&self) {
        self.shared.hold_after_retry.store(false, Ordering::SeqCst);
        self.pass_only(usize::MAX);
    }

    /// Holds the client's packets back as soon as the server has sent a Retry.
    pub fn hold_after_retry(&self) {
        self.shared.hold_after_retry.store(true, Ordering::SeqCst);
    }

    /// Retry packets that the server sent (RFC 9000 §17.2.5).
    #[must_use]
    pub fn retries(&self) -> usize {
        self.shared.seen.lock().expect("a lock").retries
    }

    /// Sends the client's newest packet to `oracle` and what comes back to the client, as if the server
    /// had sent it. Gives how many answers there were.
    pub async fn reset_through(&self, oracle: SocketAddr) -> usize {
        let (client, packet) = {
            let seen = self.shared.seen.lock().expect("a lock");
            (seen.client.expect("a client"), seen.short.clone().expect("a packet"))
        };
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let mut answers = 0;
        for _ in 0..5 {
            socket.send_to(&packet, oracle).await.expect("a packet is sent");
            let mut buffer = [0; 2048];
            let answer = timeout(Duration::from_millis(200), socket.recv_from(&mut buffer)).await;
            if let Ok(Ok((length, _))) = answer {
                answers += 1;
                let answer = &buffer[..length];
                self.shared.front.send_to(answer, client).await.expect("a packet is sent");
            }
        }
        answers
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    async fn run(self: Arc<Self>, up: Line, down: Line, one_way: Duration) {
        let (mut from_client, mut from_server) = ([0; 2048], [0; 2048]);
        loop {
            tokio::select! {
                Ok((length, from)) = self.front.recv_from(&mut from_client) => {
                    let packet = &from_client[..length];
                    self.saw_client(packet, from);
                    if take(&self.passing) {
                        let _ = up.try_send((Instant::now() + one_way, packet.to_vec()));
                    }
                }
                received = self.back.recv(&mut from_server) => {
                    // A server that is away shows as an error of the next call; that is no end.
                    let Ok(length) = received else { continue };
                    let packet = &from_server[..length];
                    self.saw_server(packet);
                    let _ = down.try_send((Instant::now() + one_way, packet.to_vec()));
                }
            }
        }
    }

    async fn carry(self: Arc<Self>, mut line: mpsc::Receiver<Late>, direction: Direction) {
        while let Some((due, packet)) = line.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            let client = self.seen.lock().expect("a lock").client;
            let _ = match (direction, client) {
                (Direction::Up, _) => self.back.send(&packet).await,
                (Direction::Down, Some(client)) => self.front.send_to(&packet, client).await,
                (Direction::Down, None) => Ok(0),
            };
        }
    }

    fn saw_client(&self, packet: &[u8], from: SocketAddr) {
        self.from_client.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.seen.lock().expect("a lock");
        seen.client = Some(from);
        if packet.first().is_some_and(|first| first & 0x80 == 0) {
            seen.short = Some(packet.to_vec());
        }
    }

    fn saw_server(&self, packet: &[u8]) {
        self.from_server.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.seen.lock().expect("a lock");
        // Long header, type 3 of version 1 (RFC 9000 §17.2.5).
        if packet.first().is_some_and(|first| first & 0xb0 == 0xb0) {
            seen.retries += 1;
            if self.hold_after_retry.load(Ordering::SeqCst) {
                self.passing.store(0, Ordering::SeqCst);
            }
        }
    }
}

/// A datagram and when it is due.
type Late = (Instant, Vec<u8>);
type Line = mpsc::Sender<Late>;

#[derive(Clone, Copy, Debug)]
enum Direction {
    Up,
    Down,
}

/// Datagrams on the way in one direction at the most.
const LINE_DATAGRAMS: usize = 4096;

fn take(passing: &AtomicUsize) -> bool {
    let one_less = |left: usize| match left {
        0 => None,
        usize::MAX => Some(usize::MAX),
        left => Some(left - 1),
    };
    passing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
}
