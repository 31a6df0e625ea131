//! The body of an HTTP/3 request.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{error::Code, server::RequestStream};
use http_body::{Frame, SizeHint};

use super::{
    BoxError,
    limits::LARGE_BODY_BYTES,
    quic::{Malformed, RecvHalf, Shared},
};

/// The receiving half of a request stream. Dropped before its end, the client is told to stop sending.
pub(super) struct Http3Body {
    recv: RequestStream<RecvHalf, Bytes>,
    shared: Arc<Shared>,
    /// Bytes that the request declared (RFC 9114 §4.1.2).
    declared: Option<u64>,
    /// Of its trailers.
    malformed: Malformed,
    received: u64,
    place: Place,
    /// What came before anybody asked.
    first: Option<Result<Frame<Bytes>, BoxError>>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    Data,
    Trailers,
    Ended,
}

impl Http3Body {
    pub(super) fn new(
        recv: RequestStream<RecvHalf, Bytes>,
        declared: Option<u64>,
        shared: Arc<Shared>,
        malformed: Malformed,
    ) -> Self {
        let (place, first) = (Place::Data, None);
        Self { recv, shared, declared, malformed, received: 0, place, first }
    }

    /// Whether there is no body, as far as can be told now.
    pub(super) fn is_empty(&mut self, cx: &mut Context<'_>) -> bool {
        match self.poll_progress(cx) {
            Poll::Ready(None) => {
                self.place = Place::Ended;
                true
            }
            Poll::Ready(first) => {
                self.first = first;
                false
            }
            Poll::Pending => false,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.poll_progress(cx)),
        };
        if !matches!(frame, Some(Ok(_))) {
            self.place = Place::Ended;
        }
        Poll::Ready(frame)
    }

    /// Reads to the end; whether that came without a byte and in good order.
    pub(super) fn poll_nothing(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while let Some(frame) = ready!(self.poll(cx)) {
            if frame.is_err() {
                return Poll::Ready(false);
            }
        }
        Poll::Ready(self.received == 0)
    }

    /// Reads no more; the client is told so.
    pub(super) fn give_up(&mut self, code: Code) {
        self.place = Place::Ended;
        self.recv.stop_sending(code);
    }

    fn poll_progress(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.place == Place::Data {
            match ready!(self.recv.poll_recv_data(cx))? {
                Some(mut data) => {
                    let bytes = data.copy_to_bytes(data.remaining());
                    return Poll::Ready(Some(self.take(bytes).map(Frame::data)));
                }
                None if self.declared.is_some_and(|declared| declared != self.received) => {
                    return Poll::Ready(Some(Err(self.malformed())));
                }
                None => self.place = Place::Trailers,
            }
        }
        if self.place == Place::Ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.recv.poll_recv_trailers(cx))?;
        self.place = Place::Ended;
        if self.malformed.is_set() {
            self.recv.stop_sending(Code::H3_MESSAGE_ERROR);
            return Poll::Ready(Some(Err("pseudo-header fields in trailers".into())));
        }
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes, BoxError> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > LARGE_BODY_BYTES {
            self.shared.widen();
        }
        match self.declared {
            Some(declared) if self.received > declared => Err(self.malformed()),
            _ => Ok(bytes),
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
    //# A request or response that is defined as having content when it contains a Content-Length header
    //# field is malformed if the value of the Content-Length header field does not equal the sum of the
    //# DATA frame lengths received.
    fn malformed(&mut self) -> BoxError {
        self.recv.stop_sending(Code::H3_MESSAGE_ERROR);
        "the body is not as long as content-length says".into()
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.place == Place::Ended && self.first.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.declared {
            Some(declared) => {
                let first = self.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref());
                let given = self.received - first.map_or(0, |data| data.len() as u64);
                SizeHint::with_exact(declared.saturating_sub(given))
            }
            None => SizeHint::default(),
        }
    }
}
