//! `echo/1`: every stream comes back as it went, every datagram too.

use tokio::task::JoinSet;

use super::{Connection, Handler, HandlerError, Permit};
use crate::{
    error::LinkError,
    transport::{RecvStream, SendStream},
};

/// Sends each stream's bytes back on the same stream, and each datagram back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        let mut streams = JoinSet::new();
        let ended = loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, recv)) => { streams.spawn(echo(send, recv)); }
                    Err(error) => break error,
                },
                datagram = connection.read_datagram() => match datagram {
                    // Datagrams may be lost; one that does not fit any more is.
                    Ok(datagram) => { let _ = connection.send_datagram(datagram); }
                    Err(error) => break error,
                },
                Some(_) = streams.join_next() => {}
            }
        };
        if matches!(ended, LinkError::Draining) {
            // What was accepted is carried to its end, as long as something moves.
            tokio::select! {
                () = async { while streams.join_next().await.is_some() {} } => {}
                () = connection.quiet() => {}
            }
        }
        Ok(())
    }

    fn takes_tcp(&self) -> bool {
        true
    }
}

async fn echo(mut send: SendStream, mut recv: RecvStream) -> Result<(), LinkError> {
    while let Some(chunk) = recv.read_chunk(CHUNK_BYTES).await? {
        send.write_chunk(chunk).await?;
        send.flush().await?;
    }
    send.finish_and_wait().await
}

/// Bytes echoed in one go.
const CHUNK_BYTES: usize = 64 * 1024;
