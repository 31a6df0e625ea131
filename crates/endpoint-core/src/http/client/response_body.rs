//! The body of a response, whatever carries it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::error::Code;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{HttpError, http3::Receiving};

/// The body of a response: read on demand. Trailers come last.
pub struct ResponseBody(Kind);

enum Kind {
    Tcp(Incoming),
    Http3(Box<Http3>),
}

struct Http3 {
    recv: Receiving,
    declared: Option<u64>,
    received: u64,
    place: Place,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    Data,
    Trailers,
    Ended,
}

impl ResponseBody {
    pub(super) fn tcp(body: Incoming) -> Self {
        Self(Kind::Tcp(body))
    }

    pub(super) fn http3(recv: Receiving, declared: Option<u64>) -> Self {
        Self(Kind::Http3(Box::new(Http3 { recv, declared, received: 0, place: Place::Data })))
    }
}

impl Http3 {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = ready!(self.poll_progress(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.place = Place::Ended;
        }
        Poll::Ready(frame)
    }

    fn poll_progress(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.place == Place::Data {
            match ready!(self.recv.poll_recv_data(cx)).map_err(HttpError::body)? {
                Some(mut data) => {
                    let bytes = data.copy_to_bytes(data.remaining());
                    self.received = self.received.saturating_add(bytes.len() as u64);
                    if self.declared.is_some_and(|declared| self.received > declared) {
                        return Poll::Ready(Some(Err(self.malformed())));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // An answer to HEAD, and 304, declare a length and have no body (RFC 9110 §8.6).
                None if self.received > 0
                    && self.declared.is_some_and(|declared| declared != self.received) =>
                {
                    return Poll::Ready(Some(Err(self.malformed())));
                }
                None => self.place = Place::Trailers,
            }
        }
        if self.place == Place::Ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.recv.poll_recv_trailers(cx)).map_err(HttpError::body)?;
        self.place = Place::Ended;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// RFC 9114 §4.1.2.
    fn malformed(&mut self) -> HttpError {
        self.recv.stop_sending(Code::H3_MESSAGE_ERROR);
        HttpError::Malformed("the body is not as long as content-length says")
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match &mut self.0 {
            Kind::Tcp(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(HttpError::body)))
            }
            Kind::Http3(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Tcp(body) => body.is_end_stream(),
            Kind::Http3(body) => body.place == Place::Ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Tcp(body) => body.size_hint(),
            // Not exact: an answer to HEAD has none of the bytes that it declares.
            Kind::Http3(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseBody")
    }
}
