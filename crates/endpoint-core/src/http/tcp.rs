//! HTTP/2 and HTTP/1.1 over TLS, by hyper.

use std::{
    convert::Infallible,
    io,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, Semaphore},
    time::Instant,
};
use tower_service::Service;

use super::{
    BoxError, RequestBody, Requester,
    answers::{Account, Answers, Counted, Streams, socket},
    check,
    limits::FIELD_SECTION_BYTES,
    linger::{Lingering, Unread},
    requester::UnderWay,
    resets::Resets,
    service::HttpService,
};
use crate::{
    config::RequestLimits,
    error::LinkError,
    handler::{Connection, HandlerError},
    transport::{RecvStream, SendStream},
};

/// Requests of an HTTP/2 connection at one time, whatever is asked for.
const HTTP2_LEAST_REQUESTS: u32 = 16;
/// Bytes of answers that wait for one client's window, of each request (RFC 9113 §5.2).
const HTTP2_SEND_BYTES: usize = 16 * 1024;
/// Silence after which a client is asked whether it is there, and time for it to say so.
const HTTP2_PING: Duration = Duration::from_secs(30);
const HTTP2_PONG: Duration = Duration::from_secs(10);
/// Flow-control windows of HTTP/2 (RFC 9113 §5.2).
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// RFC 9113 §4.2: the least that there is; more would let a frame hold up the others.
const HTTP2_FRAME_BYTES: u32 = 16 * 1024;
/// RFC 7541 §4.2: what a client may make us remember of its field lines.
const HTTP2_TABLE_BYTES: u32 = 4096;
/// Streams that were reset before they were looked at, and streams that we reset for a mistake of the client's
/// (CVE-2023-44487, CVE-2025-8671), before the connection ends. What counts first is `GivenUp`.
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_ERROR_RESETS: usize = 1024;

pub(super) async fn serve_http1<S: HttpService>(
    service: &Arc<S>,
    connection: Connection,
    requester: Requester,
    answers: &Answers,
) -> Result<(), HandlerError> {
    let Some(duplex) = Duplex::of(&connection).await else { return Ok(()) };
    let limits = connection.request_limits();
    let account = answers.account(&limits);
    note(http1(duplex, service, &requester, limits, &account, true, connection.ends()).await);
    // Without an upgrade the stream is gone by now; with one, the link lives as long as the stream does, and
    // is busy as long.
    let _tunnel = requester.answering();
    connection.closed().await;
    Ok(())
}

/// Answers the requests of one HTTP/1.1 connection until it ends. When `ends` comes, what was asked is
/// answered and nothing more is taken. A client that is in the middle of its request keeps hyper waiting then,
/// so the caller sets a limit.
pub(super) async fn http1<S: HttpService>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: &Arc<S>,
    requester: &Requester,
    limits: RequestLimits,
    account: &Arc<Account>,
    keep_alive: bool,
    ends: impl Future<Output = ()>,
) -> hyper::Result<()> {
    requester.charged_to(account);
    let unread = Unread::default();
    let io = Lingering::new(socket(io, account), unread.clone());
    let io = TokioIo::new(io);
    let service = service_fn(|request: Request<Incoming>| {
        let request = request.map(|body| body_of(body, limits).telling(unread.clone()));
        let waiting = account.answer();
        async {
            let answered = answer(service, requester, request).await;
            Ok::<_, Infallible>(answered.map(|body| Counted::new(body, waiting, false)))
        }
    });
    let served = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .half_close(false)
        .header_read_timeout(limits.header)
        .max_buf_size(FIELD_SECTION_BYTES as usize)
        .serve_connection(io, service)
        .with_upgrades();
    // Boxed, because its state is large and a connection of another version would keep the room for it.
    let mut served = Box::pin(served);
    let ended = async {
        tokio::select! {
            ended = served.as_mut() => ended,
            () = ends => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        }
    };
    tokio::select! {
        ended = ended => ended,
        () = account.over() => Ok(()),
    }
}

/// However a client ends its connection, that is no failure of the handler.
fn note<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "http connection ended");
    }
}

pub(super) async fn serve_http2<S: HttpService>(
    service: &Arc<S>,
    connection: Connection,
    requester: Requester,
    answers: &Answers,
) -> Result<(), HandlerError> {
    let Some(duplex) = Duplex::of(&connection).await else { return Ok(()) };
    let service = Arc::clone(service);
    let limits = connection.request_limits();
    let at_once = limits.at_once.max(HTTP2_LEAST_REQUESTS);
    let room = usize::try_from(at_once).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(room));
    let given_up = Arc::new(GivenUp::default());
    let told = Arc::clone(&given_up);
    let account = answers.account(&limits);
    requester.charged_to(&account);
    let io = TokioIo::new(socket(duplex, &account));
    let (streams, of_answers) = (Streams::default(), Arc::clone(&account));
    let executor = streams.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (service, requester) = (Arc::clone(&service), requester.clone());
        let waiting = of_answers.answer();
        streams.next_is(&waiting);
        let room = Arc::clone(&room);
        // Not in the future: one that is dropped before it ran counts too.
        let unanswered = Unanswered(Some(Arc::clone(&given_up)));
        let request = request.map(|body| body_of(body, limits));
        async move {
            // A stream that was reset makes room before its handler has ended; the next one waits.
            let slot = room.acquire().await;
            let answered = answer(&service, &requester, request).await;
            drop(slot);
            unanswered.answered();
            Ok::<_, Infallible>(answered.map(|body| Counted::new(body, waiting, true)))
        }
    });
    let served = conn::http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(at_once)
        .max_send_buf_size(HTTP2_SEND_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .header_table_size(HTTP2_TABLE_BYTES)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_ERROR_RESETS)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PONG)
        .max_header_list_size(FIELD_SECTION_BYTES)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .serve_connection(io, service);
    let mut served = std::pin::pin!(served);
    let ended = async {
        tokio::select! {
            ended = served.as_mut() => ended,
            () = connection.ends() => {
                // hyper waits for a client's preface that may never come, and for its word that it has read
                // the GOAWAY; for how long is said above all protocols.
                served.as_mut().graceful_shutdown();
                served.await
            }
        }
    };
    tokio::select! {
        ended = ended => note(ended),
        // hyper has no GOAWAY for this: the connection ends without one.
        () = told.too_many.notified() => {
            tracing::debug!("the client gave up too many requests");
        }
        () = account.over() => {}
    }
    Ok(())
}

/// The requests of one HTTP/2 connection that its client gave up.
#[derive(Debug, Default)]
struct GivenUp {
    resets: Mutex<Resets>,
    too_many: Notify,
}

/// A request without its answer yet. Dropped so, it was given up.
struct Unanswered(Option<Arc<GivenUp>>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(given_up) = &self.0 else { return };
        let mut resets = given_up.resets.lock().unwrap_or_else(PoisonError::into_inner);
        if resets.too_many(Instant::now()) {
            given_up.too_many.notify_one();
        }
    }
}

/// A body that is given up as the limits say.
fn body_of(body: Incoming, limits: RequestLimits) -> RequestBody {
    RequestBody::from(body).paced(limits.body)
}

/// Answers one request, whatever happens: checked, with its requester, with `alt-svc` behind TLS.
async fn answer<S, B>(
    service: &Arc<S>,
    requester: &Requester,
    mut request: Request<RequestBody>,
) -> Response<Answer<B>>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
{
    if let Err(refusal) = check::request(&request) {
        tracing::debug!(reason = refusal.reason(), "malformed request");
        return bare(StatusCode::BAD_REQUEST);
    }
    let under_way = requester.answering();
    let alt_svc = requester.carrier().and_then(|_| alt_svc(&request));
    let stalled = request.body().stalled();
    requester.go_with(&mut request);
    // A panic of the service ends its own request. Boxed, because hyper moves the whole from hand to hand.
    let called = AssertUnwindSafe(Box::pin(call(service, request))).catch_unwind().await;
    let stalled = stalled.is_some_and(|stalled| stalled.answers());
    let mut response = match called {
        // Whatever the service made of the half that it got.
        _ if stalled => bare(StatusCode::REQUEST_TIMEOUT),
        Ok(Ok(response)) => response.map(|body| Answer::Of { body, under_way }),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the service failed");
            bare(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(_) => {
            tracing::error!("the service panicked");
            bare(StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    if let Some(value) = alt_svc {
        response.headers_mut().entry(header::ALT_SVC).or_insert(value);
    }
    response
}

async fn call<S, B>(
    service: &Arc<S>,
    request: Request<RequestBody>,
) -> Result<Response<B>, BoxError>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
{
    let mut service = S::clone(service);
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
    service.call(request).await.map_err(Into::into)
}

/// An answer without a body, after which HTTP/1.1 closes: what follows may be part of the same mistake.
fn bare<B>(status: StatusCode) -> Response<Answer<B>> {
    let mut response = Response::new(Answer::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

pin_project_lite::pin_project! {
    /// The service's body, or none.
    #[project = Projected]
    pub(super) enum Answer<B> {
        Of { #[pin] body: B, under_way: UnderWay },
        Empty,
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            Projected::Of { body, .. } => body.poll_frame(cx).map_err(Into::into),
            Projected::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Of { body, .. } => body.is_end_stream(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Of { body, .. } => body.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}

/// Where the same origin speaks HTTP/3 (RFC 7838 §3): on the port that the client used, which need not
/// be ours where one is mapped to the other.
fn alt_svc<B>(request: &Request<B>) -> Option<HeaderValue> {
    let port = match request.uri().authority() {
        Some(authority) => authority.port_u16(),
        None => {
            let named = request.headers().get(header::HOST)?.to_str().ok()?;
            named.parse::<http::uri::Authority>().ok()?.port_u16()
        }
    };
    match port {
        None | Some(443) => Some(HeaderValue::from_static("h3=\":443\"; ma=86400")),
        Some(port) => HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok(),
    }
}

/// Both halves of the one stream of a TCP link.
pub(super) struct Duplex {
    send: SendStream,
    recv: RecvStream,
}

impl Duplex {
    /// `None` if the connection is at its end.
    async fn of(connection: &Connection) -> Option<Self> {
        match connection.stream().await {
            Ok((send, recv)) => Some(Self { send, recv }),
            Err(error) => {
                note(Err(error));
                None
            }
        }
    }

    /// The same for a connection that we dialled.
    pub(super) async fn dialled(connection: &Connection) -> Result<Self, LinkError> {
        let (send, recv) = connection.open_bi().await?;
        Ok(Self { send, recv })
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.send.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
