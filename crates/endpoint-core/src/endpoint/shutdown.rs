//! How does an endpoint end?
//!
//! Refuse newcomers, tell handlers, wait up to the deadline, close with a documented code, let the closes
//! reach their peers, end background tasks. Never close first. Keys that were removed are written down before,
//! or a program that begins anew at once would let them enrol; a disk that hangs is waited for a second.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

use super::{Endpoint, Shared};
use crate::{close::CloseCode, event::Event};

/// What a shutdown did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that came to their end by themselves.
    pub finished: usize,
    /// Connections that were cut off at the deadline.
    pub cut: usize,
}

/// Time kept back from the deadline for closes to reach their peers. QUIC's closing period is three
/// probe timeouts (RFC 9000 §10.2); waiting for it is not bounded by quinn.
const CLOSING: Duration = Duration::from_millis(400);

/// How long the end waits for the list of removed keys to be written.
const WRITING: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Stops accepting, waits for handlers up to the configured deadline, then closes what is left.
    pub async fn shutdown(&self) -> DrainReport {
        self.shutdown_within(self.0.shared.drain_deadline).await
    }

    /// The same with another deadline. Returns before it passes.
    pub async fn shutdown_within(&self, deadline: Duration) -> DrainReport {
        let shared = &self.0.shared;
        let ends = Instant::now() + deadline;
        shared.gate.close();
        shared.draining.cancel();
        shared.observer.tell(|| Event::Draining);
        let alive = shared.gate.connections();
        info!(connections = alive, "draining");
        shared.connections.close();
        let handlers_end = ends.checked_sub(CLOSING).unwrap_or(ends);
        let drained = timeout_at(handlers_end, shared.connections.wait()).await.is_ok();
        let cut = if drained { 0 } else { shared.gate.connections() };
        self.0.dialler.close();
        for socket in &shared.sockets {
            socket.close(CloseCode::ShuttingDown.number().into(), b"");
        }
        let idle = async {
            for socket in &shared.sockets {
                socket.wait_idle().await;
            }
            self.0.dialler.idle().await;
        };
        // A peer that is gone never acknowledges; its closing period is not worth the deadline.
        let left = ends.saturating_duration_since(Instant::now());
        let written = async {
            if let Some(looker) = &shared.looker {
                looker.written(WRITING.min(left)).await;
            }
        };
        let (_, ()) = tokio::join!(timeout(CLOSING.min(left), idle), written);
        shared.end();
        info!(cut, "stopped");
        DrainReport { finished: alive.saturating_sub(cut), cut }
    }

    /// Ends everything at once; peers are told if the packets get through. If keys were removed a moment ago, it
    /// blocks until that is written down, for a second at the most; [`Self::shutdown`] awaits it.
    pub fn close_now(&self) {
        self.0.dialler.close();
        self.0.shared.end();
        self.0.shared.wait_written();
    }
}

impl Shared {
    /// Blocks until removed keys are written down, if nobody has waited for that before.
    pub(super) fn wait_written(&self) {
        if let Some(looker) = &self.looker {
            looker.wait_written(WRITING);
        }
    }

    pub(super) fn end(self: &Arc<Self>) {
        self.gate.close();
        self.draining.cancel();
        self.ended.cancel();
        for socket in &self.sockets {
            socket.close(CloseCode::ShuttingDown.number().into(), b"");
        }
    }
}
