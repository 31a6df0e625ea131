//! HTTP clients of each version, over TLS as foreign clients shake hands.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::wire::{self, Client};

/// All three, newest first.
pub const VERSIONS: [Version; 3] = [Version::HTTP_3, Version::HTTP_2, Version::HTTP_11];

/// The protocol's name in TLS.
#[must_use]
pub fn alpn(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_3 => b"h3",
        Version::HTTP_2 => b"h2",
        _ => b"http/1.1",
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailer fields, if any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A header field as text; empty if there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection.
pub enum Connection {
    /// HTTP/3; the socket and the driver live as long as it.
    Http3 {
        /// Sends requests.
        send: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
        /// quinn's own connection.
        quinn: quinn::Connection,
        /// Keeps the socket.
        socket: quinn::Endpoint,
    },
    /// HTTP/2.
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
    /// HTTP/1.1.
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
}

/// An answer whose body is being read.
#[allow(clippy::large_enum_variant, reason = "there are few at a time")]
pub enum Reading {
    /// HTTP/3.
    Http3(Box<h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>>),
    /// HTTP/2 and HTTP/1.1.
    Tcp(hyper::body::Incoming),
}

impl Reading {
    /// The next piece of the body; `None` at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        match self {
            Self::Http3(stream) => {
                let data = stream.recv_data().await.map_err(|error| error.to_string()).transpose();
                data.map(|data| data.map(|mut data| data.copy_to_bytes(data.remaining())))
            }
            Self::Tcp(body) => {
                let frame = body.frame().await?;
                let data = |frame: http_body::Frame<Bytes>| frame.into_data().unwrap_or_default();
                Some(frame.map(data).map_err(|error| format!("{error:?}")))
            }
        }
    }
}

/// Why a request failed, as text.
pub type Failure = String;

/// Connects with `version` as `client` shakes hands, asking for `name`.
///
/// # Errors
/// As the stack says.
pub async fn connect(
    version: Version,
    server: SocketAddr,
    name: &str,
    client: &Client,
) -> Result<Connection, Failure> {
    let client = client.clone().offering(&[alpn(version)]);
    if version == Version::HTTP_3 {
        let socket = wire::socket();
        let quinn = client.dial(&socket, server, name).await.map_err(|e| e.to_string())?;
        return over_quic(socket, quinn).await;
    }
    let stream =
        client.dial_tcp("127.0.0.1", server, name, b"").await.map_err(|e| e.to_string())?;
    over_tcp(version, stream).await
}

/// Speaks HTTP/3 over a connection that was dialled from `socket`.
///
/// # Errors
/// As h3 says.
pub async fn over_quic(
    socket: quinn::Endpoint,
    quinn: quinn::Connection,
) -> Result<Connection, Failure> {
    let (mut driver, send) = h3::client::new(h3_quinn::Connection::new(quinn.clone()))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(async move { driver.wait_idle().await });
    Ok(Connection::Http3 { send, quinn, socket })
}

/// Speaks HTTP/2 or HTTP/1.1 over a stream.
///
/// # Errors
/// As hyper says.
pub async fn over_tcp(
    version: Version,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Connection, Failure> {
    let io = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let (send, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        return Ok(Connection::Http2(send));
    }
    let (send, driver) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| error.to_string())?;
    tokio::spawn(driver.with_upgrades());
    Ok(Connection::Http1(send))
}

impl Connection {
    /// Sends a request and reads the whole answer. For HTTP/1.1 the target is cut to its path and `host`
    /// is set, as clients do.
    ///
    /// # Errors
    /// As the stack says.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Answer, Failure> {
        match tokio::time::timeout(Duration::from_secs(30), self.send_now(request)).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in 30 s".into()),
        }
    }

    /// Sends a request without a body and gives the answer as soon as its head is there.
    ///
    /// # Errors
    /// As the stack says.
    pub async fn begin(
        &mut self,
        request: Request<Bytes>,
    ) -> Result<(StatusCode, Reading), Failure> {
        let request = self.in_form(request);
        let failed = |error: hyper::Error| format!("{error:?}");
        let response = match self {
            Self::Http3 { send, .. } => {
                let request = request.map(|_| ());
                let text = |error: h3::error::StreamError| error.to_string();
                let mut stream = send.send_request(request).await.map_err(text)?;
                stream.finish().await.map_err(text)?;
                let status = stream.recv_response().await.map_err(text)?.status();
                return Ok((status, Reading::Http3(Box::new(stream))));
            }
            Self::Http2(send) => {
                send.ready().await.map_err(failed)?;
                send.send_request(request.map(Full::new)).await
            }
            Self::Http1(send) => {
                send.ready().await.map_err(failed)?;
                send.send_request(request.map(Full::new)).await
            }
        };
        let (parts, body) = response.map_err(failed)?.into_parts();
        Ok((parts.status, Reading::Tcp(body)))
    }

    /// For HTTP/1.1 the target is cut to its path and `host` is set.
    fn in_form(&self, mut request: Request<Bytes>) -> Request<Bytes> {
        if let (Self::Http1(_), Some(authority)) = (self, request.uri().authority().cloned()) {
            let host = authority.as_str().parse().expect("a field value");
            request.headers_mut().entry("host").or_insert(host);
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse().expect("a path");
        }
        request
    }

    async fn send_now(&mut self, request: Request<Bytes>) -> Result<Answer, Failure> {
        let request = self.in_form(request);
        match self {
            Self::Http3 { send, .. } => {
                let (parts, body) = request.into_parts();
                let text = |error: &dyn std::fmt::Display| error.to_string();
                let mut stream = send
                    .send_request(Request::from_parts(parts, ()))
                    .await
                    .map_err(|error| text(&error))?;
                // A server that has its answer early stops the body; the answer is there all the same.
                if body.is_empty() || stream.send_data(body).await.is_ok() {
                    let _ = stream.finish().await;
                }
                let response = stream.recv_response().await.map_err(|error| text(&error))?;
                let mut body = Vec::new();
                while let Some(mut data) = stream.recv_data().await.map_err(|e| text(&e))? {
                    body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                }
                let trailers = stream.recv_trailers().await.map_err(|error| text(&error))?;
                let (status, headers) = (response.status(), response.headers().clone());
                Ok(Answer { status, headers, body: body.into(), trailers })
            }
            Self::Http2(send) => {
                send.ready().await.map_err(|error| error.to_string())?;
                whole(send.send_request(request.map(Full::new)).await).await
            }
            Self::Http1(send) => {
                send.ready().await.map_err(|error| error.to_string())?;
                whole(send.send_request(request.map(Full::new)).await).await
            }
        }
    }
}

async fn whole(
    response: Result<Response<hyper::body::Incoming>, hyper::Error>,
) -> Result<Answer, Failure> {
    let response = response.map_err(|error| format!("{error:?}"))?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
    let trailers = body.trailers().cloned();
    let (status, headers) = (parts.status, parts.headers);
    Ok(Answer { status, headers, body: body.to_bytes(), trailers })
}

/// A GET for `path` at `authority`.
#[must_use]
pub fn get(authority: &str, path: &str) -> Request<Bytes> {
    Request::builder()
        .uri(format!("https://{authority}{path}"))
        .body(Bytes::new())
        .expect("a request")
}

/// One GET on a connection of its own.
///
/// # Errors
/// As the stack says.
pub async fn fetch(
    version: Version,
    server: SocketAddr,
    name: &str,
    client: &Client,
    request: Request<Bytes>,
) -> Result<Answer, Failure> {
    connect(version, server, name, client).await?.send(request).await
}
