//! What does an operator see of a live connection?

use std::time::Duration;

use jiff::Timestamp;

use super::{Approval, Carrier, Entry, Fingerprint, Profile};

impl Entry {
    pub(crate) fn info(&self) -> ConnectionInfo {
        let (bytes_sent, bytes_received) = self.link.bytes();
        let address = self.link.address();
        ConnectionInfo {
            id: self.facts.id,
            peer: self.facts.peer.fingerprint(),
            name: self.approval.get().and_then(Approval::name).map(str::to_owned),
            alpn: self.facts.alpn.to_string(),
            remote: address.proven(),
            unproven: Some(address.present()).filter(|_| !address.is_settled()),
            carrier: self.facts.carrier,
            profile: self.facts.profile,
            access: self.access.load().to_string(),
            since: self.since,
            rtt: self.link.rtt(),
            bytes_sent,
            bytes_received,
        }
    }
}

/// What an operator sees of a live connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Number of the connection, unique in this process.
    pub id: u64,
    /// The key it proved, if it showed one.
    pub peer: Option<Fingerprint>,
    /// The `name=` of its grant.
    pub name: Option<String>,
    /// The protocol, escaped.
    pub alpn: String,
    /// The address that it answered from last.
    pub remote: std::net::SocketAddr,
    /// The address that its newest packet shows, while nothing was answered from there.
    pub unproven: Option<std::net::SocketAddr>,
    /// What carries it.
    pub carrier: Carrier,
    /// How hands were shaken.
    pub profile: Profile,
    /// The handler's access rule.
    pub access: String,
    /// When it was permitted.
    pub since: Timestamp,
    /// Smoothed round trip (QUIC only).
    pub rtt: Option<Duration>,
    /// Bytes sent: UDP payloads on QUIC, TLS plain text on TCP.
    pub bytes_sent: u64,
    /// Bytes received, counted likewise.
    pub bytes_received: u64,
}
