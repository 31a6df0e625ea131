//! The server of the scenarios, and its clients.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::Path as Segment,
    routing::{get, post},
};
use endpoint_core::{Access, AuthorizedPeers, Endpoint, Limits, TlsIdentity};
use endpoint_tests::{
    chance::Chance,
    http::{Answer, Connection, get as asks, over_quic},
    node::{Counting, PEER, alpn, identity},
    wire::{Client, Shown, socket},
};

/// A server of bytes over HTTP/3 and of echoes to peers.
pub struct Site {
    pub endpoint: Endpoint,
    pub peer: Counting,
}

impl Site {
    pub async fn start() -> Self {
        Self::with(Limits::default(), "", TlsIdentity::SelfSigned).await
    }

    /// With other limits, these lines of authorised peers, and this certificate for `localhost`.
    pub async fn with(limits: Limits, peers: &str, certificate: TlsIdentity) -> Self {
        let peer = Counting::default();
        let router = Router::new()
            .route(
                "/bytes/{count}",
                get(|Segment(count): Segment<usize>| async move { body(count) }),
            )
            .route("/echo", post(|body: Bytes| async { body }));
        let endpoint = Endpoint::builder(identity(1))
            .listen("127.0.0.1:0".parse().unwrap())
            .server_name("localhost", certificate)
            .authorized(AuthorizedPeers::from_text(peers).unwrap())
            .limits(limits)
            .http(Access::Public, router)
            .handle(alpn(PEER), Access::default(), peer.clone())
            .bind()
            .await
            .unwrap();
        Self { endpoint, peer }
    }

    pub fn addr(&self) -> SocketAddr {
        self.endpoint.local_addrs()[0]
    }
}

/// What `/bytes/{count}` answers.
pub fn body(count: usize) -> Vec<u8> {
    Chance::new(count as u64).bytes(count)
}

/// A browser.
pub fn browser() -> Client {
    Client::new(&[b"h3"]).wants_x509()
}

/// The peer with identity 2.
pub fn peer() -> Client {
    Client::new(&[PEER]).showing(Shown::raw(2))
}

/// Dials with `client` and speaks HTTP/3.
pub async fn dial(client: &Client, to: SocketAddr) -> Result<Connection, String> {
    dial_from(socket(), client, to).await
}

pub async fn dial_from(
    socket: quinn::Endpoint,
    client: &Client,
    to: SocketAddr,
) -> Result<Connection, String> {
    let dialled = tokio::time::timeout(PATIENCE, client.dial(&socket, to, "localhost")).await;
    let quinn = dialled.map_err(|_| "no handshake".to_owned())?.map_err(|e| e.to_string())?;
    over_quic(socket, quinn).await
}

/// Dials and sends something once a second whatever happens: a client that waits for an answer and has moved
/// without knowing it is found again by nothing else.
pub async fn dial_and_keep_alive(to: SocketAddr) -> Result<Connection, String> {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(1)));
    let mut config = browser().quic();
    config.transport_config(Arc::new(transport));
    let socket = socket();
    let dialled = socket.connect_with(config, to, "localhost").map_err(|e| e.to_string())?;
    let quinn = dialled.await.map_err(|e| e.to_string())?;
    over_quic(socket, quinn).await
}

/// Longest wait for a handshake.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fetches so many bytes and checks each.
pub async fn fetch(connection: &mut Connection, count: usize) -> Result<(), String> {
    let answer: Answer = connection.send(asks("localhost", &format!("/bytes/{count}"))).await?;
    match answer.body == body(count) {
        true => Ok(()),
        false => Err(format!("{} of {count} bytes, or others", answer.body.len())),
    }
}

/// Sends `bytes` and gives what comes back.
pub async fn post_echo(connection: &mut Connection, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let request = http::Request::post("https://localhost/echo").body(bytes.into()).unwrap();
    Ok(connection.send(request).await?.body.to_vec())
}

/// Sends `bytes` to a peer handler on a new stream and gives what comes back.
pub async fn echo(connection: &quinn::Connection, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|e| e.to_string())?;
    send.write_all(bytes).await.map_err(|e| e.to_string())?;
    send.finish().map_err(|e| e.to_string())?;
    recv.read_to_end(1 << 20).await.map_err(|e| e.to_string())
}

/// quinn's own view of an HTTP/3 connection.
pub fn quinn_of(connection: &Connection) -> &quinn::Connection {
    match connection {
        Connection::Http3 { quinn, .. } => quinn,
        _ => panic!("not HTTP/3"),
    }
}

/// The clients' own socket.
pub fn socket_of(connection: &Connection) -> &quinn::Endpoint {
    match connection {
        Connection::Http3 { socket, .. } => socket,
        _ => panic!("not HTTP/3"),
    }
}
