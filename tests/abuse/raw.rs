//! An HTTP/3 client made of bytes, and the server that it meets.

use std::net::SocketAddr;

use axum::{Router, body::Bytes, routing::post};
use endpoint_core::{Access, Endpoint, Limits, TlsIdentity};
use endpoint_tests::{
    node::identity,
    wire::{self, Client},
    within,
};

/// A server of one route that echoes.
pub async fn server() -> Endpoint {
    server_with(Limits::default()).await
}

/// The same with these limits.
pub async fn server_with(limits: Limits) -> Endpoint {
    let echo = |body: Bytes| async move { body };
    Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("localhost", TlsIdentity::SelfSigned)
        .limits(limits)
        .http(Access::Public, Router::new().route("/", post(echo).get(|| async { "ok" })))
        .bind()
        .await
        .unwrap()
}

/// A QUIC connection with `h3` negotiated, on which nothing of HTTP/3 was said.
pub struct Raw {
    pub quinn: quinn::Connection,
    _socket: quinn::Endpoint,
}

impl Raw {
    pub async fn connect(server: SocketAddr) -> Self {
        let socket = wire::socket();
        let client = Client::new(&[b"h3"]).wants_x509();
        let quinn = client.dial(&socket, server, "localhost").await.unwrap();
        Self { quinn, _socket: socket }
    }

    /// Sends `bytes` on a unidirectional stream and keeps it open.
    pub async fn uni(&self, bytes: &[u8]) -> quinn::SendStream {
        let mut send = self.quinn.open_uni().await.unwrap();
        let _ = send.write_all(bytes).await;
        send
    }

    /// Sends `bytes` on a request stream and keeps it open.
    pub async fn request(&self, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, recv) = self.quinn.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        (send, recv)
    }

    /// The application code that the server closes the connection with.
    pub async fn closed(&self) -> u64 {
        match within(10, "the server's close", self.quinn.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                assert!(close.reason.is_empty(), "peers get a code and no text: {close:?}");
                close.error_code.into_inner()
            }
            other => panic!("ended otherwise: {other:?}"),
        }
    }
}

/// A variable-length integer (RFC 9000 §16), in the shortest form.
pub fn varint(value: u64) -> Vec<u8> {
    match value {
        0..64 => vec![u8::try_from(value).unwrap()],
        64..16_384 => (u16::try_from(value).unwrap() | 0x4000).to_be_bytes().to_vec(),
        16_384..1_073_741_824 => {
            (u32::try_from(value).unwrap() | 0x8000_0000).to_be_bytes().to_vec()
        }
        _ => (value | 3 << 62).to_be_bytes().to_vec(),
    }
}

/// A frame.
pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [declared(kind, payload.len() as u64), payload.to_vec()].concat()
}

/// The header of a frame of `length` bytes.
pub fn declared(kind: u64, length: u64) -> Vec<u8> {
    [varint(kind), varint(length)].concat()
}

/// A field section without a table (RFC 9204 §4.5): literal names and values.
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    for (name, value) in fields {
        // Literal field line with literal name: 001NHxxx, three bits of length.
        prefixed(&mut bytes, 0x20, 3, name.len());
        bytes.extend_from_slice(name.as_bytes());
        prefixed(&mut bytes, 0, 7, value.len());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

/// An integer with a prefix of `bits` (RFC 7541 §5.1).
pub fn prefixed(bytes: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        bytes.push(flags | u8::try_from(value).unwrap());
        return;
    }
    bytes.push(flags | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The HEADERS frame of a plain GET.
pub fn get() -> Vec<u8> {
    headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
    ])
}

/// A HEADERS frame of these fields.
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(1, &section(fields))
}
