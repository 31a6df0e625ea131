//! Connect stdin and stdout to a stream of another endpoint.
//!
//! Ends when the other side has sent its last byte. The end of stdin ends our half only, so that
//! an answer can still come.
//!
//! Always true: stdout carries the peer's bytes and nothing else, unless `--json` is asked for and
//! the dial fails.

use std::io::{ErrorKind, Write};

use endpoint_core::{RecvStream, SendStream, error::LinkError};
use tokio::io::{AsyncReadExt, stdin};

use super::{Context, connect};
use crate::{
    args::Dial,
    error::{CliError, Result, io_cause},
};

pub(super) async fn run(args: Dial, context: &Context) -> Result<()> {
    let dialled = connect::connect(&args.peer, &args.alpn, context).await?;
    let (send, receive) = match dialled.connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return Err(dialled.fault(error, &args.alpn).await),
    };
    // The ways are independent: an answer may begin before stdin ends, and end before it too.
    let upward = tokio::spawn(up(send));
    let outcome = down(receive).await;
    upward.abort();
    match outcome {
        Ok(()) | Err(End::ReaderGone) => {
            dialled.end().await;
            Ok(())
        }
        Err(End::Stdout(error)) => {
            let message = format!("cannot write to stdout: {}", io_cause(&error));
            Err(CliError::failure("stdout", message))
        }
        Err(End::Link(error)) => Err(dialled.fault(error, &args.alpn).await),
    }
}

/// stdin to the peer.
async fn up(mut send: SendStream) {
    let mut input = stdin();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match input.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if send.write_all(bytes).await.is_err() || send.flush().await.is_err() {
                    // The way down learns why.
                    return;
                }
            }
        }
    }
    // Waits until the peer has it all: dropping the stream earlier would reset it.
    let _told = send.finish_and_wait().await;
}

/// The peer to stdout.
async fn down(mut receive: RecvStream) -> Result<(), End> {
    loop {
        match receive.read_chunk(BUFFER_BYTES).await {
            Ok(None) => return Ok(()),
            Ok(Some(chunk)) => {
                let mut output = std::io::stdout().lock();
                match output.write_all(&chunk).and_then(|()| output.flush()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                        return Err(End::ReaderGone);
                    }
                    Err(error) => return Err(End::Stdout(error)),
                }
            }
            Err(LinkError::Closed(code)) if code.number() == 0 => return Ok(()),
            Err(error) => return Err(End::Link(error)),
        }
    }
}

/// Why the way down ended early.
enum End {
    Link(LinkError),
    ReaderGone,
    Stdout(std::io::Error),
}

const BUFFER_BYTES: usize = 64 * 1024;
