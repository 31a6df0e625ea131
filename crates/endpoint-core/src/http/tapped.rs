//! A stream of bytes beside which somebody takes note of what comes and goes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who takes note. What it gives back is what the stream's user gets.
pub trait Tap {
    /// So many bytes were read, at least one.
    fn read(&mut self, _bytes: usize) {}

    /// Bytes were written, or wait to be.
    fn wrote<W>(
        &mut self,
        _cx: &mut Context<'_>,
        wrote: Poll<io::Result<W>>,
    ) -> Poll<io::Result<W>> {
        wrote
    }

    /// What was written was sent on, or waits for that.
    fn flushed(
        &mut self,
        _cx: &mut Context<'_>,
        flushed: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        flushed
    }
}

/// A stream with a tap. Everything goes through as it is.
#[derive(Debug)]
pub struct Tapped<T, P> {
    io: T,
    tap: P,
}

impl<T, P> Tapped<T, P> {
    /// Puts `tap` at `io`.
    pub fn new(io: T, tap: P) -> Self {
        Self { io, tap }
    }
}

impl<T: AsyncRead + Unpin, P: Tap + Unpin> AsyncRead for Tapped<T, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        let got = buffer.filled().len().saturating_sub(before);
        if got > 0 {
            self.tap.read(got);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin, P: Tap + Unpin> AsyncWrite for Tapped<T, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.tap.wrote(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.tap.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.tap.flushed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
