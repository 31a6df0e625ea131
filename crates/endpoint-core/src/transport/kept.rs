//! Until when does quinn keep a connection?
//!
//! A connection that has ended stays in memory for three probe timeouts (RFC 9000 §10.2), and those follow from
//! round trips that the peer may make as long as it likes: with acknowledgements that it holds back for ten
//! seconds they are a minute and a half. quinn does not say when it lets go. It does drop the transport
//! parameters then, of which each accepted connection has its own.

use std::{fmt, sync::Arc, time::Instant};

use quinn::congestion::{Controller, ControllerFactory};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{quic::INITIAL_RTT, whereabouts::Whereabouts};

/// Whether quinn still keeps one accepted connection.
#[derive(Debug)]
pub(crate) struct Kept {
    over: CancellationToken,
    whereabouts: Arc<Whereabouts>,
}

impl Kept {
    /// Waits until it does not.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether it will be for longer than one whose round trip nobody knows.
    pub(crate) fn is_long(&self) -> bool {
        self.whereabouts.round_trip() > INITIAL_RTT
    }
}

/// What goes into the transport parameters of one connection: its controllers, and a note for when it is dropped.
pub(super) struct Following {
    whereabouts: Arc<Whereabouts>,
    _kept: DropGuard,
}

impl Following {
    pub(super) fn new(whereabouts: Arc<Whereabouts>) -> (Self, Kept) {
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        (Self { whereabouts: Arc::clone(&whereabouts), _kept: guard }, Kept { over, whereabouts })
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whereabouts.fmt(f)
    }
}

impl ControllerFactory for Following {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Arc::clone(&self.whereabouts).build(now, mtu)
    }
}
