//! The same path for TLS over TCP: accept and dial.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout, timeout_at},
};
use tracing::Instrument;

use super::{ConnectError, Shared, serve};
use crate::{
    admission::{Arrival, Failure, Slot, Waiting},
    alpn::Alpn,
    facts::{Carrier, LinkFacts, Reach},
    identity::Identity,
    phase::{Activity, Phase},
    target::HostPort,
    tls::{self, Expect, Verdict, tcp::TcpTlsError},
    transport::{
        Link,
        tcp::{self, Accepted},
        tcp_link::TcpLink,
    },
};

/// A TCP listener that tokio does not drive yet.
pub(super) type Listener = std::net::TcpListener;

pub(super) fn bind(address: SocketAddr) -> io::Result<Option<Listener>> {
    tcp::bind_tcp(address).map(Some)
}

/// Takes a listener that somebody else bound.
pub(super) fn given(listener: std::net::TcpListener) -> io::Result<Option<Listener>> {
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// Takes connections until the endpoint begins to shut down; then the listener closes, so that the
/// kernel refuses newcomers at once.
pub(super) async fn accept(shared: Arc<Shared>, listener: Listener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "tcp listener cannot be driven"),
    };
    loop {
        let accepted = tokio::select! {
            () = shared.draining.cancelled() => return,
            accepted = tcp::accept(&listener) => accepted,
        };
        shared.observer.counters.arrivals.add(1);
        if shared.gate.is_closed() {
            shared.observer.counters.refused.add(1);
            continue;
        }
        let activity = Activity::new(Instant::now());
        let address = accepted.remote.ip();
        let arrival = Arrival { address, carrier: Carrier::Tcp, activity: activity.clone() };
        // Whom there is no place for is dropped; the loop never waits for anybody.
        let Ok(waiting) = shared.gate.arrive(arrival) else { continue };
        let span = serve::conn_span(Carrier::Tcp, accepted.remote);
        let path = tls_over_tcp(Arc::clone(&shared), accepted, waiting, activity);
        shared.connections.spawn(path.instrument(span));
    }
}

async fn tls_over_tcp(
    shared: Arc<Shared>,
    accepted: Accepted,
    waiting: Waiting,
    activity: Activity,
) {
    let began = Instant::now();
    // Boxed, because its state is large and a connection would keep the room for it all its life.
    let shaken = Box::pin(shake(&shared, accepted, waiting, &activity, began)).await;
    if let Some((link, facts, slot)) = shaken {
        serve::established_link(shared, link, facts, began.elapsed(), slot, activity).await;
    }
}

/// The handshake of one connection; `None` if it failed or answered a challenge, which is counted.
async fn shake(
    shared: &Shared,
    accepted: Accepted,
    waiting: Waiting,
    activity: &Activity,
    began: Instant,
) -> Option<(Link, LinkFacts, Slot)> {
    let failed = |reason: &dyn std::fmt::Display| {
        shared.handshake_failed(reason);
        None
    };
    let Accepted { stream, remote } = accepted;
    let local = stream.local_addr().ok()?;
    let reach = Reach::of(Some(local.ip()), remote.ip());
    let mut deadline = began + shared.limits.load().handshake_deadline;
    let mut ends = pin!(shared.handshake_ends(activity));
    let pace = shared.pace(activity.clone());
    // Until it says something it costs a descriptor, and no handshake.
    let first = tokio::select! {
        first = tcp::unread(&stream) => Some(first),
        () = pace.first_byte() => None,
        () = tokio::time::sleep_until(deadline) => None,
        why = &mut ends => return failed(&why),
    };
    let bytes = match first {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => return failed(&error),
        None => {
            // Where it is crowded the time is short, and a long way may need more.
            if began.elapsed() >= shared.limits.load().pace.first_byte {
                waiting.failed(Failure::Deadline);
            }
            return failed(&"it said nothing in time");
        }
    };
    let spoke = Instant::now();
    activity.enter(Phase::Hello, spoke);
    let turn = tokio::select! {
        turn = timeout_at(deadline, waiting.turn(bytes)) => turn,
        why = &mut ends => return failed(&why),
    };
    let slot = match turn {
        Ok(Some(slot)) => slot,
        Ok(None) => return failed(&serve::GAVE_WAY),
        Err(_) => return failed(&"its turn did not come in time"),
    };
    // Time that it was held is not its own.
    deadline += spoke.elapsed();
    // The link keeps a handle of it, to ask whether the peer is still there.
    let socket = Arc::new(stream);
    let held = tcp::Held(Arc::clone(&socket));
    let shaken = tokio::select! {
        shaken = timeout_at(deadline, tls::tcp::accept_tcp(&shared.tls, reach, held)) => shaken,
        why = &mut ends => return failed(&why),
    };
    let (stream, handshake, peer) = match shaken {
        Ok(Ok(established)) => established,
        Ok(Err(error)) => {
            slot.failed(failure(&error));
            return failed(&error);
        }
        Err(_) => {
            slot.failed(Failure::Deadline);
            return failed(&"the deadline passed");
        }
    };
    if handshake.alpn == Alpn::ACME_TLS_1 {
        shared.challenge_answered();
        // Within the same deadline, or the socket goes as it is.
        drop(socket);
        let parting = timeout_at(deadline, tcp::part(stream));
        tokio::select! {
            _ = parting => {}
            _ = ends => {}
        }
        return None;
    }
    if handshake.alpn.is_http() {
        tcp::end_when_not_taken(&socket, shared.limits.load().requests.answer_idle);
    }
    let timed = !handshake.alpn.is_http();
    let facts = LinkFacts {
        id: shared.live.next_id(),
        carrier: Carrier::Tcp,
        profile: handshake.profile,
        alpn: handshake.alpn,
        server_name: handshake.server_name,
        peer,
        remote,
        local,
    };
    let link = Link::from(TcpLink::on(stream, &socket, remote, timed));
    Some((link, facts, slot))
}

/// What a failed handshake is booked as.
fn failure(error: &TcpTlsError) -> Failure {
    let of_key = match error {
        TcpTlsError::PeerKey(_) => true,
        TcpTlsError::Handshake(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
        }
        TcpTlsError::Refused(_) => false,
    };
    if of_key { Failure::Key } else { Failure::Left }
}

pub(super) struct Dialled {
    pub(super) link: Link,
    pub(super) verdict: Arc<Verdict>,
}

pub(super) async fn dial(
    address: SocketAddr,
    host: &HostPort,
    expect: &Expect,
    identity: Option<&Identity>,
    alpn: &Alpn,
    deadline: Duration,
) -> Result<Dialled, ConnectError> {
    let dial = tls::dial_config(expect, identity, std::slice::from_ref(alpn))
        .map_err(|error| ConnectError::Setup(error.to_string()))?;
    let shaken = timeout(deadline, async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| ConnectError::Unreachable { host: host.to_string(), source })?;
        tcp::tune(&stream);
        let shaken = tls::tcp::connect_tcp(&dial, stream).await;
        shaken.map_err(|error| of_tls(error, &dial.verdict, host))
    });
    let (stream, _) =
        shaken.await.map_err(|_| ConnectError::Timeout { host: host.to_string() })??;
    let link = Link::from(TcpLink::new(stream, address, true));
    Ok(Dialled { link, verdict: dial.verdict })
}

fn of_tls(error: TcpTlsError, verdict: &Verdict, host: &HostPort) -> ConnectError {
    if let Some(known) = ConnectError::of_verdict(verdict, host) {
        return known;
    }
    let error = match error {
        TcpTlsError::Handshake(error) => error,
        TcpTlsError::Refused(alert) => {
            return ConnectError::of_alert(alert.code(), host).unwrap_or_else(|| {
                ConnectError::Tls {
                    host: host.to_string(),
                    reason: format!("alert {}", alert.code()),
                }
            });
        }
        other => {
            return ConnectError::Tls { host: host.to_string(), reason: other.to_string() };
        }
    };
    let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let known = match alert {
        Some(rustls::Error::AlertReceived(alert)) => ConnectError::of_alert(u8::from(*alert), host),
        Some(rustls::Error::PeerIncompatible(_)) => {
            Some(ConnectError::CertificateTypeMismatch { host: host.to_string() })
        }
        Some(rustls::Error::NoApplicationProtocol) => {
            Some(ConnectError::NoCommonAlpn { host: host.to_string() })
        }
        _ => None,
    };
    known.unwrap_or_else(|| ConnectError::Tls { host: host.to_string(), reason: error.to_string() })
}
