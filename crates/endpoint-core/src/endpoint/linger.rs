//! What does a QUIC connection cost that has ended?
//!
//! quinn keeps it for three probe timeouts (RFC 9000 §10.2): tens of kilobytes, for as long as the peer made its
//! round trips. Over TCP what has ended is gone.

use std::{net::IpAddr, sync::Arc};

use tokio::time::timeout;

use super::Shared;
use crate::{
    admission::Lingering,
    transport::{CLOSING_PERIOD, Kept},
};

/// As long as quinn keeps what has ended, it counts at its address: who fails on purpose, or makes its round
/// trips long and comes again and again, may have no more of them than of handshakes.
pub(super) async fn linger(
    shared: Arc<Shared>,
    lingering: Option<Lingering>,
    address: IpAddr,
    kept: Kept,
) {
    let over = async {
        let _lingering = match lingering {
            Some(lingering) => lingering,
            // Those that were served are gone within moments as a rule, and many may come from one address.
            None if !kept.is_long() && timeout(CLOSING_PERIOD, kept.over()).await.is_ok() => return,
            None => shared.gate.lingers(address),
        };
        kept.over().await;
    };
    tokio::select! {
        () = over => {}
        () = shared.draining.cancelled() => {}
    }
}
