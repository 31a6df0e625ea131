//! What is done with a connection? Step 6 of 6.
//!
//! A handler gets a connection and a permit, and serves it until it returns. Written by library users in
//! ten lines; three ship: [`Ping`], [`Echo`], [`Discover`].
//!
//! Always true: a handler's panic ends its own connection and nothing else.

mod connection;
mod discover;
mod echo;
mod ping;

use std::{error::Error, pin::Pin};

pub use self::{
    connection::Connection,
    discover::{Discover, DiscoverAnswer},
    echo::Echo,
    ping::{PROBE_BYTES, Ping},
};
pub use crate::trust::Permit;

/// Why a handler gave a connection up. The log gets the text; the peer gets a close code.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// Serves the connections of one protocol.
pub trait Handler: Send + Sync + 'static {
    /// Serves `connection` until both sides have what they want. When this returns `Ok`, the connection
    /// is closed in good order, so wait for what was sent with
    /// [`SendStream::finish_and_wait`](crate::SendStream::finish_and_wait). The future is dropped at once
    /// when the peer is no longer allowed.
    ///
    /// While the endpoint shuts down, [`Connection::accept_bi`] gives
    /// [`LinkError::Draining`](crate::LinkError::Draining): end what was accepted and return.
    fn serve(
        &self,
        connection: Connection,
        permit: Permit,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Whether the protocol fits a TCP link: one bidirectional stream and no datagrams. Others are not
    /// offered on TCP.
    fn takes_tcp(&self) -> bool {
        false
    }
}

/// A handler behind a pointer.
pub(crate) trait DynHandler: Send + Sync {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        permit: Permit,
    ) -> Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

    fn takes_tcp(&self) -> bool;
}

impl<H: Handler> DynHandler for H {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        permit: Permit,
    ) -> Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>> {
        Box::pin(Handler::serve(self, connection, permit))
    }

    fn takes_tcp(&self) -> bool {
        Handler::takes_tcp(self)
    }
}
