//! What does a port offer?
//!
//! Shakes hands once per identity and protocol and looks at what comes back, and sends no application data.
//!
//! Always true: our own key is never shown, since nobody knows yet who answers; where a client key is
//! wanted, one is made for this probe alone.

use std::net::SocketAddr;

use super::{ConnectError, Endpoint};
use crate::{
    alpn::Alpn,
    close::CloseCode,
    facts::KeyKind,
    identity::{Fingerprint, Identity},
    target::HostPort,
    tls::Expect,
};

/// One identity that a port shows, and what it speaks under it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProbedIdentity {
    /// The kind of key that the server showed.
    pub kind: KeyKind,
    /// The key.
    pub fingerprint: Fingerprint,
    /// Whether the client offered a key of its own.
    pub with_client_key: bool,
    /// Whether the server asked the client for a key.
    pub asks_client_key: bool,
    /// Protocols negotiated, in the server's order of preference among those tried.
    pub alpns: Vec<Alpn>,
}

/// What a port offers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The address that answered.
    pub address: SocketAddr,
    /// What it showed.
    pub identities: Vec<ProbedIdentity>,
}

impl Endpoint {
    /// Finds out what `host` offers over QUIC among `candidates`: to clients without a key, and to clients
    /// that show one, made for this probe; by raw key and by certificate.
    ///
    /// # Errors
    /// [`ConnectError`] if nothing answers, or the system gives no randomness. A kind of key that is not offered is no error.
    pub async fn probe(
        &self,
        host: &HostPort,
        candidates: &[Alpn],
    ) -> Result<ProbeReport, ConnectError> {
        let mut last = None;
        let throwaway =
            Identity::generate().map_err(|error| ConnectError::Setup(error.to_string()))?;
        for address in super::dial::resolve(host).await? {
            match self.probe_address(address, host, &throwaway, candidates).await {
                Ok(report) => return Ok(report),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ConnectError::NoKeyShown { host: host.to_string() }))
    }

    async fn probe_address(
        &self,
        address: SocketAddr,
        host: &HostPort,
        throwaway: &Identity,
        candidates: &[Alpn],
    ) -> Result<ProbeReport, ConnectError> {
        let mut identities = Vec::new();
        let mut last = None;
        let by_name = Expect::LearnX509 { name: host.host.to_string() };
        for (expect, with_client_key) in
            [(&Expect::Learn, false), (&Expect::Learn, true), (&by_name, false), (&by_name, true)]
        {
            let key = with_client_key.then_some(throwaway);
            match self.probe_identity(address, host, expect, key, candidates).await {
                Ok(Some(identity)) => identities.push(identity),
                Ok(None) => {}
                // Nobody there: the other ways would wait for the same silence.
                Err(error @ (ConnectError::Timeout { .. } | ConnectError::Unreachable { .. })) => {
                    last = Some(error);
                    break;
                }
                Err(error) => last = Some(error),
            }
        }
        match (identities.is_empty(), last) {
            (true, Some(error)) => Err(error),
            _ => Ok(ProbeReport { address, identities }),
        }
    }

    /// Offers all candidates, then all but the one taken, until none is taken.
    async fn probe_identity(
        &self,
        address: SocketAddr,
        host: &HostPort,
        expect: &Expect,
        key: Option<&Identity>,
        candidates: &[Alpn],
    ) -> Result<Option<ProbedIdentity>, ConnectError> {
        let dialler = &self.0.dialler;
        let with_client_key = key.is_some();
        // Beside an HTTP name, a server known by name is shown no key (see `shows_key`).
        let http_too = !(with_client_key && matches!(expect, Expect::LearnX509 { .. }));
        let mut left: Vec<_> =
            candidates.iter().filter(|alpn| http_too || !alpn.is_http()).cloned().collect();
        let mut found: Option<ProbedIdentity> = None;
        while !left.is_empty() {
            let shaken = dialler.shake_hands(address, host, expect, key, &left).await;
            let (connection, verdict) = match shaken {
                Ok(shaken) => shaken,
                Err(ConnectError::NoCommonAlpn { .. }) => break,
                Err(error) if found.is_none() => return Err(error),
                Err(_) => break,
            };
            let taken = connection
                .handshake_data()
                .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
                .and_then(|data| data.protocol)
                .and_then(|name| Alpn::new(&name).ok());
            connection.close(CloseCode::Done.number().into(), b"");
            let (Some(taken), Some((kind, fingerprint))) = (taken, verdict.proven()) else { break };
            left.retain(|alpn| *alpn != taken);
            let identity = found.get_or_insert_with(|| ProbedIdentity {
                kind,
                fingerprint,
                with_client_key,
                asks_client_key: false,
                alpns: Vec::new(),
            });
            identity.asks_client_key |= verdict.asked();
            identity.alpns.push(taken);
        }
        Ok(found)
    }
}
