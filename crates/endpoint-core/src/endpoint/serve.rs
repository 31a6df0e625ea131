//! The way of a connection: transport → admission → tls → dispatch → trust → handler.

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, thread, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span, debug, debug_span, error, field};

use super::{
    Shared,
    linger::linger,
    pace::{self, OnStreams},
};
use crate::{
    admission::{Arrival, ConnectionSlot, Failure, Refusal, Slot, Waiting, Who},
    alpn::Alpn,
    close::CloseCode,
    dispatch::Route,
    event::{Event, RefusedKey},
    facts::{Carrier, LinkFacts, Reach},
    handler::{Connection, HandlerError, Permit},
    phase::{Activity, Pace, Phase},
    tls::{self, QuicHandshake},
    transport::{Accepting, Kept, Link, StreamCredit, Unproven, Whereabouts},
    trust::{Denial, Guard},
    woken::once_woken,
};

/// Takes the first packets of one UDP socket until the endpoint ends.
pub(super) async fn accept_quic(
    shared: Arc<Shared>,
    socket: quinn::Endpoint,
    local: SocketAddr,
    config: Accepting,
) {
    loop {
        let incoming = tokio::select! {
            () = shared.ended.cancelled() => return,
            incoming = socket.accept() => match incoming {
                Some(incoming) => incoming,
                None => return,
            },
        };
        shared.observer.counters.arrivals.add(1);
        if shared.gate.is_closed() {
            shared.observer.counters.refused.add(1);
            incoming.refuse();
            continue;
        }
        let remote = incoming.remote_address();
        let activity = Activity::new(Instant::now());
        let arrival =
            Arrival { address: remote.ip(), carrier: Carrier::Quic, activity: activity.clone() };
        // Only a token of a Retry proves the address: one from an earlier visit (NEW_TOKEN, RFC 9000 §8.1.3) may
        // have been passed on, so it saves the Retry while there is room and is worth nothing beyond that.
        let place = if incoming.may_retry() {
            match shared.gate.unproven(arrival) {
                Some(slot) => Place::Shakes(slot),
                None => {
                    shared.observer.counters.retries.add(1);
                    // Cannot fail: `may_retry` was asked.
                    let _ = incoming.retry();
                    continue;
                }
            }
        } else {
            match shared.gate.arrive(arrival) {
                Ok(waiting) => Place::Waits(waiting),
                Err(Refusal::Penalised) => {
                    incoming.refuse();
                    continue;
                }
                // The client sends its first flight again, and there may be room then.
                Err(Refusal::Full) => {
                    incoming.ignore();
                    continue;
                }
            }
        };
        // A socket on all addresses learns from each packet which one it came to.
        let bound = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        let reach = Reach::of(incoming.local_ip().or(bound), remote.ip());
        let (server, whereabouts, kept) = config.from(remote, reach, &incoming.orig_dst_cid());
        let accepting = (server, whereabouts, config.unproven(&incoming));
        let path = quic(Arc::clone(&shared), incoming, local, accepting, kept, place, activity);
        let span = conn_span(Carrier::Quic, remote);
        shared.connections.spawn(path.instrument(span));
    }
}

/// What admission gave a QUIC arrival.
enum Place {
    Shakes(Slot),
    Waits(Waiting),
}

/// One QUIC connection, from its first packet until quinn has let go of it.
async fn quic(
    shared: Arc<Shared>,
    incoming: quinn::Incoming,
    local: SocketAddr,
    accepting: (Arc<quinn::ServerConfig>, Arc<Whereabouts>, Option<Unproven>),
    kept: Kept,
    place: Place,
    activity: Activity,
) {
    let (began, address) = (Instant::now(), incoming.remote_address().ip());
    let mut deadline = began + shared.limits.load().handshake_deadline;
    let slot = match place {
        Place::Shakes(slot) => slot,
        Place::Waits(waiting) => {
            let turn = tokio::select! {
                turn = timeout_at(deadline, waiting.turn(0)) => turn,
                () = shared.drained() => return incoming.refuse(),
            };
            match turn {
                Ok(Some(slot)) => slot,
                // The client sends its first flight again if it still wants to.
                Ok(None) | Err(_) => return incoming.ignore(),
            }
        }
    };
    // Time that it was held is not its own.
    deadline += began.elapsed();
    activity.enter(Phase::Hello, Instant::now());
    // Boxed, because its state is large and a connection would keep the room for it all its life.
    let shaking = Box::pin(shake(&shared, incoming, local, accepting, deadline));
    let shaken = tokio::select! {
        shaken = shaking => shaken.map_err(Some),
        why = shared.handshake_ends(&activity) => {
            shared.handshake_failed(&why);
            Err(None)
        }
    };
    let closing = match shaken {
        Ok(Some((link, facts))) => {
            let shared = Arc::clone(&shared);
            established_link(shared, link, facts, began.elapsed(), slot, activity).await;
            None
        }
        Ok(None) => Some(slot.closing(None)),
        Err(failure) => Some(slot.closing(failure)),
    };
    // A task of its own, because this one's state is large.
    shared.connections.spawn(linger(Arc::clone(&shared), closing, address, kept));
}

/// The handshake of one QUIC connection; `None` if it answered a challenge. Either is counted.
async fn shake(
    shared: &Shared,
    incoming: quinn::Incoming,
    mut local: SocketAddr,
    (config, whereabouts, unproven): (Arc<quinn::ServerConfig>, Arc<Whereabouts>, Option<Unproven>),
    deadline: Instant,
) -> Result<Option<(Link, LinkFacts)>, Failure> {
    // The connection itself may show another by the time that hands are shaken, which nobody proved.
    let remote = incoming.remote_address();
    let failed = |reason: &dyn std::fmt::Display, failure: Failure| {
        shared.handshake_failed(reason);
        Err(failure)
    };
    let handshake = async {
        let connection = incoming.accept_with(config)?.await?;
        Ok::<_, quinn::ConnectionError>(connection)
    };
    let connection = match timeout_at(deadline, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error @ quinn::ConnectionError::TimedOut)) => {
            return failed(&error, Failure::Deadline);
        }
        Ok(Err(error)) => return failed(&error, Failure::Left),
        Err(_) => return failed(&"the deadline passed", Failure::Deadline),
    };
    if let Some(unproven) = unproven {
        unproven.proven();
    }
    let established =
        connection.handshake_data().and_then(|data| data.downcast::<QuicHandshake>().ok());
    // A socket on all addresses learns from each packet which one it came to.
    if let Some(ip) = connection.local_ip() {
        local.set_ip(ip.to_canonical());
    }
    let Some(established) = established else {
        Link::dialled(connection, false).close(CloseCode::ProtocolError);
        return failed(&"the handshake left no facts", Failure::Left);
    };
    let QuicHandshake { handshake, retirements } = *established;
    let http3 = handshake.alpn == Alpn::H3;
    let link = Link::quic(connection.clone(), http3, whereabouts, retirements);
    if handshake.alpn == Alpn::ACME_TLS_1 {
        link.close(CloseCode::ChallengeDone);
        shared.challenge_answered();
        return Ok(None);
    }
    let peer = match tls::peer_key(handshake.profile, connection.peer_identity()) {
        Ok(peer) => peer,
        Err(error) => {
            link.close(CloseCode::NotAuthorized);
            return failed(&error, Failure::Key);
        }
    };
    let facts = LinkFacts {
        id: shared.live.next_id(),
        carrier: Carrier::Quic,
        profile: handshake.profile,
        alpn: handshake.alpn,
        server_name: handshake.server_name,
        peer,
        remote,
        local,
    };
    Ok(Some((link, facts)))
}

/// From a finished handshake to the handler, the same on both carriers.
pub(super) async fn established_link(
    shared: Arc<Shared>,
    link: Link,
    facts: LinkFacts,
    handshake: Duration,
    slot: Slot,
    activity: Activity,
) {
    shared.observer.counters.handshakes.add(1);
    activity.enter(Phase::Shaken, Instant::now());
    let span = Span::current();
    span.record("id", facts.id);
    span.record("profile", field::display(facts.profile));
    span.record("alpn", field::display(&facts.alpn));
    if let Some(key) = facts.peer.fingerprint() {
        span.record("peer", key.short());
    }
    let known = facts.peer.fingerprint().is_some_and(|key| shared.live.knows(&key));
    let who = if known { Who::Known } else { Who::Stranger };
    let Ok(slot) = slot.connected(who) else {
        debug!("connection refused at the limit");
        return link.close(CloseCode::Overloaded);
    };
    if facts.peer.fingerprint().is_some() && !known && slot.is_banned_for_keys() {
        shared.observer.counters.penalised.add(1);
        debug!("connection refused: too many keys without a grant");
        return link.close(CloseCode::NotAuthorized);
    }
    if shared.draining.is_cancelled() {
        return link.close(CloseCode::ShuttingDown);
    }
    let Some(route) = shared.routes.load().find(&facts.alpn).cloned() else {
        debug!("handler removed during the handshake");
        return link.close(CloseCode::ProtocolError);
    };
    // Registered first, judged second: a revocation in between finds it in the table.
    let guard = shared.live.register(facts.clone(), route.access().clone(), link.clone());
    // A handler that was registered anew between the two has not reached it.
    if let Some(now) = shared.routes.load().find(&facts.alpn) {
        guard.set_access(now.access());
    }
    guard.follow(&activity);
    guard.make_room().await;
    match guard.permit() {
        Ok(permit) => {
            run(&shared, link, facts, &route, guard, permit, handshake, slot, activity).await;
        }
        Err(denial) => {
            if denial == Denial::UnknownKey {
                slot.key_refused();
            }
            shared.denied(&facts, &denial);
        }
    }
}

/// Serves a permitted connection until its handler returns, panics, or the peer is no longer allowed.
#[allow(
    clippy::too_many_arguments,
    reason = "each is one step's proof; a struct would hide the order"
)]
async fn run(
    shared: &Shared,
    link: Link,
    facts: LinkFacts,
    route: &Route,
    guard: Guard,
    permit: Permit,
    handshake: Duration,
    slot: ConnectionSlot,
    activity: Activity,
) {
    Span::current().record("access", field::display(route.access()));
    let limits = shared.limits.load_full();
    // A key of its own costs a stranger nothing, so only a grant raises what a connection may hold.
    let authorised = permit.has_grant();
    if authorised {
        link.widen(limits.connection_window_bytes);
        if let Some(key) = facts.peer.fingerprint() {
            slot.authorised(key);
        }
    }
    // Where a key was asked for, the client waits for stream credit: it is the server's yes.
    let limit = match &facts.alpn {
        // RFC 9114 §6.1: at least 100 requests should be permitted at one time.
        http if http.is_http() => limits.requests.at_once,
        _ if authorised => limits.streams_per_connection,
        _ => 0,
    };
    let credit = StreamCredit::new(&link, limit, facts.profile.asks());
    let counters = &shared.observer.counters;
    counters.permitted.add(1);
    debug!("permit given");
    shared.observer.tell(|| Event::Connected {
        id: facts.id,
        peer: facts.peer.fingerprint(),
        alpn: facts.alpn.to_string(),
        remote: facts.remote,
    });
    let (id, http) = (facts.id, facts.alpn.is_http());
    let watch = guard.watch();
    let pace = shared.pace(activity.clone());
    let streams = OnStreams::of(&link, &facts.alpn);
    let held = permit.clone();
    let cut_off = pace::cut_off(&pace, streams, &held);
    let connection = Connection::accepted(
        link.clone(),
        credit,
        facts,
        watch.clone(),
        pace.clone(),
        handshake,
        limits.requests,
    );
    // A handler need not be an `async fn`: it can panic before it gives a future.
    let serving = async { route.handler().serve(connection, permit).await };
    let handler = AssertUnwindSafe(serving).catch_unwind();
    let revoked = once_woken(watch.follow());
    // Whoever has to go is asked after the protocol, which may say goodbye.
    let gone = once_woken(async {
        tokio::select! {
            biased;
            code = cut_off => code,
            () = link.retired_too_many() => {
                counters.retirement_floods.add(1);
                debug!("peer retired more connection ids than it may");
                CloseCode::Overloaded
            }
            () = shared.ended.cancelled() => CloseCode::ShuttingDown,
        }
    });
    let served = tokio::select! {
        biased;
        _ = revoked => Served::CutOff(CloseCode::ShuttingDown),
        served = handler => Served::Whole(served),
        code = gone => Served::CutOff(code),
    };
    // Over TCP nobody counts what peers' protocols say.
    if link.carrier() == Carrier::Tcp && !http && link.streamed() > 0 {
        activity.enter(Phase::Busy, Instant::now());
    }
    activity.enter(Phase::Ending, Instant::now());
    // A handler may be the first to learn that the peer is no longer allowed, and return for it; the
    // peer is told why all the same, and its close is on its way already.
    let code = match (guard.entry().denial(), served) {
        (Some(denial), _) => {
            counters.ended_by_policy.add(1);
            debug!(reason = %denial, "connection ended by policy");
            denial.code(true)
        }
        (None, served) => {
            let code = shared.code_after(served, activity.told().map(pace::code));
            link.close(code);
            code
        }
    };
    let reason = code.to_string();
    shared.observer.tell(|| Event::Disconnected { id, reason });
}

/// How a handler's work came to its end.
enum Served {
    /// It returned or panicked.
    Whole(thread::Result<Result<(), HandlerError>>),
    /// It was dropped where it stood, and its connection gets this code.
    CutOff(CloseCode),
}

impl Shared {
    /// The close code that a handler's end means; `told` is that of a connection that was told to end.
    fn code_after(&self, served: Served, told: Option<CloseCode>) -> CloseCode {
        match served {
            Served::CutOff(code) => code,
            Served::Whole(Ok(Ok(()))) => match told {
                Some(code) => code,
                None if self.draining.is_cancelled() => CloseCode::ShuttingDown,
                None => CloseCode::Done,
            },
            Served::Whole(Ok(Err(error))) => {
                self.observer.counters.handler_errors.add(1);
                debug!(error = %one_line(&error), "handler failed");
                CloseCode::HandlerFailed
            }
            Served::Whole(Err(_)) => {
                self.observer.counters.handler_panics.add(1);
                error!("handler panicked");
                CloseCode::HandlerFailed
            }
        }
    }

    /// How long the connection may stay as it is.
    pub(super) fn pace(&self, activity: Activity) -> Pace {
        Pace::new(activity, self.draining.clone(), self.limits.load().pace)
    }

    /// Waits until the endpoint drains and a handshake has had time to come to its end.
    async fn drained(&self) {
        self.draining.cancelled().await;
        let goodbye = self.limits.load().pace.goodbye;
        tokio::time::sleep(goodbye).await;
    }

    /// Waits until a handshake has to end before it is done; says why.
    pub(super) async fn handshake_ends(&self, activity: &Activity) -> &'static str {
        tokio::select! {
            () = activity.gave_way() => GAVE_WAY,
            () = self.drained() => DRAINED,
        }
    }

    /// An authority has seen what it came for; the connection has no handler and is no news.
    pub(super) fn challenge_answered(&self) {
        self.observer.counters.challenges.add(1);
        debug!("challenge answered");
    }

    /// What a stranger can trigger is at most a debug line and a counter.
    pub(super) fn handshake_failed(&self, reason: &dyn std::fmt::Display) {
        self.observer.counters.handshake_failures.add(1);
        debug!(reason = %one_line(reason), "handshake failed");
    }

    fn denied(&self, facts: &LinkFacts, denial: &Denial) {
        self.observer.counters.denied.add(1);
        let peer = facts.peer.fingerprint();
        match peer {
            // The whole name, so that an operator can copy the line that lets the key in.
            Some(key) if *denial == Denial::UnknownKey => {
                debug!(reason = %denial, hint = %format_args!("endpoint trust add {key}"), "permit denied");
            }
            Some(key) => debug!(reason = %denial, key = %key, "permit denied"),
            None => debug!(reason = %denial, "permit denied"),
        }
        if let Some(fingerprint) = peer {
            self.observer.remember_refused(RefusedKey {
                fingerprint,
                alpn: facts.alpn.clone(),
                remote: facts.remote,
                reason: denial.to_string(),
                at: self.live.now(),
            });
        }
        self.observer.tell(|| Event::Denied {
            peer,
            alpn: facts.alpn.to_string(),
            remote: facts.remote,
            reason: denial.to_string(),
        });
    }
}

/// A text that can hold a peer's words, cut and escaped: a line of the log stays one line.
fn one_line(text: &dyn std::fmt::Display) -> String {
    let cut: String = text.to_string().chars().take(MAX_LOGGED_CHARS).collect();
    cut.escape_debug().to_string()
}

/// Why a handshake ended that was still going on a while after the drain began.
const DRAINED: &str = "the endpoint shuts down";
/// Why a handshake ended that others needed the place of.
pub(super) const GAVE_WAY: &str = "it gave way to others";

/// Characters of a text that is not all ours in a line of the log.
const MAX_LOGGED_CHARS: usize = 200;

/// The one span of a connection; fields are filled as facts appear.
pub(super) fn conn_span(carrier: Carrier, remote: SocketAddr) -> Span {
    debug_span!(
        "conn",
        id = field::Empty,
        %carrier,
        %remote,
        profile = field::Empty,
        alpn = field::Empty,
        peer = field::Empty,
        access = field::Empty,
    )
}
