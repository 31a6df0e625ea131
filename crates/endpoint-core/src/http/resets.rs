//! Does a client open requests only to give them up? (CVE-2023-44487, CVE-2025-8671)

use tokio::time::Instant;

use super::limits::{RESETS, RESETS_PERIOD};

/// The requests that a client gave up lately.
#[derive(Debug, Default)]
pub(super) struct Resets {
    since: Option<Instant>,
    count: u32,
}

impl Resets {
    /// Notes one.
    pub(super) fn too_many(&mut self, now: Instant) -> bool {
        match self.since {
            Some(since) if now.duration_since(since) < RESETS_PERIOD => self.count += 1,
            _ => (self.since, self.count) = (Some(now), 1),
        }
        self.count > RESETS
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counts_what_was_given_up_within_a_period() {
        let start = Instant::now();
        let mut resets = Resets::default();
        assert!((0..RESETS).all(|_| !resets.too_many(start)));
        assert!(resets.too_many(start + RESETS_PERIOD - Duration::from_millis(1)));
        assert!(!resets.too_many(start + RESETS_PERIOD), "a new period");
    }
}
