//! Did this dial fail a moment ago?
//!
//! Failed dials and lookups are remembered, so that a program that retries in a loop does not hammer a
//! name server or a dead host. Bounded; the time grows with repeated failures; success clears it.
//! Refusals are not remembered: the other side may change its mind at once, and saying no is cheap.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What kind of failure is remembered, each with its own time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The host's name has no address.
    Lookup,
    /// No answer, or the network said no.
    Unreachable,
}

impl FailureKind {
    /// Time after the first failure and at the most.
    fn times(self) -> (Duration, Duration) {
        match self {
            Self::Lookup => (Duration::from_secs(2), Duration::from_secs(300)),
            Self::Unreachable => (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    kind: FailureKind,
    until: Instant,
    times: u32,
}

/// Failed dials by what was dialled.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<String, Failure>>);

/// Failures remembered at the most; the one that ends first goes first.
const MAX_REMEMBERED: usize = 1024;

impl Failures {
    /// The failure still remembered for `what`, and for how long.
    pub(super) fn recent(&self, what: &str, now: Instant) -> Option<(FailureKind, Duration)> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = table.get(what).filter(|failure| failure.until > now)?;
        Some((failure.kind, failure.until - now))
    }

    /// Remembers a failure; the time doubles with each in a row.
    pub(super) fn note(&self, what: &str, kind: FailureKind, now: Instant) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MAX_REMEMBERED && !table.contains_key(what) {
            let first = table.iter().min_by_key(|(_, failure)| failure.until);
            if let Some(first) = first.map(|(what, _)| what.clone()) {
                table.remove(&first);
            }
        }
        let times = table.get(what).map_or(0, |failure| failure.times);
        let (first, most) = kind.times();
        let pause = first.saturating_mul(1 << times.min(16)).min(most);
        table.insert(what.to_owned(), Failure { kind, until: now + pause, times: times + 1 });
    }

    /// Forgets what failed before: it succeeded.
    pub(super) fn clear(&self, what: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn remembers_longer_with_each_failure_and_forgets_on_success() {
        let failures = Failures::default();
        let now = Instant::now();
        failures.note("a", FailureKind::Unreachable, now);
        assert_eq!(
            failures.recent("a", now),
            Some((FailureKind::Unreachable, Duration::from_secs(1)))
        );
        assert_eq!(failures.recent("a", now + Duration::from_secs(1)), None);
        failures.note("a", FailureKind::Unreachable, now);
        assert_eq!(failures.recent("a", now).unwrap().1, Duration::from_secs(2));
        for _ in 0..40 {
            failures.note("a", FailureKind::Unreachable, now);
        }
        assert_eq!(failures.recent("a", now).unwrap().1, Duration::from_secs(60));
        failures.clear("a");
        assert_eq!(failures.recent("a", now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn is_bounded() {
        let failures = Failures::default();
        let now = Instant::now();
        for n in 0..(MAX_REMEMBERED + 10) {
            failures.note(
                &n.to_string(),
                FailureKind::Lookup,
                now + Duration::from_millis(n as u64),
            );
        }
        assert_eq!(failures.0.lock().unwrap().len(), MAX_REMEMBERED);
        assert!(failures.recent("0", now).is_none(), "the one that ends first went first");
    }
}
