//! What does a QUIC connection cost that has ended?
//!
//! quinn keeps it for three probe timeouts (RFC 9000 §10.2): tens of kilobytes, for as long as the peer made its
//! round trips. Over TCP what has ended is gone.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::Shared;
use crate::{
    admission::Closing,
    transport::{CLOSING_PERIOD, Kept},
};

/// How long something may be kept that is not said to be kept for long: as long as quinn keeps what has no round
/// trip yet, and what its timer is late by.
const USUAL: Duration = CLOSING_PERIOD.saturating_add(Duration::from_secs(1));

/// As long as quinn keeps what has ended, it counts at its address: a handshake that failed or was given up at once,
/// everything else once it is kept for longer than is usual. Who fails on purpose, or makes its round trips long and
/// comes again and again, may have no more of them than of handshakes.
pub(super) async fn linger(
    shared: Arc<Shared>,
    closing: Option<Closing>,
    address: IpAddr,
    kept: Kept,
) {
    let over = async {
        // What was served is gone within moments as a rule, and much may come from one address.
        if !kept.is_long() && timeout(USUAL, kept.over()).await.is_ok() {
            return;
        }
        let _lingering = shared.gate.lingers(address);
        drop(closing);
        kept.over().await;
    };
    tokio::select! {
        () = over => {}
        () = shared.draining.cancelled() => {}
    }
}
