//! An HTTP/2 client made of bytes (RFC 9113).

use std::net::SocketAddr;

use endpoint_tests::wire::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::raw::prefixed;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field section without a table (RFC 7541 §6.2.2): literal names and values.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        prefixed(&mut bytes, 0, 7, name.len());
        bytes.extend_from_slice(name.as_bytes());
        prefixed(&mut bytes, 0, 7, value.len());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

/// The section of a plain request.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
    ])
}

/// A connection on which the preface and SETTINGS were sent.
pub struct Raw2 {
    pub stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Raw2 {
    pub async fn connect(server: SocketAddr) -> Self {
        Self::connect_with(server, &[]).await
    }

    /// The same with these settings.
    pub async fn connect_with(server: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let client = Client::new(&[b"h2"]).wants_x509();
        let stream = client.dial_tcp("127.0.0.1", server, "localhost", b"").await.unwrap();
        let mut raw = Self { stream, read: Vec::new() };
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        raw.send(&[preface, frame(SETTINGS, 0, 0, &payload)].concat()).await.unwrap();
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame; `None` once the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parsed() {
                return Some(frame);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk).await {
                Ok(count @ 1..) => self.read.extend_from_slice(&chunk[..count]),
                _ => return None,
            }
        }
    }

    fn parsed(&mut self) -> Option<Frame> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3, ..] = self.read.as_slice() else { return None };
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        if self.read.len() < 9 + length {
            return None;
        }
        let payload = self.read[9..9 + length].to_vec();
        self.read.drain(..9 + length);
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }

    /// Reads until the connection ends; gives the error code of the last GOAWAY, if one came.
    pub async fn ended(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY
                && let Some(bytes) = frame.payload.get(4..8)
            {
                code = Some(u32::from_be_bytes(bytes.try_into().unwrap()));
            }
        }
        code
    }
}
