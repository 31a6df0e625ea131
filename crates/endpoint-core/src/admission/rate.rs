//! How fast does a prefix come? The generic cell rate algorithm (ITU-T I.371): one instant per rate.

use std::time::Duration;

use tokio::time::Instant;

/// So many in so long, and so many at once before that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Between two at the steady rate.
    every: Duration,
    /// How far ahead of the steady rate one may be.
    burst: Duration,
}

impl Rate {
    /// `count` in `period`, of which `burst` may come at once. A count of 0 is taken for 1.
    pub(crate) fn new(count: u32, period: Duration, burst: u32) -> Self {
        let every = period / count.max(1);
        Self { every, burst: every.saturating_mul(burst) }
    }
}

/// The theoretical time of arrival of one prefix at one rate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pacer(Option<Instant>);

impl Pacer {
    /// Whether one more would be within the rate.
    pub(crate) fn conforms(self, rate: &Rate, now: Instant) -> bool {
        self.0.is_none_or(|due| due.saturating_duration_since(now) <= rate.burst)
    }

    /// Counts one. How far ahead it can run is bounded, so that nobody pays for an hour's flood for a day.
    pub(crate) fn count(&mut self, rate: &Rate, now: Instant) {
        let due = self.0.map_or(now, |due| due.max(now)) + rate.every;
        let latest = now + rate.burst.saturating_mul(2) + rate.every;
        self.0 = Some(due.min(latest));
    }

    /// Whether it says no more than a new one would.
    pub(crate) fn is_spent(self, now: Instant) -> bool {
        self.0.is_none_or(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lets_a_burst_through_and_then_the_rate() {
        let rate = Rate::new(10, Duration::from_secs(1), 20);
        let mut pacer = Pacer::default();
        let start = Instant::now();
        let mut passed = 0;
        while pacer.conforms(&rate, start) {
            pacer.count(&rate, start);
            passed += 1;
        }
        assert_eq!(passed, 21);
        assert!(pacer.conforms(&rate, start + Duration::from_millis(100)));
        for _ in 0..10_000 {
            pacer.count(&rate, start);
        }
        assert!(!pacer.conforms(&rate, start + Duration::from_secs(1)));
        assert!(
            pacer.conforms(&rate, start + Duration::from_secs(5)),
            "an excess is paid for once"
        );
        assert!(!pacer.is_spent(start) && pacer.is_spent(start + Duration::from_secs(5)));
    }
}
