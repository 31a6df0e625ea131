//! A body on its way through: data as it comes, trailers without what only we may say.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{Method, header};
use http_body::{Body as _, Frame, SizeHint};

use super::{super::Request, fields, idle::Patience};

/// Learns whether a request that usually has no body has one.
///
/// HTTP/3 and HTTP/2 tell the end of a body only after its head. An upstream must not see an empty body
/// where there is none, and only a request without one can be sent again. Requests whose methods come
/// with a body are left alone: their senders may want an answer before they send it.
pub(super) async fn settle(request: &mut Request) {
    let bare =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    let declared = request.headers().contains_key(header::CONTENT_LENGTH);
    if !bare || declared || request.body().is_end_stream() {
        return;
    }
    let mut body = std::mem::take(request.body_mut());
    let first = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    let empty = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
    *request.body_mut() = match first {
        None => Body::empty(),
        Some(Ok(frame)) if empty(&frame) && body.is_end_stream() => Body::empty(),
        Some(first) => Body::new(Led { first: Some(first), body }),
    };
}

/// A body whose first part was read already.
struct Led {
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    body: Body,
}

impl http_body::Body for Led {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }
}

/// A request's or an answer's body.
pub(super) struct Trimmed {
    body: Body,
    /// Of a request's.
    request: Option<Upload>,
    /// Of an answer's: for how long its upstream may be silent.
    patience: Option<Patience>,
}

/// How the body of a request gets on.
#[derive(Clone, Debug, Default)]
pub(super) struct Upload(Arc<State>);

#[derive(Debug, Default)]
struct State {
    broken: AtomicBool,
    bytes: AtomicUsize,
}

impl Upload {
    /// Whether it failed: then the client is at fault, not the upstream that was told half of it.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }

    /// Bytes that were passed on so far.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl Trimmed {
    /// A request's: its trailers say nothing of the peer.
    pub(super) fn request(body: Body, upload: Upload) -> Self {
        Self { body, request: Some(upload), patience: None }
    }

    /// An answer's; it breaks off when its upstream is silent for so long while the client waits.
    pub(super) fn answer(body: Body, idle: Duration) -> Self {
        Self { body, request: None, patience: Some(Patience::new(idle)) }
    }
}

impl http_body::Body for Trimmed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, request, patience } = &mut *self;
        let frame = match (Pin::new(body).poll_frame(cx), patience) {
            (Poll::Ready(frame), patience) => {
                patience.iter_mut().for_each(Patience::renew);
                frame
            }
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(patience)) => {
                ready!(patience.poll_over(cx));
                self.body = Body::empty();
                tracing::debug!("the upstream was silent for too long within its answer");
                let error = axum::Error::new("the upstream was silent for too long");
                return Poll::Ready(Some(Err(error)));
            }
        };
        Poll::Ready({
            frame.map(|frame| {
                match (&frame, &request) {
                    (Err(_), Some(upload)) => upload.0.broken.store(true, Ordering::Release),
                    (Ok(frame), Some(upload)) => {
                        let bytes = frame.data_ref().map_or(0, Bytes::len);
                        upload.0.bytes.fetch_add(bytes, Ordering::Relaxed);
                    }
                    (_, None) => {}
                }
                frame.map(|mut frame| {
                    if let Some(trailers) = frame.trailers_mut() {
                        fields::strip(trailers);
                        if request.is_some() {
                            fields::unforge(trailers);
                            fields::untrail(trailers);
                        }
                    }
                    frame
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
