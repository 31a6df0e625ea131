//! The body of a request, whatever carries it.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h3::error::Code;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    BoxError,
    body_pace::{BodyPace, Stalled},
    guard::Ended,
    http3_body::Http3Body,
    linger::Unread,
};
use crate::{config::pace::BodyLimits, trust::Denial};

/// The body of a request: read on demand, so that a slow reader slows the sender down. Trailers come last.
/// A client that sends nothing for too long, or too slowly, is given up: the body fails, and the request is
/// answered with 408.
pub struct RequestBody {
    kind: Kind,
    pace: Option<BodyPace>,
    /// Where it is told whether there is a rest.
    unread: Option<Unread>,
    guard: Option<BodyGuard>,
}

/// The end of the right to send a body: in the extensions of a request that has one. The body may be read
/// for longer than the answer lasts, by whom nobody knows.
#[derive(Clone, Default)]
pub(super) struct BodyGuard(Arc<Mutex<Vec<Ended>>>);

impl BodyGuard {
    /// From now on the body fails when this comes too.
    pub(super) fn add(&self, ended: Ended) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Denial> {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ended in ends.iter_mut() {
            if let Poll::Ready(denial) = ended.as_mut().poll(cx) {
                return Poll::Ready(denial);
            }
        }
        Poll::Pending
    }
}

enum Kind {
    Empty,
    Tcp(Incoming),
    Http3(Box<Http3Body>),
}

impl RequestBody {
    /// A body of no bytes.
    #[must_use]
    pub fn empty() -> Self {
        Kind::Empty.into()
    }

    pub(super) fn http3(body: Http3Body) -> Self {
        Kind::Http3(Box::new(body)).into()
    }

    /// The same, given up when it does not come as fast as `limits` say.
    pub(super) fn paced(self, limits: BodyLimits) -> Self {
        let pace = (!self.is_end_stream()).then(|| BodyPace::new(limits));
        Self { pace, ..self }
    }

    /// Tells whoever answers whether the body was given up.
    pub(super) fn stalled(&self) -> Option<Stalled> {
        self.pace.as_ref().map(|pace| pace.stalled().clone())
    }

    /// The same, telling until it was read to its end that there is a rest.
    pub(super) fn telling(self, unread: Unread) -> Self {
        unread.set(!self.is_end_stream());
        Self { unread: Some(unread), ..self }
    }

    /// The guard of the body, for the request's extensions; none if there is no body.
    pub(super) fn guard(&mut self) -> Option<BodyGuard> {
        if self.is_end_stream() {
            return None;
        }
        Some(self.guard.get_or_insert_default().clone())
    }

    fn give_up(&mut self, code: Code) {
        if let Kind::Http3(body) = &mut self.kind {
            body.give_up(code);
        }
        // Dropped, the rest of the body is not waited for by HTTP/1.1 and HTTP/2 either.
        *self = Self::empty();
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Tcp(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(Into::into)))
            }
            Kind::Http3(body) => body.poll(cx),
        }
    }
}

impl From<Kind> for RequestBody {
    fn from(kind: Kind) -> Self {
        Self { kind, pace: None, unread: None, guard: None }
    }
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Kind::Tcp(body).into()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(guard) = &self.guard
            && let Poll::Ready(denial) = guard.poll(cx)
        {
            self.give_up(Code::H3_REQUEST_CANCELLED);
            return Poll::Ready(Some(Err(denial.into())));
        }
        if let Poll::Ready(frame) = self.poll_kind(cx) {
            if let Some(pace) = &mut self.pace {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                pace.came(data.map_or(0, Bytes::len));
            }
            if let Some(unread) = &self.unread
                && (frame.is_none() || self.is_end_stream())
            {
                unread.set(false);
            }
            return Poll::Ready(frame);
        }
        let Some(pace) = &mut self.pace else { return Poll::Pending };
        ready!(pace.poll_over(cx));
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1
        //# The error code H3_NO_ERROR SHOULD be used when requesting that the client stop sending on the
        //# request stream.
        self.give_up(Code::H3_NO_ERROR);
        Poll::Ready(Some(Err("the client sent nothing for too long, or too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Tcp(body) => body.is_end_stream(),
            Kind::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Tcp(body) => body.size_hint(),
            Kind::Http3(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestBody")
    }
}
