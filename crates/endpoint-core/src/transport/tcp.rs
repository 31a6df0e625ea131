//! How do TCP connections arrive?
//!
//! The listener of the endpoint's own port number. TLS on top of it is `tls::tcp`.

use std::{
    io::{self, Read as _},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// Connections that the kernel may hold for us, if `net.core.somaxconn` lets it.
const BACKLOG: i32 = 4096;
/// Pause after the kernel refused to give a connection, so that a full descriptor table is no busy loop.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Binds a TCP listener. `[::]` takes IPv4 too.
pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One accepted TCP connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) remote: SocketAddr,
}

/// Waits for the next connection; an error of the system is waited out, never spun on.
pub(crate) async fn accept(listener: &TcpListener) -> Accepted {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                tune(&stream);
                return Accepted { stream, remote };
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no tcp connection could be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Waits for the first bytes of a connection and leaves them unread. Gives how many there are, of which it looks
/// at the first kilobytes only; more than that counts as all that the kernel takes for a connection.
pub(crate) async fn unread(stream: &TcpStream) -> io::Result<usize> {
    // The buffer stands on the stack of each look: thousands may wait here.
    let look = |context: &mut Context<'_>| {
        let mut seen = [0; LOOKED_AT];
        stream.poll_peek(context, &mut ReadBuf::new(&mut seen))
    };
    match std::future::poll_fn(look).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        LOOKED_AT => Ok(TAKEN_BY_THE_KERNEL),
        bytes => Ok(bytes),
    }
}

/// A hello has hundreds of bytes, a post-quantum one about 1,500.
const LOOKED_AT: usize = 2048;
/// What Linux takes unread for a new connection, about.
const TAKEN_BY_THE_KERNEL: usize = 64 * 1024;

/// Ends a stream in good order: says so, then waits for the other side's end, so that what is on its way
/// is not answered with a reset. The caller sets the deadline.
pub(crate) async fn part(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut unwanted = [0; 256];
    if stream.shutdown().await.is_err() {
        return;
    }
    for _ in 0..MAX_UNWANTED_READS {
        if !matches!(stream.read(&mut unwanted).await, Ok(1..)) {
            return;
        }
    }
}

/// Reads of what nobody asked for, before a stream is dropped as it is.
const MAX_UNWANTED_READS: usize = 16;

/// Sets what every connection of ours wants.
pub(crate) fn tune(stream: &TcpStream) {
    // Without this, small answers wait for acknowledgements of earlier ones.
    let _ = stream.set_nodelay(true);
    // TCP itself never notices that a silent peer is gone: its link would hold a place for ever.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keep_alive());
}

fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_RETRIES)
}

/// Ends the connection when the peer takes nothing of what waits for it for so long. A peer that is slow and
/// takes something, however little, stays.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn end_when_not_taken(stream: &TcpStream, idle: Duration) {
    // TCP_USER_TIMEOUT counts while the peer's window is closed too, and whole milliseconds; 0 turns it off.
    let idle = idle.max(Duration::from_millis(1));
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(idle));
}

/// Other systems have no such option.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn end_when_not_taken(_stream: &TcpStream, _idle: Duration) {}

/// Silence after which the kernel asks whether the peer is still there, the pause between two asks, and how many
/// are left unanswered when the link ends.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEP_ALIVE_RETRIES: u32 = 9;

/// Has the kernel ask at once whether a silent peer is still there, and end the connection if no answer comes
/// within a second. Bytes that wait for the peer's word are a question already, and this one is not asked then.
/// Gives what [`asked`] needs.
pub(crate) fn ask(stream: &TcpStream) -> Option<Duration> {
    let socket = SockRef::from(stream);
    let before = user_timeout(&socket);
    set_user_timeout(&socket, None);
    // The time last: with it the question goes out.
    let once = TcpKeepalive::new().with_interval(ANSWER).with_retries(1);
    let _ = socket.set_tcp_keepalive(&once);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ANSWER));
    before
}

/// The question of [`ask`] is over; the kernel asks as it did before.
pub(crate) fn asked(stream: &TcpStream, before: Option<Duration>) {
    let socket = SockRef::from(stream);
    set_user_timeout(&socket, before);
    let _ = socket.set_tcp_keepalive(&keep_alive());
}

// While it is set, it is what the kernel gives a silent peer, in place of so many questions.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn user_timeout(socket: &SockRef<'_>) -> Option<Duration> {
    socket.tcp_user_timeout().ok().flatten()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_user_timeout(socket: &SockRef<'_>, timeout: Option<Duration>) {
    let _ = socket.set_tcp_user_timeout(timeout);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn user_timeout(_socket: &SockRef<'_>) -> Option<Duration> {
    None
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_user_timeout(_socket: &SockRef<'_>, _timeout: Option<Duration>) {}

/// How long a peer has to answer the kernel: the least that can be asked for.
const ANSWER: Duration = Duration::from_secs(1);

/// A TCP stream that others keep a handle of, to ask whether its peer is still there.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Arc<TcpStream>);

impl AsyncRead for Held {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &*self.0;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            let (room, mut got) = (space.len(), None);
            let socket = SockRef::from(stream);
            let read = stream.try_io(Interest::READABLE, || {
                let count = (&*socket).read(space)?;
                got = Some(count);
                // Less than there is room for: nothing is left, which need not be asked for once more.
                if (1..room).contains(&count) {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match (got, read) {
                (Some(count), _) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => {}
            }
        }
    }
}

impl Held {
    fn poll_written(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}

/// Errors that concern the connection that was being accepted, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::{super::tcp_link::TcpLink, *};

    #[tokio::test]
    async fn asks_silent_peers_whether_they_are_still_there() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let Accepted { stream, .. } = accept(&listener).await;
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }

    #[tokio::test]
    async fn a_held_stream_passes_every_byte_on_in_both_directions_and_its_end() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut held = Held(Arc::new(accept(&listener).await.stream));
        let echo = tokio::spawn(async move {
            // Reads that fill what there is room for, and reads that do not.
            let mut bytes = vec![0; 1000];
            loop {
                match held.read(&mut bytes).await.unwrap() {
                    0 => return held.shutdown().await.unwrap(),
                    count => held.write_all(&bytes[..count]).await.unwrap(),
                }
            }
        });
        for size in [1, 999, 1000, 1001, 3000, 1] {
            let sent: Vec<u8> = (0..size).map(|n| n as u8).collect();
            client.write_all(&sent).await.unwrap();
            let mut back = vec![0; size];
            client.read_exact(&mut back).await.unwrap();
            assert_eq!(back, sent);
        }
        // More than all buffers hold: one side waits for the other.
        let (mut read, mut write) = client.split();
        let sent = vec![7; 8 << 20];
        let (mut back, send) = (vec![0; sent.len()], async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let (received, ()) = tokio::join!(read.read_exact(&mut back), send);
        received.unwrap();
        assert!(back == sent);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        echo.await.unwrap();
    }

    /// A link to a client whose kernel hears and says nothing, and the client.
    async fn to_a_deaf_client() -> (Arc<TcpLink>, TcpStream) {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let Accepted { stream, remote } = accept(&listener).await;
        // BPF: return 0, which drops the packet.
        let drop_all = socket2::SockFilter::new(0x06, 0, 0, 0);
        SockRef::from(&client).attach_filter(&[drop_all]).unwrap();
        let socket = Arc::new(stream);
        (TcpLink::on(Held(Arc::clone(&socket)), &socket, remote, true), client)
    }

    /// Waits for the end of the link's stream.
    async fn ends(link: &TcpLink, seconds: u64) -> bool {
        let (_send, mut recv) = link.take().unwrap();
        let read = recv.read_to_end(16);
        tokio::time::timeout(Duration::from_secs(seconds), read).await.is_ok()
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_link_whose_peer_does_not_answer_ends_when_asked() {
        let (link, _client) = to_a_deaf_client().await;
        assert!(link.ask());
        assert!(ends(&link, 9).await);
    }

    /// The twin: asked by nobody it stays.
    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn nobody_notices_a_peer_that_is_gone_and_was_not_asked() {
        let (link, _client) = to_a_deaf_client().await;
        assert!(!ends(&link, 4).await);
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_kernel_asks_as_before_when_the_last_who_waits_is_gone() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let Accepted { stream, remote } = accept(&listener).await;
        end_when_not_taken(&stream, Duration::from_secs(60));
        let socket = Arc::new(stream);
        let link = TcpLink::on(Held(Arc::clone(&socket)), &socket, remote, true);
        let set = || {
            let socket = SockRef::from(&*socket);
            let keep_alive = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
            let (time, interval) = (keep_alive.0.unwrap(), keep_alive.1.unwrap());
            let retries = socket.tcp_keepalive_retries().unwrap();
            (time, interval, retries, socket.tcp_user_timeout().unwrap())
        };
        let before = set();
        assert_eq!(before.3, Some(Duration::from_secs(60)));
        assert!(link.ask() && link.ask());
        assert_eq!(set(), (ANSWER, ANSWER, 1, None));
        link.asked();
        assert_eq!(set(), (ANSWER, ANSWER, 1, None), "another one waits");
        link.asked();
        assert_eq!(set(), before);
        drop(socket);
    }
}
