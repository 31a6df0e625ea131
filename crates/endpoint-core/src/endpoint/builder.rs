//! What is an endpoint made of?
//!
//! What is required is an argument of [`Endpoint::builder`]; everything else has a safe default. All checks
//! happen in [`Builder::bind`], before anything listens.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Endpoint, Inner, Shared,
    certificates::{Certificates, Member},
    dial::Dialler,
    port::{Listen, Port},
    reload, serve,
    sources::Sources,
    supervise::Deaths,
    tcp,
};
use crate::{
    admission::Gate,
    alpn::Alpn,
    clock::Clock,
    config::{Access, Acme, Limits, StoreConfig, TlsIdentity},
    dispatch::{RegisterError, Registry},
    event::{Observer, Part},
    facts::Reach,
    handler::{Discover, Handler},
    identity::Identity,
    store::StoreError,
    tls::{TcpMinimum, TlsServer},
    transport::{self, ListenKeys, Network, Qlog, RetirementRate},
    trust::{AuthorizedPeers, Live, Looker},
};

/// Builds an [`Endpoint`]. Without [`Builder::listen`] it only dials.
#[derive(Debug)]
#[must_use = "nothing happens before `bind`"]
pub struct Builder {
    identity: Identity,
    listen: Vec<Listen>,
    names: Vec<(Vec<String>, TlsIdentity)>,
    peers: AuthorizedPeers,
    routes: Registry,
    refused: Option<RegisterError>,
    discover: Option<Discover>,
    limits: Limits,
    clock: Clock,
    state_dir: Option<PathBuf>,
    known: Option<PathBuf>,
    tcp_minimum: TcpMinimum,
    drain_deadline: Duration,
    qlog: Option<PathBuf>,
    store: Option<StoreConfig>,
    network: Option<Arc<dyn Network>>,
    /// Groups whose source stands already.
    members: Vec<Member>,
}

impl Builder {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            listen: Vec::new(),
            names: Vec::new(),
            peers: AuthorizedPeers::nobody(),
            routes: Registry::default(),
            refused: None,
            discover: None,
            limits: Limits::default(),
            clock: Clock::system(),
            state_dir: None,
            known: None,
            tcp_minimum: TcpMinimum::default(),
            drain_deadline: Duration::from_secs(10),
            qlog: None,
            store: None,
            network: None,
            members: Vec::new(),
        }
    }

    /// Listens on `address`, UDP and, with feature `tcp`, TCP of one port number. Port 0 takes a free one.
    /// May be called several times.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(Listen::At(address));
        self
    }

    /// Listens on sockets that somebody else bound, as systemd does for a service that must not start as
    /// root. `tcp` is on the same address as `udp`; without feature `tcp` it is refused.
    pub fn listen_on(
        mut self,
        udp: std::net::UdpSocket,
        tcp: Option<std::net::TcpListener>,
    ) -> Self {
        self.listen.push(Listen::On { udp, tcp });
        self
    }

    /// Serves `identity` to X.509 clients that ask for `name`: a DNS name, `*.` and a DNS name, or an IP
    /// address for its certificate. The first one also answers clients that ask for no name or another.
    pub fn server_name(self, name: impl Into<String>, identity: TlsIdentity) -> Self {
        self.server_names([name], identity)
    }

    /// The same for several names that share one certificate.
    pub fn server_names(
        mut self,
        names: impl IntoIterator<Item = impl Into<String>>,
        identity: TlsIdentity,
    ) -> Self {
        self.names.push((names.into_iter().map(Into::into).collect(), identity));
        self
    }

    /// Serves the domains of `acme`, each with a certificate of its own that is obtained over ACME (RFC 8555)
    /// and renewed by itself. Without feature `acme`, [`Self::bind`] fails.
    pub fn acme(mut self, acme: Acme) -> Self {
        self.names.push((acme.domains.clone(), TlsIdentity::Acme(acme)));
        self
    }

    /// Whether certificates can be ordered in this way: what [`Self::bind`] would refuse. Reads the files that
    /// it names; asks nobody, opens no store and writes nothing.
    ///
    /// # Errors
    /// [`BindError::Certificate`] with what is wrong, also without feature `acme`.
    pub fn check_acme(acme: &Acme) -> Result<(), BindError> {
        super::acme::check(acme).map_err(|reason| BindError::certificate(&acme.domains, reason))
    }

    /// Serves the certificates that stand in this store too, under names that are given nowhere else:
    /// imported ones, and those that another process obtained.
    pub fn store(mut self, store: StoreConfig) -> Self {
        self.store = Some(store);
        self
    }

    /// Serves what a source of the tests' own gives.
    #[cfg(test)]
    pub(super) fn source(
        mut self,
        name: &str,
        source: Arc<dyn crate::certs::source::Source>,
    ) -> Self {
        self.members.push(Member {
            names: vec![name.to_owned()],
            source: Some(source),
            file: None,
            reach: Reach::Everywhere,
        });
        self
    }

    /// The keys that may connect as peers. Default: nobody.
    pub fn authorized(mut self, peers: AuthorizedPeers) -> Self {
        self.peers = peers;
        self
    }

    /// Registers a handler; the order of calls is the server's order of preference.
    pub fn handle(mut self, alpn: Alpn, access: Access, handler: impl Handler) -> Self {
        if let Err(error) = self.routes.add(alpn, access, handler) {
            self.refused.get_or_insert(error);
        }
        self
    }

    /// Registers `discover/1`, open to everybody.
    pub fn discover(mut self) -> Self {
        let discover = Discover::new();
        self.discover = Some(discover.clone());
        self.handle(Alpn::DISCOVER_1, Access::Public, discover)
    }

    /// Replaces the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The clock that trust decisions read. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Where secrets and self-signed certificates are kept, so that they survive a restart. Without it
    /// they last as long as the endpoint.
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(folder.into());
        self
    }

    /// Where the dialling side finds pins for names and addresses without one.
    pub fn known_peers(mut self, file: impl Into<PathBuf>) -> Self {
        self.known = Some(file.into());
        self
    }

    /// Takes TLS 1.3 only on TCP. Default: 1.2 too, from clients that show no key.
    pub fn tls13_only(mut self) -> Self {
        self.tcp_minimum = TcpMinimum::Tls13;
        self
    }

    /// How long [`Endpoint::shutdown`] waits for handlers. Default 10 s.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// Writes a qlog file (draft-ietf-quic-qlog-main-schema) for each QUIC connection into `folder`: whom
    /// it concerns can be read there, so the folder is for this user alone. At most 1,000 files of 64 MiB,
    /// 4 GiB in all, for each start. Without feature `qlog`, [`Self::bind`] fails.
    pub fn qlog_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.qlog = Some(folder.into());
        self
    }

    /// Listens and dials on a network of a test's own, where there is no TCP. No part of the interface.
    #[doc(hidden)]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// Checks everything, then listens.
    ///
    /// # Errors
    /// [`BindError`], which names what was wrong; nothing listens then.
    pub async fn bind(self) -> Result<Endpoint, BindError> {
        if let Some(refused) = self.refused {
            return Err(BindError::Handler(refused));
        }
        let listen: Vec<SocketAddr> = self.listen.iter().filter_map(Listen::asked).collect();
        let mut sources =
            Sources::prepare(self.names, self.state_dir.clone(), self.store, &self.clock, &listen)
                .await?;
        sources.members.extend(self.members);
        let background = std::mem::take(&mut sources.background);
        let clock = self.clock.clone();
        let certificates = Certificates::obtain(sources, clock.now()).await?;
        let offers = self.routes.offers();
        let tls = TlsServer::new(
            &self.identity,
            certificates.table(),
            certificates.challenges(),
            self.tcp_minimum,
            &offers,
        )
        .map_err(|error| BindError::Tls(error.to_string()))?;
        let mut ports = Vec::new();
        let qlog = match &self.qlog {
            Some(folder) => Some(Arc::new(
                Qlog::start(folder)
                    .map_err(|source| BindError::Qlog { folder: folder.clone(), source })?,
            )),
            None => None,
        };
        for listen in self.listen {
            ports.push(Port::open(listen, &self.limits, self.network.as_deref())?);
        }
        let (live, closes) =
            Live::new(self.peers.policy(), self.clock, self.limits.connections_per_peer);
        let retired_ids = RetirementRate::per_minute(self.limits.retired_ids);
        let mut sockets = Vec::new();
        let mut quic = Vec::new();
        let mut listeners = Vec::new();
        let mut local_addrs = Vec::new();
        for port in ports {
            let keys = match &self.state_dir {
                // A port that the system picked is another one next time: nothing to keep.
                Some(folder) if port.asked.port() != 0 => ListenKeys::kept(folder, port.address),
                _ => ListenKeys::random(),
            };
            let keys = keys.map_err(BindError::Secrets)?;
            let (socket, config) = transport::server_endpoint(
                port.udp,
                self.network.as_ref().map(|network| network.seed()),
                &keys,
                [Reach::Everywhere, Reach::Loopback].map(|reach| tls.quic(reach, retired_ids)),
                &self.limits,
                qlog.clone(),
            )
            .map_err(|source| BindError::socket(port.asked, "UDP", source))?;
            sockets.push(socket.clone());
            quic.push((socket, port.address, config));
            listeners.extend(port.tcp);
            local_addrs.push(port.address);
        }
        let observer = Observer::new();
        let (looker, looks) = Looker::start(&self.peers).map_err(BindError::Threads)?.unzip();
        let shared = Arc::new(Shared {
            gate: Gate::new(&self.limits, Arc::clone(&observer.counters)),
            tls,
            certificates,
            routes: ArcSwap::from_pointee(self.routes),
            changing_routes: Mutex::new(()),
            live,
            peers: self.peers,
            looker,
            failed: tokio::sync::watch::Sender::new(None),
            deaths: Deaths::default(),
            observer,
            sockets,
            local_addrs,
            discover: self.discover,
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
            ended: CancellationToken::new(),
            drain_deadline: self.drain_deadline,
            identity: self.identity.clone(),
            limits: ArcSwap::from_pointee(self.limits.clone()),
        });
        shared.refresh_discover();
        shared.tell_fallbacks();
        shared.supervise_again(Part::Pacing, move || {
            let closes = Arc::clone(&closes);
            async move { closes.send().await }
        });
        let gate = shared.gate.clone();
        shared.supervise_again(Part::Admission, move || gate.keep());
        background.start(&shared, &clock);
        shared.supervise(Part::TrustWatch, reload::watch(Arc::clone(&shared), looks));
        let driver = Arc::clone(&shared);
        shared.supervise_again(Part::Certificates, move || {
            reload::drive_certificates(Arc::clone(&driver))
        });
        for (socket, local, config) in quic {
            let accept = serve::accept_quic(Arc::clone(&shared), socket, local, config);
            shared.supervise(Part::AcceptQuic, accept);
        }
        for listener in listeners {
            shared.supervise(Part::AcceptTcp, tcp::accept(Arc::clone(&shared), listener));
        }
        let dialler = Dialler::new(self.identity, self.limits, self.known, qlog, self.network);
        Ok(Endpoint(Arc::new(Inner { shared, dialler })))
    }
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The port is taken.
    #[error("{address} ({carrier}) is already in use")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        carrier: &'static str,
    },
    /// A certificate cannot be used.
    #[error("the certificate for {name} cannot be used: {reason}")]
    Certificate {
        /// The server name.
        name: String,
        /// What is wrong, with the file.
        reason: String,
    },
    /// A handler cannot be registered.
    #[error(transparent)]
    Handler(RegisterError),
    /// The system does not let this user take the port.
    #[error("{address} ({carrier}) may not be bound by this user")]
    NotPermitted {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        carrier: &'static str,
    },
    /// The folder for qlog files cannot be used.
    #[error("no qlog can be written to {}: {source}", folder.display())]
    Qlog {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The secrets of the listen address cannot be kept.
    #[error("the secrets for stateless resets and address tokens cannot be kept: {0}")]
    Secrets(io::Error),
    /// A socket cannot be opened.
    #[error("{address} ({carrier}) cannot be bound: {source}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        carrier: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What keeps certificates cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// The system gives no thread that looks at the trust file.
    #[error("no thread could be started: {0}")]
    Threads(io::Error),
    /// TLS cannot be set up.
    #[error("{0}")]
    Tls(String),
}

impl BindError {
    pub(super) fn socket(address: SocketAddr, carrier: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address, carrier },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address, carrier },
            _ => Self::Socket { address, carrier, source },
        }
    }

    pub(super) fn certificate(names: &[String], reason: String) -> Self {
        Self::Certificate { name: names.join(", "), reason }
    }
}
