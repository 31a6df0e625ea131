//! What does one step tell the next about a connection?
//!
//! Ground: plain data, filled by `tls` from a finished handshake and read by `dispatch` and `trust`.
//!
//! Always true: a [`PeerKey`] other than `None` is a key whose possession the handshake proved by a
//! checked signature (RFC 8446 §4.4.3).

mod address;
mod reach;

use std::{fmt, net::SocketAddr};

pub use self::address::Address;
pub(crate) use self::address::Shown;
pub(crate) use self::reach::{Reach, is_loopback};
use crate::{alpn::Alpn, identity::Fingerprint};

/// What carries a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Carrier {
    /// QUIC over UDP (RFC 9000): many streams, datagrams, migration.
    Quic,
    /// TLS over TCP: one bidirectional stream.
    Tcp,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        })
    }
}

/// Which kind of key a side of the handshake shows.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyKind {
    /// A raw public key (RFC 7250).
    Raw,
    /// An X.509 certificate (RFC 5280).
    X509,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::X509 => "x509",
        })
    }
}

/// One of six ways to shake hands: the server's kind of key × the kind of key asked of the client.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Profile {
    /// What the server shows.
    pub server: KeyKind,
    /// What the client is asked for; `None` asks for nothing.
    pub client: Option<KeyKind>,
}

impl Profile {
    /// All six, in a fixed order.
    pub const ALL: [Self; 6] = [
        Self { server: KeyKind::X509, client: None },
        Self { server: KeyKind::Raw, client: None },
        Self { server: KeyKind::Raw, client: Some(KeyKind::Raw) },
        Self { server: KeyKind::X509, client: Some(KeyKind::Raw) },
        Self { server: KeyKind::Raw, client: Some(KeyKind::X509) },
        Self { server: KeyKind::X509, client: Some(KeyKind::X509) },
    ];

    /// Whether the client is asked for a key. Such profiles issue no tickets and are TLS 1.3 only.
    #[must_use]
    pub fn asks(self) -> bool {
        self.client.is_some()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client {
            Some(client) => write!(f, "{}+{client}", self.server),
            None => write!(f, "{}+none", self.server),
        }
    }
}

/// The key that the other side proved to hold, if it showed one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PeerKey {
    /// No key was shown.
    None,
    /// A key of this name was shown, in this form.
    Proven(KeyKind, Fingerprint),
}

impl PeerKey {
    /// The name of the proven key.
    #[must_use]
    pub fn fingerprint(self) -> Option<Fingerprint> {
        match self {
            Self::None => None,
            Self::Proven(_, fingerprint) => Some(fingerprint),
        }
    }

    /// The form in which the key was shown.
    #[must_use]
    pub fn kind(self) -> Option<KeyKind> {
        match self {
            Self::None => None,
            Self::Proven(kind, _) => Some(kind),
        }
    }
}

/// What a finished handshake established.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkFacts {
    /// Number of the connection, unique in this process.
    pub id: u64,
    /// What carries it.
    pub carrier: Carrier,
    /// How hands were shaken.
    pub profile: Profile,
    /// The protocol negotiated.
    pub alpn: Alpn,
    /// The name asked for (SNI, RFC 6066 §3), normalised.
    pub server_name: Option<String>,
    /// The key proven.
    pub peer: PeerKey,
    /// Where hands were shaken, which proved it; QUIC connections may have moved since ([`Address`]).
    pub remote: SocketAddr,
    /// The address and port of ours that it came to; unspecified on dialled connections.
    pub local: SocketAddr,
}
