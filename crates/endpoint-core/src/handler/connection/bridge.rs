//! What the HTTP bridge needs of a connection, which accepts streams by itself.

use super::{
    Connection, FirstStream, Link, LinkError, RecvStream, RequestLimits, SendStream, Watch,
};
use crate::phase::{Activity, Pace};

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

    /// On TCP: the link's one stream, whose requests are counted by whoever takes it.
    pub(crate) async fn stream(&self) -> Result<(SendStream, RecvStream), LinkError> {
        self.accept().await
    }

    /// On accepted connections: how far it has come.
    pub(crate) fn activity(&self) -> Option<&Activity> {
        self.0.pace.as_ref().map(Pace::activity)
    }

    /// Waits until the connection has to end: the endpoint shuts down, or it was told to. How long it may
    /// take for that is not its own affair.
    pub(crate) async fn ends(&self) {
        match &self.0.pace {
            Some(pace) => pace.ends().await,
            None => std::future::pending().await,
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
