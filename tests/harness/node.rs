//! Endpoints and peers for tests.

use std::net::SocketAddr;

use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Clock, Connection, Endpoint, Handler, HandlerError, Identity,
    Limits, Permit, Scope, Target, TlsIdentity,
    handler::{Echo, Ping},
};
use jiff::Timestamp;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// An identity that is the same in every run; `n` tells them apart.
#[must_use]
pub fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

/// The time at which driven clocks start.
#[must_use]
pub fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("a time")
}

/// Counts the connections that reach it, then echoes.
#[derive(Clone, Debug, Default)]
pub struct Counting(Arc<AtomicUsize>);

impl Counting {
    /// Connections that reached the handler.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Handler for Counting {
    async fn serve(&self, connection: Connection, permit: Permit) -> Result<(), HandlerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Handler::serve(&Echo, connection, permit).await
    }

    fn takes_tcp(&self) -> bool {
        true
    }
}

/// A server with one handler of each access rule, all counting into their own counters.
#[derive(Debug)]
pub struct Server {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The keys it trusts; `replace`, then `endpoint.reload()`.
    pub peers: AuthorizedPeers,
    /// Its clock.
    pub clock: Clock,
    /// `public/1`.
    pub public: Counting,
    /// `enroll/1`.
    pub enroll: Counting,
    /// `peer/1`.
    pub peer: Counting,
    /// `scoped/1`, scope `ops`.
    pub scoped: Counting,
    /// `loopback/1`.
    pub loopback: Counting,
    /// `h3`, `h2`, `http/1.1`: stand-ins, public.
    pub http: Counting,
}

/// Protocol of the public handler.
pub const PUBLIC: &[u8] = b"public/1";
/// Protocol of the handler for authorised peers.
pub const PEER: &[u8] = b"peer/1";
/// Protocol of the handler for peers with scope `ops`.
pub const SCOPED: &[u8] = b"scoped/1";
/// Protocol of the handler for loopback addresses.
pub const LOOPBACK: &[u8] = b"loopback/1";

/// The protocol of this name.
#[must_use]
pub fn alpn(name: &[u8]) -> Alpn {
    Alpn::new(name).expect("a protocol name")
}

impl Server {
    /// Binds on a free port of 127.0.0.1 (UDP and TCP), identity 1, names `localhost` and
    /// `web.example` self-signed, trusting the lines of `peers`.
    pub async fn start(peers: &str) -> Self {
        Self::start_with(peers, Limits::default()).await
    }

    /// The same with other limits.
    pub async fn start_with(peers: &str, limits: Limits) -> Self {
        let peers = AuthorizedPeers::from_text(peers).expect("good lines");
        let clock = Clock::manual(noon());
        let [public, enroll, peer, scoped, loopback, http] =
            std::array::from_fn(|_| Counting::default());
        let endpoint = Endpoint::builder(identity(1))
            .listen("127.0.0.1:0".parse().expect("an address"))
            .server_name("localhost", TlsIdentity::SelfSigned)
            .server_name("web.example", TlsIdentity::SelfSigned)
            .authorized(peers.clone())
            .clock(clock.clone())
            .limits(limits)
            .handle(Alpn::H3, Access::Public, http.clone())
            .handle(Alpn::H2, Access::Public, http.clone())
            .handle(Alpn::HTTP_1_1, Access::Public, http.clone())
            .handle(alpn(PUBLIC), Access::Public, public.clone())
            .handle(Alpn::ENROLL_1, Access::Enroll, enroll.clone())
            .handle(alpn(PEER), Access::default(), peer.clone())
            .handle(alpn(SCOPED), Access::Peer(Scope::new("ops").expect("a scope")), scoped.clone())
            .handle(alpn(LOOPBACK), Access::Loopback, loopback.clone())
            .handle(Alpn::PING_1, Access::default(), Ping)
            .discover()
            .bind()
            .await
            .expect("the server binds");
        Self { endpoint, peers, clock, public, enroll, peer, scoped, loopback, http }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.endpoint.local_addrs()[0]
    }

    /// How to dial it by its raw key.
    #[must_use]
    pub fn target(&self) -> Target {
        format!("peer://{}@{}", self.endpoint.fingerprint().hex(), self.addr())
            .parse()
            .expect("a target")
    }

    /// How to dial it by name, its certificate pinned by `fingerprint`.
    #[must_use]
    pub fn by_name(&self, fingerprint: endpoint_core::Fingerprint) -> Target {
        format!("https://localhost:{}#{fingerprint}", self.addr().port()).parse().expect("a target")
    }

    /// Trusts other lines from now on; gives how many live connections that ended.
    pub async fn trust(&self, lines: &str) -> usize {
        self.peers.replace(lines, self.clock.now()).expect("good lines");
        self.endpoint.reload().await.closed
    }

    /// Handler calls in all.
    #[must_use]
    pub fn calls(&self) -> usize {
        [&self.public, &self.enroll, &self.peer, &self.scoped, &self.loopback, &self.http]
            .iter()
            .map(|handler| handler.calls())
            .sum()
    }
}

/// An endpoint that only dials, with identity `n`.
pub async fn dialler(n: u8) -> Endpoint {
    Endpoint::builder(identity(n)).bind().await.expect("the dialler binds")
}

/// Sends `bytes` on a new stream and gives what comes back.
///
/// # Errors
/// Why it does not work, in words.
pub async fn echo(
    connection: &Connection,
    bytes: &[u8],
) -> Result<Vec<u8>, endpoint_core::LinkError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(bytes).await?;
    send.finish().await?;
    recv.read_to_end(1 << 20).await
}
