//! How is one thing asked of a web server?
//!
//! A small HTTP/1.1 client: one connection, one request, one whole answer. For certificate authorities,
//! OCSP responders, bundles and local sockets.
//!
//! Always true: a request ends by its deadline; an answer is held up to its limit and no further; no
//! redirect is followed; what a server says about itself stands in an error escaped and cut.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Asks web servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetch {
    /// For `https`; [`web_tls`] makes one.
    pub(crate) tls: Arc<ClientConfig>,
    /// From the look-up of the name to the last byte of the answer.
    pub(crate) deadline: Duration,
    /// The largest body that is taken.
    pub(crate) body_limit: usize,
}

impl Fetch {
    /// Sends a request to the server in its URL, `http` or `https`, and gives the whole answer, whatever
    /// its status.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, FetchError> {
        let to = Server::of(request.uri())?;
        self.in_time(to.to_string(), async {
            let unreachable = |why: io::Error| FetchError::unreachable(&to, &why);
            let stream =
                TcpStream::connect((to.host.as_str(), to.port)).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            if !to.secure {
                return self.exchange(&to.to_string(), stream, request).await;
            }
            let name = ServerName::try_from(to.host.clone())
                .map_err(|_| FetchError::Url(cut(&to.to_string())))?;
            let stream = TlsConnector::from(Arc::clone(&self.tls))
                .connect(name, stream)
                .await
                .map_err(|why| FetchError::tls(&to, &why))?;
            self.exchange(&to.to_string(), stream, request).await
        })
        .await
    }

    /// Sends a request over a local socket. Its URL needs no host; the field `Host`, if set, stays.
    pub(crate) async fn send_over_unix(
        &self,
        socket: &Path,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, FetchError> {
        let to = socket.display().to_string();
        self.in_time(to.clone(), async {
            let stream = UnixStream::connect(socket)
                .await
                .map_err(|why| FetchError::unreachable(&to, &why))?;
            self.exchange(&to, stream, request).await
        })
        .await
    }

    async fn in_time(
        &self,
        to: String,
        work: impl Future<Output = Result<Response<Bytes>, FetchError>>,
    ) -> Result<Response<Bytes>, FetchError> {
        let late = |_| FetchError::Late { server: to, deadline: self.deadline };
        // On the heap: the state of a TLS handshake is large.
        tokio::time::timeout(self.deadline, Box::pin(work)).await.map_err(late)?
    }

    async fn exchange(
        &self,
        to: &str,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, FetchError> {
        let broken = |why: hyper::Error| FetchError::broken(to, &why);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEADER_BYTES)
            .max_headers(HEADER_FIELDS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with this call, also when its caller goes away. Its error reaches the sender.
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = origin_form(request)?.map(Full::new);
        let answer = sender.send_request(request).await.map_err(broken)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, self.body_limit).collect().await.map_err(|why| {
            if why.is::<LengthLimitError>() {
                return FetchError::TooLong { server: to.to_owned(), limit: self.body_limit };
            }
            FetchError::broken(to, why.as_ref())
        })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// What `https` trusts: the certificates of `roots` (PEM), or those of the platform.
///
/// # Errors
/// A sentence, if `roots` holds no certificate or one that does not parse, or the platform's cannot be read.
pub(crate) fn web_tls(
    roots: Option<&[u8]>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?;
    let Some(pem) = roots else {
        let builder = builder.with_platform_verifier().map_err(|why| {
            format!("the platform's root certificates cannot be read: {why}; name a file of roots")
        })?;
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|why| format!("it is no PEM text: {why}"))?;
        roots
            .add(certificate)
            .map_err(|why| format!("certificate {} in it is refused: {why}", roots.len() + 1))?;
    }
    if roots.is_empty() {
        return Err("no certificate stands in it; expected at least one, as PEM".into());
    }
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The server of a URL.
struct Server {
    secure: bool,
    /// A name or an address, without brackets.
    host: String,
    port: u16,
}

impl Server {
    fn of(url: &Uri) -> Result<Self, FetchError> {
        let secure = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(FetchError::Url(cut(&url.to_string()))),
        };
        let host = url.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| FetchError::Url(cut(&url.to_string())))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host, port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The target's path alone, and its host as `Host` (RFC 9112 §3.2.1), without a name or password in it.
fn origin_form(request: Request<Bytes>) -> Result<Request<Bytes>, FetchError> {
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(HOST) {
        let host = parts.uri.host().unwrap_or("localhost");
        let host = match parts.uri.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let host = HeaderValue::try_from(host)
            .map_err(|_| FetchError::Url(cut(&parts.uri.to_string())))?;
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    Ok(Request::from_parts(parts, body))
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The connection ended before the answer did, or the answer is no HTTP.
    #[error("{server} gave no whole answer: {why}")]
    Broken { server: String, why: String },
    /// The answer did not come in time.
    #[error("{server} gave no answer within {}", Seconds(*.deadline))]
    Late { server: String, deadline: Duration },
    /// The TLS handshake failed; most of all, the certificate is not trusted.
    #[error("{server} cannot be trusted: {why}")]
    Tls { server: String, why: String },
    /// The body is longer than is taken.
    #[error("the answer of {server} is longer than {limit} bytes")]
    TooLong { server: String, limit: usize },
    /// There is no connection.
    #[error("{server} cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    /// The URL names no server that can be asked.
    #[error("`{0}` is no URL of a web server; expected `https://HOST/…` or `http://HOST/…`")]
    Url(String),
}

impl FetchError {
    fn unreachable(to: &impl fmt::Display, why: &io::Error) -> Self {
        Self::Unreachable { server: cut(&to.to_string()), why: cut(&why.to_string()) }
    }

    fn tls(to: &Server, why: &io::Error) -> Self {
        let server = cut(&to.to_string());
        match why.get_ref().and_then(|why| why.downcast_ref::<rustls::Error>()) {
            Some(why) => Self::Tls { server, why: cut(&why.to_string()) },
            None => Self::Broken { server, why: cut(&why.to_string()) },
        }
    }

    /// With what lies under it: hyper's own text does not say what the socket said.
    fn broken(to: &str, why: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = why.to_string();
        let mut under = why.source();
        while let Some(why) = under {
            text = format!("{text}: {why}");
            under = why.source();
        }
        Self::Broken { server: cut(to), why: cut(&text) }
    }
}

/// A time as people say it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f32())
    }
}

/// Text that a peer may have written, as it may stand in an error or a log.
pub(crate) fn cut(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(TEXT_CHARS).collect()
}

const TEXT_CHARS: usize = 200;
const HEADER_BYTES: usize = 32 * 1024;
const HEADER_FIELDS: usize = 100;

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
