//! Requests over a connection that we dialled: HTTP/3 on QUIC, HTTP/2 or HTTP/1.1 on TCP.
//!
//! What a server makes us hold is metered as on the serving side.

mod error;
mod http2;
mod http3;
mod response_body;

use bytes::Bytes;
use http::{Request, Response, header, uri::PathAndQuery};
use http_body::Body;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::client::conn::{http1, http2::SendRequest};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

pub use self::{error::HttpError, http2::http2_client, response_body::ResponseBody};
use super::{BoxError, limits::FIELD_SECTION_BYTES, tcp::Duplex};
use crate::{alpn::Alpn, facts::Carrier, handler::Connection};

/// Header fields of a response over HTTP/1.1.
const FIELDS: usize = 256;

/// Sends requests over one dialled connection. Dropped, it ends what drives the connection, and with it
/// responses whose bodies are still being read.
pub struct HttpClient {
    sender: Sender,
    _driver: AbortOnDropHandle<()>,
}

enum Sender {
    Http3(http3::Sender),
    Http2(SendRequest<OutBody>),
    Http1(http1::SendRequest<OutBody>),
}

type OutBody = UnsyncBoxBody<Bytes, BoxError>;

impl HttpClient {
    /// Begins to speak HTTP over `connection`, in the version that its ALPN names.
    ///
    /// # Errors
    /// [`HttpError`] if the connection ended, its stream is in use, or its ALPN is not `h3`, `h2` or
    /// `http/1.1`.
    pub async fn new(connection: &Connection) -> Result<Self, HttpError> {
        let (alpn, carrier) = (connection.alpn(), connection.carrier());
        let (sender, driver) = match carrier {
            Carrier::Quic if *alpn == Alpn::H3 => {
                let (sender, driver) = http3::start(connection).await?;
                (Sender::Http3(sender), driver)
            }
            Carrier::Tcp if *alpn == Alpn::H2 => {
                let io = TokioIo::new(Duplex::dialled(connection).await?);
                let (sender, driver) = http2_client(FIELD_SECTION_BYTES)
                    .handshake(io)
                    .await
                    .map_err(HttpError::start)?;
                (Sender::Http2(sender), tokio::spawn(async { note(driver.await) }))
            }
            Carrier::Tcp if *alpn == Alpn::HTTP_1_1 => {
                let io = TokioIo::new(Duplex::dialled(connection).await?);
                let (sender, driver) = http1::Builder::new()
                    .max_buf_size(FIELD_SECTION_BYTES as usize)
                    .max_headers(FIELDS)
                    .handshake(io)
                    .await
                    .map_err(HttpError::start)?;
                (Sender::Http1(sender), tokio::spawn(async { note(driver.await) }))
            }
            _ => return Err(not_http(connection)),
        };
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Sends a request, whose target is an absolute `https` URI, and gives the response when its header
    /// has come. Interim responses are passed over. The request's body goes on being sent meanwhile.
    ///
    /// # Errors
    /// [`HttpError`] if the request has no authority, or the connection or its stream ended before the
    /// response.
    pub async fn send<B>(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<ResponseBody>, HttpError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if request.uri().authority().is_none() {
            return Err(HttpError::NoHost { target: request.uri().clone() });
        }
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        match &mut self.sender {
            Sender::Http3(sender) => sender.send(request).await,
            Sender::Http2(sender) => {
                sender.ready().await.map_err(HttpError::exchange)?;
                let sent = sender.send_request(request).await;
                Ok(sent.map_err(HttpError::exchange)?.map(ResponseBody::tcp))
            }
            Sender::Http1(sender) => {
                let request = origin_form(request)?;
                sender.ready().await.map_err(HttpError::exchange)?;
                let sent = sender.send_request(request).await;
                Ok(sent.map_err(HttpError::exchange)?.map(ResponseBody::tcp))
            }
        }
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.sender {
            Sender::Http3(_) => "HttpClient(h3)",
            Sender::Http2(_) => "HttpClient(h2)",
            Sender::Http1(_) => "HttpClient(http/1.1)",
        })
    }
}

fn not_http(connection: &Connection) -> HttpError {
    HttpError::NotHttp { alpn: connection.alpn().clone(), carrier: connection.carrier() }
}

/// The target's path alone, and its authority as `host` (RFC 9112 §3.2.1).
fn origin_form(request: Request<OutBody>) -> Result<Request<OutBody>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().and_then(|authority| authority.as_str().parse().ok());
    let host = host.ok_or_else(|| HttpError::NoHost { target: parts.uri.clone() })?;
    parts.headers.insert(header::HOST, host);
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    Ok(Request::from_parts(parts, body))
}

/// How the driver of a connection ended: whoever waits for an answer is told by their own request.
fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "http connection ended");
    }
}
