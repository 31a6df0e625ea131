//! Connections that come and go: browsers over HTTP/3 and HTTP/2, and peers.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ::http::Version;
use endpoint_tests::{
    chance::Chance,
    http::{self, connect},
    wire::{Client, Shown, close_code, socket},
};
use tokio::time::sleep;

/// Identities of the peers.
pub const PEERS: Range<u8> = 2..10;

/// What the site serves.
pub fn file() -> Vec<u8> {
    Chance::new(1).bytes(20_000)
}

/// How connections ended.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    pub connections: usize,
    pub requests: usize,
    pub revoked: usize,
    pub failed: Vec<String>,
}

/// The clients, and what they were given.
pub struct Churn {
    direct: SocketAddr,
    path: SocketAddr,
    file: Vec<u8>,
    stop: AtomicBool,
    ends: Mutex<Ends>,
    /// Peers that are being revoked or were a moment ago, as bits; and when the last one was.
    revoked: AtomicU64,
    last: Mutex<Vec<Option<Instant>>>,
}

/// How a connection's life ended before its time.
enum End {
    Revoked,
    Failed(String),
}

impl Churn {
    /// Clients that reach the server through `path`, by TCP directly.
    pub fn new(direct: SocketAddr, path: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            direct,
            path,
            file: file(),
            stop: AtomicBool::new(false),
            ends: Mutex::default(),
            revoked: AtomicU64::new(0),
            last: Mutex::new(vec![None; 256]),
        })
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub fn ends(&self) -> Ends {
        self.all_ends().clone()
    }

    /// A change of the set takes the peer out of it, or is over.
    pub fn revoked(&self, peer: u8, now: bool) {
        let bit = 1 << peer;
        self.last.lock().expect("a lock")[usize::from(peer)] = Some(Instant::now());
        match now {
            true => self.revoked.fetch_or(bit, Ordering::SeqCst),
            false => self.revoked.fetch_and(!bit, Ordering::SeqCst),
        };
    }

    /// Whether a refusal of the peer at this time is to be expected.
    fn may_be_revoked(&self, peer: u8) -> bool {
        let lately = self.last.lock().expect("a lock")[usize::from(peer)];
        self.revoked.load(Ordering::SeqCst) & 1 << peer != 0
            || lately.is_some_and(|at| at.elapsed() < Duration::from_secs(5))
    }

    /// One connection after another until all stop.
    pub async fn keep(self: Arc<Self>, number: u64) {
        let mut chance = Chance::of(&[number]);
        while !self.stop.load(Ordering::SeqCst) {
            let lives = Duration::from_millis(chance.between(200, 10_000));
            let ended = match chance.index(10) {
                0..6 => self.browser(Version::HTTP_3, lives, &mut chance).await,
                6..8 => self.browser(Version::HTTP_2, lives, &mut chance).await,
                _ => {
                    self.peer(
                        PEERS.start + u8::try_from(chance.index(PEERS.len())).unwrap(),
                        lives,
                        &mut chance,
                    )
                    .await
                }
            };
            let mut ends = self.all_ends();
            ends.connections += 1;
            match ended {
                Ok(()) => {}
                Err(End::Revoked) => ends.revoked += 1,
                Err(End::Failed(why)) => ends.failed.push(why),
            }
        }
    }

    /// One connection of each kind, and its end.
    pub async fn each_kind_once(self: &Arc<Self>) {
        let mut chance = Chance::new(0);
        for version in [Version::HTTP_3, Version::HTTP_2] {
            let served = self.browser(version, Duration::ZERO, &mut chance).await;
            assert!(served.is_ok(), "{version:?} is served");
        }
        let served = self.peer(PEERS.start, Duration::ZERO, &mut chance).await;
        assert!(served.is_ok(), "a peer is served");
    }

    async fn browser(
        &self,
        version: Version,
        lives: Duration,
        chance: &mut Chance,
    ) -> Result<(), End> {
        let born = Instant::now();
        let failed =
            |why: String| End::Failed(format!("{version:?} after {:.1?}: {why}", born.elapsed()));
        let to = if version == Version::HTTP_3 { self.path } else { self.direct };
        let (began, browser) = (Instant::now(), Client::new(&[]).wants_x509());
        let mut connection = connect(version, to, "localhost", &browser).await.map_err(failed)?;
        loop {
            let answer = connection.send(http::get("localhost", "/file")).await.map_err(failed)?;
            if answer.body != self.file {
                return Err(failed(format!("{}, {} bytes", answer.status, answer.body.len())));
            }
            self.all_ends().requests += 1;
            if self.ends_now(began, lives) {
                return Ok(());
            }
            sleep(Duration::from_millis(chance.between(50, 1_000))).await;
        }
    }

    async fn peer(&self, peer: u8, lives: Duration, chance: &mut Chance) -> Result<(), End> {
        let born = Instant::now();
        let lost = |error: quinn::ConnectionError| match close_code(&error) {
            // Not authorised, or revoked. A stateless reset can come in the place of the close.
            Some(1 | 2) if self.may_be_revoked(peer) => End::Revoked,
            _ if matches!(error, quinn::ConnectionError::Reset) && self.may_be_revoked(peer) => {
                End::Revoked
            }
            _ => End::Failed(format!("peer {peer} after {:.1?}: {error}", born.elapsed())),
        };
        let began = Instant::now();
        let (socket, client) = (socket(), Client::new(&[b"echo/1"]).showing(Shown::raw(peer)));
        let quinn = client.dial(&socket, self.path, "localhost").await.map_err(lost)?;
        let message = chance.bytes(2_000);
        loop {
            let back = async {
                let (mut send, mut recv) = quinn.open_bi().await.ok()?;
                send.write_all(&message).await.ok()?;
                send.finish().ok()?;
                recv.read_to_end(1 << 16).await.ok()
            };
            match back.await {
                Some(back) if back == message => self.all_ends().requests += 1,
                Some(_) => return Err(End::Failed(format!("peer {peer}: another answer"))),
                None => {
                    let closed =
                        tokio::time::timeout(Duration::from_secs(40), quinn.closed()).await;
                    return Err(closed
                        .map_or_else(|_| End::Failed("no answer and no end".to_owned()), lost));
                }
            }
            if self.ends_now(began, lives) {
                // One in four is gone without a word.
                if !chance.happens(250) {
                    quinn.close(0_u32.into(), b"");
                    socket.wait_idle().await;
                }
                return Ok(());
            }
            sleep(Duration::from_millis(chance.between(50, 1_000))).await;
        }
    }

    fn ends_now(&self, began: Instant, lives: Duration) -> bool {
        began.elapsed() >= lives || self.stop.load(Ordering::SeqCst)
    }

    fn all_ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().expect("a lock")
    }
}
