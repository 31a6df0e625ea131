//! Request streams.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::VarInt;

use super::{
    Handing, Malformed, Shared,
    errors::{of_connection, unread, unwritten},
};
use crate::http::meter::frames::FrameMeter;

/// A request stream.
pub(in crate::http) struct Bidi {
    send: SendHalf,
    recv: RecvHalf,
}

impl Bidi {
    pub(super) fn new(
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        shared: &Arc<Shared>,
    ) -> Result<Self, ConnectionErrorIncoming> {
        // Every QUIC stream number is one of h3's: both have 62 bits.
        let id = StreamId::try_from(u64::from(VarInt::from(send.id())))
            .map_err(|error| ConnectionErrorIncoming::InternalError(error.to_string()))?;
        let meter = Box::new(FrameMeter::request(shared.role, Arc::clone(&shared.totals)));
        let (shared, malformed) = (Arc::clone(shared), Malformed::default());
        Ok(Self {
            send: SendHalf { stream: Some(send), id, writing: None, shared: Arc::clone(&shared) },
            recv: RecvHalf { stream: recv, id, meter, malformed, shared, ended: false },
        })
    }
}

impl Bidi {
    /// Set before h3 has the whole of a malformed section.
    pub(super) fn malformed(&self) -> Malformed {
        self.recv.malformed.clone()
    }
}

impl quic::BidiStream<Bytes> for Bidi {
    type SendStream = SendHalf;
    type RecvStream = RecvHalf;

    fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

impl quic::RecvStream for Bidi {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for Bidi {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// The half that the peer sends on.
pub(in crate::http) struct RecvHalf {
    stream: quinn::RecvStream,
    id: StreamId,
    /// Boxed, because h3 moves the stream from hand to hand.
    meter: Box<FrameMeter>,
    malformed: Malformed,
    shared: Arc<Shared>,
    ended: bool,
}

impl quic::RecvStream for RecvHalf {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // The future holds no state of its own, so a new one each time loses nothing.
        let read = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
        let read = match read {
            Ok(Some(chunk)) => {
                let fed = self.meter.feed(&chunk.bytes);
                if self.meter.is_malformed() {
                    self.malformed.set();
                }
                fed.map(|()| Some(chunk.bytes))
            }
            Ok(None) => {
                self.ended = true;
                self.meter.finish().map(|()| None)
            }
            Err(error) => {
                self.ended = true;
                return Poll::Ready(Err(unread(error)));
            }
        };
        Poll::Ready(read.map_err(|violation| of_connection(self.shared.breach(violation))))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.ended = true;
        // A stream that is already at its end need not be stopped.
        let _ = self.stream.stop(VarInt::from_u64(error_code).unwrap_or(VarInt::MAX));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        // What has come already is looked at to its end, so that a client that sent it all is told
        // nothing, and a cut frame is noticed although no handler read it.
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..UNREAD_CHUNKS {
            if self.ended {
                return;
            }
            match quic::RecvStream::poll_data(self, &mut cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return,
                Poll::Pending => break,
            }
        }
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
        //# A server MAY request that the client abort transmission of a request without error by
        //# sending a QUIC STOP_SENDING frame with an error code of H3_NO_ERROR
        let _ = self.stream.stop(NO_ERROR.into());
    }
}

/// Chunks of a body that nobody wanted which are looked at all the same.
const UNREAD_CHUNKS: usize = 16;
const NO_ERROR: u32 = 0x100;
const INTERNAL_ERROR: u32 = 0x102;

/// The half that we send on, while h3 has it. Dropped before its end it goes to who awaits it, or is reset.
pub(in crate::http) struct SendHalf {
    /// Until its end.
    stream: Option<quinn::SendStream>,
    id: StreamId,
    /// Rare: h3 itself answers only a field section that is too large.
    writing: Option<Box<WriteBuf<Bytes>>>,
    shared: Arc<Shared>,
}

impl quic::SendStream<Bytes> for SendHalf {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let (Some(data), Some(stream)) = (&mut self.writing, &mut self.stream) {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut *stream).poll_write(cx, data.chunk()));
                data.advance(written.map_err(unwritten)?);
            }
            self.writing = None;
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() || self.stream.is_none() {
            return Err(StreamErrorIncoming::Unknown("a write is under way".into()));
        }
        self.writing = Some(Box::new(data.into()));
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.stream.take().map_or(Ok(()), |mut stream| stream.finish());
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, reset_code: u64) {
        if let Some(mut stream) = self.stream.take() {
            // A stream that is already closed cannot be reset, and need not be.
            let _ = stream.reset(VarInt::from_u64(reset_code).unwrap_or(VarInt::MAX));
        }
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let mut handing = self.shared.handing();
        if matches!(*handing, Handing::Awaited) {
            *handing = Handing::Given(stream);
        } else {
            drop(handing);
            let _ = stream.reset(INTERNAL_ERROR.into());
        }
    }
}
