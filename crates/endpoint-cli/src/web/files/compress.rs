//! Is a file compressed on its way out, and how much may that cost?
//!
//! Compressing is the only work of an answer that takes as long as the file is large. It is done in turns of
//! [`TURN_BYTES`], so that others are served in between; so many at one time; and not at all for files above
//! a size: these are sent as they are. So is every file while all places are taken: nobody waits for one.
//!
//! Not here: files that lie compressed beside the plain one (tower-http finds them). Answers of upstreams and
//! parts of files are never compressed.

use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::compression::{CompressionLayer, DefaultPredicate, Predicate};

use super::{
    super::{Request, Response},
    body::FileBody,
};
use crate::config::WebLimits;

/// Bytes that are compressed before others have their turn: one or two milliseconds.
const TURN_BYTES: usize = 64 * 1024;

/// Compresses files.
#[derive(Clone, Debug)]
pub(in super::super) struct Compressor {
    room: Arc<Semaphore>,
    most_bytes: u64,
    turn_bytes: usize,
}

impl Compressor {
    pub(in super::super) fn new(limits: &WebLimits) -> Self {
        let room = Arc::new(Semaphore::new(limits.compressions.min(Semaphore::MAX_PERMITS)));
        Self { room, most_bytes: limits.compress_up_to, turn_bytes: TURN_BYTES }
    }

    /// The answer with `file` as its body, compressed if the client who asked with `asked` and the limits
    /// let it be. Without a file it is the same answer without a body.
    pub(super) async fn apply(
        &self,
        asked: &HeaderMap,
        answer: http::Response<()>,
        file: Option<FileBody>,
    ) -> Response {
        if !asked.contains_key(header::ACCEPT_ENCODING) {
            return answer.map(|()| file.map_or_else(Body::empty, Body::new));
        }
        let head = file.is_none();
        let plain = !answer.headers().contains_key(header::CONTENT_ENCODING);
        let fits = Fits {
            room: Arc::clone(&self.room),
            most_bytes: self.most_bytes,
            head,
            place: Arc::default(),
        };
        let place = Arc::clone(&fits.place);
        let turn = self.turn_bytes;
        let mut answer = Some(answer.map(|()| InTurns::new(file, turn)));
        let answers = service_fn(move |_: Request| {
            let none = || http::Response::new(InTurns::new(None, turn));
            ready(Ok::<_, Infallible>(answer.take().unwrap_or_else(none)))
        });
        let mut request = Request::new(Body::empty());
        for value in asked.get_all(header::ACCEPT_ENCODING) {
            request.headers_mut().append(header::ACCEPT_ENCODING, value.clone());
        }
        let layer = CompressionLayer::new().compress_when(fits);
        let answer = match layer.layer(answers).oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let compressed = plain && answer.headers().contains_key(header::CONTENT_ENCODING);
        let place = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.map(|mut body| match compressed {
            true if !head => {
                if let Some(file) = &mut body.get_mut().body {
                    file.in_pieces_of(turn / 4);
                }
                let over = Arc::clone(&body.get_mut().over);
                Body::new(Compressing { body: Body::new(body), over, others: None, _place: place })
            }
            // Whoever asks for the head gets none of the body, not even the frame of an empty one.
            true => Body::new(Head),
            false => body.get_mut().body.take().map_or_else(Body::empty, Body::new),
        })
    }
}

/// Whether an answer may be compressed; then it has its place.
#[derive(Clone)]
struct Fits {
    room: Arc<Semaphore>,
    most_bytes: u64,
    /// Costs nothing, so it needs no place: it is answered as if there was one.
    head: bool,
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Predicate for Fits {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let fits = length.is_some_and(|length| length <= self.most_bytes);
        if !fits || !DefaultPredicate::new().should_compress(response) {
            return false;
        }
        if self.head {
            return true;
        }
        let place = Arc::clone(&self.room).try_acquire_owned().ok();
        let mut held = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        *held = place;
        held.is_some()
    }
}

/// A body that is compressed, and its place.
struct Compressing {
    body: Body,
    /// Whether its turn is over.
    over: Arc<AtomicBool>,
    /// Others have theirs, and what came over the network is looked at: being woken at once would go before.
    others: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for Compressing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Some(others) = &mut self.others {
                ready!(others.as_mut().poll(cx));
                self.others = None;
            }
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            if self.over.swap(false, Ordering::Relaxed) {
                self.others = Some(Box::pin(tokio::task::yield_now()));
                if polled.is_pending() {
                    continue;
                }
            }
            return polled;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// In place of a body whose length nobody knows.
struct Head;

impl http_body::Body for Head {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What is compressed: pauses after so many bytes. Much goes in before something comes out, of a file of
/// zeros all of it; in a pause the compressor gives what it has, so that the turn of [`Compressing`] ends.
struct InTurns {
    body: Option<FileBody>,
    turn: usize,
    given: usize,
    over: Arc<AtomicBool>,
}

impl InTurns {
    fn new(body: Option<FileBody>, turn: usize) -> Self {
        Self { body, turn, given: 0, over: Arc::default() }
    }
}

impl http_body::Body for InTurns {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.given >= self.turn {
            self.given = 0;
            // Whoever polls this goes on by himself.
            self.over.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.given = self.given.saturating_add(bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(FileBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // Of a head the field tells the length.
        self.body.as_ref().map_or_else(SizeHint::default, FileBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, future::poll_fn, sync::atomic::AtomicUsize};

    use http_body::Body as _;

    use super::{
        super::disk::{Disk, Held},
        *,
    };

    /// Zeros without a place on the disk.
    const ZEROS: u64 = 4 << 20;

    fn compressor(limits: WebLimits, turn_bytes: usize) -> Compressor {
        Compressor { turn_bytes, ..Compressor::new(&limits) }
    }

    fn zeros(length: u64) -> FileBody {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        body(file, length)
    }

    fn body(file: File, length: u64) -> FileBody {
        let held = Held::new(file, Disk::of(1), true);
        FileBody::new(Arc::new(held), 0, length, None)
    }

    async fn answer(compressor: &Compressor, coding: &str, file: Option<FileBody>) -> Response {
        let length = file.as_ref().map_or(ZEROS, |file| file.size_hint().lower());
        let answer = http::Response::builder()
            .header(header::CONTENT_TYPE, "text/plain")
            .header(header::CONTENT_LENGTH, length)
            .body(())
            .unwrap();
        let mut asked = HeaderMap::new();
        asked.insert(header::ACCEPT_ENCODING, coding.parse().unwrap());
        compressor.apply(&asked, answer, file).await
    }

    fn coding(answer: &Response) -> &str {
        answer.headers().get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap())
    }

    /// Polls a body to its end; the number of times that it let others have their turn.
    async fn turns(mut body: Body) -> usize {
        let turns = AtomicUsize::new(0);
        loop {
            let frame = poll_fn(|cx| {
                let polled = Pin::new(&mut body).poll_frame(cx);
                turns.fetch_add(usize::from(polled.is_pending()), Ordering::Relaxed);
                polled
            });
            let Some(frame) = frame.await else { return turns.into_inner() };
            frame.unwrap();
        }
    }

    #[tokio::test]
    async fn others_have_their_turn_while_it_compresses() {
        let fair = compressor(WebLimits::default(), TURN_BYTES);
        let unfair = compressor(WebLimits::default(), usize::MAX);
        for name in ["gzip", "br", "zstd"] {
            let answered = answer(&fair, name, Some(zeros(ZEROS))).await;
            assert_eq!(coding(&answered), name);
            let most = usize::try_from(ZEROS).unwrap() / TURN_BYTES;
            let count = turns(answered.into_body()).await;
            assert!(count.abs_diff(most) <= 1, "{name}: {count} turns");
            // Without turns all of it is the work of one.
            let answered = answer(&unfair, name, Some(zeros(ZEROS))).await;
            assert_eq!(turns(answered.into_body()).await, 0, "{name}");
        }
        // What is not compressed needs none.
        let answered = answer(&fair, "identity", Some(zeros(ZEROS))).await;
        assert_eq!(coding(&answered), "");
        assert_eq!(turns(answered.into_body()).await, 0);
    }

    #[tokio::test]
    async fn so_many_are_compressed_at_one_time_and_the_others_are_sent_as_they_are() {
        for most in [3, 1_000] {
            let limits = WebLimits { compressions: most, ..WebLimits::default() };
            let compressor = compressor(limits, TURN_BYTES);
            let mut held = Vec::new();
            for _ in 0..1_000 {
                held.push(answer(&compressor, "gzip", Some(zeros(1_000))).await);
            }
            let count = held.iter().filter(|answer| coding(answer) == "gzip").count();
            assert_eq!(count, most);
            drop(held);
            assert_eq!(compressor.room.available_permits(), most);
        }
    }

    #[tokio::test]
    async fn a_file_above_the_size_is_sent_as_it_is_and_a_head_says_the_same() {
        for most in [ZEROS - 1, ZEROS] {
            let limits = WebLimits { compress_up_to: most, ..WebLimits::default() };
            let compressor = compressor(limits, TURN_BYTES);
            let whole = answer(&compressor, "br", Some(zeros(ZEROS))).await;
            assert_eq!(coding(&whole), if most < ZEROS { "" } else { "br" });
            let head = answer(&compressor, "br", None).await;
            assert_eq!(head.headers(), whole.headers());
            assert!(head.body().is_end_stream(), "a head has no body, not even an empty frame");
            drop(whole);
            assert_eq!(compressor.room.available_permits(), limits.compressions);
        }
    }
}
