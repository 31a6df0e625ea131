//! May this arrival cost us a handshake? Step 2 of 6.
//!
//! Takes an arrival's address state; gives a [`Slot`] or a verdict to answer with. Counts only.
//! Not here: who the peer is (`tls`), what it may do (`trust`).
//!
//! Always true: under pressure no slot goes to an address that has not been validated
//! (RFC 9000 §8.1), and such an address is sent a Retry, never a refusal; strangers never take the
//! last quarter of the connections, so that they cannot keep authorised peers out.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::config::Limits;

/// What to do with an arrival.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Shake hands; the slot is held until the handshake is over.
    Admit(Slot),
    /// Ask the sender to prove its address.
    Retry,
    /// Say no.
    Refuse,
}

/// Counts handshakes and connections.
#[derive(Debug)]
pub(crate) struct Gate {
    counts: Arc<Counts>,
    handshakes: usize,
    unvalidated: usize,
    connections: usize,
    /// Connections that strangers may have of them.
    strangers: usize,
    closed: AtomicBool,
}

/// Who takes up a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Who {
    /// A proven key with a grant. Only counted by: what it may do is decided later.
    Known,
    /// Everybody else.
    Stranger,
}

#[derive(Debug, Default)]
struct Counts {
    validated: AtomicUsize,
    unvalidated: AtomicUsize,
    connections: AtomicUsize,
    strangers: AtomicUsize,
}

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            counts: Arc::default(),
            handshakes: limits.handshakes_in_flight,
            unvalidated: limits.unvalidated_in_flight,
            connections: limits.connections,
            strangers: limits.connections - limits.connections / 4,
            closed: AtomicBool::new(false),
        }
    }

    /// From now on everything is refused: the endpoint is shutting down.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Judges one arrival. TCP arrivals are validated by TCP's own handshake.
    pub(crate) fn admit(&self, validated: bool, may_retry: bool) -> Verdict {
        if self.closed.load(Ordering::Acquire) {
            return Verdict::Refuse;
        }
        if !validated {
            return match take(&self.counts.unvalidated, self.unvalidated) {
                true => Verdict::Admit(Slot { counts: Arc::clone(&self.counts), validated: false }),
                false if may_retry => Verdict::Retry,
                false => Verdict::Refuse,
            };
        }
        // Only here are connections in total looked at: an unvalidated source learns nothing of load.
        if self.counts.connections.load(Ordering::Relaxed) >= self.connections {
            return Verdict::Refuse;
        }
        match take(&self.counts.validated, self.handshakes) {
            true => Verdict::Admit(Slot { counts: Arc::clone(&self.counts), validated: true }),
            false => Verdict::Refuse,
        }
    }

    /// Counts a finished handshake as a connection, unless there are too many.
    pub(crate) fn connected(&self, who: Who) -> Option<ConnectionSlot> {
        if who == Who::Stranger && !take(&self.counts.strangers, self.strangers) {
            return None;
        }
        // From here on dropping the slot gives back what was taken.
        let mut slot = ConnectionSlot { counts: Arc::clone(&self.counts), who, counted: false };
        slot.counted = take(&self.counts.connections, self.connections);
        slot.counted.then_some(slot)
    }

    /// Handshakes and connections that have a slot now.
    pub(crate) fn held(&self) -> (usize, usize) {
        let Counts { validated, unvalidated, connections, strangers: _ } = &*self.counts;
        let handshakes = validated.load(Ordering::Acquire) + unvalidated.load(Ordering::Acquire);
        (handshakes, connections.load(Ordering::Acquire))
    }

    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }
}

fn take(count: &AtomicUsize, limit: usize) -> bool {
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < limit).then_some(now + 1))
        .is_ok()
}

/// The right to one handshake; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    counts: Arc<Counts>,
    validated: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let count = if self.validated { &self.counts.validated } else { &self.counts.unvalidated };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    counts: Arc<Counts>,
    who: Who,
    counted: bool,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        if self.who == Who::Stranger {
            self.counts.strangers.fetch_sub(1, Ordering::AcqRel);
        }
        if self.counted {
            self.counts.connections.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_a_retry_to_unvalidated_sources_above_their_budget_and_refuses_validated_ones() {
        let gate = Gate::new(&Limits::default().handshakes_in_flight(1).unvalidated_in_flight(1));
        let first = gate.admit(false, true);
        assert!(matches!(first, Verdict::Admit(_)));
        assert!(matches!(gate.admit(false, true), Verdict::Retry));
        let second = gate.admit(true, false);
        assert!(matches!(second, Verdict::Admit(_)), "the budgets are apart");
        assert!(matches!(gate.admit(true, false), Verdict::Refuse));
        drop((first, second));
        assert!(matches!(gate.admit(false, true), Verdict::Admit(_)));
        gate.close();
        assert!(matches!(gate.admit(false, true), Verdict::Refuse));
    }

    #[test]
    fn counts_connections_until_they_are_dropped() {
        let gate = Gate::new(&Limits::default().connections(1));
        let one = gate.connected(Who::Stranger);
        assert!(one.is_some());
        assert!(gate.connected(Who::Known).is_none());
        assert!(gate.connected(Who::Stranger).is_none());
        drop(one);
        assert!(gate.connected(Who::Stranger).is_some());
    }

    #[test]
    fn keeps_a_quarter_of_the_connections_for_keys_that_are_known() {
        let gate = Gate::new(&Limits::default().connections(8));
        let strangers: Vec<_> = (0..20).filter_map(|_| gate.connected(Who::Stranger)).collect();
        assert_eq!(strangers.len(), 6);
        let known: Vec<_> = (0..20).filter_map(|_| gate.connected(Who::Known)).collect();
        assert_eq!(known.len(), 2);
        drop(strangers);
        assert_eq!(
            (0..20).map(|_| gate.connected(Who::Known)).take_while(Option::is_some).count(),
            20
        );
        drop(known);
        assert_eq!(gate.connections(), 0, "every slot was given back");
        assert_eq!(gate.counts.strangers.load(Ordering::Relaxed), 0);
    }
}
