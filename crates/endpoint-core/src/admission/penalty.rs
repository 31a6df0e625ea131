//! For how long is a source refused that keeps failing? In the manner of OpenSSH's `PerSourcePenalties`.
//!
//! Each failure costs some seconds, seconds add up, and nothing follows before fifteen of them are owed. They
//! are booked on every prefix of the address, from a wider one so many times as many are needed
//! (`Budget::weight`). Not here: whose failures are booked (`table`: proven addresses that are not exempt and
//! from which no peer was authorised of late), and what follows: an address is refused (`table`), a wider
//! prefix is only put behind others where handshakes are scarce (`shake`).
//!
//! Always true: a penalty ends by itself. After the last failure an address and a site (/24, /48) have ten
//! minutes at most, an IPv6 /40 sixteen and a /32 sixty-four: as much as it takes to begin theirs.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::PenaltyLimits;

/// What a source failed at. A ban closes one of them and leaves the others open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Category {
    /// Shaking hands at all.
    Handshake,
    /// Showing a key that has a grant. Visitors show none, so they come in beside somebody who is banned.
    Key,
}

/// A failure of somebody whose address is proven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The first byte or the handshake was not there in time.
    Deadline,
    /// It went away with a handshake begun, or shook hands and asked for nothing.
    Left,
    /// It showed a key that has no grant, or could not prove the one it showed.
    Key,
    /// What it sent made us panic.
    Panic,
}

impl Failure {
    pub(crate) fn category(self) -> Category {
        match self {
            Self::Key => Category::Key,
            Self::Deadline | Self::Left | Self::Panic => Category::Handshake,
        }
    }

    fn cost(self, limits: &PenaltyLimits) -> Duration {
        match self {
            Self::Deadline => limits.deadline,
            Self::Left => limits.left,
            Self::Key => limits.key,
            Self::Panic => limits.panic,
        }
    }
}

/// What one prefix owes in one category.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Penalty {
    until: Option<Instant>,
    enforced: bool,
}

impl Penalty {
    /// Books a failure of a prefix from which `weight` times as many are needed as from an address.
    pub(crate) fn book(
        &mut self,
        failure: Failure,
        weight: u32,
        limits: &PenaltyLimits,
        now: Instant,
    ) {
        let owed = self.owed(now).saturating_add(failure.cost(limits));
        let holds_from = limits.holds_from.saturating_mul(weight);
        self.enforced = self.is_enforced(now) || owed >= holds_from;
        self.until = now.checked_add(owed.min(limits.most.max(holds_from))).or(self.until);
    }

    pub(crate) fn forgive(&mut self, limits: &PenaltyLimits, now: Instant) {
        if !self.is_enforced(now) {
            // Behind an address with many users a few of them always fail.
            self.until = Some(now + self.owed(now).saturating_sub(limits.forgiven));
        }
    }

    pub(crate) fn is_enforced(&self, now: Instant) -> bool {
        self.enforced && !self.owed(now).is_zero()
    }

    /// Whether it says no more than a new one would.
    pub(crate) fn is_spent(&self, now: Instant) -> bool {
        self.owed(now).is_zero()
    }

    fn owed(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refuses_from_fifteen_seconds_on_until_they_are_over() {
        let start = Instant::now();
        let mut penalty = Penalty::default();
        penalty.book(Failure::Deadline, 1, &PenaltyLimits::default(), start);
        assert!(!penalty.is_enforced(start), "one slow handshake is nothing");
        penalty.book(Failure::Key, 1, &PenaltyLimits::default(), start);
        assert!(penalty.is_enforced(start));
        let nearly = start + Duration::from_millis(14_999);
        assert!(penalty.is_enforced(nearly), "once enforced it holds to its end");
        penalty.forgive(&PenaltyLimits::default(), nearly);
        let over = start + Duration::from_secs(15);
        assert!(penalty.is_enforced(nearly) && !penalty.is_enforced(over));
        penalty.book(Failure::Left, 1, &PenaltyLimits::default(), over);
        assert!(!penalty.is_enforced(over), "a new debt begins at nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn costs_and_bounds_are_those_of_the_limits() {
        let now = Instant::now();
        let [cost, forgiven, holds_from, most] = [2, 3, 4, 9].map(Duration::from_secs);
        let limits = PenaltyLimits {
            deadline: cost,
            left: cost,
            key: cost,
            panic: cost,
            forgiven,
            holds_from,
            most,
        };
        let mut penalty = Penalty::default();
        penalty.book(Failure::Left, 1, &limits, now);
        penalty.forgive(&limits, now);
        assert!(penalty.is_spent(now), "more was forgiven than was owed");
        for failure in [Failure::Deadline, Failure::Key] {
            assert!(!penalty.is_enforced(now));
            penalty.book(failure, 1, &limits, now);
        }
        assert!(penalty.is_enforced(now + Duration::from_millis(3_999)));
        assert!(!penalty.is_enforced(now + holds_from));
        for _ in 0..100 {
            penalty.book(Failure::Panic, 1, &limits, now);
        }
        assert!(penalty.is_enforced(now + Duration::from_millis(8_999)));
        assert!(!penalty.is_enforced(now + most));
        // What nobody could wait for ends all the same.
        let endless = PenaltyLimits { panic: Duration::MAX, most: Duration::MAX, ..limits };
        penalty.book(Failure::Panic, u32::MAX, &endless, now);
        assert!(penalty.is_enforced(now));
    }

    #[tokio::test(start_paused = true)]
    async fn never_owes_more_than_ten_minutes() {
        let now = Instant::now();
        let mut penalty = Penalty::default();
        for _ in 0..1_000 {
            penalty.book(Failure::Panic, 1, &PenaltyLimits::default(), now);
        }
        assert!(penalty.is_enforced(now + Duration::from_secs(599)));
        assert!(!penalty.is_enforced(now + Duration::from_secs(600)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wide_prefix_owes_ten_minutes_or_what_it_takes_to_begin() {
        let now = Instant::now();
        for (weight, most) in [(16, 600), (64, 960), (256, 3_840)] {
            let mut penalty = Penalty::default();
            for _ in 0..1_000 {
                penalty.book(Failure::Panic, weight, &PenaltyLimits::default(), now);
            }
            assert!(penalty.is_enforced(now + Duration::from_secs(most - 1)));
            assert!(!penalty.is_enforced(now + Duration::from_secs(most)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn good_connections_outweigh_a_few_that_fail() {
        let now = Instant::now();
        let mut penalty = Penalty::default();
        for _ in 0..1_000 {
            penalty.book(Failure::Left, 1, &PenaltyLimits::default(), now);
            penalty.forgive(&PenaltyLimits::default(), now);
        }
        assert!(penalty.is_spent(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_takes_more_failures_than_an_address() {
        let now = Instant::now();
        let (mut address, mut site) = (Penalty::default(), Penalty::default());
        for _ in 0..10 {
            address.book(Failure::Deadline, 1, &PenaltyLimits::default(), now);
            site.book(Failure::Deadline, 16, &PenaltyLimits::default(), now);
        }
        assert!(address.is_enforced(now) && !site.is_enforced(now));
        for _ in 0..14 {
            site.book(Failure::Deadline, 16, &PenaltyLimits::default(), now);
        }
        assert!(site.is_enforced(now));
    }
}
