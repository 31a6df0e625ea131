//! How does an HTTP/1.1 connection end whose client still sends?
//!
//! A socket that is closed while bytes are unread resets the connection, and the client loses the answer
//! that told it to stop: a 413, a 502. So after our last byte the rest of the body is read and thrown away,
//! for a bounded time and only where there is a rest.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Time that a client has to notice that the rest of its body is unwanted.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the body of the current request has a rest that nobody has read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn set(&self, unread: bool) {
        self.0.store(unread, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A stream whose shutdown waits for the client where [`Unread`] says so.
pub(super) struct Lingering<T> {
    io: T,
    unread: Unread,
    place: Place,
}

enum Place {
    Open,
    /// Our side is shut; the time that is left.
    Reading(Pin<Box<Sleep>>),
    Ended,
}

impl<T> Lingering<T> {
    pub(super) fn new(io: T, unread: Unread) -> Self {
        Self { io, unread, place: Place::Open }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lingering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    //= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
    //# To avoid the TCP reset problem, servers typically close a connection in stages. First, the server
    //# performs a half-close by closing only the write side of the read/write connection. The server then
    //# continues to read from the connection until it receives a corresponding close by the client, or
    //# until the server is reasonably certain that its own TCP stack has received the client's
    //# acknowledgement of the packet(s) containing the server's last response. Finally, the server fully
    //# closes the connection.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.place {
                Place::Open => {
                    ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
                    this.place = match this.unread.is_set() {
                        true => Place::Reading(Box::pin(sleep(PATIENCE))),
                        false => Place::Ended,
                    };
                }
                Place::Reading(deadline) => {
                    let mut space = [0; 4096];
                    let mut buffer = ReadBuf::new(&mut space);
                    match Pin::new(&mut this.io).poll_read(cx, &mut buffer) {
                        // Everything at once may be more than one turn; the deadline is looked at in between.
                        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                            if deadline.as_mut().poll(cx).is_ready() {
                                this.place = Place::Ended;
                            }
                        }
                        Poll::Ready(_) => this.place = Place::Ended,
                        Poll::Pending => {
                            ready!(deadline.as_mut().poll(cx));
                            this.place = Place::Ended;
                        }
                    }
                }
                Place::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reads_what_is_left_until_the_client_has_seen_the_end() {
        let (mut client, server) = duplex(16);
        let unread = Unread::default();
        unread.set(true);
        let mut server = Lingering::new(server, unread);
        let sending = tokio::spawn(async move {
            client.write_all(&[7; 10_000]).await.unwrap();
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        });
        let began = Instant::now();
        server.shutdown().await.unwrap();
        sending.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_nobody_longer_than_its_patience_and_not_at_all_without_a_rest() {
        for (rest, time) in [(true, PATIENCE), (false, Duration::ZERO)] {
            let (_client, server) = duplex(16);
            let unread = Unread::default();
            unread.set(rest);
            let began = Instant::now();
            Lingering::new(server, unread).shutdown().await.unwrap();
            assert!(began.elapsed().abs_diff(time) < Duration::from_millis(5), "{rest}");
        }
    }

    #[test]
    fn gathers_writes_as_what_it_wraps_does() {
        let (io, _other) = tokio::io::duplex(1);
        assert!(io.is_write_vectored());
        assert!(Lingering::new(io, Unread::default()).is_write_vectored());
    }
}
