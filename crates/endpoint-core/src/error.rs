//! What went wrong with a connection or a stream?
//!
//! Ground: errors that several steps share. Each operation's own errors stand beside it.

use std::io;

use crate::close::CloseCode;

/// Why a connection or one of its streams cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Either side closed the connection with this code.
    #[error("the connection was closed: {0}")]
    Closed(CloseCode),
    /// The other side closed the connection with a code that is not ours.
    #[error("the connection was closed by the other side with code {0:#x}")]
    ClosedByPeer(u64),
    /// The endpoint is shutting down and takes no new streams on this connection.
    #[error("the endpoint is shutting down and takes no new streams")]
    Draining,
    /// The carrier failed.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The other side was restarted and knows nothing of this connection (RFC 9000 §10.3).
    #[error("the other side was restarted; dial again")]
    PeerRestarted,
    /// The other side gave the stream up.
    #[error("the stream was given up by the other side with code {0:#x}")]
    StreamReset(u64),
    /// The other side was silent for too long.
    #[error("the other side is silent; the connection was given up")]
    TimedOut,
    /// More bytes came than were asked for.
    #[error("the stream is longer than the {limit} bytes allowed")]
    TooLong {
        /// The bytes allowed.
        limit: usize,
    },
    /// The carrier has no such thing: a TCP link has one stream and no datagrams.
    #[error("a TCP link has no {0}")]
    Unsupported(&'static str),
}

impl LinkError {
    /// Whether the other side said that the key is not, or no longer, allowed.
    #[must_use]
    pub fn is_not_authorized(&self) -> bool {
        matches!(
            self,
            Self::Closed(CloseCode::NotAuthorized | CloseCode::Revoked | CloseCode::Expired)
        )
    }

    /// Whether the connection came to its end in good order.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Closed(CloseCode::Done | CloseCode::ShuttingDown) | Self::Draining)
    }
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        let kind = match &error {
            LinkError::Closed(_) | LinkError::ClosedByPeer(_) => io::ErrorKind::ConnectionAborted,
            LinkError::PeerRestarted | LinkError::StreamReset(_) => io::ErrorKind::ConnectionReset,
            LinkError::TimedOut => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
