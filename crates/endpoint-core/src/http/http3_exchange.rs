//! One request over HTTP/3 and its answer.
//!
//! A future that is small and may be moved between two polls: most requests are done at the first, on the
//! stack of the connection's task; only those that wait are put aside. Each is resolved for itself, so a
//! slow header keeps nobody waiting, and holds its stream until it ends, so the peer's credit comes back
//! no sooner.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h3::{error::StreamError, server::RequestResolver};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::{
    BoxError, RequestBody, Requester,
    answers::Account,
    body_pace::Stalled,
    check::{self, Refusal},
    http3_answer::{Answering, Sending},
    http3_body::Http3Body,
    quic::{Bidi, Malformed, Metered, Shared},
    requester::UnderWay,
};
use crate::config::RequestLimits;

/// What the requests of a connection share.
pub(super) struct Serving<S> {
    pub(super) service: Arc<S>,
    pub(super) requester: Requester,
    pub(super) shared: Arc<Shared>,
    pub(super) limits: RequestLimits,
    pub(super) account: Arc<Account>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Done,
    /// The client gave it up before its answer was out.
    GivenUp,
    Failed,
}

pub(super) struct Exchange<'s, S, B>
where
    S: Service<Request<RequestBody>>,
{
    serving: &'s Serving<S>,
    malformed: Malformed,
    /// Once it is judged.
    under_way: Option<UnderWay>,
    /// Whether its body was given up.
    stalled: Option<Stalled>,
    state: State<S, B>,
}

enum State<S, B>
where
    S: Service<Request<RequestBody>>,
{
    /// For the header section.
    Resolving {
        resolver: Option<RequestResolver<Metered, Bytes>>,
        deadline: Option<Pin<Box<Sleep>>>,
    },
    /// For the end of a body that was said to be empty: no handler would read it, so none would notice
    /// that there is one all the same.
    Ending {
        body: Box<Http3Body>,
        deadline: Option<Pin<Box<Sleep>>>,
        request: Option<Request<()>>,
        send: Option<Box<Answering>>,
    },
    /// For the service to be ready, and for a 100 (Continue) to be out.
    Starting {
        service: S,
        request: Option<Request<RequestBody>>,
        send: Option<Box<Answering>>,
        head: bool,
    },
    /// For the service's answer.
    Calling { called: Pin<Box<S::Future>>, send: Option<Box<Answering>>, head: bool },
    /// For the answer to be out.
    Sending(Sending<B>),
}

/// Nothing in it is pinned where it is.
impl<S, B> Unpin for Exchange<'_, S, B> where S: Service<Request<RequestBody>> {}

impl<'s, S, B> Exchange<'s, S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(
        serving: &'s Serving<S>,
        resolver: RequestResolver<Metered, Bytes>,
        malformed: Malformed,
    ) -> Self {
        let state = State::Resolving { resolver: Some(resolver), deadline: None };
        Self { serving, malformed, under_way: None, stalled: None, state }
    }

    /// Judges a request whose header section is whole.
    fn start(
        &mut self,
        request: Request<()>,
        mut stream: h3::server::RequestStream<Bidi, Bytes>,
        cx: &mut Context<'_>,
    ) -> Result<State<S, B>, End> {
        let checked = match self.malformed.is_set() {
            true => Err("pseudo-header fields out of place"),
            false => check::request(&request).map_err(Refusal::reason),
        };
        let length = checked.map_err(|reason| {
            // RFC 9114 §4.1.2: malformed, so the stream ends and nothing is answered.
            tracing::debug!(reason, "malformed request");
            stream.stop_stream(h3::error::Code::H3_MESSAGE_ERROR);
            stream.stop_sending(h3::error::Code::H3_MESSAGE_ERROR);
            End::Failed
        })?;
        let Serving { requester, shared, limits, account, .. } = self.serving;
        self.under_way = Some(requester.answering());
        let (send, recv) = stream.split();
        let send = shared.take_back(send).ok_or(End::Failed)?;
        let waiting = account.answer();
        let send = Answering::new(send, shared.most_fields(), limits.answer_idle, waiting);
        let mut body = Http3Body::new(recv, length, Arc::clone(shared), self.malformed.clone());
        if length == Some(0) {
            let (body, request, send) = (Box::new(body), Some(request), Some(send));
            return Ok(State::Ending { body, deadline: None, request, send });
        }
        let body = match body.is_empty(cx) {
            true => RequestBody::empty(),
            false => RequestBody::http3(body).paced(limits.body),
        };
        self.stalled = body.stalled();
        self.begin(request.map(|()| body), send, cx)
    }

    /// Hands a request to the service as soon as that is ready.
    fn begin(
        &self,
        mut request: Request<RequestBody>,
        mut send: Box<Answering>,
        cx: &mut Context<'_>,
    ) -> Result<State<S, B>, End> {
        let Serving { service, requester, .. } = self.serving;
        let head = request.method() == Method::HEAD;
        let expects = request
            .headers()
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        requester.go_with(&mut request);
        if expects {
            send.go_on()?;
        }
        let (mut service, mut request, mut send) = (S::clone(service), Some(request), Some(send));
        // Nearly always it can be called at once, which saves the request a way through a state of its own.
        match poll_started(&mut service, &mut request, &mut send, head, cx) {
            Poll::Ready(next) => next,
            Poll::Pending => Ok(State::Starting { service, request, send, head }),
        }
    }
}

impl<S, B> Future for Exchange<'_, S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let limits = self.serving.limits;
        loop {
            let this = &mut *self;
            let next = match &mut this.state {
                State::Resolving { resolver, deadline } => {
                    let resolved =
                        match ready!(poll_resolved(resolver, deadline, limits.header, cx)) {
                            Ok(resolved) => resolved,
                            Err(end) => return Poll::Ready(end),
                        };
                    self.start(resolved.0, resolved.1, cx)
                }
                State::Ending { body, deadline, request, send } => {
                    let ended = ready!(poll_ended(body, deadline, limits.body.idle, send, cx));
                    let (Some(request), Some(send)) = (request.take(), send.take()) else {
                        return Poll::Ready(End::Failed);
                    };
                    match ended {
                        Ended::Well => self.begin(request.map(|()| RequestBody::empty()), send, cx),
                        Ended::Stalled => {
                            send.failed(StatusCode::REQUEST_TIMEOUT).map(State::Sending)
                        }
                        Ended::Malformed => return Poll::Ready(End::Failed),
                    }
                }
                State::Starting { service, request, send, head } => {
                    ready!(poll_started(service, request, send, *head, cx))
                }
                State::Calling { called, send, head } => {
                    ready!(poll_called(called.as_mut(), send, *head, this.stalled.as_ref(), cx))
                }
                State::Sending(sending) => return sending.poll(cx),
            };
            match next {
                Ok(state) => self.state = state,
                Err(end) => return Poll::Ready(end),
            }
        }
    }
}

type Resolved = (Request<()>, h3::server::RequestStream<Bidi, Bytes>);

fn poll_resolved(
    resolver: &mut Option<RequestResolver<Metered, Bytes>>,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    patience: Duration,
    cx: &mut Context<'_>,
) -> Poll<Result<Resolved, End>> {
    let Some(waiting) = resolver else { return Poll::Ready(Err(End::Failed)) };
    let frame = match waiting.frame_stream.poll_next(cx) {
        Poll::Ready(frame) => frame,
        Poll::Pending => {
            // Nearly always the section is there: only for those that are not, a timer is made.
            let deadline = deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
            // Dropped, the stream is reset.
            return deadline.as_mut().poll(cx).map(|()| Err(End::GivenUp));
        }
    };
    let Some(resolver) = resolver.take() else { return Poll::Ready(Err(End::Failed)) };
    Poll::Ready(resolver.accept_with_frame(frame).map_err(|error| end_of(&error)).and_then(
        |resolved| match pin!(resolved.resolve()).poll(cx) {
            Poll::Ready(resolved) => resolved.map_err(|error| end_of(&error)),
            // A section that is too large, and no credit to say so.
            Poll::Pending => Err(End::Failed),
        },
    ))
}

fn poll_ended(
    body: &mut Http3Body,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    silence: Duration,
    send: &mut Option<Box<Answering>>,
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    match body.poll_nothing(cx) {
        Poll::Ready(true) => Poll::Ready(Ended::Well),
        Poll::Ready(false) => {
            tracing::debug!(reason = "a body of more than its 0 bytes", "malformed request");
            if let Some(send) = send.take() {
                send.refuse();
            }
            Poll::Ready(Ended::Malformed)
        }
        Poll::Pending => {
            let deadline = deadline.get_or_insert_with(|| Box::pin(sleep(silence)));
            ready!(deadline.as_mut().poll(cx));
            body.give_up(h3::error::Code::H3_NO_ERROR);
            Poll::Ready(Ended::Stalled)
        }
    }
}

/// How a body that was said to be empty came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    Well,
    /// It did not.
    Stalled,
    Malformed,
}

fn end_of(error: &StreamError) -> End {
    match error {
        StreamError::RemoteTerminate { .. } => End::GivenUp,
        _ => End::Failed,
    }
}

fn poll_started<S, B>(
    service: &mut S,
    request: &mut Option<Request<RequestBody>>,
    send: &mut Option<Box<Answering>>,
    head: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<State<S, B>, End>>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    if let Some(send) = send
        && let Err(end) = ready!(send.poll_flush(cx))
    {
        return Poll::Ready(Err(end));
    }
    let ready = match service.poll_ready(cx) {
        Poll::Ready(ready) => ready,
        Poll::Pending => return poll_given_up(send, cx),
    };
    if let Err(error) = ready {
        return Poll::Ready(broken(send, error));
    }
    let Some(request) = request.take() else { return Poll::Ready(Err(End::Failed)) };
    let called = Box::pin(service.call(request));
    Poll::Ready(Ok(State::Calling { called, send: send.take(), head }))
}

fn poll_called<S, B>(
    called: Pin<&mut S::Future>,
    send: &mut Option<Box<Answering>>,
    head: bool,
    stalled: Option<&Stalled>,
    cx: &mut Context<'_>,
) -> Poll<Result<State<S, B>, End>>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let called = match called.poll(cx) {
        Poll::Ready(called) => called,
        Poll::Pending => return poll_given_up(send, cx),
    };
    if stalled.is_some_and(Stalled::answers) {
        // Whatever the service made of the half that it got.
        let send = send.take().ok_or(End::Failed);
        let failed = send.and_then(|send| send.failed(StatusCode::REQUEST_TIMEOUT));
        return Poll::Ready(failed.map(State::Sending));
    }
    let response = match called {
        Ok(response) => response,
        Err(error) => return Poll::Ready(broken(send, error)),
    };
    let send = send.take().ok_or(End::Failed);
    Poll::Ready(send.and_then(|send| send.respond(response, head, cx)).map(State::Sending))
}

fn poll_given_up<T>(
    send: &mut Option<Box<Answering>>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, End>> {
    match send {
        Some(send) => send.poll_given_up(cx).map(|()| Err(End::GivenUp)),
        None => Poll::Ready(Err(End::Failed)),
    }
}

/// A service that failed before it answered.
fn broken<S, B>(
    send: &mut Option<Box<Answering>>,
    error: impl Into<BoxError>,
) -> Result<State<S, B>, End>
where
    S: Service<Request<RequestBody>>,
{
    let error = error.into();
    tracing::debug!(%error, "the service failed");
    let send = send.take().ok_or(End::Failed)?;
    send.failed(StatusCode::INTERNAL_SERVER_ERROR).map(State::Sending)
}
