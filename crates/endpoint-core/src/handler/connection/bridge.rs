//! What the HTTP bridge needs of a connection, which accepts streams by itself.

use super::{Connection, FirstStream, Link, RequestLimits, Watch};

impl Connection {
    /// quinn's own connection without all of its stream credit: whoever accepts streams from it calls
    /// [`Self::stream_opened`] for each.
    pub(crate) fn quinn(&self) -> Option<&quinn::Connection> {
        match &self.0.link {
            Link::Quic(link) => Some(&link.connection),
            Link::Tcp(_) => None,
        }
    }

    /// On dialled connections: the stream that was opened already, which must be the first request's.
    pub(crate) fn first_stream(&self) -> Option<FirstStream> {
        self.take_first()
    }

    /// Notes that the peer opened a bidirectional stream, so that it may open more.
    pub(crate) fn stream_opened(&self) {
        if let Some(credit) = &self.0.credit {
            credit.used(&self.0.link);
        }
    }

    /// What HTTP requests on it may cost.
    pub(crate) fn request_limits(&self) -> RequestLimits {
        self.0.requests
    }

    /// On accepted connections: whether the peer is still allowed.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.0.watch.as_ref()
    }
}
