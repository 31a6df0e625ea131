//! What does an endpoint hold now? For tests that look for what was not given back.
//!
//! Not here: what happened since the start (`event`), which only grows.

use super::Endpoint;

/// What is held at one moment; all of it is given back when connections end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Held {
    /// Handshakes under way that admission has given a slot.
    pub handshakes: usize,
    /// Connections that admission has given a slot.
    pub connections: usize,
    /// Entries of the table of live connections.
    pub entries: usize,
    /// Keys with connections that count towards their limit.
    pub keys: usize,
    /// Tasks of accepted connections.
    pub tasks: usize,
    /// Connections that quinn knows, accepted and dialled, until their closing period has passed.
    pub quic: usize,
}

impl Endpoint {
    /// What the endpoint holds now. No part of the interface.
    #[doc(hidden)]
    #[must_use]
    pub fn held(&self) -> Held {
        let shared = &self.0.shared;
        let (handshakes, connections) = shared.gate.held();
        let (entries, keys) = shared.live.held();
        let accepted: usize = shared.sockets.iter().map(quinn::Endpoint::open_connections).sum();
        Held {
            handshakes,
            connections,
            entries,
            keys,
            tasks: shared.connections.len(),
            quic: accepted + self.0.dialler.open_connections(),
        }
    }
}
