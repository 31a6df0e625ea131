//! `ping/1`: round trips.
//!
//! The client opens a bidirectional stream and sends probes of [`PROBE_BYTES`] bytes; each comes back as it
//! went. Where the link has datagrams, a datagram of at most [`PROBE_BYTES`] bytes comes back too.

use tokio::task::JoinSet;

use super::{Connection, Handler, HandlerError, Permit};
use crate::{
    error::LinkError,
    transport::{RecvStream, SendStream},
};

/// Bytes of a probe: the client's number and whatever else it likes.
pub const PROBE_BYTES: usize = 16;

/// Streams of one connection that may be answered at one time.
const MAX_STREAMS: usize = 4;

/// Answers probes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ping;

impl Handler for Ping {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi(), if streams.len() < MAX_STREAMS => match stream {
                    Ok((send, recv)) => { streams.spawn(answer(send, recv)); }
                    Err(_) => break,
                },
                datagram = connection.read_datagram() => match datagram {
                    Ok(probe) if probe.len() <= PROBE_BYTES => {
                        // Datagrams may be lost.
                        let _ = connection.send_datagram(probe);
                    }
                    Ok(_) => {}
                    Err(_) => break,
                },
                Some(_) = streams.join_next() => {}
            }
        }
        // A probe in flight at a shutdown is dropped: the next one tells the same.
        Ok(())
    }

    fn takes_tcp(&self) -> bool {
        true
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream) -> Result<(), LinkError> {
    let mut probe = [0; PROBE_BYTES];
    loop {
        match recv.read_exact(&mut probe).await {
            Ok(()) => {}
            Err(_) => return send.finish_and_wait().await,
        }
        send.write_all(&probe).await?;
        send.flush().await?;
    }
}
