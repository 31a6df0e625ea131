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

    fn cost(self) -> Duration {
        Duration::from_secs(match self {
            Self::Deadline => 10,
            Self::Left => 1,
            Self::Key => 5,
            Self::Panic => 90,
        })
    }
}

/// Seconds owed before anything follows, by an address.
const ENFORCED_FROM: Duration = Duration::from_secs(15);
/// The most that can be owed, unless a wide prefix needs more before anything follows.
const MOST: Duration = Duration::from_secs(600);
/// What one good connection takes off a debt that is not enforced yet: behind an address with many users a
/// few of them always fail.
const FORGIVEN: Duration = Duration::from_secs(1);

/// What one prefix owes in one category.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Penalty {
    until: Option<Instant>,
    enforced: bool,
}

impl Penalty {
    /// Books a failure of a prefix from which `weight` times as many are needed as from an address.
    pub(crate) fn book(&mut self, failure: Failure, weight: u32, now: Instant) {
        let owed = self.owed(now) + failure.cost();
        self.enforced = self.is_enforced(now) || owed >= ENFORCED_FROM.saturating_mul(weight);
        self.until = Some(now + owed.min(MOST.max(ENFORCED_FROM.saturating_mul(weight))));
    }

    pub(crate) fn forgive(&mut self, now: Instant) {
        if !self.is_enforced(now) {
            self.until = Some(now + self.owed(now).saturating_sub(FORGIVEN));
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
        penalty.book(Failure::Deadline, 1, start);
        assert!(!penalty.is_enforced(start), "one slow handshake is nothing");
        penalty.book(Failure::Key, 1, start);
        assert!(penalty.is_enforced(start));
        let nearly = start + Duration::from_millis(14_999);
        assert!(penalty.is_enforced(nearly), "once enforced it holds to its end");
        penalty.forgive(nearly);
        let over = start + Duration::from_secs(15);
        assert!(penalty.is_enforced(nearly) && !penalty.is_enforced(over));
        penalty.book(Failure::Left, 1, over);
        assert!(!penalty.is_enforced(over), "a new debt begins at nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn never_owes_more_than_ten_minutes() {
        let now = Instant::now();
        let mut penalty = Penalty::default();
        for _ in 0..1_000 {
            penalty.book(Failure::Panic, 1, now);
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
                penalty.book(Failure::Panic, weight, now);
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
            penalty.book(Failure::Left, 1, now);
            penalty.forgive(now);
        }
        assert!(penalty.is_spent(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_takes_more_failures_than_an_address() {
        let now = Instant::now();
        let (mut address, mut site) = (Penalty::default(), Penalty::default());
        for _ in 0..10 {
            address.book(Failure::Deadline, 1, now);
            site.book(Failure::Deadline, 16, now);
        }
        assert!(address.is_enforced(now) && !site.is_enforced(now));
        for _ in 0..14 {
            site.book(Failure::Deadline, 16, now);
        }
        assert!(site.is_enforced(now));
    }
}
