//! How much may those cost whose address nobody has proven yet?
//!
//! Anybody can write any source address on a datagram. So what such a datagram costs is counted in numbers that
//! are there from the start: one in all, and a fixed row that prefixes are hashed into under a random key, which
//! keeps one prefix from taking all of the budget. Nothing here is made, kept or dropped for a sender.
//!
//! Always true: above the budget the answer is a Retry (RFC 9000 §8.1.2), without end and never a refusal.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::source::Source;

/// Counters that prefixes are hashed into.
const COUNTERS: usize = 1024;

/// Handshakes in flight of unproven addresses.
#[derive(Debug)]
pub(crate) struct Unproven(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limit: AtomicUsize,
    total: AtomicUsize,
    row: Box<[AtomicUsize]>,
    key: RandomState,
}

impl Unproven {
    /// `limit` at one time, of which one prefix may have half.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Counts {
            limit: limit.into(),
            total: AtomicUsize::new(0),
            row: (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect(),
            key: RandomState::new(),
        }))
    }

    /// The right to one handshake, or `None`: ask for proof.
    pub(crate) fn take(&self, source: Source) -> Option<UnprovenSlot> {
        let counts = &self.0;
        let at = counts.key.hash_one(source.site()) as usize % COUNTERS;
        let cell = counts.row.get(at)?;
        let limit = counts.limit.load(Ordering::Acquire);
        if !take(cell, limit.div_ceil(2)) {
            return None;
        }
        if !take(&counts.total, limit) {
            cell.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(UnprovenSlot { counts: Arc::clone(counts), at })
    }

    /// From now on so many at one time; what is above it goes on.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Release);
    }

    /// Handshakes of the budget that are taken now.
    pub(crate) fn held(&self) -> usize {
        self.0.total.load(Ordering::Acquire)
    }
}

fn take(count: &AtomicUsize, limit: usize) -> bool {
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < limit).then_some(now + 1))
        .is_ok()
}

/// One handshake of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct UnprovenSlot {
    counts: Arc<Counts>,
    at: usize,
}

impl Drop for UnprovenSlot {
    fn drop(&mut self) {
        self.counts.total.fetch_sub(1, Ordering::AcqRel);
        if let Some(cell) = self.counts.row.get(self.at) {
            cell.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(n << 8).into())
    }

    #[test]
    fn one_prefix_gets_half_of_the_budget_and_all_together_the_whole() {
        let unproven = Unproven::new(64);
        let one: Vec<_> = (0..100).filter_map(|_| unproven.take(source(1))).collect();
        assert_eq!(one.len(), 32);
        let rest: Vec<_> = (2..10_000).filter_map(|n| unproven.take(source(n))).collect();
        assert_eq!(one.len() + rest.len(), 64);
        drop((one, rest));
        assert!(unproven.take(source(1)).is_some());
        assert_eq!(unproven.0.total.load(Ordering::Relaxed), 0);
        assert!(unproven.0.row.iter().all(|cell| cell.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_budget_of_nothing_asks_everybody() {
        assert!(Unproven::new(0).take(source(1)).is_none());
        let unproven = Unproven::new(1);
        let _held = unproven.take(source(1)).unwrap();
        assert!(unproven.take(source(2)).is_none());
        unproven.set_limit(2);
        assert!(unproven.take(source(2)).is_some(), "a raised limit acts at once");
    }
}
