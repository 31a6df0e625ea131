//! How is another endpoint reached?
//!
//! What is expected of the other side is checked inside the handshake, never afterwards by the caller.
//! [`Endpoint::connect`] succeeds only when the other side has said yes: on profiles that ask for a key the
//! first stream credit is that yes, and a refusal arrives as a close code instead.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};

use super::{
    ConnectError, Endpoint,
    failures::{FailureKind, Failures},
    tcp,
};
pub use crate::tls::{GivenRoots, Roots};
use crate::{
    alpn::Alpn,
    apart::Turns,
    close::CloseCode,
    config::Limits,
    error::LinkError,
    facts::{Carrier, KeyKind, LinkFacts, PeerKey, Profile},
    handler::Connection,
    identity::{Fingerprint, Identity},
    target::{Host, HostPort, Target},
    tls::{self, Dial, Expect, Verdict},
    transport::{self, Link, Network, Qlog, from_quinn},
    trust::known::KnownPeers,
};

/// How to dial, beyond whom.
#[derive(Clone, Debug, Default)]
pub struct DialOptions {
    tcp: bool,
    roots: Roots,
}

impl DialOptions {
    /// Dials over TLS on TCP instead of QUIC. There is no silent fallback either way.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Trusts `roots` instead of the platform's for names without a pin, and besides the pin for names
    /// with one.
    #[must_use]
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }
}

/// The dialling half of an endpoint.
#[derive(Debug)]
pub(super) struct Dialler {
    identity: Identity,
    limits: Limits,
    known: Option<PathBuf>,
    /// One look at `known` at a time, however many dial.
    looking: Turns,
    failures: Failures,
    v4: OnceLock<quinn::Endpoint>,
    v6: OnceLock<quinn::Endpoint>,
    qlog: Option<Arc<Qlog>>,
    network: Option<Arc<dyn Network>>,
}

/// Pause before the next address of a host is tried beside those under way (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

impl Endpoint {
    /// Dials `target` and speaks `alpn`, over QUIC. Returns when the other side has said yes.
    ///
    /// # Errors
    /// [`ConnectError`], which says who refused what and what to do next.
    pub async fn connect(
        &self,
        target: &Target,
        alpn: impl TryInto<Alpn>,
    ) -> Result<Connection, ConnectError> {
        self.connect_with(target, alpn, DialOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Self::connect`]. Over TCP a refusal shows at the first read instead, because TLS on TCP has
    /// no yes: [`LinkError::Closed`] with
    /// [`CloseCode::NotAuthorized`].
    pub async fn connect_with(
        &self,
        target: &Target,
        alpn: impl TryInto<Alpn>,
        options: DialOptions,
    ) -> Result<Connection, ConnectError> {
        let alpn = alpn.try_into().map_err(|_| ConnectError::BadAlpn)?;
        self.0.dialler.connect(target, &alpn, &options).await
    }

    /// Learns which raw key answers at `host`, without trusting it and without showing our own. The
    /// signature is checked, so whoever answers holds the key.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn learn(&self, host: &HostPort) -> Result<Fingerprint, ConnectError> {
        self.0.dialler.learn(host).await
    }
}

impl Dialler {
    pub(super) fn new(
        identity: Identity,
        limits: Limits,
        known: Option<PathBuf>,
        qlog: Option<Arc<Qlog>>,
        network: Option<Arc<dyn Network>>,
    ) -> Self {
        let (v4, v6, failures) = (OnceLock::new(), OnceLock::new(), Failures::default());
        let looking = Turns::default();
        Self { identity, limits, known, looking, failures, v4, v6, qlog, network }
    }

    /// Ends dialled connections: their peers are told.
    pub(super) fn close(&self) {
        for socket in [self.v4.get(), self.v6.get()].into_iter().flatten() {
            socket.close(CloseCode::Done.number().into(), b"");
        }
    }

    /// Dialled connections that quinn still knows.
    pub(super) fn open_connections(&self) -> usize {
        let sockets = [self.v4.get(), self.v6.get()];
        sockets.into_iter().flatten().map(quinn::Endpoint::open_connections).sum()
    }

    /// Waits until the closes of dialled connections have gone out.
    pub(super) async fn idle(&self) {
        for socket in [self.v4.get(), self.v6.get()].into_iter().flatten() {
            socket.wait_idle().await;
        }
    }

    async fn connect(
        &self,
        target: &Target,
        alpn: &Alpn,
        options: &DialOptions,
    ) -> Result<Connection, ConnectError> {
        let (host, expect) = self.expectation(target, options).await?;
        let carrier = if options.tcp { Carrier::Tcp } else { Carrier::Quic };
        let what = format!("{host} {carrier}");
        if let Some((kind, wait)) = self.failures.recent(&what, Instant::now()) {
            return Err(ConnectError::RecentlyFailed { host: what, kind, wait });
        }
        let dialled = self.dial(&host, &expect, alpn, carrier).await;
        match &dialled {
            Ok(_) => self.failures.clear(&what),
            Err(ConnectError::Lookup { .. }) => {
                self.failures.note(&what, FailureKind::Lookup, Instant::now());
            }
            Err(ConnectError::Timeout { .. } | ConnectError::Unreachable { .. }) => {
                self.failures.note(&what, FailureKind::Unreachable, Instant::now());
            }
            // Whoever answered, whatever the answer, was reached.
            Err(_) => self.failures.clear(&what),
        }
        dialled
    }

    async fn learn(&self, host: &HostPort) -> Result<Fingerprint, ConnectError> {
        let address = resolve(host).await?;
        let mut last = None;
        for address in address {
            let offer: Vec<Alpn> = LEARNING.to_vec();
            match self.shake_hands(address, host, &Expect::Learn, None, &offer).await {
                Ok((connection, verdict)) => {
                    connection.close(CloseCode::Done.number().into(), b"");
                    if let Some((_, key)) = verdict.proven() {
                        return Ok(key);
                    }
                }
                // With no protocol in common the key was shown all the same.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ConnectError::NoKeyShown { host: host.to_string() }))
    }

    /// Where to dial and what to find there.
    async fn expectation(
        &self,
        target: &Target,
        options: &DialOptions,
    ) -> Result<(HostPort, Expect), ConnectError> {
        let name = |host: &HostPort, pin| Expect::Name {
            name: host.host.to_string(),
            roots: options.roots.clone(),
            pin,
        };
        match target {
            Target::Pinned { fingerprint, host } => Ok((host.clone(), Expect::Pin(*fingerprint))),
            Target::Name { host } => Ok((host.clone(), name(host, None))),
            Target::NamePinned { host, fingerprint } => {
                Ok((host.clone(), name(host, Some(*fingerprint))))
            }
            Target::Unpinned { host } => match self.known(&host.to_string()).await? {
                Some((fingerprint, _)) => Ok((host.clone(), Expect::Pin(fingerprint))),
                None => Err(ConnectError::PeerUnknown { host: host.to_string() }),
            },
            Target::Known { name } => match self.known(name).await? {
                Some((fingerprint, host)) => Ok((host, Expect::Pin(fingerprint))),
                None => Err(ConnectError::PeerUnknown { host: name.clone() }),
            },
        }
    }

    async fn known(&self, name: &str) -> Result<Option<(Fingerprint, HostPort)>, ConnectError> {
        let Some(path) = self.known.clone() else { return Ok(None) };
        let (deadline, at) = (self.limits.handshake_deadline, path.clone());
        let look = self.looking.apart(move || KnownPeers::load(&at));
        let known = timeout(deadline, look).await.unwrap_or_else(|_| {
            let (path, time) = (path.display(), deadline.as_secs_f32());
            Err(format!("{path} could not be read within {time} s: look after its disk"))
        });
        Ok(known.map_err(|reason| ConnectError::KnownPeers { reason })?.find(name))
    }

    async fn dial(
        &self,
        host: &HostPort,
        expect: &Expect,
        alpn: &Alpn,
        carrier: Carrier,
    ) -> Result<Connection, ConnectError> {
        let mut addresses = resolve(host).await?.into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut first_error: Option<ConnectError> = None;
        loop {
            // The next address begins after a pause, or at once when nothing is under way.
            let pause = if under_way.is_empty() { Duration::ZERO } else { STAGGER };
            tokio::select! {
                Some(dialled) = under_way.next(), if !under_way.is_empty() => {
                    let dialled: Result<Connection, ConnectError> = dialled;
                    match dialled {
                        Ok(connection) => return Ok(connection),
                        // An answer, even a no, is final: the other addresses are the same host's.
                        Err(error) if error.is_answer() => return Err(error),
                        Err(error) => { first_error.get_or_insert(error); }
                    }
                }
                () = sleep(pause), if addresses.len() > 0 => {
                    if let Some(address) = addresses.next() {
                        under_way.push(self.attempt(address, host, expect, alpn, carrier));
                    }
                }
                else => break,
            }
        }
        Err(first_error.unwrap_or_else(|| ConnectError::Lookup {
            host: host.to_string(),
            reason: "the name has no address".into(),
        }))
    }

    async fn attempt(
        &self,
        address: SocketAddr,
        host: &HostPort,
        expect: &Expect,
        alpn: &Alpn,
        carrier: Carrier,
    ) -> Result<Connection, ConnectError> {
        let offer = std::slice::from_ref(alpn);
        let identity = tls::shows_key(expect, offer).then_some(&self.identity);
        if carrier == Carrier::Tcp {
            let began = Instant::now();
            let deadline = self.limits.handshake_deadline;
            let tcp::Dialled { link, verdict } =
                tcp::dial(address, host, expect, identity, alpn, deadline).await?;
            let facts = facts(&link, expect, &verdict, identity, alpn, address);
            return Ok(Connection::dialled(link, facts, None, began.elapsed()));
        }
        let mut forgotten = false;
        loop {
            let began = Instant::now();
            let (connection, verdict) =
                self.shake_hands(address, host, expect, identity, offer).await?;
            let handshake = began.elapsed();
            let first = timeout(self.limits.handshake_deadline, connection.open_bi())
                .await
                .map_err(|_| ConnectError::Timeout { host: host.to_string() })?;
            let link = Link::dialled(connection, *alpn == Alpn::H3);
            match first.map_err(from_quinn) {
                Ok(first) => {
                    let facts = facts(&link, expect, &verdict, identity, alpn, address);
                    return Ok(Connection::dialled(link, facts, Some(first), handshake));
                }
                // The server has forgotten us. It may have restarted, or have said no to a dialler too
                // busy to look: quinn puts a stateless reset that comes behind a close in the close's
                // place, and the code is lost. Either way the answer is one more question away.
                Err(LinkError::PeerRestarted) if !forgotten => forgotten = true,
                Err(error) => {
                    return Err(ConnectError::of_refusal(error, link.told_limit(), host));
                }
            }
        }
    }

    /// One QUIC handshake, and what the verifier saw of the other side; nothing is said about a yes.
    pub(super) async fn shake_hands(
        &self,
        address: SocketAddr,
        host: &HostPort,
        expect: &Expect,
        identity: Option<&Identity>,
        alpns: &[Alpn],
    ) -> Result<(quinn::Connection, Arc<Verdict>), ConnectError> {
        let setup = |error: tls::TlsSetupError| ConnectError::Setup(error.to_string());
        let dial = tls::dial_config(expect, identity, alpns).map_err(setup)?;
        let mut config = quinn::ClientConfig::new(dial.quic().map_err(setup)?);
        let Dial { server_name, verdict, .. } = dial;
        // Address tokens of servers are not kept.
        config.token_store(Arc::new(quinn_proto::NoneTokenStore));
        config.transport_config(transport::client_transport(
            &self.limits,
            address,
            self.qlog.as_deref(),
        ));
        let socket = self.socket(address)?;
        let connecting = socket
            .connect_with(config, address, &server_name)
            .map_err(|error| ConnectError::Setup(error.to_string()))?;
        match timeout(self.limits.handshake_deadline, connecting).await {
            Ok(Ok(connection)) => Ok((connection, verdict)),
            Ok(Err(error)) => Err(ConnectError::of_handshake(error, &verdict, host)),
            Err(_) => Err(ConnectError::Timeout { host: host.to_string() }),
        }
    }

    /// The dialling socket of the address's family, made when first needed.
    fn socket(&self, address: SocketAddr) -> Result<&quinn::Endpoint, ConnectError> {
        let slot = if address.is_ipv6() { &self.v6 } else { &self.v4 };
        if let Some(socket) = slot.get() {
            return Ok(socket);
        }
        let network = self.network.as_deref();
        let socket = transport::client_endpoint(address.is_ipv6(), &self.limits, network)
            .map_err(|source| ConnectError::Unreachable { host: address.to_string(), source })?;
        Ok(slot.get_or_init(|| socket))
    }
}

/// Protocols offered when only the key is wanted.
pub(super) const LEARNING: [Alpn; 4] = [Alpn::DISCOVER_1, Alpn::PING_1, Alpn::ECHO_1, Alpn::H3];

fn facts(
    link: &Link,
    expect: &Expect,
    verdict: &Verdict,
    identity: Option<&Identity>,
    alpn: &Alpn,
    remote: SocketAddr,
) -> LinkFacts {
    let (kind, name) = match expect {
        Expect::Name { name, .. } => (KeyKind::X509, Some(name.clone())),
        _ => (KeyKind::Raw, None),
    };
    let asked = identity.filter(|_| verdict.asked()).map(|_| KeyKind::Raw);
    LinkFacts {
        id: 0,
        carrier: link.carrier(),
        profile: Profile { server: kind, client: asked },
        alpn: alpn.clone(),
        server_name: name,
        peer: verdict.proven().map_or(PeerKey::None, |(kind, key)| PeerKey::Proven(kind, key)),
        remote,
        local: match remote {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        },
    }
}

pub(super) async fn resolve(host: &HostPort) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |reason: String| ConnectError::Lookup { host: host.to_string(), reason };
    let name = match &host.host {
        Host::Ip(address) => return Ok(vec![SocketAddr::new(*address, host.port)]),
        Host::Name(name) => name.as_str(),
    };
    let found = tokio::net::lookup_host((name, host.port))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut addresses: Vec<_> = Vec::new();
    found.for_each(|address| {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    });
    match addresses.is_empty() {
        true => Err(failed("the name has no address".into())),
        false => Ok(addresses),
    }
}
