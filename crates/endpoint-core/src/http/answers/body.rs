//! The body of an answer on its way through hyper, every piece of it charged.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{super::BoxError, Waiting, piece::Piece};

pin_project! {
    /// A body whose pieces are charged.
    pub(in crate::http) struct Counted<B> {
        #[pin]
        body: B,
        answer: Arc<Waiting>,
        given: usize,
        ended: bool,
        // Whether the end of a large body waits until all before it is taken: over HTTP/2 an answer that
        // hyper has to its end can no longer be reset.
        keeps_its_end: bool,
    }
}

/// Bytes of an answer up to which its end goes with them, as it costs least.
const SMALL_BYTES: usize = 64 * 1024;

impl<B> Counted<B> {
    pub(in crate::http) fn new(body: B, answer: Arc<Waiting>, keeps_its_end: bool) -> Self {
        Self { body, answer, given: 0, ended: false, keeps_its_end }
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let mut this = self.project();
        let waits = *this.keeps_its_end && *this.given > SMALL_BYTES;
        if *this.ended {
            if waits {
                ready!(this.answer.poll_taken(cx));
            }
            return Poll::Ready(None);
        }
        ready!(this.answer.poll_room(cx));
        let Some(frame) = ready!(this.body.as_mut().poll_frame(cx)) else {
            *this.ended = true;
            if waits {
                ready!(this.answer.poll_taken(cx));
            }
            return Poll::Ready(None);
        };
        let frame = frame.map_err(Into::into)?;
        *this.given = this.given.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        *this.ended = this.body.is_end_stream();
        let answer = &*this.answer;
        Poll::Ready(Some(Ok(frame.map_data(|bytes| Piece::new(bytes, answer)))))
    }

    fn is_end_stream(&self) -> bool {
        let waits = self.keeps_its_end && self.given > SMALL_BYTES;
        (self.ended || self.body.is_end_stream()) && !waits
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
