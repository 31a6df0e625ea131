//! Silent clients: each says so much, and then nothing that counts.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use endpoint_tests::{
    wire::{self, Client, Shown},
    within,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::{raw, raw2};

/// How far a client comes before it falls silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    Byte,
    Handshake,
    Request,
    Idle,
}

/// A silent client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    TcpNoByte,
    TcpHalfHello,
    TcpTrickledHello,
    TcpHelloOnly,
    QuicHelloOnly,
    H1Silent,
    H1TrickledHead,
    H1KeepAlive,
    H2NoPreface,
    H2HalfPreface,
    H2Settings,
    H2Pings,
    H2NoEndOfHeaders,
    H2Idle,
    H3Nothing,
    H3Settings,
    H3EmptyStream,
    H3HalfHeaders,
    H3NoStreamForUs,
    H3Idle,
    EchoNoStream,
    EchoSilentStream,
    EchoTcp,
    EchoTcpOnce,
    PingSilentStream,
    DiscoverNoStream,
}

impl Kind {
    /// All of them, and where each stops.
    pub const ALL: [(Self, Stage); 26] = [
        (Self::TcpNoByte, Stage::Byte),
        (Self::TcpHalfHello, Stage::Handshake),
        (Self::TcpTrickledHello, Stage::Handshake),
        (Self::TcpHelloOnly, Stage::Handshake),
        (Self::QuicHelloOnly, Stage::Handshake),
        (Self::H1Silent, Stage::Request),
        (Self::H1TrickledHead, Stage::Request),
        (Self::H1KeepAlive, Stage::Idle),
        (Self::H2NoPreface, Stage::Request),
        (Self::H2HalfPreface, Stage::Request),
        (Self::H2Settings, Stage::Request),
        (Self::H2Pings, Stage::Request),
        (Self::H2NoEndOfHeaders, Stage::Request),
        (Self::H2Idle, Stage::Idle),
        (Self::H3Nothing, Stage::Request),
        (Self::H3Settings, Stage::Request),
        (Self::H3EmptyStream, Stage::Request),
        (Self::H3HalfHeaders, Stage::Request),
        (Self::H3NoStreamForUs, Stage::Request),
        (Self::H3Idle, Stage::Idle),
        (Self::EchoNoStream, Stage::Request),
        (Self::EchoSilentStream, Stage::Idle),
        (Self::EchoTcp, Stage::Request),
        (Self::EchoTcpOnce, Stage::Idle),
        (Self::PingSilentStream, Stage::Idle),
        (Self::DiscoverNoStream, Stage::Request),
    ];
}

/// A client that is silent from now on.
pub struct Held {
    /// When it fell silent.
    pub since: Instant,
    /// Comes when the server has ended it.
    pub end: End,
}

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Bytes sent again and again.
struct Again(Vec<u8>);

const PAUSE: Duration = Duration::from_millis(100);

fn held(end: impl Future<Output = ()> + Send + 'static) -> Held {
    Held { since: Instant::now(), end: Box::pin(end) }
}

/// Reads until the server ends the stream; sends a bit of `again` at each pause.
fn on_tcp(
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    again: Option<Again>,
) -> Held {
    held(async move {
        let mut again = again.map(|Again(bytes)| bytes.into_iter().cycle());
        let mut buffer = vec![0; 4096];
        loop {
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                },
                () = tokio::time::sleep(PAUSE), if again.is_some() => {
                    let byte = again.as_mut().and_then(Iterator::next).expect("one");
                    if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            }
        }
    })
}

fn on_quic(quinn: quinn::Connection, guards: impl Send + 'static) -> Held {
    held(async move {
        let _guards = guards;
        quinn.closed().await;
    })
}

async fn tls(alpn: &[u8], first: &[u8], server: SocketAddr) -> impl AsyncRead + AsyncWrite + Unpin {
    let client = Client::new(&[alpn]).wants_x509();
    let mut stream = client.dial_tcp("127.0.0.1", server, "localhost", b"").await.unwrap();
    stream.write_all(first).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// A QUIC connection that sends PINGs all the time; `uni` streams are open to the server.
async fn quic(
    client: Client,
    server: SocketAddr,
    uni: u32,
) -> (quinn::Connection, quinn::Endpoint) {
    let socket = wire::socket();
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(PAUSE)).max_concurrent_uni_streams(uni.into());
    let mut config = client.quic();
    config.transport_config(Arc::new(transport));
    let quinn = socket.connect_with(config, server, "localhost").unwrap().await.unwrap();
    (quinn, socket)
}

async fn h3(server: SocketAddr, uni: u32) -> (quinn::Connection, quinn::Endpoint) {
    quic(Client::new(&[b"h3"]).wants_x509(), server, uni).await
}

/// The first flight of a TLS client.
fn hello() -> Vec<u8> {
    let config = Arc::new(Client::new(&[b"h2"]).wants_x509().config());
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Passes on the first packet of a client and none of what comes back.
async fn quic_hello(server: SocketAddr) -> Held {
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = relay.local_addr().unwrap();
    let client = Client::new(&[b"h3"]).wants_x509();
    let socket = wire::socket();
    let connecting = client.begin(&socket, at, "localhost");
    let mut packet = vec![0; 2048];
    // A post-quantum hello takes two.
    for _ in 0..2 {
        let length = within(10, "a first packet", relay.recv(&mut packet)).await.unwrap();
        relay.send_to(&packet[..length], server).await.unwrap();
    }
    // What ends it is seen by the server alone: no packet of it comes back.
    held(async move {
        let _client = (connecting, socket, relay);
        std::future::pending().await
    })
}

impl Kind {
    /// Connects and falls silent. `key` is shown by the peers' protocols.
    pub fn open(
        self,
        server: SocketAddr,
        key: Option<u8>,
    ) -> Pin<Box<dyn Future<Output = Held> + Send>> {
        // Its state is large, and there are many.
        Box::pin(self.opened(server, key))
    }

    async fn opened(self, server: SocketAddr, key: Option<u8>) -> Held {
        let peer = |alpn: &[u8]| match key {
            Some(seed) => Client::new(&[alpn]).showing(Shown::raw(seed)),
            None => Client::new(&[alpn]),
        };
        match self {
            Self::TcpNoByte | Self::TcpHalfHello | Self::TcpTrickledHello | Self::TcpHelloOnly => {
                let mut stream = TcpStream::connect(server).await.unwrap();
                let hello = hello();
                match self {
                    Self::TcpHalfHello => {
                        stream.write_all(&hello[..hello.len() / 2]).await.unwrap()
                    }
                    Self::TcpHelloOnly => stream.write_all(&hello).await.unwrap(),
                    _ => {}
                }
                on_tcp(stream, (self == Self::TcpTrickledHello).then_some(Again(hello)))
            }
            Self::QuicHelloOnly => quic_hello(server).await,
            Self::H1Silent => on_tcp(tls(b"http/1.1", b"", server).await, None),
            Self::H1TrickledHead => {
                let head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
                on_tcp(tls(b"http/1.1", b"GE", server).await, Some(Again(head[2..].to_vec())))
            }
            Self::H1KeepAlive => {
                let head = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
                let mut stream = tls(b"http/1.1", head, server).await;
                let mut some = [0; 1];
                within(10, "an answer", stream.read_exact(&mut some)).await.unwrap();
                on_tcp(stream, None)
            }
            Self::H2NoPreface => on_tcp(tls(b"h2", b"", server).await, None),
            Self::H2HalfPreface => on_tcp(tls(b"h2", b"PRI * HTTP/2", server).await, None),
            Self::H2Settings => on_tcp(raw2::Raw2::connect(server).await.stream, None),
            Self::H2Pings => {
                let stream = raw2::Raw2::connect(server).await.stream;
                let ping = raw2::frame(raw2::PING, 0, 0, &[7; 8]);
                held(pinging(stream, ping))
            }
            Self::H2NoEndOfHeaders => {
                let mut raw = raw2::Raw2::connect(server).await;
                let head = raw2::request("GET", "/");
                raw.send(&raw2::frame(raw2::HEADERS, raw2::END_STREAM, 1, &head)).await.unwrap();
                on_tcp(raw.stream, None)
            }
            Self::H2Idle => {
                let mut raw = raw2::Raw2::connect(server).await;
                let flags = raw2::END_STREAM | raw2::END_HEADERS;
                let head = raw2::request("GET", "/");
                raw.send(&raw2::frame(raw2::HEADERS, flags, 1, &head)).await.unwrap();
                let answered = async {
                    loop {
                        let frame = raw.next().await.expect("an answer");
                        if frame.stream == 1 && frame.flags & raw2::END_STREAM != 0 {
                            return;
                        }
                    }
                };
                within(10, "an answer", answered).await;
                let ping = raw2::frame(raw2::PING, 0, 0, &[7; 8]);
                held(pinging(raw.stream, ping))
            }
            Self::H3Nothing => {
                let (quinn, socket) = h3(server, 100).await;
                on_quic(quinn, socket)
            }
            Self::H3NoStreamForUs => {
                let (quinn, socket) = h3(server, 0).await;
                on_quic(quinn, socket)
            }
            Self::H3Settings => {
                let (quinn, socket) = h3(server, 100).await;
                let mut control = quinn.open_uni().await.unwrap();
                control.write_all(&[0x00, 0x04, 0x00]).await.unwrap();
                on_quic(quinn, (socket, control))
            }
            Self::H3EmptyStream | Self::H3HalfHeaders | Self::H3Idle => {
                let (quinn, socket) = h3(server, 100).await;
                let mut control = quinn.open_uni().await.unwrap();
                control.write_all(&[0x00, 0x04, 0x00]).await.unwrap();
                let (mut send, mut recv) = quinn.open_bi().await.unwrap();
                let get = raw::get();
                match self {
                    // A stream is seen with its first frame, which may be of no bytes.
                    Self::H3EmptyStream => send.finish().unwrap(),
                    Self::H3HalfHeaders => send.write_all(&get[..get.len() / 2]).await.unwrap(),
                    _ => {
                        send.write_all(&get).await.unwrap();
                        send.finish().unwrap();
                        let answer = within(10, "an answer", recv.read_to_end(1 << 20)).await;
                        assert!(!answer.unwrap().is_empty());
                    }
                }
                on_quic(quinn, (socket, control, send, recv))
            }
            Self::EchoNoStream | Self::EchoSilentStream => {
                let (quinn, socket) = quic(peer(b"echo/1"), server, 100).await;
                if self == Self::EchoNoStream {
                    return on_quic(quinn, socket);
                }
                let (mut send, mut recv) = quinn.open_bi().await.unwrap();
                send.write_all(b"x").await.unwrap();
                within(10, "an echo", recv.read_exact(&mut [0])).await.unwrap();
                on_quic(quinn, (socket, send, recv))
            }
            Self::PingSilentStream => {
                let (quinn, socket) = quic(peer(b"ping/1"), server, 100).await;
                let (mut send, recv) = quinn.open_bi().await.unwrap();
                send.write_all(b"x").await.unwrap();
                on_quic(quinn, (socket, send, recv))
            }
            Self::DiscoverNoStream => {
                let (quinn, socket) = quic(peer(b"discover/1"), server, 100).await;
                on_quic(quinn, socket)
            }
            Self::EchoTcp | Self::EchoTcpOnce => {
                let client = peer(b"echo/1");
                let mut stream =
                    client.dial_tcp("127.0.0.1", server, "localhost", b"").await.unwrap();
                if self == Self::EchoTcpOnce {
                    stream.write_all(b"x").await.unwrap();
                    within(10, "an echo", stream.read_exact(&mut [0])).await.unwrap();
                }
                on_tcp(stream, None)
            }
        }
    }
}

/// Sends `ping` at each pause until the server ends the connection.
async fn pinging(mut stream: impl AsyncRead + AsyncWrite + Unpin, ping: Vec<u8>) {
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            },
            () = tokio::time::sleep(PAUSE) => {
                if stream.write_all(&ping).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}
