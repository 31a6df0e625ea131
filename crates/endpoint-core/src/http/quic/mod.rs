//! h3's view of quinn, with the meter in between.
//!
//! Unidirectional streams go through h3-quinn; their types are read here, because h3 keeps the QPACK
//! streams unread and waits for ever on one without a type. Request streams are quinn's own: that costs
//! no box per read, and the half to answer on can be had back from h3.

mod errors;
mod streams;

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId};
use quinn::VarInt;

use self::errors::{ended, lost, of_connection};
pub(super) use self::streams::{Bidi, RecvHalf, SendHalf};
use super::meter::{
    Role, Totals, Violation,
    frames::FrameMeter,
    qpack::{Kind, QpackMeter},
};
use crate::woken::Notice;

/// Whether a section of fields that h3 has read makes its request malformed.
#[derive(Clone, Debug, Default)]
pub(super) struct Malformed(Arc<AtomicBool>);

impl Malformed {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What the streams of one connection share.
pub(super) struct Shared {
    pub(super) quinn: quinn::Connection,
    role: Role,
    totals: Arc<Totals>,
    /// Of the stream accepted last, until its request takes it.
    accepted: Mutex<Option<Malformed>>,
    handing: Mutex<Handing>,
    /// To what the receive window grows when a large body is really read.
    wide: Option<u32>,
    widened: AtomicBool,
    /// On dialled connections: the stream that was opened already.
    first: Mutex<Option<Opened>>,
}

impl Shared {
    /// Closes the connection for a breach; what it gives ends the stream too.
    fn breach(&self, Violation(code): Violation) -> ConnectionErrorIncoming {
        self.quinn.close(code.into(), b"");
        ConnectionErrorIncoming::ApplicationClose { error_code: code.into() }
    }

    /// Takes the mark of the stream accepted last.
    pub(super) fn take_malformed(&self) -> Option<Malformed> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes quinn's stream back from h3 once the request is read. Only the connection's own task holds
    /// sending halves, so that none other is dropped meanwhile.
    pub(super) fn take_back(&self, send: Sending) -> Option<quinn::SendStream> {
        *self.handing() = Handing::Awaited;
        drop(send);
        match std::mem::take(&mut *self.handing()) {
            Handing::Given(stream) => Some(stream),
            // h3 has ended it.
            Handing::Idle | Handing::Awaited => None,
        }
    }

    fn handing(&self) -> MutexGuard<'_, Handing> {
        self.handing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a field section that the peer takes (RFC 9114 §7.2.4.1).
    pub(super) fn most_fields(&self) -> u64 {
        self.totals.most_fields()
    }

    /// A body of a size that is worth a wider window is being read.
    pub(super) fn widen(&self) {
        if let Some(bytes) = self.wide
            && !self.widened.swap(true, Ordering::Relaxed)
        {
            self.quinn.set_receive_window(bytes.into());
        }
    }
}

/// The sending half of a request stream, as h3 wraps it.
type Sending = h3::server::RequestStream<SendHalf, Bytes>;

/// How a sending half that h3 lets go of gets to whoever answers.
#[derive(Default)]
enum Handing {
    #[default]
    Idle,
    Awaited,
    Given(quinn::SendStream),
}

/// A QUIC connection for h3.
pub(super) struct Metered {
    inner: h3_quinn::Connection,
    shared: Arc<Shared>,
    incoming: Pin<Box<dyn Stream<Item = Accepted> + Send + Sync>>,
    open: Opener,
    /// Unidirectional streams that have not said what they are.
    untyped: Vec<h3_quinn::RecvStream>,
    qpack: Vec<(h3_quinn::RecvStream, QpackMeter)>,
    control: bool,
    /// Of the streams that are not the control stream.
    notice: Arc<Notice>,
}

type Opened = (quinn::SendStream, quinn::RecvStream);
type Accepted = Result<Opened, quinn::ConnectionError>;

impl Metered {
    /// `wide`: the receive window for large bodies, where the present one is narrower.
    pub(super) fn new(quinn: &quinn::Connection, role: Role, wide: Option<u32>) -> Self {
        let incoming =
            stream::unfold(quinn.clone(), |quinn| async { Some((quinn.accept_bi().await, quinn)) });
        let shared = Arc::new(Shared {
            quinn: quinn.clone(),
            role,
            totals: Arc::default(),
            accepted: Mutex::default(),
            handing: Mutex::default(),
            wide,
            widened: AtomicBool::new(false),
            first: Mutex::default(),
        });
        let inner = h3_quinn::Connection::new(quinn.clone());
        let open = Opener {
            inner: <h3_quinn::Connection as quic::Connection<Bytes>>::opener(&inner),
            shared: Arc::clone(&shared),
            opening: None,
        };
        Self {
            inner,
            shared,
            incoming: Box::pin(incoming),
            open,
            untyped: Vec::new(),
            qpack: Vec::new(),
            control: false,
            notice: Arc::new(Notice::new()),
        }
    }

    /// The stream that carries the first request, where dialling opened it already.
    pub(super) fn begin_with(&self, first: Option<Opened>) {
        *self.shared.first.lock().unwrap_or_else(PoisonError::into_inner) = first;
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Looks after the peer's unidirectional streams.
    fn poll_rare(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Control, ConnectionErrorIncoming>> {
        while let Poll::Ready(accepted) =
            <h3_quinn::Connection as quic::Connection<Bytes>>::poll_accept_recv(&mut self.inner, cx)
        {
            self.untyped.push(accepted?);
        }
        let typed = self.poll_typed(cx).and_then(|control| match control {
            Some(control) => Ok(Some(control)),
            None => self.poll_qpack(cx).map(|()| None),
        });
        match typed {
            Ok(Some(control)) => Poll::Ready(Ok(control)),
            Ok(None) => Poll::Pending,
            Err(violation) => Poll::Ready(Err(self.shared.breach(violation))),
        }
    }

    /// Reads the QPACK streams, which h3 does not.
    fn poll_qpack(&mut self, cx: &mut Context<'_>) -> Result<(), Violation> {
        for (recv, meter) in &mut self.qpack {
            while let Poll::Ready(read) = quic::RecvStream::poll_data(recv, cx) {
                match read {
                    Ok(Some(bytes)) => meter.feed(&bytes)?,
                    // RFC 9204 §4.2: closure of either stream is an error of the connection.
                    Ok(None) | Err(StreamErrorIncoming::StreamTerminated { .. }) => {
                        return Err(Violation::CLOSED_CRITICAL_STREAM);
                    }
                    Err(_) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// The peer's control stream, once it has said that it is one. Others are dealt with here.
    fn poll_typed(&mut self, cx: &mut Context<'_>) -> Result<Option<Control>, Violation> {
        let mut index = 0;
        while let Some(recv) = self.untyped.get_mut(index) {
            let read = match quic::RecvStream::poll_data(recv, cx) {
                Poll::Pending => {
                    index += 1;
                    continue;
                }
                Poll::Ready(read) => read,
            };
            let mut recv = self.untyped.swap_remove(index);
            // A stream that ends before its type is whole means nothing (RFC 9114 §6.2).
            let Ok(Some(bytes)) = read else { continue };
            let Some((&kind, rest)) = bytes.split_first() else { continue };
            match kind {
                0x00 if self.control => return Err(Violation::STREAM_CREATION),
                0x00 => {
                    self.control = true;
                    let (role, totals) = (self.shared.role, Arc::clone(&self.shared.totals));
                    let mut meter = FrameMeter::control(role, totals);
                    meter.feed(rest)?;
                    let shared = Arc::clone(&self.shared);
                    let (first, notice) = (Some(bytes), Notice::new());
                    return Ok(Some(Control { recv, meter, shared, first, notice }));
                }
                0x01 => {
                    return Err(match self.shared.role {
                        Role::Server => Violation::STREAM_CREATION,
                        // No push identifier was allowed (RFC 9114 §4.6).
                        Role::Client => Violation::ID,
                    });
                }
                0x02 | 0x03 => {
                    let kind = if kind == 0x02 { Kind::Encoder } else { Kind::Decoder };
                    if self.qpack.iter().any(|(_, meter)| meter.kind() == kind) {
                        return Err(Violation::STREAM_CREATION);
                    }
                    let mut meter = QpackMeter::new(kind);
                    meter.feed(rest)?;
                    self.qpack.push((recv, meter));
                }
                // Also types of several bytes: none of those is known here.
                _ => quic::RecvStream::stop_sending(&mut recv, Violation::STREAM_CREATION.0.into()),
            }
        }
        Ok(None)
    }
}

impl quic::Connection<Bytes> for Metered {
    type RecvStream = Control;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Control, ConnectionErrorIncoming>> {
        // Asked for every request, although these streams seldom have anything new.
        let notice = Arc::clone(&self.notice);
        notice.poll(cx, |cx| self.poll_rare(cx))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bidi, ConnectionErrorIncoming>> {
        let accepted = ready!(self.incoming.poll_next_unpin(cx));
        let (send, recv) =
            accepted.unwrap_or(Err(quinn::ConnectionError::LocallyClosed)).map_err(ended)?;
        self.shared.totals.request();
        let bidi = Bidi::new(send, recv, &self.shared)?;
        let malformed = bidi.malformed();
        *self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(malformed);
        Poll::Ready(Ok(bidi))
    }

    fn opener(&self) -> Opener {
        self.open.clone()
    }
}

impl quic::OpenStreams<Bytes> for Metered {
    type BidiStream = Bidi;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bidi, StreamErrorIncoming>> {
        self.open.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        self.open.poll_open_send(cx)
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        self.open.close(code, reason);
    }
}

/// Opens streams of a connection.
pub(super) struct Opener {
    inner: h3_quinn::OpenStreams,
    shared: Arc<Shared>,
    opening: Option<Pin<Box<dyn Stream<Item = Accepted> + Send + Sync>>>,
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Bidi;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bidi, StreamErrorIncoming>> {
        let shared = &self.shared;
        let first = shared.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((send, recv)) = first {
            return Poll::Ready(Bidi::new(send, recv, shared).map_err(of_connection));
        }
        let opening = self.opening.get_or_insert_with(|| {
            Box::pin(stream::unfold(shared.quinn.clone(), |quinn| async {
                Some((quinn.open_bi().await, quinn))
            }))
        });
        let opened = ready!(opening.poll_next_unpin(cx));
        let (send, recv) =
            opened.unwrap_or(Err(quinn::ConnectionError::LocallyClosed)).map_err(lost)?;
        Poll::Ready(Bidi::new(send, recv, shared).map_err(of_connection))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        <h3_quinn::OpenStreams as quic::OpenStreams<Bytes>>::poll_open_send(&mut self.inner, cx)
    }

    /// h3 closes when its connection is dropped, and without a code of ours: the endpoint does that better,
    /// at its pace and with the reason. What h3 found wrong closes at once; its text stays here.
    fn close(&mut self, code: h3::error::Code, _reason: &[u8]) {
        if code != h3::error::Code::H3_NO_ERROR {
            let code = VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX);
            self.shared.quinn.close(code, b"");
        }
    }
}

/// The peer's control stream.
pub(super) struct Control {
    recv: h3_quinn::RecvStream,
    meter: FrameMeter,
    shared: Arc<Shared>,
    /// Read already, for its type.
    first: Option<Bytes>,
    notice: Notice,
}

impl quic::RecvStream for Control {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(Some(first)));
        }
        let Self { recv, notice, .. } = self;
        let read = ready!(notice.poll(cx, |cx| quic::RecvStream::poll_data(recv, cx)));
        let checked = match &read {
            Ok(Some(bytes)) => self.meter.feed(bytes),
            Ok(None) => self.meter.finish(),
            Err(StreamErrorIncoming::StreamTerminated { .. }) => {
                Err(Violation::CLOSED_CRITICAL_STREAM)
            }
            Err(_) => Ok(()),
        };
        Poll::Ready(match checked {
            Ok(()) => read,
            Err(violation) => Err(of_connection(self.shared.breach(violation))),
        })
    }

    fn stop_sending(&mut self, error_code: u64) {
        quic::RecvStream::stop_sending(&mut self.recv, error_code);
    }

    fn recv_id(&self) -> StreamId {
        quic::RecvStream::recv_id(&self.recv)
    }
}
