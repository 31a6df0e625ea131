//! What is known of a prefix, now and from before?
//!
//! Always true: what is remembered of prefixes that have nothing here is bounded; what has something here is
//! bounded by the arrivals themselves.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    budget::Budget,
    penalty::{Category, Failure, Penalty},
    rate::Pacer,
    source::{Prefix, Source},
};
use crate::facts::Carrier;

/// What an arrival is counted as; a peer's connection is none of these.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// It waits, silent or for its turn.
    Waiting(Carrier),
    /// It shakes hands.
    Shaking(Carrier),
    /// It is a connection without a grant.
    Stranger,
    /// It has ended, and quinn keeps it for a while.
    Closing,
    /// It has ended, and quinn keeps it for longer, because its peer made round trips long.
    Lingering,
}

impl Kind {
    const COUNT: usize = 7;

    fn index(self) -> usize {
        match self {
            Self::Waiting(Carrier::Quic) => 0,
            Self::Waiting(Carrier::Tcp) => 1,
            Self::Shaking(Carrier::Quic) => 2,
            Self::Shaking(Carrier::Tcp) => 3,
            Self::Stranger => 4,
            Self::Closing => 5,
            Self::Lingering => 6,
        }
    }
}

/// One prefix.
#[derive(Debug, Default)]
struct Record {
    counts: [u32; Kind::COUNT],
    handshake: Penalty,
    key: Penalty,
    second: Pacer,
    hour: Pacer,
    served: Option<Instant>,
    idle_since: Option<Instant>,
}

/// How long a prefix counts as served of late: who attacks comes back sooner.
const SERVED_OF_LATE: Duration = Duration::from_secs(60);
/// How long anything is remembered: the longest rate.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// All prefixes, and how many arrivals there are of each kind.
#[derive(Debug)]
pub(crate) struct Records {
    records: HashMap<Prefix, Record>,
    totals: [usize; Kind::COUNT],
    /// Prefixes without arrivals, the oldest first; some are idle no more.
    idle: VecDeque<(Instant, Prefix)>,
    tracked: usize,
}

impl Records {
    pub(crate) fn new(tracked: usize) -> Self {
        Self { records: HashMap::new(), totals: Default::default(), idle: VecDeque::new(), tracked }
    }

    /// From now on so many are remembered.
    pub(crate) fn track(&mut self, tracked: usize) {
        self.tracked = tracked;
        while self.idle.len() > tracked {
            self.forget_oldest();
        }
    }

    pub(crate) fn total(&self, kind: Kind) -> usize {
        self.totals.get(kind.index()).copied().unwrap_or_default()
    }

    pub(crate) fn count(&self, prefix: Prefix, kind: Kind) -> usize {
        let of = |record: &Record| record.counts.get(kind.index()).copied().unwrap_or_default();
        self.records.get(&prefix).map_or(0, |record| of(record) as usize)
    }

    pub(crate) fn add(&mut self, source: Source, kind: Kind) {
        if let Some(total) = self.totals.get_mut(kind.index()) {
            *total += 1;
        }
        for prefix in source.prefixes() {
            let record = self.records.entry(prefix).or_default();
            record.idle_since = None;
            if let Some(count) = record.counts.get_mut(kind.index()) {
                *count += 1;
            }
        }
    }

    pub(crate) fn take_off(&mut self, source: Source, kind: Kind, now: Instant) {
        if let Some(total) = self.totals.get_mut(kind.index()) {
            *total = total.saturating_sub(1);
        }
        for prefix in source.prefixes() {
            let Some(record) = self.records.get_mut(&prefix) else { continue };
            if let Some(count) = record.counts.get_mut(kind.index()) {
                *count = count.saturating_sub(1);
            }
            self.rest(prefix, now);
        }
    }

    /// A handshake of `source` begins.
    pub(crate) fn serve(&mut self, source: Source, budget: &Budget, now: Instant) {
        for prefix in source.prefixes() {
            let record = self.records.entry(prefix).or_default();
            let [second, hour] = budget.rates(prefix);
            record.second.count(&second, now);
            record.hour.count(&hour, now);
            record.served = Some(now);
            self.rest(prefix, now);
        }
    }

    pub(crate) fn served_of_late(&self, prefix: Prefix, now: Instant) -> bool {
        let served = self.records.get(&prefix).and_then(|record| record.served);
        served.is_some_and(|at| now.saturating_duration_since(at) < SERVED_OF_LATE)
    }

    /// Whether the prefix comes no faster than its rates.
    pub(crate) fn conforms(&self, prefix: Prefix, budget: &Budget, now: Instant) -> bool {
        let [second, hour] = budget.rates(prefix);
        self.records.get(&prefix).is_none_or(|record| {
            record.second.conforms(&second, now) && record.hour.conforms(&hour, now)
        })
    }

    pub(crate) fn book(&mut self, source: Source, failure: Failure, budget: &Budget, now: Instant) {
        for prefix in source.prefixes() {
            let record = self.records.entry(prefix).or_default();
            let penalty = match failure.category() {
                Category::Handshake => &mut record.handshake,
                Category::Key => &mut record.key,
            };
            penalty.book(failure, Budget::weight(prefix), &budget.penalties, now);
            self.rest(prefix, now);
        }
    }

    pub(crate) fn forgive(&mut self, source: Source, budget: &Budget, now: Instant) {
        for prefix in source.prefixes() {
            if let Some(record) = self.records.get_mut(&prefix) {
                record.handshake.forgive(&budget.penalties, now);
            }
        }
    }

    pub(crate) fn is_banned(&self, prefix: Prefix, category: Category, now: Instant) -> bool {
        self.records.get(&prefix).is_some_and(|record| match category {
            Category::Handshake => record.handshake.is_enforced(now),
            Category::Key => record.key.is_enforced(now),
        })
    }

    /// Forgets what is old.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((since, _)) = self.idle.front()
            && now.saturating_duration_since(*since) >= REMEMBERED
        {
            self.forget_oldest();
        }
    }

    /// Prefixes that something is known of.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Takes note that nothing of the prefix may be here any more.
    fn rest(&mut self, prefix: Prefix, now: Instant) {
        let Some(record) = self.records.get_mut(&prefix) else { return };
        if record.counts.iter().any(|count| *count > 0) || record.idle_since.is_some() {
            return;
        }
        if record.says_nothing(now) {
            self.records.remove(&prefix);
            return;
        }
        record.idle_since = Some(now);
        self.idle.push_back((now, prefix));
        if self.idle.len() > self.tracked.saturating_mul(2) {
            let Self { records, idle, .. } = self;
            idle.retain(|(since, prefix)| {
                records.get(prefix).is_some_and(|record| record.idle_since == Some(*since))
            });
        }
        while self.idle.len() > self.tracked {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((since, prefix)) = self.idle.pop_front() else { return };
        if self.records.get(&prefix).is_some_and(|record| record.idle_since == Some(since)) {
            self.records.remove(&prefix);
        }
    }
}

impl Record {
    /// Whether a new record would answer everything alike.
    fn says_nothing(&self, now: Instant) -> bool {
        let served = self.served.is_some_and(|at| now < at + SERVED_OF_LATE);
        self.handshake.is_spent(now)
            && self.key.is_spent(now)
            && self.second.is_spent(now)
            && self.hour.is_spent(now)
            && !served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(n).into())
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_at_once_what_left_no_trace_and_the_oldest_when_there_is_too_much() {
        let (budget, now) = (Budget::new(&Limits::default()), Instant::now());
        let mut records = Records::new(100);
        let kind = Kind::Waiting(Carrier::Tcp);
        for n in 0..10_000 {
            records.add(source(n), kind);
            records.take_off(source(n), kind, now);
        }
        assert_eq!(records.len(), 0);
        let at = |n: u32| now + Duration::from_millis(u64::from(n));
        for n in 0..10_000 {
            records.add(source(n << 8), kind);
            records.serve(source(n << 8), &budget, at(n));
            records.take_off(source(n << 8), kind, at(n));
        }
        assert!((50..=100).contains(&records.len()), "{}", records.len());
        assert!(records.served_of_late(source(9_999 << 8).address(), at(9_999)));
        assert!(!records.served_of_late(source(0).address(), at(9_999)));
        records.expire(at(10_000) + REMEMBERED);
        assert_eq!((records.len(), records.idle.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_what_has_arrivals_however_much_is_remembered() {
        let (budget, now) = (Budget::new(&Limits::default()), Instant::now());
        let mut records = Records::new(10);
        for n in 0..1_000 {
            records.add(source(n << 8), Kind::Stranger);
            records.serve(source(n << 8), &budget, now);
        }
        assert_eq!(records.len(), 2_000);
        assert_eq!(records.total(Kind::Stranger), 1_000);
        for n in 0..1_000 {
            records.take_off(source(n << 8), Kind::Stranger, now);
        }
        assert_eq!(records.len(), 10);
    }
}
