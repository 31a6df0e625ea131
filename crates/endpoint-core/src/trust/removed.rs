//! Which keys were taken away lately?
//!
//! A key that was removed may not enrol itself again for 90 days. Bounded: the oldest go first.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::identity::Fingerprint;

/// How long a removed key stays refused.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Removed keys remembered at the most.
const MAX_REMEMBERED: usize = 65_536;

/// Removed keys and when they were removed.
#[derive(Clone, Debug, Default)]
pub struct Removed(HashMap<Fingerprint, Timestamp>);

impl Removed {
    /// Notes that `key` was removed at `at`.
    pub fn note(&mut self, key: Fingerprint, at: Timestamp) {
        if self.0.len() >= MAX_REMEMBERED {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(key, at);
    }

    /// Whether `key` was removed within the last 90 days.
    #[must_use]
    pub fn is_recent(&self, key: &Fingerprint, now: Timestamp) -> bool {
        self.0.get(key).is_some_and(|at| now.duration_since(*at) < REMEMBERED)
    }

    /// Forgets that `key` was removed: it was added again by hand.
    pub fn forget(&mut self, key: &Fingerprint) {
        self.0.remove(key);
    }

    /// Forgets every key for which `back` holds.
    pub(super) fn forget_all(&mut self, back: impl Fn(&Fingerprint) -> bool) {
        self.0.retain(|key, _| !back(key));
    }

    /// Reads `FINGERPRINT TIME` lines; lines that are neither are passed over, since each line only
    /// ever refuses somebody.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (key, at) = line.split_once(' ')?;
            Some((key.parse().ok()?, at.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(line).take(MAX_REMEMBERED).collect())
    }

    /// The lines that [`Self::parse`] reads, oldest first, without those past their time.
    #[must_use]
    pub fn to_text(&self, now: Timestamp) -> String {
        let mut lines: Vec<_> = self.0.iter().filter(|(key, _)| self.is_recent(key, now)).collect();
        lines.sort_by_key(|(key, at)| (**at, **key));
        lines.into_iter().map(|(key, at)| format!("{key} {at}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_a_removed_key_after_ninety_days() {
        let key = Fingerprint::from_bytes([7; 32]);
        let then: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut removed = Removed::default();
        removed.note(key, then);
        let day = SignedDuration::from_hours(24);
        assert!(removed.is_recent(&key, then + day * 89));
        assert!(!removed.is_recent(&key, then + day * 90));
        let text = removed.to_text(then + day);
        assert!(Removed::parse(&text).is_recent(&key, then + day));
        assert!(!Removed::parse("garbage\n\n").is_recent(&key, then));
    }
}
