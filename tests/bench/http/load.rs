//! The client: the same for every server, and cheaper than any of them where it can be.
//!
//! Over HTTP/3 it is quinn alone: the request is bytes made beforehand, of the answer only the lengths of
//! its frames are looked at. Over TCP it is hyper.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use endpoint_tests::wire;
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{client::Resumption, pki_types::ServerName, version::TLS13};
use tokio::io::AsyncBufReadExt;

use super::{Carrier, NAME, SMALL, Work, find};
use crate::child::{self, Left, SETTLE, number, say};

/// Windows that never hold a server back.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// The client process.
pub fn run(figure: &str, server: &str) -> Result<(), String> {
    let (carrier, work) = find(figure)?;
    let server: SocketAddr = server.parse().map_err(|_| "no address")?;
    child::runtime()?.block_on(async {
        let client = Client::new(carrier, server)?;
        let mut lanes = Vec::new();
        if let Work::Get { .. } = work {
            let (connections, streams) = work.lanes();
            for _ in 0..connections {
                let first = client.connect().await?;
                while let Some(more) =
                    first.again().filter(|_| lanes.len() % streams != streams - 1)
                {
                    lanes.push(more);
                }
                lanes.push(first);
            }
        }
        say(format_args!("ready -"))?;
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match line.split_once(' ') {
                Some(("work", count)) => {
                    let began = Instant::now();
                    do_work(work, &client, &mut lanes, number(count)?).await?;
                    say(format_args!("{}", began.elapsed().as_nanos()))?;
                }
                _ => {
                    tokio::time::sleep(SETTLE).await;
                    child::answer(&line)?;
                }
            }
        }
        Ok(())
    })
}

async fn do_work(
    work: Work,
    client: &Client,
    lanes: &mut [Lane],
    count: usize,
) -> Result<(), String> {
    let left = Left::new(count);
    let left = &left;
    match work {
        Work::Get { path, bytes } => {
            // A server may end a connection that has been idle.
            for lane in lanes.iter_mut().filter(|lane| lane.is_closed()) {
                *lane = client.connect().await?;
            }
            let lanes = lanes.iter_mut().map(|lane| async move {
                while left.take() {
                    lane.get(path, bytes).await?;
                }
                Ok::<_, String>(())
            });
            try_join_all(lanes).await?;
        }
        Work::Connect => {
            let Work::Get { path, bytes } = SMALL else { return Ok(()) };
            let dials = (0..work.lanes().0).map(|_| async move {
                while left.take() {
                    let mut lane = client.connect().await?;
                    lane.get(path, bytes).await?;
                    lane.close();
                }
                Ok::<_, String>(())
            });
            try_join_all(dials).await?;
        }
    }
    Ok(())
}

struct Client {
    carrier: Carrier,
    server: SocketAddr,
    quic: Option<quinn::Endpoint>,
    tls: Arc<rustls::ClientConfig>,
}

impl Client {
    fn new(carrier: Carrier, server: SocketAddr) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut tls = rustls::ClientConfig::builder_with_provider(wire::provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| text(&error))?
            .dangerous()
            .with_custom_certificate_verifier(wire::any_server())
            .with_no_client_auth();
        tls.resumption = Resumption::disabled();
        let alpn: &[u8] = match carrier {
            Carrier::H3 => b"h3",
            Carrier::H2 => b"h2",
            Carrier::H1 => b"http/1.1",
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut quic = None;
        if carrier == Carrier::H3 {
            let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls.clone());
            let crypto = Arc::new(crypto.map_err(|error| text(&error))?);
            let mut config = quinn::ClientConfig::new(crypto);
            let mut transport = quinn::TransportConfig::default();
            transport
                .max_concurrent_bidi_streams(0_u32.into())
                .max_concurrent_uni_streams(8_u32.into())
                .stream_receive_window(WINDOW_BYTES.into())
                .receive_window((4 * WINDOW_BYTES).into())
                .initial_mtu(1452)
                .mtu_discovery_config(None);
            config.transport_config(Arc::new(transport));
            let endpoint = quinn::Endpoint::new(
                quinn::EndpointConfig::default(),
                None,
                crate::raw::socket()?,
                Arc::new(quinn::TokioRuntime),
            );
            let mut endpoint = endpoint.map_err(|error| text(&error))?;
            endpoint.set_default_client_config(config);
            quic = Some(endpoint);
        }
        Ok(Self { carrier, server, quic, tls: Arc::new(tls) })
    }

    async fn connect(&self) -> Result<Lane, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if let Some(quic) = &self.quic {
            let connecting = quic.connect(self.server, NAME).map_err(|error| text(&error))?;
            let connection = connecting.await.map_err(|error| text(&error))?;
            // The control stream and its SETTINGS, empty (RFC 9114 §6.2.1).
            let mut control = connection.open_uni().await.map_err(|error| text(&error))?;
            control.write_all(&[0, 4, 0]).await.map_err(|error| text(&error))?;
            return Ok(Lane::H3(connection, Arc::new(control)));
        }
        let stream = tokio::net::TcpStream::connect(self.server).await;
        let stream = stream.map_err(|error| text(&error))?;
        stream.set_nodelay(true).map_err(|error| text(&error))?;
        let name = ServerName::try_from(NAME).map_err(|error| text(&error))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| text(&error))?;
        let io = TokioIo::new(stream);
        if self.carrier == Carrier::H2 {
            let (send, driver) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(4 * WINDOW_BYTES)
                .max_frame_size(64 * 1024)
                .handshake(io)
                .await
                .map_err(|error| text(&error))?;
            tokio::spawn(driver);
            return Ok(Lane::H2(send));
        }
        let (send, driver) = http1::handshake(io).await.map_err(|error| text(&error))?;
        tokio::spawn(driver);
        Ok(Lane::H1(send))
    }
}

/// A connection, as one of the requests under way sees it.
enum Lane {
    H3(quinn::Connection, Arc<quinn::SendStream>),
    H2(http2::SendRequest<Empty<Bytes>>),
    H1(http1::SendRequest<Empty<Bytes>>),
}

impl Lane {
    /// The same connection for one more request at a time.
    fn again(&self) -> Option<Self> {
        match self {
            Self::H3(connection, control) => {
                Some(Self::H3(connection.clone(), Arc::clone(control)))
            }
            Self::H2(send) => Some(Self::H2(send.clone())),
            Self::H1(_) => None,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self, Self::H1(send) if send.is_closed())
    }

    fn close(&self) {
        if let Self::H3(connection, _) = self {
            connection.close(0x100_u32.into(), b"");
        }
    }

    async fn get(&mut self, path: &str, bytes: usize) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let came = match self {
            Self::H3(connection, _) => {
                let (mut send, mut recv) = connection.open_bi().await.map_err(|e| text(&e))?;
                send.write_all(&headers(path)).await.map_err(|e| text(&e))?;
                send.finish().map_err(|e| text(&e))?;
                let mut data = Data::default();
                while let Some(chunk) =
                    recv.read_chunk(usize::MAX, true).await.map_err(|e| text(&e))?
                {
                    data.take(&chunk.bytes);
                }
                data.bytes
            }
            Self::H2(send) => {
                let uri = format!("https://{NAME}{path}");
                let request = Request::get(uri).body(Empty::new()).map_err(|e| text(&e))?;
                send.ready().await.map_err(|e| text(&e))?;
                length(send.send_request(request).await.map_err(|e| text(&e))?).await?
            }
            Self::H1(send) => {
                let request = Request::get(path).header("host", NAME).body(Empty::new());
                let request = request.map_err(|e| text(&e))?;
                send.ready().await.map_err(|e| text(&e))?;
                length(send.send_request(request).await.map_err(|e| text(&e))?).await?
            }
        };
        match came == bytes {
            true => Ok(()),
            false => Err(format!("{path}: {came} bytes came instead of {bytes}")),
        }
    }
}

async fn length(response: http::Response<hyper::body::Incoming>) -> Result<usize, String> {
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(length)
}

/// A HEADERS frame with the pseudo-fields of a GET, out of QPACK's static table (RFC 9204 appendix A).
fn headers(path: &str) -> Vec<u8> {
    let mut section = vec![0, 0, 0xd1, 0xd7, 0x50, NAME.len() as u8];
    section.extend_from_slice(NAME.as_bytes());
    section.extend_from_slice(&[0x51, path.len() as u8]);
    section.extend_from_slice(path.as_bytes());
    // `accept: */*`
    section.push(0xdd);
    let mut frame = vec![1, section.len() as u8];
    frame.append(&mut section);
    frame
}

/// Counts what DATA frames carry.
#[derive(Default)]
struct Data {
    bytes: usize,
    /// Of a frame's type and length that are not whole yet.
    head: Vec<u8>,
    left: usize,
}

impl Data {
    fn take(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            let taken = self.left.min(chunk.len());
            self.left -= taken;
            chunk = &chunk[taken..];
            while self.left == 0 && !chunk.is_empty() {
                self.head.push(chunk[0]);
                chunk = &chunk[1..];
                let Some((kind, used)) = varint(&self.head) else { continue };
                let Some((length, _)) = varint(&self.head[used..]) else { continue };
                self.left = length;
                self.bytes += if kind == 0 { length } else { 0 };
                self.head.clear();
            }
        }
    }
}

fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value =
        rest.iter().fold(usize::from(first & 0x3f), |value, byte| value << 8 | usize::from(*byte));
    Some((value, length))
}
