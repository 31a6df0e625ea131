//! From where does a QUIC peer answer?
//!
//! quinn shows a new address at the first packet from it, before the peer has answered its challenge
//! (RFC 9000 §8.2), and says nowhere when it has. It does tell the congestion controller: every path has one
//! of its own, and an acknowledgement reaches it only while no challenge of the path is open. So each
//! accepted connection has a factory of controllers of its own, which numbers paths and notes which of them
//! were heard of.
//!
//! Not here: what follows from an address (`trust`), what is known of it in general (`facts::Address`).
//!
//! Always true: an address that did not answer its own challenge is never called proven, whatever else the
//! peer sends and however long it waits; what is not known counts as not proven.

use std::{
    any::Any,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;
use tokio::sync::Notify;

use crate::facts::{Address, Shown};

/// Looks at a connection that moves while we look; more would be waiting.
const LOOKS: usize = 3;

/// Where one accepted connection has been. Makes the congestion controllers of its paths.
pub(crate) struct Whereabouts {
    congestion: Arc<CubicConfig>,
    /// Paths made. quinn makes one for the handshake and one at each move to another host.
    made: AtomicU64,
    /// How many were made when the present one was last known to be proven.
    settled: AtomicU64,
    /// Told at each new path, and when one is heard of for the first time.
    news: Notify,
    trail: Mutex<Trail>,
    /// The round trip in microseconds, at the newest acknowledgement; the longer of the last one and their mean.
    round_trip: AtomicU64,
    /// Bytes of the connection's receive window, which quinn does not tell.
    window: AtomicU32,
}

impl Whereabouts {
    /// Of a connection whose handshake goes to `remote`. quinn takes no packet of a handshake from another
    /// address, so when hands are shaken this one has answered.
    pub(super) fn new(remote: SocketAddr, window: u32) -> Self {
        Self {
            congestion: Arc::default(),
            made: AtomicU64::new(0),
            settled: AtomicU64::new(HANDSHAKE),
            news: Notify::new(),
            trail: Mutex::new(Trail::new(remote)),
            round_trip: AtomicU64::new(0),
            window: AtomicU32::new(window),
        }
    }

    pub(super) fn window(&self) -> u32 {
        self.window.load(Ordering::Relaxed)
    }

    pub(super) fn set_window(&self, bytes: u32) {
        self.window.store(bytes, Ordering::Relaxed);
    }

    /// The round trip as it was last measured; zero before that.
    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
    }

    /// Waits until there is something new to look at.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Where the peer is.
    pub(super) fn look(&self, connection: &quinn::Connection) -> Address {
        let made = self.made.load(Ordering::Acquire);
        if self.settled.load(Ordering::Acquire) == made {
            let remote = connection.remote_address();
            // Without a new path the host is the same.
            if self.made.load(Ordering::Acquire) == made {
                return Address::at(remote);
            }
        }
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKS {
            let made = self.made.load(Ordering::Acquire);
            let before = Seen::of(connection);
            let remote = connection.remote_address();
            let after = Seen::of(connection);
            let (Some(before), Some(after)) = (before, after) else { break };
            // Numbers only go up, except that a path that did not answer gives way to the one before it,
            // and never comes back. So `remote` is the address of this very path.
            if before.path == after.path && made == self.made.load(Ordering::Acquire) {
                let address = trail.step(made, after, remote);
                if address.is_settled() {
                    self.settled.store(made, Ordering::Release);
                }
                return address;
            }
        }
        trail.lose();
        trail.address(connection.remote_address())
    }
}

impl fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whereabouts").field("made", &self.made).finish_non_exhaustive()
    }
}

impl ControllerFactory for Whereabouts {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let path = self.made.fetch_add(1, Ordering::AcqRel) + 1;
        if path > HANDSHAKE {
            self.news.notify_one();
        }
        let cubic = Cubic::new(Arc::clone(&self.congestion), now, mtu);
        Box::new(OnPath { cubic, seen: Seen { path, heard: false }, whereabouts: self })
    }
}

/// The number of the path on which hands are shaken.
const HANDSHAKE: u64 = 1;

/// What is known of a path.
#[derive(Clone, Copy, Debug)]
struct Seen {
    path: u64,
    /// An acknowledgement came while none of its challenges was open. Stays true for the path's life.
    heard: bool,
}

impl Seen {
    /// What is known of the path that `connection` is on.
    fn of(connection: &quinn::Connection) -> Option<Self> {
        connection.congestion_state().into_any().downcast::<OnPath>().ok().map(|state| state.seen)
    }
}

/// What was seen of a connection's moves.
#[derive(Debug)]
struct Trail {
    proven: SocketAddr,
    proven_path: u64,
    /// The newest path that was looked at, or skipped.
    newest: u64,
    /// Where unproven paths were since `proven`.
    shown: Shown,
    /// The peer may have been elsewhere since `proven`, and even have answered from there.
    lost: bool,
}

impl Trail {
    fn new(remote: SocketAddr) -> Self {
        Self {
            proven: remote,
            proven_path: HANDSHAKE,
            newest: HANDSHAKE,
            shown: [None; 2],
            lost: false,
        }
    }

    /// The connection is on a path at `remote`, and `made` paths were made.
    fn step(&mut self, made: u64, seen: Seen, remote: SocketAddr) -> Address {
        if seen.heard || seen.path == self.proven_path {
            // Whatever was before is over.
            (self.proven, self.proven_path, self.newest) = (remote, seen.path, made);
            (self.shown, self.lost) = ([None; 2], false);
            return Address::at(remote);
        }
        // Paths that nobody looked at may have been anywhere.
        let expected = if seen.path > self.newest { self.newest + 1 } else { self.newest };
        if made > expected {
            self.lost = true;
        }
        let host = Some(remote.ip());
        if host != Some(self.proven.ip()) && !self.shown.contains(&host) {
            match self.shown.iter_mut().find(|place| place.is_none()) {
                Some(place) => *place = host,
                None => self.lost = true,
            }
        }
        self.newest = made;
        self.address(remote)
    }

    fn lose(&mut self) {
        self.lost = true;
    }

    fn address(&self, present: SocketAddr) -> Address {
        Address::moved(self.proven, present, self.shown, !self.lost)
    }
}

/// The congestion controller of one path: quinn's own, and a note of whether the path was heard of.
struct OnPath {
    cubic: Cubic,
    seen: Seen,
    whereabouts: Arc<Whereabouts>,
}

impl Controller for OnPath {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        if !self.seen.heard {
            self.seen.heard = true;
            if self.seen.path > HANDSHAKE {
                self.whereabouts.news.notify_one();
            }
        }
        let micros = u64::try_from(rtt.conservative().as_micros()).unwrap_or(u64::MAX);
        self.whereabouts.round_trip.store(micros, Ordering::Relaxed);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    /// For whoever looks, and for a path to the same host from another port (quinn keeps the state of what
    /// looks like a NAT's rebinding): the host is what is proven, so the note goes along.
    fn clone_box(&self) -> Box<dyn Controller> {
        let whereabouts = Arc::clone(&self.whereabouts);
        Box::new(Self { cubic: self.cubic.clone(), seen: self.seen, whereabouts })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8) -> SocketAddr {
        format!("192.0.2.{host}:7").parse().unwrap()
    }

    /// What a trail from host 1 says after looks of (paths made, path, heard of, host).
    fn after(looks: &[(u64, u64, bool, u8)]) -> Address {
        let mut trail = Trail::new(at(1));
        let mut address = Address::at(at(1));
        for &(made, path, heard, host) in looks {
            address = trail.step(made, Seen { path, heard }, at(host));
        }
        address
    }

    /// From host 1 to `host`, having shown `shown`.
    fn moved(host: u8, shown: &[u8]) -> Address {
        let shown = [0, 1].map(|n| shown.get(n).map(|host| at(*host).ip()));
        Address::moved(at(1), at(host), shown, true)
    }

    #[test]
    fn an_address_is_proven_once_its_path_was_heard_of() {
        assert_eq!(after(&[(2, 2, false, 2)]), moved(2, &[2]));
        assert_eq!(after(&[(2, 2, false, 2); 9]), moved(2, &[2]), "to wait is no proof");
        assert_eq!(after(&[(2, 2, false, 2), (2, 2, true, 2)]), Address::at(at(2)));
        assert_eq!(after(&[(2, 2, false, 2), (2, 1, false, 1)]), Address::at(at(1)), "given up");
        let again = [(2, 2, false, 2), (2, 1, false, 1), (3, 3, false, 3)];
        assert_eq!(after(&again), moved(3, &[3]));
    }

    #[test]
    fn a_host_that_was_proven_before_proves_itself_again() {
        let back = after(&[(2, 2, true, 2), (3, 3, false, 1)]);
        assert_eq!((back.proven(), back.present()), (at(2), at(1)));
        assert!(!back.is_settled());
    }

    #[test]
    fn a_host_that_was_shown_counts_until_another_is_proven() {
        // It may have answered there, of which nothing was heard.
        let flapped = [(2, 2, false, 2), (3, 3, false, 1)];
        assert_eq!(after(&flapped), moved(1, &[2]));
        assert!(!after(&flapped).is_settled());
        assert_eq!(after(&[(2, 2, false, 2), (3, 3, true, 1)]), Address::at(at(1)));
        let on = [(2, 2, false, 2), (3, 3, false, 3), (4, 4, false, 2)];
        assert_eq!(after(&on), moved(2, &[2, 3]));
    }

    #[test]
    fn nothing_holds_where_the_peer_may_have_been_anywhere_meanwhile() {
        for (looks, why) in [
            (&[(3, 3, false, 3)][..], "a path that nobody looked at"),
            (&[(3, 3, false, 1)], "the same, and back at the first host"),
            (&[(2, 2, false, 2), (3, 3, false, 3), (4, 4, false, 4)], "too many hosts"),
            (&[(2, 2, false, 2), (4, 4, false, 2)], "a path between two at one host"),
            (&[(2, 2, false, 2), (3, 2, false, 2)], "a path that came and went"),
            (&[(3, 3, false, 3), (3, 3, false, 3)], "another look changes nothing"),
            (&[(3, 3, false, 3), (4, 4, false, 1)], "nor does another move"),
        ] {
            let address = after(looks);
            assert!(!address.satisfies(|_| true), "{why}: {address:?}");
            assert_eq!(address.proven(), at(1), "{why}");
            let (made, path, _, host) = looks[looks.len() - 1];
            let heard = [looks, &[(made, path, true, host)]].concat();
            assert_eq!(after(&heard), Address::at(at(host)), "{why}, until it is heard of");
        }
    }

    #[test]
    fn a_host_may_change_its_port_meanwhile() {
        let mut trail = Trail::new(at(1));
        let other: SocketAddr = "192.0.2.2:8".parse().unwrap();
        trail.step(2, Seen { path: 2, heard: false }, at(2));
        let address = trail.step(3, Seen { path: 3, heard: false }, other);
        assert!(address.satisfies(|_| true));
        assert_eq!((address.proven(), address.present()), (at(1), other));
    }
}
