//! How is TLS over TCP one bidirectional stream?
//!
//! Knows nothing of TLS: any stream of bytes will do. Without feature `tcp` the file `tcp_link_off`
//! stands here.
//!
//! Always true: when either side has closed, both halves fail; an end before the dialled side's first
//! byte is its refusal.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    stream::{RecvStream, SendStream},
    tcp,
};
use crate::{close::CloseCode, error::LinkError};

/// A TLS connection over TCP seen as one bidirectional stream.
pub(crate) struct TcpLink {
    remote: SocketAddr,
    streams: Mutex<Option<(SendStream, RecvStream)>>,
    end: CancellationToken,
    why: OnceLock<CloseCode>,
    /// Whether a byte came, or need not come.
    heard: AtomicBool,
    /// Directions still in use; at none the link has ended.
    halves: AtomicUsize,
    sent: AtomicU64,
    received: AtomicU64,
    since: Instant,
    /// Whether it is noted when bytes move: reading the clock each time is not free.
    timed: bool,
    /// Milliseconds from then to the last byte.
    moved: AtomicU64,
    /// Its socket, on accepted links; not what keeps it open.
    socket: OnceLock<Weak<TcpStream>>,
    asking: Mutex<Asking>,
}

/// Who waits for an answer of the peer's kernel.
#[derive(Debug, Default)]
struct Asking {
    /// How many.
    by: usize,
    /// What has to be set again when nobody does.
    before: Option<Duration>,
}

impl TcpLink {
    /// Takes a TLS stream whose handshake is done. `dialled` says that this side dialled: then an end
    /// before the first byte is the other side's refusal.
    pub(crate) fn new<S>(stream: S, remote: SocketAddr, dialled: bool) -> Arc<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        Self::make(stream, remote, dialled, false)
    }

    fn make<S>(stream: S, remote: SocketAddr, dialled: bool, timed: bool) -> Arc<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        let link = Arc::new(Self {
            remote,
            streams: Mutex::new(None),
            end: CancellationToken::new(),
            why: OnceLock::new(),
            heard: AtomicBool::new(!dialled),
            halves: AtomicUsize::new(2),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            since: Instant::now(),
            timed,
            moved: AtomicU64::new(0),
            socket: OnceLock::new(),
            asking: Mutex::default(),
        });
        let (read, write) = tokio::io::split(stream);
        let send = TcpSend(Box::new(Half::new(write, &link))).into();
        let recv = TcpRecv(Box::new(Half::new(read, &link))).into();
        *link.streams.lock().unwrap_or_else(PoisonError::into_inner) = Some((send, recv));
        link
    }

    /// The same on a socket of which it keeps a handle, so that its peer can be asked whether it is there.
    /// `timed` says that it has to be known since when nothing moves.
    pub(crate) fn on<S>(
        stream: S,
        socket: &Arc<TcpStream>,
        remote: SocketAddr,
        timed: bool,
    ) -> Arc<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        let link = Self::make(stream, remote, false, timed);
        let _ = link.socket.set(Arc::downgrade(socket));
        link
    }

    /// Asks the peer for a sign of life, until [`Self::asked`] is called. Without one the link ends
    /// by itself. `false` if there is nothing to ask with.
    pub(super) fn ask(&self) -> bool {
        let Some(socket) = self.socket.get().and_then(Weak::upgrade) else { return false };
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if asking.by == 0 {
            asking.before = tcp::ask(&socket);
        }
        asking.by = asking.by.saturating_add(1);
        true
    }

    /// One who [asked](Self::ask) waits no more.
    pub(super) fn asked(&self) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.by = asking.by.saturating_sub(1);
        if let (0, Some(socket)) = (asking.by, self.socket.get().and_then(Weak::upgrade)) {
            tcp::asked(&socket, asking.before);
        }
    }

    /// When the last byte came or went.
    pub(super) fn moved_at(&self) -> Instant {
        self.since + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    fn moves(&self) {
        if !self.timed {
            return;
        }
        let since = self.since.elapsed().as_millis();
        self.moved.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Bytes of TLS plain text sent and received.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    /// The link's one stream, once.
    pub(super) fn take(&self) -> Option<(SendStream, RecvStream)> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn close(&self, code: CloseCode) {
        let _ = self.why.set(code);
        self.end.cancel();
        // Unclaimed halves go with the close, so that the socket does too.
        drop(self.take());
    }

    pub(super) async fn closed(&self) -> LinkError {
        self.end.cancelled().await;
        self.reason()
    }

    fn reason(&self) -> LinkError {
        LinkError::Closed(self.why.get().copied().unwrap_or(CloseCode::Done))
    }
}

impl fmt::Debug for TcpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpLink({})", self.remote)
    }
}

/// One direction of a TCP link; fails as soon as the link is closed.
struct Half<T> {
    half: T,
    link: Arc<TcpLink>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> Half<T> {
    fn new(half: T, link: &Arc<TcpLink>) -> Self {
        let end = Box::pin(link.end.clone().cancelled_owned());
        Self { half, link: Arc::clone(link), end }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(self.link.reason().into()),
            Poll::Pending => Ok(()),
        }
    }

    /// What an error means: before the first byte of the other side, its refusal.
    fn meaning(&self, error: io::Error) -> io::Error {
        match self.link.heard.load(Ordering::Relaxed) {
            true => error,
            false => LinkError::Closed(CloseCode::NotAuthorized).into(),
        }
    }

    fn written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(sent)) = &polled {
            self.link.sent.fetch_add(*sent as u64, Ordering::Relaxed);
            self.link.moves();
        }
        // A write can meet the refusal before a read does.
        polled.map_err(|error| self.meaning(error))
    }
}

impl<T> Drop for Half<T> {
    fn drop(&mut self) {
        if self.link.halves.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.link.end.cancel();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Half<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(cx)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.half).poll_read(cx, buffer);
        match polled {
            Poll::Ready(Ok(())) => {
                let got = buffer.filled().len() - before;
                if got == 0 && buffer.remaining() > 0 && !self.link.heard.load(Ordering::Relaxed) {
                    let end = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(self.meaning(end)));
                }
                if got > 0 {
                    self.link.heard.store(true, Ordering::Relaxed);
                    self.link.received.fetch_add(got as u64, Ordering::Relaxed);
                    self.link.moves();
                }
                Poll::Ready(Ok(()))
            }
            other => other.map_err(|error| self.meaning(error)),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Half<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(cx)?;
        let polled = Pin::new(&mut self.half).poll_write(cx, bytes);
        self.written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(cx)?;
        let polled = Pin::new(&mut self.half).poll_write_vectored(cx, bytes);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.half.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)?;
        let polled = Pin::new(&mut self.half).poll_flush(cx);
        polled.map_err(|error| self.meaning(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.half).poll_shutdown(cx);
        polled.map_err(|error| self.meaning(error))
    }
}

/// The sending direction of a TCP link.
pub(super) struct TcpSend(Box<dyn AsyncWrite + Send + Sync + Unpin>);

impl AsyncWrite for TcpSend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The receiving direction of a TCP link.
pub(super) struct TcpRecv(Box<dyn AsyncRead + Send + Sync + Unpin>);

impl AsyncRead for TcpRecv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}
