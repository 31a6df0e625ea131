//! What does the running endpoint say over its control socket?
//!
//! Answers in the JSON that `status --json`, `conns --json` and the `trust` commands print.

use std::net::SocketAddr;

use endpoint_core::{
    endpoint::{Endpoint, RenewError},
    identity::Fingerprint,
    trust::{AuthorizedPeers, ConnectionInfo},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ready::{Listeners, peer_uri};
use crate::{
    control::{Desk, protocol::Request},
    state::State,
};

/// The endpoint as commands see it.
#[derive(Debug)]
pub(super) struct FrontDesk {
    endpoint: Endpoint,
    peers: AuthorizedPeers,
    state: State,
    listeners: Listeners,
    started: Instant,
}

impl FrontDesk {
    pub(super) fn new(
        endpoint: Endpoint,
        peers: AuthorizedPeers,
        state: State,
        listeners: Listeners,
    ) -> Self {
        Self { endpoint, peers, state, listeners, started: Instant::now() }
    }

    /// Every live connection, as `conns --json` prints it.
    pub(super) fn connections(&self) -> Vec<Value> {
        self.endpoint.connections().iter().map(connection).collect()
    }

    pub(super) fn status(&self) -> Value {
        let endpoint = &self.endpoint;
        let fingerprint = endpoint.fingerprint();
        let texts = |addresses: &[SocketAddr]| -> Vec<String> {
            addresses.iter().map(ToString::to_string).collect()
        };
        let handlers: Vec<Value> = endpoint
            .handlers()
            .into_iter()
            .map(|(alpn, access)| json!({"alpn": alpn.to_string(), "access": access.to_string()}))
            .collect();
        let refused: Vec<Value> = endpoint
            .refused_keys()
            .into_iter()
            .map(|key| {
                json!({
                    "fingerprint": key.fingerprint.to_string(),
                    "alpn": key.alpn.to_string(),
                    "remote": key.remote.to_string(),
                    "reason": key.reason,
                    "at": super::super::time_text(key.at),
                    "allow": self.state.command(&format!("trust add {}", key.fingerprint)),
                })
            })
            .collect();
        json!({
            "event": "status",
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_s": self.started.elapsed().as_secs(),
            "state": self.state.folder().to_string_lossy(),
            "fingerprint": fingerprint.to_string(),
            "peer": peer_uri(fingerprint, endpoint.local_addrs()),
            "listen": texts(endpoint.local_addrs()),
            "udp_alone": texts(&self.listeners.udp_alone),
            "loopback_http": self.listeners.loopback.map(|address| address.to_string()),
            "plain_listen": texts(&self.listeners.redirects),
            "handlers": handlers,
            "connections": endpoint.connections().len(),
            "tasks": tokio::runtime::Handle::try_current()
                .map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
            "trust": {
                "file": self.state.authorized().to_string_lossy(),
                "keys": self.peers.policy().grants().len(),
                "problems": self.peers.problems(),
            },
            "counters": endpoint.counters(),
            "log": {
                "lines_lost": crate::spool::lost(),
                "library_warnings": crate::log::library_warnings(),
            },
            "refused": refused,
        })
    }

    async fn renew(&self, name: &str) -> Value {
        let error = match self.endpoint.renew_certificate(name).await {
            Ok(info) => return super::super::cert::object(&info),
            Err(error) => error,
        };
        let (code, until) = match &error {
            RenewError::UnknownName { .. } => ("unknown", None),
            RenewError::NotRenewable { .. } => ("not-renewable", None),
            RenewError::BudgetSpent { until } => ("budget", Some(*until)),
            _ => ("failed", None),
        };
        let until = until.map(super::super::time_text);
        json!({"error": code, "message": error.to_string(), "until": until})
    }

    async fn reload(&self, added: Option<Fingerprint>) -> Value {
        if let Some(key) = added {
            // Takes effect with the look that follows: until then only the old line is known.
            self.endpoint.restore(&key);
        }
        let reload = self.endpoint.reload().await;
        json!({
            "keys": reload.grants,
            "closed": reload.closed,
            "problems": self.peers.problems(),
        })
    }
}

impl Desk for FrontDesk {
    async fn answer(&self, request: Request) -> Result<Vec<Value>, String> {
        Ok(match request {
            Request::Status => vec![self.status()],
            Request::Connections => self.connections(),
            Request::Kick(key) => vec![json!({"closed": self.endpoint.kick(&key)})],
            Request::Live(key) => {
                let of_key = |info: &&ConnectionInfo| info.peer == Some(key);
                vec![json!({"live": self.endpoint.connections().iter().filter(of_key).count()})]
            }
            Request::Reload { added } => vec![self.reload(added).await],
            Request::Revoke(key) => vec![json!({"closed": self.endpoint.revoke(&key)})],
            Request::Certificates => {
                self.endpoint.certificates().iter().map(super::super::cert::object).collect()
            }
            Request::Renew(name) => vec![self.renew(&name).await],
            Request::Chain(name) => vec![json!({"chain": self.endpoint.certificate_chain(&name)})],
        })
    }
}

fn connection(info: &ConnectionInfo) -> Value {
    let kind = info.peer.and(info.profile.client);
    json!({
        "id": info.id,
        "peer": info.peer.map(|peer| peer.to_string()),
        "name": info.name,
        "certificate_type": kind.map(|kind| kind.to_string()),
        "alpn": info.alpn,
        "carrier": info.carrier.to_string(),
        "remote": info.remote.to_string(),
        "unproven_remote": info.unproven.map(|address| address.to_string()),
        "profile": info.profile.to_string(),
        "access": info.access,
        "since": super::super::time_text(info.since),
        "rtt_ms": info.rtt.map(super::super::milliseconds),
        "bytes_sent": info.bytes_sent,
        "bytes_received": info.bytes_received,
    })
}
