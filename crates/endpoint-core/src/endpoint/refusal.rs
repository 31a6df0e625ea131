//! Why did a dial not end in a connection?
//!
//! Turns what TLS, QUIC and the other side said into what a user can act on.

use std::{io, time::Duration};

use super::failures::FailureKind;
use crate::{
    close::CloseCode, error::LinkError, identity::Fingerprint, target::HostPort, tls::Verdict,
    transport,
};

/// Why a dial did not end in a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The protocol's name is empty or longer than 255 bytes.
    #[error("the protocol name is not 1 to 255 bytes long")]
    BadAlpn,
    /// The server shows another kind of key than was asked for, or takes no raw client key.
    #[error(
        "{host} does not take the kinds of key offered: it may be no endpoint, or serve no certificate for this name"
    )]
    CertificateTypeMismatch {
        /// Who was dialled.
        host: String,
    },
    /// The build lacks what was asked for.
    #[error("feature `{0}` is not compiled in")]
    FeatureMissing(&'static str),
    /// `known_peers` cannot be used; a line that cannot be read might be the one that matters.
    #[error("{reason}")]
    KnownPeers {
        /// What is wrong, with file and line.
        reason: String,
    },
    /// The name has no address.
    #[error("{host} cannot be looked up: {reason}")]
    Lookup {
        /// Who was dialled.
        host: String,
        /// What the system said.
        reason: String,
    },
    /// The server speaks none of the protocols offered to this kind of client.
    #[error("{host} does not speak this protocol, or not with this kind of client")]
    NoCommonAlpn {
        /// Who was dialled.
        host: String,
    },
    /// Something answered but showed no raw key.
    #[error("{host} showed no raw public key")]
    NoKeyShown {
        /// Who was dialled.
        host: String,
    },
    /// The server knows our key and does not allow it, or does not know it.
    #[error("{host} does not authorise our key for this protocol")]
    NotAuthorized {
        /// Who was dialled.
        host: String,
    },
    /// A limit of the server is reached.
    #[error("{host} is overloaded or refuses new connections; try again later")]
    Overloaded {
        /// Who was dialled.
        host: String,
    },
    /// Another key answered than the one expected.
    #[error("{host} answered with another key: expected {expected}, got {got}")]
    PeerChanged {
        /// Who was dialled.
        host: String,
        /// The key expected.
        expected: Fingerprint,
        /// The key that answered.
        got: Fingerprint,
    },
    /// Nothing says which key to expect.
    #[error("no key is known for {host}")]
    PeerUnknown {
        /// Who was dialled.
        host: String,
    },
    /// The same dial failed a moment ago and is not tried again yet.
    #[error("{host} failed a moment ago; next try in {wait:.1?}")]
    RecentlyFailed {
        /// Who was dialled, and over what.
        host: String,
        /// How it failed.
        kind: FailureKind,
        /// How long this stays remembered.
        wait: Duration,
    },
    /// TLS or the configuration made the dial impossible.
    #[error("the dial cannot be set up: {0}")]
    Setup(String),
    /// The server is shutting down.
    #[error("{host} is shutting down")]
    ShuttingDown {
        /// Who was dialled.
        host: String,
    },
    /// No answer in time.
    #[error("{host} did not answer in time; it may be down, or UDP may be blocked on the way")]
    Timeout {
        /// Who was dialled.
        host: String,
    },
    /// Our key has as many connections there as it may.
    #[error(
        "too many connections of your key{} at {host}; end one of them, or ask for more: \
         `max-connections=` there",
        limit.map(|limit| format!(" ({limit})")).unwrap_or_default()
    )]
    TooManyConnections {
        /// Who was dialled.
        host: String,
        /// The limit, if the server told it.
        limit: Option<u32>,
    },
    /// TLS failed in another way.
    #[error("the handshake with {host} failed: {reason}")]
    Tls {
        /// Who was dialled.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The network said no.
    #[error("{host} cannot be reached: {source}")]
    Unreachable {
        /// Who was dialled.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server's certificate is not trusted for this name.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Untrusted {
        /// Who was dialled.
        host: String,
        /// Why.
        reason: String,
    },
}

/// TLS alerts (RFC 8446 §6).
pub(super) mod alert {
    pub(crate) const HANDSHAKE_FAILURE: u8 = 40;
    pub(crate) const UNSUPPORTED_CERTIFICATE: u8 = 43;
    pub(crate) const UNSUPPORTED_EXTENSION: u8 = 110;
    pub(crate) const UNRECOGNIZED_NAME: u8 = 112;
    pub(crate) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

impl ConnectError {
    /// Whether somebody answered: other addresses of the same host will not answer differently.
    pub(super) fn is_answer(&self) -> bool {
        !matches!(self, Self::Timeout { .. } | Self::Unreachable { .. } | Self::Lookup { .. })
    }

    /// What a verifier's verdict or an alert means.
    pub(super) fn of_verdict(verdict: &Verdict, host: &HostPort) -> Option<Self> {
        let host = host.to_string();
        if let Some(mismatch) = verdict.mismatch() {
            let (expected, got) = (mismatch.expected, mismatch.shown);
            return Some(Self::PeerChanged { host, expected, got });
        }
        let reason = verdict.chain_error()?.to_owned();
        Some(Self::Untrusted { host, reason })
    }

    pub(super) fn of_alert(alert: u8, host: &HostPort) -> Option<Self> {
        let host = host.to_string();
        match alert {
            alert::NO_APPLICATION_PROTOCOL => Some(Self::NoCommonAlpn { host }),
            alert::HANDSHAKE_FAILURE
            | alert::UNSUPPORTED_CERTIFICATE
            | alert::UNSUPPORTED_EXTENSION
            | alert::UNRECOGNIZED_NAME => Some(Self::CertificateTypeMismatch { host }),
            _ => None,
        }
    }

    pub(super) fn of_handshake(
        error: quinn::ConnectionError,
        verdict: &Verdict,
        host: &HostPort,
    ) -> Self {
        if let Some(known) = Self::of_verdict(verdict, host) {
            return known;
        }
        let code = match &error {
            quinn::ConnectionError::TransportError(error) => Some(error.code),
            quinn::ConnectionError::ConnectionClosed(close) => Some(close.error_code),
            _ => None,
        };
        let number = code.map(u64::from);
        // CRYPTO_ERROR is 0x0100 to 0x01ff, the low byte is the alert (RFC 9001 §4.8).
        let alert = number.filter(|n| n >> 8 == 1).and_then(|n| u8::try_from(n & 0xff).ok());
        if let Some(known) = alert.and_then(|alert| Self::of_alert(alert, host)) {
            return known;
        }
        let host_text = host.to_string();
        match error {
            quinn::ConnectionError::TimedOut => Self::Timeout { host: host_text },
            _ if code == Some(quinn_proto::TransportErrorCode::CONNECTION_REFUSED) => {
                Self::Overloaded { host: host_text }
            }
            quinn::ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                let closed = CloseCode::from_number(code)
                    .map_or(LinkError::ClosedByPeer(code), LinkError::Closed);
                Self::of_refusal(closed, None, host)
            }
            other => Self::Tls { host: host_text, reason: transport::without_peers_text(&other) },
        }
    }

    /// What a close before the yes means.
    pub(super) fn of_refusal(error: LinkError, limit: Option<u32>, host: &HostPort) -> Self {
        let host = host.to_string();
        match error {
            LinkError::Closed(CloseCode::TooManyConnections) => {
                Self::TooManyConnections { host, limit }
            }
            // HTTP/3 has one code for both.
            LinkError::Closed(CloseCode::Overloaded) if limit.is_some() => {
                Self::TooManyConnections { host, limit }
            }
            error if error.is_not_authorized() => Self::NotAuthorized { host },
            LinkError::Closed(CloseCode::Overloaded) => Self::Overloaded { host },
            LinkError::Closed(CloseCode::ShuttingDown) => Self::ShuttingDown { host },
            LinkError::TimedOut => Self::Timeout { host },
            other => Self::Tls { host, reason: other.to_string() },
        }
    }
}
