//! Is it the socket that an answer waits for, or its client's windows?
//!
//! A kernel takes megabytes for a slow client and then nothing for a long time, while the client reads all
//! along. TCP itself knows whether that is so and ends the connection if not, so such waiting is no silence.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Account;

/// A stream that tells its account while it waits for its socket.
pub(in crate::http) struct Socket<T> {
    io: T,
    account: Arc<Account>,
    waits: bool,
}

impl<T> Socket<T> {
    pub(in crate::http) fn new(io: T, account: &Arc<Account>) -> Self {
        Self { io, account: Arc::clone(account), waits: false }
    }

    fn note<W>(&mut self, wrote: Poll<W>) -> Poll<W> {
        if wrote.is_pending() != self.waits {
            self.waits = wrote.is_pending();
            self.account.socket(self.waits);
        }
        wrote
    }
}

impl Account {
    fn socket(&self, waits: bool) {
        if !waits {
            self.went_on.store(self.ledger.now(), Ordering::Relaxed);
        }
        self.socket_waits.store(waits, Ordering::Release);
    }

    /// Milliseconds since it last waited for its socket; none while it does.
    pub(super) fn without_socket(&self, now: u64) -> Option<u64> {
        let waits = self.socket_waits.load(Ordering::Acquire);
        (!waits).then(|| now.saturating_sub(self.went_on.load(Ordering::Relaxed)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.note(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
