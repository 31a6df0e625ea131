//! How are bytes sent and received on a link?
//!
//! One pair of types for both carriers, with quinn's verbs. On QUIC, chunks pass as [`Bytes`] without a copy.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    link::from_quinn,
    tcp_link::{TcpRecv, TcpSend},
};
use crate::{error::LinkError, phase::UnderWay};

/// The sending half of a stream. Dropped before [`Self::finish`], it is given up: what was sent so far
/// must not look like the whole, least of all when a handler was cut off in the middle.
pub struct SendStream {
    sender: Sender,
    finished: bool,
    /// On accepted streams: that it is under way.
    under_way: Option<UnderWay>,
}

enum Sender {
    Quic(quinn::SendStream),
    Tcp(TcpSend),
}

/// The receiving half of a stream.
pub struct RecvStream(Receiver);

enum Receiver {
    Quic(quinn::RecvStream),
    Tcp(TcpRecv),
}

impl SendStream {
    pub(crate) fn quic(stream: quinn::SendStream) -> Self {
        Self { sender: Sender::Quic(stream), finished: false, under_way: None }
    }

    /// Counts as under way until it is dropped.
    pub(crate) fn counted(&mut self, under_way: UnderWay) {
        self.under_way = Some(under_way);
    }

    /// Sends all of `bytes`, waiting for flow control.
    ///
    /// # Errors
    /// [`LinkError`] if the stream or its connection ended.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        match &mut self.sender {
            Sender::Quic(stream) => stream.write_all(bytes).await.map_err(from_write),
            Sender::Tcp(half) => half.write_all(bytes).await.map_err(from_io),
        }
    }

    /// Sends all of `chunk`, on QUIC without copying it.
    ///
    /// # Errors
    /// [`LinkError`] if the stream or its connection ended.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), LinkError> {
        match &mut self.sender {
            Sender::Quic(stream) => stream.write_chunk(chunk).await.map_err(from_write),
            Sender::Tcp(half) => half.write_all(&chunk).await.map_err(from_io),
        }
    }

    /// Hands what is buffered to the carrier. QUIC needs no flush.
    ///
    /// # Errors
    /// [`LinkError`] if the connection ended.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        match &mut self.sender {
            Sender::Quic(_) => Ok(()),
            Sender::Tcp(half) => half.flush().await.map_err(from_io),
        }
    }

    /// Says that nothing more will be sent. Does not wait until the peer has it all.
    ///
    /// # Errors
    /// [`LinkError`] if the stream was reset or the connection ended.
    pub async fn finish(&mut self) -> Result<(), LinkError> {
        self.finished = true;
        match &mut self.sender {
            Sender::Quic(stream) => {
                stream.finish().map_err(|_| LinkError::Lost("the stream was reset".into()))
            }
            Sender::Tcp(half) => half.shutdown().await.map_err(from_io),
        }
    }

    /// Finishes, then waits until the peer's transport has acknowledged everything, so that a close
    /// cannot overtake the data (RFC 9000 §10.2). On TCP the kernel carries that promise.
    ///
    /// # Errors
    /// [`LinkError`] if the stream was given up by the peer or the connection ended.
    pub async fn finish_and_wait(&mut self) -> Result<(), LinkError> {
        self.finish().await?;
        match &mut self.sender {
            Sender::Quic(stream) => match stream.stopped().await {
                Ok(None) => Ok(()),
                Ok(Some(code)) => Err(LinkError::StreamReset(code.into_inner())),
                Err(quinn::StoppedError::ConnectionLost(error)) => Err(from_quinn(error)),
                Err(other) => Err(LinkError::Lost(other.to_string())),
            },
            Sender::Tcp(_) => Ok(()),
        }
    }

    /// Gives the stream up with `code`; the peer need not receive what was sent. TCP has no such thing:
    /// there the half is dropped.
    pub fn reset(&mut self, code: u32) {
        if let Sender::Quic(stream) = &mut self.sender {
            // A stream that is already closed cannot be reset, and need not be.
            let _ = stream.reset(code.into());
        }
    }
}

impl From<TcpSend> for SendStream {
    fn from(half: TcpSend) -> Self {
        Self { sender: Sender::Tcp(half), finished: false, under_way: None }
    }
}

impl From<TcpRecv> for RecvStream {
    fn from(half: TcpRecv) -> Self {
        Self(Receiver::Tcp(half))
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.finished {
            // quinn itself would finish the stream here.
            self.reset(0);
        }
    }
}

impl RecvStream {
    pub(crate) fn quic(stream: quinn::RecvStream) -> Self {
        Self(Receiver::Quic(stream))
    }

    /// Reads at most `max_bytes` in the order sent; `None` at the stream's end.
    ///
    /// # Errors
    /// [`LinkError`] if the stream was given up by the peer or the connection ended.
    pub async fn read_chunk(&mut self, max_bytes: usize) -> Result<Option<Bytes>, LinkError> {
        match &mut self.0 {
            Receiver::Quic(stream) => {
                let chunk = stream.read_chunk(max_bytes, true).await.map_err(from_read)?;
                Ok(chunk.map(|chunk| chunk.bytes))
            }
            Receiver::Tcp(half) => {
                let mut buffer = BytesMut::with_capacity(max_bytes.min(64 * 1024));
                let got = half.read_buf(&mut buffer).await.map_err(from_io)?;
                Ok((got > 0).then(|| buffer.freeze()))
            }
        }
    }

    /// Reads into `buffer`; `None` at the stream's end.
    ///
    /// # Errors
    /// [`LinkError`] if the stream was given up by the peer or the connection ended.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, LinkError> {
        match &mut self.0 {
            Receiver::Quic(stream) => stream.read(buffer).await.map_err(from_read),
            Receiver::Tcp(half) => match half.read(buffer).await.map_err(from_io)? {
                0 if !buffer.is_empty() => Ok(None),
                got => Ok(Some(got)),
            },
        }
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// [`LinkError`] if the stream ended before, was given up, or the connection ended.
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest).await? {
                Some(got) => filled += got,
                None => return Err(LinkError::Lost("the stream ended early".into())),
            }
        }
        Ok(())
    }

    /// Reads to the stream's end.
    ///
    /// # Errors
    /// [`LinkError::TooLong`] if more than `limit` bytes come, otherwise as [`Self::read_chunk`].
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, LinkError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.read_chunk(64 * 1024).await? {
            if all.len() + chunk.len() > limit {
                return Err(LinkError::TooLong { limit });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Asks the peer to stop sending, with `code`. TCP has no such thing: there the half is dropped.
    pub fn stop(&mut self, code: u32) {
        if let Receiver::Quic(stream) = &mut self.0 {
            // A stream that is already at its end need not be stopped.
            let _ = stream.stop(code.into());
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().sender {
            Sender::Quic(stream) => AsyncWrite::poll_write(Pin::new(stream), cx, bytes),
            Sender::Tcp(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().sender {
            Sender::Quic(stream) => AsyncWrite::poll_write_vectored(Pin::new(stream), cx, bytes),
            Sender::Tcp(half) => Pin::new(half).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.sender {
            Sender::Quic(stream) => AsyncWrite::is_write_vectored(stream),
            Sender::Tcp(half) => half.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().sender {
            Sender::Quic(stream) => AsyncWrite::poll_flush(Pin::new(stream), cx),
            Sender::Tcp(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.finished = true;
        match &mut this.sender {
            Sender::Quic(stream) => AsyncWrite::poll_shutdown(Pin::new(stream), cx),
            Sender::Tcp(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Receiver::Quic(stream) => AsyncRead::poll_read(Pin::new(stream), cx, buffer),
            Receiver::Tcp(half) => Pin::new(half).poll_read(cx, buffer),
        }
    }
}

fn from_write(error: quinn::WriteError) -> LinkError {
    match error {
        quinn::WriteError::Stopped(code) => LinkError::StreamReset(code.into_inner()),
        quinn::WriteError::ConnectionLost(error) => from_quinn(error),
        other => LinkError::Lost(other.to_string()),
    }
}

fn from_read(error: quinn::ReadError) -> LinkError {
    match error {
        quinn::ReadError::Reset(code) => LinkError::StreamReset(code.into_inner()),
        quinn::ReadError::ConnectionLost(error) => from_quinn(error),
        other => LinkError::Lost(other.to_string()),
    }
}

/// A TCP half wraps the link's own error where the link knows why it ended.
fn from_io(error: io::Error) -> LinkError {
    let link = error.get_ref().and_then(|inner| inner.downcast_ref::<LinkError>()).cloned();
    link.unwrap_or_else(|| LinkError::Lost(error.to_string()))
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendStream")
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecvStream")
    }
}
