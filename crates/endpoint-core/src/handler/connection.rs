//! How does a handler, or a program that dialled, use a connection?
//!
//! Streams keep quinn's verbs. On accepted connections each new stream asks first whether the peer is
//! still allowed.

#[cfg(feature = "http3")]
mod bridge;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    alpn::Alpn,
    close::CloseCode,
    config::RequestLimits,
    error::LinkError,
    facts::{Address, Carrier, KeyKind, LinkFacts, PeerKey},
    phase::{Movement, Pace},
    transport::{Link, QuicLink, RecvStream, SendStream, StreamCredit},
    trust::Watch,
};
use bytes::Bytes;
use tokio::time::Instant;

/// A connection whose other side proved what it had to. Cheap to clone; the clones are one connection.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    link: Link,
    /// On accepted connections: the streams that the peer may open.
    credit: Option<StreamCredit>,
    facts: LinkFacts,
    /// On accepted connections: whether the peer is still allowed.
    watch: Option<Watch>,
    /// Of HTTP requests on it.
    #[allow(dead_code, reason = "without HTTP nobody asks for them")]
    requests: RequestLimits,
    /// On accepted connections: how long it may stay as it is.
    pace: Option<Pace>,
    /// On dialled connections: the stream whose opening was the server's yes.
    first: Mutex<Option<FirstStream>>,
    handshake: Duration,
}

/// A stream that quinn opened.
pub(crate) type FirstStream = (quinn::SendStream, quinn::RecvStream);

impl Connection {
    pub(crate) fn accepted(
        link: Link,
        credit: StreamCredit,
        facts: LinkFacts,
        watch: Watch,
        pace: Pace,
        handshake: Duration,
        requests: RequestLimits,
    ) -> Self {
        let first = Mutex::new(None);
        let (credit, watch, pace) = (Some(credit), Some(watch), Some(pace));
        Self(Arc::new(Inner { link, credit, facts, watch, requests, pace, first, handshake }))
    }

    pub(crate) fn dialled(
        link: Link,
        facts: LinkFacts,
        first: Option<FirstStream>,
        handshake: Duration,
    ) -> Self {
        let (requests, first) = (RequestLimits::default(), Mutex::new(first));
        let (credit, watch, pace) = (None, None, None);
        Self(Arc::new(Inner { link, credit, facts, watch, requests, pace, first, handshake }))
    }

    /// Opens a bidirectional stream; waits while the peer allows no more.
    ///
    /// # Errors
    /// [`LinkError`] if the connection ended, or the carrier is TCP and its one stream is taken.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), LinkError> {
        self.check()?;
        match self.take_first() {
            Some((send, recv)) => Ok((SendStream::quic(send), RecvStream::quic(recv))),
            None => self.0.link.open_bi().await,
        }
    }

    fn take_first(&self) -> Option<FirstStream> {
        self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the peer to open a bidirectional stream. On TCP the one stream is given once.
    ///
    /// # Errors
    /// [`LinkError::Draining`] while the endpoint shuts down, otherwise why the connection ended.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LinkError> {
        let (mut send, recv) = self.accept().await?;
        // On TCP the stream is there before anything is said on it.
        if let (Some(pace), Carrier::Quic) = (&self.0.pace, self.carrier()) {
            send.counted(pace.activity().begin(Instant::now));
        }
        Ok((send, recv))
    }

    async fn accept(&self) -> Result<(SendStream, RecvStream), LinkError> {
        let streams = self.unless_denied(self.0.link.accept_bi()).await?;
        self.check()?;
        if let Some(credit) = &self.0.credit {
            credit.used(&self.0.link);
        }
        Ok(streams)
    }

    /// Opens a unidirectional stream.
    ///
    /// # Errors
    /// [`LinkError`] if the connection ended or the carrier is TCP.
    pub async fn open_uni(&self) -> Result<SendStream, LinkError> {
        self.check()?;
        self.0.link.open_uni().await
    }

    /// Waits for the peer to open a unidirectional stream.
    ///
    /// # Errors
    /// As [`Self::accept_bi`].
    pub async fn accept_uni(&self) -> Result<RecvStream, LinkError> {
        let stream = self.unless_denied(self.0.link.accept_uni()).await?;
        self.check()?;
        Ok(stream)
    }

    /// Sends a datagram (RFC 9221), which may be lost.
    ///
    /// # Errors
    /// [`LinkError`] if it is larger than [`Self::max_datagram_bytes`] or the connection ended.
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), LinkError> {
        self.check()?;
        self.0.link.send_datagram(datagram)
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// As [`Self::accept_bi`].
    pub async fn read_datagram(&self) -> Result<Bytes, LinkError> {
        let datagram = self.unless_denied(self.0.link.read_datagram()).await?;
        self.check()?;
        Ok(datagram)
    }

    /// The largest datagram that can be sent now, in bytes; `None` where there are none.
    #[must_use]
    pub fn max_datagram_bytes(&self) -> Option<usize> {
        self.0.link.max_datagram_bytes()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> LinkError {
        self.0.link.closed().await
    }

    /// Ends the connection at once. What was sent but not yet acknowledged may be lost.
    pub fn close(&self) {
        self.0.link.close(CloseCode::Done);
    }

    /// Waits until the endpoint begins to shut down. Never on dialled connections.
    pub async fn draining(&self) {
        match &self.0.pace {
            Some(pace) => pace.draining().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until nothing has moved on it for a while: whoever ends need not wait any longer.
    pub(crate) async fn quiet(&self) {
        match &self.0.pace {
            Some(pace) => pace.quiet(&Streams(&self.0.link)).await,
            None => std::future::pending().await,
        }
    }

    /// The protocol.
    #[must_use]
    pub fn alpn(&self) -> &Alpn {
        &self.0.facts.alpn
    }

    /// What carries the connection.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.0.facts.carrier
    }

    /// The kind of key that the server showed.
    #[must_use]
    pub fn server_key_kind(&self) -> KeyKind {
        self.0.facts.profile.server
    }

    /// The key that the other side proved to hold.
    #[must_use]
    pub fn peer_key(&self) -> PeerKey {
        self.0.facts.peer
    }

    /// What the handshake established.
    #[must_use]
    pub fn facts(&self) -> &LinkFacts {
        &self.0.facts
    }

    /// Where the other side is. Rules of addresses ask [`Address::satisfies`].
    #[must_use]
    pub fn address(&self) -> Address {
        self.0.link.address()
    }

    /// The address that the other side answered from last; a QUIC peer may move.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.address().proven()
    }

    /// Smoothed round trip of the carrier (QUIC only).
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.0.link.rtt()
    }

    /// Time from the first packet to the finished handshake.
    #[must_use]
    pub fn handshake_time(&self) -> Duration {
        self.0.handshake
    }

    /// quinn's own connection, for what this type has no verb for; `None` on TCP. The peer may open as
    /// many streams as [`Limits`](crate::Limits) say from then on, not only as many as it needs.
    #[must_use]
    pub fn quic(&self) -> Option<&quinn::Connection> {
        match &self.0.link {
            Link::Quic(QuicLink { connection, .. }) => {
                if let Some(credit) = &self.0.credit {
                    credit.all(&self.0.link);
                }
                Some(connection)
            }
            Link::Tcp(_) => None,
        }
    }

    fn check(&self) -> Result<(), LinkError> {
        match &self.0.watch {
            Some(watch) => watch.check().map_err(LinkError::Closed),
            None => Ok(()),
        }
    }

    async fn unless_denied<T>(
        &self,
        next: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        let Some(watch) = &self.0.watch else { return next.await };
        self.check()?;
        if self.0.pace.as_ref().is_some_and(Pace::is_draining) {
            return Err(LinkError::Draining);
        }
        // What is there already is taken before anything is waited for: waiting puts a waiter into two
        // lists and takes it out again. The caller asks once more whether the peer is still allowed.
        tokio::select! {
            biased;
            next = next => next,
            code = watch.denied() => Err(LinkError::Closed(code)),
            () = self.draining() => Err(LinkError::Draining),
        }
    }
}

/// Whether something moves on a link.
struct Streams<'a>(&'a Link);

impl Movement for Streams<'_> {
    fn count(&self) -> u64 {
        self.0.streamed()
    }

    fn counts_requests(&self) -> bool {
        false
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.0.facts.id)
            .field("alpn", &self.0.facts.alpn)
            .field("carrier", &self.0.facts.carrier)
            .field("peer", &self.0.facts.peer)
            .field("address", &self.0.link.address())
            .finish_non_exhaustive()
    }
}
