//! How do TCP connections arrive?
//!
//! The listener of the endpoint's own port number. TLS on top of it is `tls::tcp`.

use std::{io, net::SocketAddr, task::Context, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
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
    let probes = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
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

/// Silence after which the kernel asks whether the peer is still there, and the pause between two asks;
/// after nine without an answer the link ends.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);

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
    use super::*;

    #[tokio::test]
    async fn asks_silent_peers_whether_they_are_still_there() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let Accepted { stream, .. } = accept(&listener).await;
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
