//! The client's side of a cell: shakes hands in each of the ways, early data included.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use endpoint_tests::{
    http::{Connection, Failure, alpn, get, over_quic, over_tcp},
    weak::Weak,
    who::How,
    wire::{self, Client},
};
use http::Version;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Early {
    NotTried,
    Refused,
    Accepted,
}

/// A connection, if there is one.
pub(super) struct Visit {
    pub(super) connection: Result<Connection, Failure>,
    pub(super) early: Early,
}

/// Shakes hands; for the sake of tickets one request is made.
pub(super) async fn visit(
    client: &Client,
    version: Version,
    how: How,
    server: SocketAddr,
) -> Visit {
    let client = client.clone().offering(&[alpn(version)]);
    let mut visit = match version {
        Version::HTTP_3 => over_udp(&client, how, server).await,
        _ => over_tls(&client, version, how, server, "127.0.0.1").await,
    };
    if let Ok(connection) = &mut visit.connection
        && let Err(error) = connection.send(get("localhost", "/")).await
    {
        visit.connection = Err(error);
    }
    visit
}

/// A GET for /peer whose fields are in QPACK's static table or literal (RFC 9204 §4.5).
const EARLY_REQUEST: &[u8] = b"\x01\x17\x00\x00\xd1\xd7\x51\x05/peer\x50\x09localhost";

async fn over_udp(client: &Client, how: How, server: SocketAddr) -> Visit {
    let socket = wire::socket();
    let connecting = client.begin(&socket, server, "localhost");
    let mut early = Early::NotTried;
    let connection = match how {
        How::Full | How::Ticket => connecting.await,
        How::Early => match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                if let Ok((mut send, _recv)) = connection.open_bi().await {
                    let _ = send.write_all(EARLY_REQUEST).await;
                    let _ = send.finish();
                }
                early = if accepted.await { Early::Accepted } else { Early::Refused };
                Ok(connection)
            }
            Err(connecting) => connecting.await,
        },
    };
    let connection = match connection {
        Ok(connection) => over_quic(socket, connection).await,
        Err(error) => Err(error.to_string()),
    };
    Visit { connection, early }
}

/// With what every connection of the version begins: it goes out as early data, and again, by rustls, when
/// that is refused (RFC 8446 §4.2.10).
fn beginning(version: Version) -> &'static [u8] {
    if version == Version::HTTP_2 { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" } else { b"GET /" }
}

async fn over_tls(
    client: &Client,
    version: Version,
    how: How,
    server: SocketAddr,
    from: &str,
) -> Visit {
    let begun = if how == How::Early { beginning(version) } else { b"" };
    let offered = client.tickets.offered();
    let dialled = client.dial_tcp(from, server, "localhost", begun).await;
    let tried = how == How::Early && client.tickets.offered() > offered;
    let (connection, accepted) = match dialled {
        Ok(stream) => {
            let accepted = stream.get_ref().1.is_early_data_accepted();
            let stream = Skips { stream, left: begun.len() };
            (over_tcp(version, stream).await, accepted)
        }
        Err(error) => (Err(error.to_string()), false),
    };
    let early = match (tried, accepted) {
        (false, _) => Early::NotTried,
        (true, false) => Early::Refused,
        (true, true) => Early::Accepted,
    };
    Visit { connection, early }
}

/// Goes on from 127.0.0.2. A QUIC connection migrates; a TCP connection cannot, so the peer comes again.
pub(super) async fn moved(
    connection: Connection,
    client: &Client,
    version: Version,
    server: SocketAddr,
) -> Result<Connection, Failure> {
    if let Connection::Http3 { socket, .. } = &connection {
        let udp = std::net::UdpSocket::bind("127.0.0.2:0").expect("another loopback address");
        socket.rebind(udp).expect("the socket moves");
        return Ok(connection);
    }
    let client = client.clone().offering(&[alpn(version)]);
    over_tls(&client, version, How::Full, server, "127.0.0.2").await.connection
}

/// One connection to a server that gives tickets to everybody; it echoes.
pub(super) async fn collect_tickets(client: &Client, version: Version, server: &Weak) {
    let client = client.clone().offering(&[alpn(version)]);
    let visit = async {
        if version == Version::HTTP_3 {
            let socket = wire::socket();
            let connection = client.dial(&socket, server.addr(), "localhost").await?;
            let (mut send, mut recv) = connection.open_bi().await?;
            send.write_all(b"hello").await?;
            send.finish()?;
            recv.read_to_end(16).await?;
            connection.close(0_u32.into(), b"");
            socket.wait_idle().await;
        } else {
            let mut stream = client.dial_tcp("127.0.0.1", server.tcp(), "localhost", b"").await?;
            stream.write_all(b"hello").await?;
            stream.read_exact(&mut [0; 5]).await?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    timeout(Duration::from_secs(15), visit).await.expect("in time").expect("an echo");
}

/// Leaves out the first bytes written: they have gone out already.
struct Skips<S> {
    stream: S,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Skips<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Skips<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.left > 0 {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            return Poll::Ready(Ok(skipped));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
