//! How does an answer go out over HTTP/3?
//!
//! h3 reads requests; answers are written here, straight to quinn: the header fields, the first piece of
//! the body and the end of a short answer are one write.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body, Frame};
use quinn::{VarInt, WriteError};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    BoxError,
    answers::Waiting,
    date,
    http3_exchange::End,
    http3_fields::{Section, data_header},
};

const INTERNAL_ERROR: u32 = 0x102;
const REQUEST_CANCELLED: u32 = 0x10c;
const MESSAGE_ERROR: u32 = 0x10e;

/// The half of a request stream that we send on. Dropped before its end it is reset: half an answer must
/// not look whole.
pub(super) struct Answering {
    stream: quinn::SendStream,
    /// Bytes of a field section that the client takes.
    most_fields: u64,
    /// What is still to be written.
    writing: [Bytes; 2],
    /// And after it.
    rest: Bytes,
    waiting: Arc<Waiting>,
    ended: bool,
    patience: Patience,
    /// Tells when the client no longer wants the answer; made when something is first waited for.
    stopped: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Answering {
    /// `idle`: for how long the client may take nothing. Boxed: it is handed on from step to step.
    pub(super) fn new(
        stream: quinn::SendStream,
        most_fields: u64,
        idle: Duration,
        waiting: Arc<Waiting>,
    ) -> Box<Self> {
        let (writing, patience) = ([Bytes::new(), Bytes::new()], Patience::new(idle));
        let (rest, ended, stopped) = (Bytes::new(), false, None);
        Box::new(Self { stream, most_fields, writing, rest, waiting, ended, patience, stopped })
    }

    /// Answers nothing: the request is malformed (RFC 9114 §4.1.2).
    pub(super) fn refuse(mut self) {
        self.ended = true;
        let _ = self.stream.reset(VarInt::from_u32(MESSAGE_ERROR));
    }

    /// Ready when the client has given the request up.
    pub(super) fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { stream, stopped, .. } = self;
        let stopped = stopped.get_or_insert_with(|| {
            let stopped = stream.stopped();
            Box::pin(async move {
                // Acknowledged to its end is not unwanted; whoever waits then has nothing to wait for.
                if !matches!(stopped.await, Ok(Some(_))) {
                    std::future::pending::<()>().await;
                }
            })
        });
        stopped.as_mut().poll(cx)
    }

    /// Writes what is to be written. A client that takes nothing of it for too long gives it up.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Self { stream, writing, rest: later, waiting, patience, .. } = self;
        loop {
            let done = writing.iter().take_while(|bytes| bytes.is_empty()).count();
            let Some(rest) = writing.get_mut(done..).filter(|rest| !rest.is_empty()) else {
                if later.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                writing[0] = waiting.keep(later);
                continue;
            };
            // The future holds no state of its own, so a new one each time loses nothing.
            let wrote = pin!(stream.write_chunks(rest)).poll(cx);
            match wrote {
                Poll::Ready(Ok(_)) => patience.renew(),
                Poll::Ready(Err(WriteError::Stopped(_))) => return Poll::Ready(Err(End::GivenUp)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Failed)),
                Poll::Pending => {
                    ready!(patience.poll_over(cx));
                    self.give_up();
                    // Not among those that the client gave up: it may have paused.
                    return Poll::Ready(Err(End::Failed));
                }
            }
        }
    }

    /// Breaks it off: its client takes nothing.
    fn give_up(&mut self) {
        tracing::debug!("the client takes nothing of its answer");
        self.ended = true;
        let _ = self.stream.reset(VarInt::from_u32(REQUEST_CANCELLED));
    }

    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
    //# An implementation that has received this parameter SHOULD NOT send an HTTP message header that
    //# exceeds the indicated size
    fn write(&mut self, section: Section, data: Option<Bytes>) -> Result<(), End> {
        if section.size() > self.most_fields {
            tracing::debug!("the client takes no such header section");
            return Err(End::Failed);
        }
        let (bytes, rest) = section.finish(data);
        self.rest = rest.unwrap_or_default();
        self.writing = [bytes, self.waiting.keep(&mut self.rest)];
        Ok(())
    }

    /// Says that the body of the request may come (RFC 9110 §15.2.1).
    pub(super) fn go_on(&mut self) -> Result<(), End> {
        self.write(Section::answer(StatusCode::CONTINUE, &HeaderMap::new()), None)
    }

    /// Answers with no more than `status`, which says what failed.
    pub(super) fn failed<B>(mut self: Box<Self>, status: StatusCode) -> Result<Sending<B>, End> {
        self.write(Section::answer(status, &HeaderMap::new()), None)?;
        Ok(Sending { send: self, body: Rest::Broken })
    }

    /// Answers with `response`; without its body if the request was a HEAD. What of the body is there at
    /// once goes along with the fields; nothing keeps these waiting.
    pub(super) fn respond<B>(
        mut self: Box<Self>,
        response: Response<B>,
        head: bool,
        cx: &mut Context<'_>,
    ) -> Result<Sending<B>, End>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = response.into_parts();
        let status = parts.status;
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut section = Section::answer(status, &parts.headers);
        if !bodiless
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
            && let Some(length) = body.size_hint().exact()
        {
            section.number("content-length", length);
        }
        if !parts.headers.contains_key(header::DATE) {
            section.field("date", &date::now());
        }
        if head || bodiless {
            self.write(section, None)?;
            return Ok(Sending { send: self, body: Rest::None });
        }
        let mut body = Box::pin(body);
        let mut first = match self.waiting.poll_room(cx) {
            Poll::Ready(()) => body.as_mut().poll_frame(cx),
            Poll::Pending => Poll::Pending,
        };
        let data = match &mut first {
            Poll::Ready(Some(Ok(frame))) => frame.data_mut().map(std::mem::take),
            _ => None,
        };
        self.write(section, data.filter(|data| !data.is_empty()))?;
        let body = match first {
            Poll::Ready(None) => Rest::None,
            Poll::Ready(Some(Err(error))) => failed(&error.into()),
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Rest::Frame(Some(frame), body),
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => Rest::None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => Rest::Body(body),
        };
        Ok(Sending { send: self, body })
    }
}

/// The answer breaks off: its stream is reset.
fn failed<B>(error: &BoxError) -> Rest<B> {
    tracing::debug!(%error, "the body of an answer failed");
    Rest::Failed
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.ended {
            // A stream that is already closed cannot be reset, and need not be.
            let _ = self.stream.reset(VarInt::from_u32(INTERNAL_ERROR));
        }
    }
}

/// For how long may a client take nothing? A timer runs only while something waits for it.
struct Patience {
    most: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Patience {
    fn new(most: Duration) -> Self {
        Self { most: most.min(LONGEST), timer: None, running: false }
    }

    /// The client took something.
    fn renew(&mut self) {
        self.running = false;
    }

    /// Ready when the client has taken nothing for too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let most = self.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(most)));
        if !std::mem::replace(&mut self.running, true) {
            timer.as_mut().reset(Instant::now() + most);
        }
        timer.as_mut().poll(cx)
    }
}

/// What can be added to any time.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// An answer whose fields are written, or being written.
pub(super) struct Sending<B> {
    send: Box<Answering>,
    body: Rest<B>,
}

/// What an answer still has after what is being written.
enum Rest<B> {
    Body(Pin<Box<B>>),
    Frame(Option<Frame<Bytes>>, Pin<Box<B>>),
    None,
    /// Nothing, and it counts as a failure.
    Broken,
    /// It breaks off.
    Failed,
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.send.waiting.is_sent_by(cx);
        if self.send.waiting.is_given_up() {
            self.send.give_up();
            return Poll::Ready(End::Failed);
        }
        loop {
            if let Err(end) = ready!(self.send.poll_flush(cx)) {
                return Poll::Ready(end);
            }
            let polled = match &mut self.body {
                Rest::None => return Poll::Ready(self.finish(End::Done)),
                Rest::Broken => return Poll::Ready(self.finish(End::Failed)),
                Rest::Failed => return Poll::Ready(End::Failed),
                Rest::Frame(frame, _) if frame.is_some() => {
                    Poll::Ready(frame.take().map(Ok::<_, BoxError>))
                }
                Rest::Body(body) | Rest::Frame(_, body) => match self.send.waiting.poll_room(cx) {
                    Poll::Ready(()) => body.as_mut().poll_frame(cx).map_err(Into::into),
                    Poll::Pending => Poll::Pending,
                },
            };
            match polled {
                Poll::Pending => return self.send.poll_given_up(cx).map(|()| End::GivenUp),
                Poll::Ready(None) => self.body = Rest::None,
                Poll::Ready(Some(Err(error))) => self.body = failed(&error),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Err(end) = self.take(frame) {
                        return Poll::Ready(end);
                    }
                }
            }
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), End> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => {
                let (header, used) = data_header(data.len());
                let header = Bytes::copy_from_slice(header.get(..used).unwrap_or_default());
                self.send.rest = data;
                self.send.writing = [header, self.send.waiting.keep(&mut self.send.rest)];
                Ok(())
            }
            Err(frame) => match frame.into_trailers() {
                Ok(fields) => self.send.write(Section::trailers(&fields), None),
                Err(_) => Ok(()),
            },
        }
    }

    fn finish(&mut self, end: End) -> End {
        self.send.ended = true;
        // What is left of it is quinn's, and can be reset no more.
        self.send.waiting.let_go();
        match self.send.stream.finish() {
            Ok(()) => end,
            Err(_) => End::Failed,
        }
    }
}
