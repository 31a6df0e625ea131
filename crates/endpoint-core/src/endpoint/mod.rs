//! The whole: build, serve, dial, reload, shut down.
//!
//! Imports every step and is imported by none.

#[cfg(feature = "acme")]
mod acme;
#[cfg(not(feature = "acme"))]
#[path = "acme_off.rs"]
mod acme;
mod builder;
mod certificate_info;
mod certificates;
mod dial;
mod failures;
mod fallback;
mod held;
#[cfg(feature = "http3")]
mod http;
mod linger;
mod pace;
mod port;
mod probe;
mod refusal;
mod reload;
mod serve;
mod shutdown;
mod sources;
mod staple;
mod stirred;
mod supervise;

#[cfg(feature = "tcp")]
mod tcp;
#[cfg(not(feature = "tcp"))]
#[path = "tcp_off.rs"]
mod tcp;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

// For the fuzz targets, which stand outside of this crate: no part of the interface.
#[doc(hidden)]
pub use self::acme::AcmeProbe;
// For the simulation: no part of the interface either.
#[doc(hidden)]
pub use self::held::Held;
pub use self::{
    builder::{BindError, Builder},
    certificates::{CertificateInfo, RenewError},
    dial::{DialOptions, GivenRoots, Roots},
    failures::FailureKind,
    probe::{ProbeReport, ProbedIdentity},
    refusal::ConnectError,
    shutdown::DrainReport,
    supervise::Failure,
};
#[doc(hidden)]
pub use crate::transport::Network;
use crate::{
    admission::Gate,
    alpn::Alpn,
    config::{Access, Limits},
    dispatch::{RegisterError, Registry},
    event::{CounterSnapshot, Event, Observer, RefusedKey},
    handler::{Discover, DiscoverAnswer, Handler},
    identity::{Fingerprint, Identity},
    tls::TlsServer,
    trust::{AuthorizedPeers, ConnectionInfo, Live, Looker},
};

/// A bound endpoint. Cheap to clone; the clones are one endpoint. When the last clone is dropped without
/// [`Endpoint::shutdown`], listening and live connections end at once, as with [`Endpoint::close_now`].
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    dialler: dial::Dialler,
}

/// What the background tasks hold.
struct Shared {
    identity: Identity,
    /// As they are now; a connection keeps the times that it came with.
    limits: ArcSwap<Limits>,
    gate: Gate,
    tls: Arc<TlsServer>,
    certificates: certificates::Certificates,
    routes: ArcSwap<Registry>,
    /// Serialises changes of the routes.
    changing_routes: Mutex<()>,
    live: Arc<Live>,
    peers: AuthorizedPeers,
    /// Looks at the trust file, if there is one.
    looker: Option<Arc<Looker>>,
    /// Why the endpoint ended by itself.
    failed: watch::Sender<Option<Failure>>,
    deaths: supervise::Deaths,
    observer: Observer,
    sockets: Vec<quinn::Endpoint>,
    local_addrs: Vec<SocketAddr>,
    discover: Option<Discover>,
    connections: TaskTracker,
    /// Cancelled when the endpoint begins to shut down.
    draining: CancellationToken,
    /// Cancelled when everything must end.
    ended: CancellationToken,
    drain_deadline: std::time::Duration,
}

impl Endpoint {
    /// Begins to build an endpoint that holds `identity`.
    pub fn builder(identity: Identity) -> Builder {
        Builder::new(identity)
    }

    /// The name of the endpoint's own key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.shared.identity.fingerprint()
    }

    /// Where the endpoint listens, each with the port it really got; UDP and, with feature `tcp`, TCP.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.shared.local_addrs
    }

    /// Registers a handler; the next handshakes can negotiate it. Live connections of a handler that was
    /// taken out before go on with that one, and are judged by the rule of the new one from now on.
    ///
    /// # Errors
    /// [`RegisterError`] if the protocol has a handler or may not have one.
    pub fn handle(
        &self,
        alpn: Alpn,
        access: Access,
        handler: impl Handler,
    ) -> Result<(), RegisterError> {
        let rule = (alpn.clone(), access.clone());
        self.0.shared.change_routes(|routes| routes.add(alpn, access, handler))?;
        let ended = self.0.shared.live.set_access(&rule.0, &rule.1);
        tracing::debug!(ended, "handler registered");
        Ok(())
    }

    /// Takes a handler out: new handshakes cannot negotiate it; live connections go on. `false` if there
    /// was none.
    ///
    /// # Errors
    /// [`RegisterError::Tls`] if the remaining protocols cannot be offered.
    pub fn remove(&self, alpn: &Alpn) -> Result<bool, RegisterError> {
        self.0.shared.change_routes(|routes| Ok(routes.remove(alpn)))
    }

    /// Protocols and who may reach them, in order of preference.
    #[must_use]
    pub fn handlers(&self) -> Vec<(Alpn, Access)> {
        let routes = self.0.shared.routes.load();
        routes.list().map(|(alpn, access)| (alpn.clone(), access.clone())).collect()
    }

    /// The live connections that a handler serves, in order of their numbers.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.0.shared.live.snapshot().iter().map(|entry| entry.info()).collect()
    }

    /// The certificates that are served, in the order of their names in the builder.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.0.shared.certificates.list()
    }

    /// Asks for a new certificate under `name` at once, also if the one that is served is fresh.
    ///
    /// # Errors
    /// [`RenewError`]: also if the failure budget is spent, with the time when it is not any more.
    pub async fn renew_certificate(&self, name: &str) -> Result<CertificateInfo, RenewError> {
        self.0.shared.renew_certificate(name).await
    }

    /// The chain that is served under `name` now, leaf first, as PEM.
    #[must_use]
    pub fn certificate_chain(&self, name: &str) -> Option<String> {
        self.0.shared.certificates.chain(name)
    }

    /// What to answer under `/.well-known/acme-challenge/` and that token (RFC 8555 §8.3), if a challenge is
    /// pending here or in a process that shares the store.
    pub async fn challenge_response(&self, token: &str) -> Option<String> {
        self.0.shared.certificates.challenges().http_anywhere(token).await
    }

    /// Ends every live connection of `key`, which stays authorised. Gives how many.
    #[must_use]
    pub fn kick(&self, key: &Fingerprint) -> usize {
        let ended = self.0.shared.live.kick(key);
        self.0.shared.observer.counters.kicked.add(ended as u64);
        ended
    }

    /// Takes other limits and ends what is above them, the longest silent first: connections without a grant
    /// above [`Limits::connections`], and those of a key above [`Limits::connections_per_peer`], which are told
    /// the number. Gives how many.
    ///
    /// Those of admission hold at once, times and numbers of one connection from the next connection on.
    /// [`Limits::answer_bytes`], [`Limits::retired_ids_per_minute`] and those of transport (idle timeout,
    /// keep-alive, windows, buffers, dialling) stay what they were when the endpoint was bound; only the window of
    /// a connection that gets a grant is the new one.
    pub fn set_limits(&self, limits: Limits) -> usize {
        let shared = &self.0.shared;
        let limits = Arc::new(limits);
        shared.limits.store(Arc::clone(&limits));
        let strangers = shared.gate.set_limits(&limits);
        let of_keys = shared.live.set_connections_per_peer(limits.connections_per_peer);
        tracing::debug!(strangers, of_keys, "limits set");
        strangers.saturating_add(of_keys)
    }

    /// Numbers since the endpoint was bound.
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        self.0.shared.observer.counters.snapshot()
    }

    /// What happens from now on. A reader that falls behind by 256 events loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.shared.observer.subscribe()
    }

    /// The last keys that were refused, newest last, at most 32.
    #[must_use]
    pub fn refused_keys(&self) -> Vec<RefusedKey> {
        self.0.shared.observer.refused()
    }
}

impl Shared {
    fn change_routes<T>(
        &self,
        change: impl FnOnce(&mut Registry) -> Result<T, RegisterError>,
    ) -> Result<T, RegisterError> {
        let _one_at_a_time = self.changing_routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes = (**self.routes.load()).clone();
        let answer = change(&mut routes)?;
        // First the routes, then the offer: what can be negotiated can be found.
        let offers = routes.offers();
        self.routes.store(Arc::new(routes));
        self.tls.set_offers(&offers).map_err(|error| RegisterError::Tls(error.to_string()))?;
        self.refresh_discover();
        Ok(answer)
    }

    /// Writes the answer of `discover/1`.
    fn refresh_discover(&self) {
        let Some(discover) = &self.discover else { return };
        let routes = self.routes.load();
        let public = routes.list().filter(|(_, access)| **access == Access::Public);
        discover.set(&DiscoverAnswer::new(
            self.identity.fingerprint(),
            &self.local_addrs,
            public.map(|(alpn, _)| alpn.to_string()).collect(),
        ));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
        self.shared.wait_written();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("fingerprint", &self.fingerprint())
            .field("listen", &self.local_addrs())
            .finish_non_exhaustive()
    }
}
