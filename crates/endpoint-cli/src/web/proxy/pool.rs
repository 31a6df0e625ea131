//! Connections to one upstream: kept while idle, made when none is.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use endpoint_core::http::http2_client;
use http::{StatusCode, Uri, Version, uri::Authority};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};

use super::{
    super::{Request, Response, page::Refusal},
    idle::taking,
};
use crate::config::web::Upstream;

/// Time to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Idle connections kept.
const IDLE: usize = 64;
/// How long an idle connection is kept; most servers close theirs later.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer's head, and of its body that are read in one go: a client that takes nothing makes
/// each of its answers hold them.
const READ_BYTES: usize = 8 * 1024;
/// HTTP/2: the header section of an answer.
const HEADER_BYTES: u32 = 16 * 1024;

/// Why an upstream gave no answer.
#[derive(Debug)]
pub(super) enum Fault {
    Unreachable(String),
    Broken(hyper::Error),
    /// The connection had ended before any of the request was sent, which is given back.
    Unsent(Box<Request>, hyper::Error),
    Timeout,
}

impl Fault {
    /// Whether the connection ended before the server took the request.
    pub(super) fn is_dead(&self) -> bool {
        match self {
            Self::Broken(error) => {
                error.is_canceled() || error.is_closed() || error.is_incomplete_message()
            }
            _ => false,
        }
    }

    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Unreachable(_) => {
                Refusal::new(StatusCode::BAD_GATEWAY, "the upstream cannot be reached")
            }
            Self::Broken(_) | Self::Unsent(..) => {
                Refusal::new(StatusCode::BAD_GATEWAY, "the upstream gave no proper answer")
            }
            Self::Timeout => {
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the upstream did not answer in time")
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "cannot be reached: {reason}"),
            Self::Broken(error) | Self::Unsent(_, error) => write!(f, "no proper answer: {error}"),
            Self::Timeout => f.write_str("no answer in time"),
        }
    }
}

/// The connections of one upstream.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    upstream: Upstream,
    /// Time for which it may take nothing of what is sent.
    send_idle: Duration,
    idle: Mutex<Vec<(http1::SendRequest<Body>, Instant)>>,
    shared: Mutex<Option<http2::SendRequest<Body>>>,
}

/// A connection for one request.
pub(super) struct Connection {
    sender: Sender,
    pool: Pool,
    /// Whether it was used before.
    pub(super) reused: bool,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Pool {
    pub(super) fn new(upstream: Upstream, send_idle: Duration) -> Self {
        let (idle, shared) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { upstream, send_idle, idle, shared }))
    }

    /// As the configuration names it.
    pub(super) fn name(&self) -> String {
        match &self.0.upstream {
            Upstream::Tcp { authority, http2: false } => format!("http://{authority}"),
            Upstream::Tcp { authority, http2: true } => format!("h2c://{authority}"),
            Upstream::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// A connection that lies idle, or a new one.
    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        match self.kept() {
            Some(sender) => Ok(Connection { sender, pool: self.clone(), reused: true }),
            None => self.fresh().await,
        }
    }

    fn kept(&self) -> Option<Sender> {
        let shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sender) = shared.filter(|sender| !sender.is_closed()) {
            return Some(Sender::Http2(sender));
        }
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((sender, since)) = idle.pop() {
            if since.elapsed() < IDLE_TIME && sender.is_ready() {
                return Some(Sender::Http1(sender));
            }
        }
        None
    }

    /// A new connection.
    pub(super) async fn fresh(&self) -> Result<Connection, Fault> {
        let sender = match timeout(CONNECT_DEADLINE, self.open()).await {
            Ok(sender) => sender?,
            Err(_) => return Err(Fault::Timeout),
        };
        Ok(Connection { sender, pool: self.clone(), reused: false })
    }

    async fn open(&self) -> Result<Sender, Fault> {
        let unreachable = |error: std::io::Error| Fault::Unreachable(error.to_string());
        match &self.0.upstream {
            Upstream::Tcp { authority, http2 } => {
                let stream = TcpStream::connect(authority.as_str()).await.map_err(unreachable)?;
                // Small requests must not wait for acknowledgements of earlier ones.
                let _ = stream.set_nodelay(true);
                let stream = taking(stream, self.0.send_idle);
                match http2 {
                    false => Self::http1(stream).await,
                    true => {
                        let (sender, driver) = http2_client(HEADER_BYTES)
                            .handshake(TokioIo::new(stream))
                            .await
                            .map_err(Fault::Broken)?;
                        tokio::spawn(driver);
                        let mut shared =
                            self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
                        *shared = Some(sender.clone());
                        Ok(Sender::Http2(sender))
                    }
                }
            }
            Upstream::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                Self::http1(taking(stream, self.0.send_idle)).await
            }
        }
    }

    async fn http1<S>(stream: S) -> Result<Sender, Fault>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(READ_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Fault::Broken)?;
        tokio::spawn(driver.with_upgrades());
        Ok(Sender::Http1(sender))
    }

    fn keep(&self, sender: http1::SendRequest<Body>) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| since.elapsed() < IDLE_TIME && !sender.is_closed());
        if idle.len() < IDLE {
            idle.push((sender, Instant::now()));
        }
    }
}

impl Connection {
    /// Sends the request; the connection goes back when the answer was read to its end.
    pub(super) async fn send(self, mut request: Request) -> Result<Response, Fault> {
        let Self { sender, pool, .. } = self;
        match sender {
            Sender::Http1(mut sender) => {
                let response = sender.try_send_request(request).await.map_err(unsent)?;
                tokio::spawn(async move {
                    if sender.ready().await.is_ok() {
                        pool.keep(sender);
                    }
                });
                Ok(response.map(Body::new))
            }
            Sender::Http2(mut sender) => {
                // `:authority` says what `host` did (RFC 9113 §8.3.1).
                let host = request.headers_mut().remove(http::header::HOST);
                // A request that was given back has it in its target already.
                let before = request.uri().authority().map(Authority::as_str);
                let host = host.as_ref().and_then(|host| host.to_str().ok()).or(before);
                let host = host.unwrap_or("localhost");
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                let uri: Uri = format!("http://{host}{path}")
                    .parse()
                    .map_err(|_| Fault::Unreachable("no such target".into()))?;
                *request.uri_mut() = uri;
                *request.version_mut() = Version::HTTP_2;
                let response = sender.try_send_request(request).await.map_err(unsent)?;
                Ok(response.map(Body::new))
            }
        }
    }
}

fn unsent(mut error: TrySendError<Request>) -> Fault {
    match error.take_message() {
        Some(request) => Fault::Unsent(Box::new(request), error.into_error()),
        None => Fault::Broken(error.into_error()),
    }
}
