//! From which addresses was a peer authorised of late?
//!
//! They have a reserve and no penalties. They stand in a part of their own: only a proven key with a grant puts
//! an address here, so no stranger can put one out.
//!
//! Always true: at most eight addresses a key, the oldest goes first; none lasts longer than a day.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::source::Prefix;
use crate::identity::Fingerprint;

/// Addresses remembered of one key.
const ADDRESSES_PER_KEY: usize = 8;
/// Addresses remembered in all.
const MOST_ADDRESSES: usize = 65_536;
/// How long an address is remembered after a peer was last authorised from it.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Addresses from which peers were authorised.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    /// Of each key, the oldest first.
    keys: HashMap<Fingerprint, VecDeque<Prefix>>,
    /// When a peer was last authorised there, and how many keys say so.
    addresses: HashMap<Prefix, (Instant, usize)>,
}

impl Reserve {
    /// A peer with this key was authorised at `address`.
    pub(crate) fn remember(&mut self, key: Fingerprint, address: Prefix, now: Instant) {
        let of_key = self.keys.entry(key).or_default();
        match of_key.iter().position(|known| *known == address) {
            Some(at) => drop(of_key.remove(at)),
            None => self.addresses.entry(address).or_insert((now, 0)).1 += 1,
        }
        of_key.push_back(address);
        let oldest = if of_key.len() > ADDRESSES_PER_KEY { of_key.pop_front() } else { None };
        if let Some(seen) = self.addresses.get_mut(&address) {
            seen.0 = now;
        }
        if let Some(oldest) = oldest {
            self.release(oldest);
        }
        if self.addresses.len() > MOST_ADDRESSES {
            self.make_room();
        }
    }

    pub(crate) fn holds(&self, address: Prefix, now: Instant) -> bool {
        self.addresses
            .get(&address)
            .is_some_and(|(seen, _)| now.saturating_duration_since(*seen) < REMEMBERED)
    }

    /// Forgets what is older than a day.
    pub(crate) fn expire(&mut self, now: Instant) {
        let Self { keys, addresses } = self;
        addresses.retain(|_, (seen, _)| now.saturating_duration_since(*seen) < REMEMBERED);
        keys.retain(|_, of_key| {
            of_key.retain(|address| addresses.contains_key(address));
            !of_key.is_empty()
        });
    }

    /// Forgets the address that was seen longest ago.
    fn make_room(&mut self) {
        let oldest = self.addresses.iter().min_by_key(|(address, (seen, _))| (*seen, **address));
        let Some(oldest) = oldest.map(|(address, _)| *address) else { return };
        self.addresses.remove(&oldest);
        self.keys.retain(|_, of_key| {
            of_key.retain(|address| *address != oldest);
            !of_key.is_empty()
        });
    }

    fn release(&mut self, address: Prefix) {
        let Some(seen) = self.addresses.get_mut(&address) else { return };
        seen.1 = seen.1.saturating_sub(1);
        if seen.1 == 0 {
            self.addresses.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::source::Source;

    fn address(n: u8) -> Prefix {
        Source::of(std::net::Ipv4Addr::new(192, 0, 2, n).into()).address()
    }

    fn key(n: u8) -> Fingerprint {
        Fingerprint::of_spki(&[n])
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_eight_addresses_of_a_key_for_a_day_and_drops_the_oldest_first() {
        let (mut reserve, now) = (Reserve::default(), Instant::now());
        for n in 0..8 {
            reserve.remember(key(1), address(n), now);
        }
        reserve.remember(key(1), address(0), now);
        reserve.remember(key(1), address(8), now);
        assert!(reserve.holds(address(0), now), "seen again, so not the oldest");
        assert!(!reserve.holds(address(1), now) && reserve.holds(address(8), now));
        let nearly = now + REMEMBERED - Duration::from_millis(1);
        assert!(reserve.holds(address(8), nearly) && !reserve.holds(address(8), now + REMEMBERED));
        reserve.expire(now + REMEMBERED);
        assert!(reserve.keys.is_empty() && reserve.addresses.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_stays_as_long_as_one_key_came_from_it() {
        let (mut reserve, now) = (Reserve::default(), Instant::now());
        reserve.remember(key(1), address(99), now);
        reserve.remember(key(2), address(99), now);
        for n in 0..8 {
            reserve.remember(key(1), address(n), now);
        }
        assert!(reserve.holds(address(99), now));
        for n in 10..18 {
            reserve.remember(key(2), address(n), now);
        }
        assert!(!reserve.holds(address(99), now));
        assert_eq!(reserve.addresses.len(), 16);
    }
}
