//! How many connection ids may a peer retire?
//!
//! quinn replaces an id as soon as its peer retires it (RFC 9000 §5.1.1), without end; each comes with a
//! reset token, and each costs a MAC or three. Here they are counted where nothing can get past: the key
//! that opens a connection's 1-RTT packets sees the frames before quinn does, and does not open a packet
//! that retires more than the peer may. Then whoever serves the connection is told, and closes it.
//!
//! Always true: a peer gets no more ids than it may, however fast it is; an id that is retired twice, or by a
//! packet that somebody sends again, counts once; a packet that retires nothing is never refused.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use quinn_proto::crypto::{CryptoError, KeyPair, PacketKey};
use tokio::{sync::Notify, time::Instant};

use super::frames::retired_ids;

/// The most ids that quinn lets a peer hold at one time (quinn-proto, `LOC_CID_COUNT`).
const HELD: usize = 8;

/// How fast ids may be retired: so many a minute, and twice as many at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RetirementRate(NonZeroU32);

impl RetirementRate {
    /// `0` is taken for `1`: a peer that moves has to retire one.
    pub(crate) fn per_minute(ids: u32) -> Self {
        Self(NonZeroU32::new(ids).unwrap_or(NonZeroU32::MIN))
    }

    fn pause(self) -> Duration {
        Duration::from_secs(60) / self.0.get()
    }

    fn at_once(self) -> u32 {
        self.0.get().saturating_mul(2)
    }
}

/// What one connection's peer has retired.
#[derive(Debug)]
pub(crate) struct Retirements {
    rate: RetirementRate,
    counted: Mutex<Counted>,
    exceeded: Notify,
}

#[derive(Debug)]
struct Counted {
    /// The ids that the peer may hold, by sequence number: never fewer than it holds.
    held: [u64; HELD],
    next: u64,
    /// When all that was retired would have been retired at the rate allowed.
    even_at: Option<Instant>,
}

impl Retirements {
    pub(crate) fn new(rate: RetirementRate) -> Arc<Self> {
        let held = [0, 1, 2, 3, 4, 5, 6, 7];
        let counted = Counted { held, next: HELD as u64, even_at: None };
        Arc::new(Self { rate, counted: Mutex::new(counted), exceeded: Notify::new() })
    }

    /// Waits until the peer has tried to retire more than it may.
    pub(crate) async fn exceeded(&self) {
        self.exceeded.notified().await;
    }

    /// Counts what a packet that came at `now` retires; whether that may be.
    fn allow(&self, payload: &[u8], now: impl FnOnce() -> Instant) -> bool {
        let mut now = Some(now);
        let mut began = None;
        let mut allowed = true;
        retired_ids(payload, |sequence| {
            let now = *began.get_or_insert_with(|| now.take().map(|now| now()));
            let Some(now) = now else { return };
            // Seldom: a packet without retirements takes no lock.
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            allowed &= counted.retire(sequence, self.rate, now);
        });
        if !allowed {
            self.exceeded.notify_one();
        }
        allowed
    }
}

impl Counted {
    fn retire(&mut self, sequence: u64, rate: RetirementRate, now: Instant) -> bool {
        // Not held: retired before, which gives nobody a new one, or never given, for which quinn closes.
        let Some(place) = self.held.iter_mut().find(|held| **held == sequence) else { return true };
        let even_at = self.even_at.map_or(now, |at| at.max(now));
        if even_at.saturating_duration_since(now) + rate.pause() > rate.pause() * rate.at_once() {
            return false;
        }
        *place = self.next;
        self.next += 1;
        self.even_at = Some(even_at + rate.pause());
        true
    }
}

/// 1-RTT keys of which the one that opens counts.
pub(crate) fn counting(
    keys: KeyPair<Box<dyn PacketKey>>,
    retirements: &Arc<Retirements>,
) -> KeyPair<Box<dyn PacketKey>> {
    let KeyPair { local, remote } = keys;
    let remote = Box::new(CountingKey { key: remote, retirements: Arc::clone(retirements) });
    KeyPair { local, remote }
}

struct CountingKey {
    key: Box<dyn PacketKey>,
    retirements: Arc<Retirements>,
}

impl PacketKey for CountingKey {
    fn encrypt(&self, packet: u64, buffer: &mut [u8], header: usize) {
        self.key.encrypt(packet, buffer, header);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.key.decrypt(packet, header, payload)?;
        // To quinn it is a packet that did not arrive whole.
        if self.retirements.allow(payload, Instant::now) { Ok(()) } else { Err(CryptoError) }
    }

    fn tag_len(&self) -> usize {
        self.key.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.key.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.key.integrity_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Retires ids one by one in the order in which they are given, from `first`, until one is refused.
    fn retired_at(retirements: &Retirements, first: u64, now: Instant) -> u64 {
        let each = |sequence: &u64| {
            let frame = [&[0x19][..], &(sequence | 0xc << 60).to_be_bytes()].concat();
            retirements.allow(&frame, || now)
        };
        (first..).take_while(each).count() as u64
    }

    #[test]
    fn allows_a_burst_and_then_the_rate() {
        let retirements = Retirements::new(RetirementRate::per_minute(16));
        let start = Instant::now();
        assert_eq!(retired_at(&retirements, 0, start), 32);
        assert_eq!(retired_at(&retirements, 32, start + 3 * SECOND), 0);
        assert_eq!(retired_at(&retirements, 32, start + 4 * SECOND), 1);
        assert_eq!(retired_at(&retirements, 33, start + 64 * SECOND), 16);
        // What is saved up is no more than the burst.
        assert_eq!(retired_at(&retirements, 49, start + 100_000 * SECOND), 32);
    }

    #[test]
    fn a_peer_that_moves_every_four_seconds_is_never_refused() {
        let retirements = Retirements::new(RetirementRate::per_minute(16));
        let start = Instant::now();
        for moved in 0..10_000_u32 {
            let frame = [&[0x19][..], &(u64::from(moved) | 0xc << 60).to_be_bytes()].concat();
            assert!(retirements.allow(&frame, || start + moved * 4 * SECOND), "{moved}");
        }
    }

    #[test]
    fn the_same_retirement_counts_once_however_often_it_comes() {
        let retirements = Retirements::new(RetirementRate::per_minute(1));
        let now = Instant::now();
        for _ in 0..1000 {
            assert!(retirements.allow(&[0x19, 3, 0x19, 3], || now));
        }
        assert!(retirements.allow(&[0x19, 4], || now));
        assert!(!retirements.allow(&[0x19, 5], || now));
    }

    #[test]
    fn a_packet_that_retires_nothing_passes_after_a_refusal() {
        let retirements = Retirements::new(RetirementRate::per_minute(0));
        let now = Instant::now();
        assert!(!retirements.allow(&[0x19, 0, 0x19, 1, 0x19, 2], || now));
        assert!(retirements.allow(&[1, 0x0a, 0, 2, 0x19, 3], || now));
    }

    #[tokio::test]
    async fn tells_of_a_refusal_also_who_asks_late() {
        let retirements = Retirements::new(RetirementRate::per_minute(1));
        assert_eq!(retired_at(&retirements, 0, Instant::now()), 2);
        retirements.exceeded().await;
    }
}
