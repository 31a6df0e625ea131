//! The client's side of a cell: connects, asks for an echo, and says what it was told.

use std::{fmt, net::SocketAddr};

use endpoint_tests::{
    who::How,
    wire::{self, Client},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{Carrier, PATIENCE, PHRASE};

/// What the client of a cell was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Told {
    Echoed,
    Alert(u8),
    Code(u64),
    /// TCP has no codes: an end or an error where an answer should be.
    Cut,
    Other(String),
}

/// A connection under test.
pub(super) enum Link {
    Quic(quinn::Endpoint, quinn::Connection),
    Tcp(Box<TlsStream<TcpStream>>),
}

/// One connection before the one that counts, for the sake of its tickets.
pub(super) async fn visit(client: &Client, carrier: Carrier, server: SocketAddr) {
    let (link, ..) = connect(client, carrier, How::Full, server).await;
    if let Some(Link::Quic(socket, connection)) = link {
        connection.close(0_u32.into(), b"");
        let _ = timeout(PATIENCE, socket.wait_idle()).await;
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Early {
    NotTried,
    Refused,
    Accepted,
}

/// Connects and asks for one echo. The link is kept if that came.
pub(super) async fn connect(
    client: &Client,
    carrier: Carrier,
    how: How,
    server: SocketAddr,
) -> (Option<Link>, Told, Early) {
    let attempt = async {
        match carrier {
            Carrier::Quic => connect_quic(client, how, server).await,
            Carrier::Tcp => connect_tcp(client, how, server).await,
        }
    };
    timeout(PATIENCE, attempt)
        .await
        .unwrap_or_else(|_| (None, Told::Other("nothing".to_owned()), Early::NotTried))
}

async fn connect_quic(
    client: &Client,
    how: How,
    server: SocketAddr,
) -> (Option<Link>, Told, Early) {
    let socket = wire::socket();
    let connecting = client.begin(&socket, server, "localhost");
    let mut early = Early::NotTried;
    let connection = match how {
        How::Full | How::Ticket => connecting.await,
        How::Early => match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                if let Ok((mut send, _recv)) = connection.open_bi().await {
                    let _ = send.write_all(b"early").await;
                    let _ = send.finish();
                }
                early = if accepted.await { Early::Accepted } else { Early::Refused };
                Ok(connection)
            }
            Err(connecting) => connecting.await,
        },
    };
    let mut link = match connection {
        Ok(connection) => Link::Quic(socket, connection),
        Err(error) => return (None, told(&error), early),
    };
    let told = echo(&mut link).await;
    ((told == Told::Echoed).then_some(link), told, early)
}

async fn connect_tcp(client: &Client, how: How, server: SocketAddr) -> (Option<Link>, Told, Early) {
    let bytes: &[u8] = if how == How::Early { b"early" } else { b"" };
    let mut early = Early::NotTried;
    let offered = client.tickets.offered();
    let Ok(stream) = client.dial_tcp("127.0.0.1", server, "localhost", bytes).await else {
        // rustls offers early data with the hello, before anything can fail.
        if how == How::Early && client.tickets.offered() > offered {
            early = Early::Refused;
        }
        return (None, Told::Cut, early);
    };
    if how == How::Early && client.tickets.offered() > offered {
        let accepted = stream.get_ref().1.is_early_data_accepted();
        early = if accepted { Early::Accepted } else { Early::Refused };
    }
    let mut link = Link::Tcp(Box::new(stream));
    if how == How::Early && !discard(&mut link, bytes.len()).await {
        return (None, Told::Cut, early);
    }
    let told = echo(&mut link).await;
    ((told == Told::Echoed).then_some(link), told, early)
}

/// Refused early data is sent again by rustls once hands are shaken (RFC 8446 §4.2.10); its echo is in
/// the way.
async fn discard(link: &mut Link, bytes: usize) -> bool {
    let Link::Tcp(stream) = link else { return true };
    stream.read_exact(&mut vec![0; bytes]).await.is_ok()
}

/// One more request on a link: a new stream over QUIC, the one stream over TCP.
pub(super) async fn echo(link: &mut Link) -> Told {
    let request = async {
        match link {
            Link::Quic(_, connection) => match echo_quic(connection).await {
                Some(bytes) if bytes == PHRASE => Told::Echoed,
                Some(bytes) => Told::Other(format!("{bytes:?}")),
                None => told(&connection.closed().await),
            },
            Link::Tcp(stream) => {
                let mut bytes = [0; PHRASE.len()];
                let sent = stream.write_all(PHRASE).await.and(stream.flush().await);
                match sent.and(stream.read_exact(&mut bytes).await) {
                    Ok(_) if bytes == *PHRASE => Told::Echoed,
                    Ok(_) => Told::Other(format!("{bytes:?}")),
                    Err(_) => Told::Cut,
                }
            }
        }
    };
    timeout(PATIENCE, request).await.unwrap_or_else(|_| Told::Other("silence".to_owned()))
}

async fn echo_quic(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(PHRASE).await.ok()?;
    send.finish().ok()?;
    recv.read_to_end(1024).await.ok()
}

/// Goes on from 127.0.0.2. A QUIC connection migrates; a TCP connection cannot, so the peer comes again.
pub(super) async fn moves(
    link: &mut (Option<Link>, Told, Early),
    client: &Client,
    server: SocketAddr,
) {
    match &mut link.0 {
        Some(Link::Quic(socket, _)) => {
            let udp = std::net::UdpSocket::bind("127.0.0.2:0").expect("another loopback address");
            socket.rebind(udp).expect("the socket moves");
        }
        Some(Link::Tcp(_)) => {
            link.0 = match client.dial_tcp("127.0.0.2", server, "localhost", b"").await {
                Ok(stream) => {
                    let mut moved = Link::Tcp(Box::new(stream));
                    (echo(&mut moved).await == Told::Echoed).then_some(moved)
                }
                Err(_) => None,
            };
        }
        None => {}
    }
}

fn told(error: &quinn::ConnectionError) -> Told {
    match (wire::alert(error), wire::close_code(error)) {
        (Some(alert), _) => Told::Alert(alert),
        (_, Some(code)) => Told::Code(code),
        _ => Told::Other(error.to_string()),
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic(..) => "quic",
            Self::Tcp(_) => "tcp",
        })
    }
}
