//! What happened? Counters that only grow, and events as they happen.
//!
//! Ground: written by every step, read by `status`. Bounded: slow readers of events lose the oldest.
//!
//! Always true: no key, token or byte of a peer's data stands in an event.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::{alpn::Alpn, identity::Fingerprint};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Numbers since the endpoint was bound; each only grows.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter),* }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
        #[non_exhaustive]
        pub struct CounterSnapshot { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> CounterSnapshot {
                CounterSnapshot { $($name: self.$name.0.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    /// First packets and TCP connections that arrived.
    arrivals,
    /// Arrivals answered with a Retry packet (RFC 9000 §8.1.2).
    retries,
    /// Arrivals refused before any TLS work, and finished handshakes for which there was no room: limits,
    /// penalties or shutdown.
    refused,
    /// Of these, because there was no room and nobody who could give way.
    refused_full,
    /// Refused because their address had failed too often: arrivals, which are part of `refused`, and finished
    /// handshakes with a key without a grant, which are not.
    penalised,
    /// Arrivals that waited for their turn to shake hands.
    held,
    /// Strangers that were told to end because others needed the room: waiting, in a handshake or connected.
    gave_way,
    /// Handshakes finished.
    handshakes,
    /// Handshakes that failed or came too late.
    handshake_failures,
    /// Challenges of certificate authorities that were answered in a handshake (RFC 8737).
    challenges,
    /// Connections that a handler was given.
    permitted,
    /// Connections that the access decision refused.
    denied,
    /// Live connections ended because they were no longer allowed.
    ended_by_policy,
    /// Live connections ended by the operator.
    kicked,
    /// Connections closed because their peer retired connection ids faster than it may.
    retirement_floods,
    /// Handlers that ended with an error.
    handler_errors,
    /// Handlers that panicked.
    handler_panics,
    /// Times that the trust file was read anew.
    reloads,
    /// Times that the trust file had faults or could not be read.
    trust_alarms,
    /// Tasks of the endpoint itself that died.
    task_failures,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// A task that the endpoint cannot do without.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Part {
    /// A loop that accepts QUIC connections.
    AcceptQuic,
    /// A loop that accepts TCP connections.
    AcceptTcp,
    /// What looks after arrivals that wait.
    Admission,
    /// What certificates need beside their sources: the store, the watch of orders.
    CertificateHelper,
    /// The driver of certificates.
    Certificates,
    /// The pacing of closes.
    Pacing,
    /// The watch of the trust file.
    TrustWatch,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AcceptQuic => "the loop that accepts QUIC connections",
            Self::AcceptTcp => "the loop that accepts TCP connections",
            Self::Admission => "the queue of arrivals",
            Self::CertificateHelper => "a helper of the certificates",
            Self::Certificates => "the driver of certificates",
            Self::Pacing => "the pacing of closes",
            Self::TrustWatch => "the watch of the trust file",
        })
    }
}

/// Something that happened, for a live view.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A certificate is served from now on that was issued or renewed.
    CertificateObtained {
        /// The names that it is served under.
        names: Vec<String>,
        /// `acme`, `bundle` or `tailscale`.
        source: &'static str,
        /// Who issued it.
        issuer: Option<String>,
        /// Not good after.
        #[serde(serialize_with = "as_text")]
        not_after: Timestamp,
    },
    /// A look for a certificate failed; what was served stays.
    CertificateFailed {
        /// The names that it would be served under.
        names: Vec<String>,
        /// Where it was looked for.
        source: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A self-signed certificate is served until the right one is at hand.
    CertificateFallback {
        /// The names that it is served under.
        names: Vec<String>,
        /// Where the right one is looked for.
        source: &'static str,
    },
    /// A handler was given a connection.
    Connected {
        /// Number of the connection.
        id: u64,
        /// Its key, if it showed one.
        peer: Option<Fingerprint>,
        /// The protocol.
        alpn: String,
        /// Where it came from.
        remote: SocketAddr,
    },
    /// A connection was refused by the access decision.
    Denied {
        /// Its key, if it showed one.
        peer: Option<Fingerprint>,
        /// The protocol.
        alpn: String,
        /// Where it came from.
        remote: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A connection that a handler had ended.
    Disconnected {
        /// Number of the connection.
        id: u64,
        /// How it ended.
        reason: String,
    },
    /// A task of the endpoint itself died.
    PartFailed {
        /// Which.
        part: Part,
        /// How.
        reason: String,
    },
    /// A line of the trust file admits nobody because it is faulty.
    TrustFault {
        /// File, line and column.
        place: String,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// The trust file was read anew.
    TrustReloaded {
        /// Keys in the set.
        grants: usize,
        /// Lines that admit nobody because they are faulty.
        faults: usize,
        /// Connections that the new set ended.
        closed: usize,
    },
    /// The trust file cannot be used; after two seconds it admits nobody.
    TrustUnreadable {
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// The endpoint stopped accepting.
    Draining,
}

/// A key that was refused, kept so that an operator can look and decide.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedKey {
    /// The key.
    pub fingerprint: Fingerprint,
    /// The protocol it asked for.
    #[serde(serialize_with = "as_text")]
    pub alpn: Alpn,
    /// Where it came from.
    pub remote: SocketAddr,
    /// Why it was refused.
    pub reason: String,
    /// When.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
}

fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Where steps report to.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) counters: std::sync::Arc<Counters>,
    events: broadcast::Sender<Event>,
    refused: std::sync::Mutex<std::collections::VecDeque<RefusedKey>>,
}

/// Refused keys remembered for `status`.
const REFUSED_KEPT: usize = 32;
/// Events a slow reader may fall behind.
const EVENTS_KEPT: usize = 256;

impl Observer {
    pub(crate) fn new() -> Self {
        Self {
            counters: std::sync::Arc::default(),
            events: broadcast::Sender::new(EVENTS_KEPT),
            refused: std::sync::Mutex::default(),
        }
    }

    /// Tells whoever listens; nobody listening is fine.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(event());
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Remembers a refused key; the newest stands last, one entry a key.
    pub(crate) fn remember_refused(&self, key: RefusedKey) {
        let mut kept = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.retain(|k| k.fingerprint != key.fingerprint);
        if kept.len() >= REFUSED_KEPT {
            kept.pop_front();
        }
        kept.push_back(key);
    }

    pub(crate) fn refused(&self) -> Vec<RefusedKey> {
        let kept = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.iter().cloned().collect()
    }
}
