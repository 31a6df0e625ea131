//! What went wrong with a request of ours?

use http::Uri;

use crate::{alpn::Alpn, error::LinkError, facts::Carrier, http::BoxError};

/// Why a request has no answer, or not a whole one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The connection was dialled for another protocol.
    #[error(
        "{alpn} over {carrier} is not HTTP; dial with `h3` over QUIC, with `h2` or `http/1.1` over TCP"
    )]
    NotHttp {
        /// The protocol negotiated.
        alpn: Alpn,
        /// What carries the connection.
        carrier: Carrier,
    },
    /// The request's target names no host.
    #[error("`{target}` names no host; ask for the whole of it: https://host/path")]
    NoHost {
        /// The target.
        target: Uri,
    },
    /// The connection cannot go on, or its one stream is in use.
    #[error(transparent)]
    Connection(#[from] LinkError),
    /// HTTP itself could not begin on the connection.
    #[error("HTTP could not begin on the connection: {0}; dial again")]
    Start(#[source] BoxError),
    /// The exchange ended before its answer, by either side.
    #[error("no answer came: {0}; ask again on a new connection, if it may be asked twice")]
    Exchange(#[source] BoxError),
    /// The answer breaks the rules of HTTP.
    #[error("the answer is malformed: {0}; its server has to be mended")]
    Malformed(&'static str),
    /// The answer's body ended before it was whole.
    #[error("the answer broke off: {0}; what came of it is not to be used")]
    Body(#[source] BoxError),
}

impl HttpError {
    pub(super) fn start(error: impl Into<BoxError>) -> Self {
        Self::Start(error.into())
    }

    pub(super) fn exchange(error: impl Into<BoxError>) -> Self {
        Self::Exchange(error.into())
    }

    pub(super) fn body(error: impl Into<BoxError>) -> Self {
        Self::Body(error.into())
    }
}
