//! `discover/1`: what this endpoint is, the same answer for everybody.
//!
//! The client opens a bidirectional stream and finishes it at once (a stream that carries nothing yet is
//! not seen by the other side, RFC 9000 §2.2); the answer is one JSON object.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::timeout};

use super::{Connection, Handler, HandlerError, Permit};
use crate::{
    error::LinkError,
    identity::Fingerprint,
    transport::{RecvStream, SendStream},
};

/// What `discover/1` answers. Holds nothing that depends on who asks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DiscoverAnswer {
    /// `endpoint/` and the major and minor version.
    pub version: String,
    /// The endpoint's own key.
    pub fingerprint: String,
    /// Where it listens, as far as it tells: addresses that are not bound to all interfaces.
    pub addresses: Vec<SocketAddr>,
    /// Protocols open to everybody.
    pub alpns: Vec<String>,
}

impl DiscoverAnswer {
    pub(crate) fn new(
        fingerprint: Fingerprint,
        addresses: &[SocketAddr],
        alpns: Vec<String>,
    ) -> Self {
        let named = addresses.iter().filter(|address| !address.ip().is_unspecified());
        Self {
            version: VERSION_CLASS.to_owned(),
            fingerprint: fingerprint.to_string(),
            addresses: named.copied().collect(),
            alpns,
        }
    }
}

/// Major and minor version only: a patch level would tell strangers which holes are open.
const VERSION_CLASS: &str =
    concat!("endpoint/", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// Tells what this endpoint is. Its answer is filled in when the endpoint binds.
#[derive(Clone, Debug, Default)]
pub struct Discover(Arc<ArcSwap<Vec<u8>>>);

impl Discover {
    /// A handler that has no answer before its endpoint binds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    async fn answer_all(&self, connection: &Connection) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi(), if streams.len() < MAX_STREAMS => match stream {
                    Ok((send, recv)) => { streams.spawn(answer(send, recv, self.0.load_full())); }
                    Err(_) => break,
                },
                Some(_) = streams.join_next() => {}
            }
        }
        tokio::select! {
            () = async { while streams.join_next().await.is_some() {} } => {}
            () = connection.quiet() => {}
        }
    }

    pub(crate) fn set(&self, answer: &DiscoverAnswer) {
        self.0.store(Arc::new(serde_json::to_vec(answer).unwrap_or_default()));
    }
}

/// How long a connection lasts at the most.
const LONGEST: Duration = Duration::from_secs(10);
/// Streams of one connection that are answered at one time.
const MAX_STREAMS: usize = 2;

impl Handler for Discover {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        // Everybody may come, so nobody may stay.
        let _too_late = timeout(LONGEST, self.answer_all(&connection)).await;
        Ok(())
    }

    fn takes_tcp(&self) -> bool {
        true
    }
}

async fn answer(
    mut send: SendStream,
    mut recv: RecvStream,
    answer: Arc<Vec<u8>>,
) -> Result<(), LinkError> {
    recv.stop(0);
    send.write_all(&answer).await?;
    send.finish_and_wait().await
}
