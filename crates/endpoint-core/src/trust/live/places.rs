//! How many connections may a key have, and which of them give way?
//!
//! A peer that was cut off leaves connections behind that look alive until their idle timeout. So when a key
//! has all that it may, each of them is asked for a sign of life, and those that give none within
//! [`ANSWER`] give their places to the newcomer.
//!
//! Always true: a connection that answers is never ended for a newcomer; nobody waits longer than
//! [`ANSWER`]; a key's limit holds on every protocol, whatever its handler asks for.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Denial, Entry, Fingerprint, Guard, Live, Policy};

/// How long a connection has to answer when another of its key waits for its place.
const ANSWER: Duration = Duration::from_secs(1);
/// How often answers are looked for.
const LOOK: Duration = Duration::from_millis(20);

impl Live {
    fn limit(&self, policy: &Policy, key: &Fingerprint) -> usize {
        let own = policy.grants().lookup(key).and_then(|grant| grant.max_connections());
        own.unwrap_or(self.connections_per_peer)
    }

    fn take_place(&self, entry: &Entry) -> Result<(), Denial> {
        let Some(key) = entry.facts.peer.fingerprint() else { return Ok(()) };
        let limit = self.limit(&self.policy.load(), &key);
        let mut table = self.table();
        let count = table.per_peer.entry(key).or_default();
        if *count >= limit {
            if *count == 0 {
                table.per_peer.remove(&key);
            }
            return Err(Denial::TooManyConnections { limit });
        }
        *count = count.saturating_add(1);
        entry.counted.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives a connection's place back, once.
    pub(super) fn release(&self, entry: &Entry) {
        let Some(key) = entry.facts.peer.fingerprint() else { return };
        let mut table = self.table();
        if !entry.counted.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(count) = table.per_peer.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.per_peer.remove(&key);
            }
        }
    }

    /// Ends what keys have above their limits, which may have been lowered: the oldest go, because a newer
    /// one shows that its peer has come back. Gives how many.
    pub(super) fn trim(&self, policy: &Policy) -> usize {
        let keys: Vec<_> =
            self.table().per_peer.iter().map(|(key, count)| (*key, *count)).collect();
        let over = keys.into_iter().filter_map(|(key, count)| {
            let limit = self.limit(policy, &key);
            count.checked_sub(limit).filter(|over| *over > 0).map(|over| (key, limit, over))
        });
        let ended = over.map(|(key, limit, over)| {
            let oldest = self.counted(&key).into_iter().take(over);
            oldest.filter(|entry| self.deny(entry, Denial::TooManyConnections { limit })).count()
        });
        ended.sum()
    }

    /// The connections of a key that have a place, the oldest first.
    fn counted(&self, key: &Fingerprint) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> = self.table().entries.values().cloned().collect();
        entries.retain(|entry| {
            entry.facts.peer.fingerprint() == Some(*key) && entry.counted.load(Ordering::Acquire)
        });
        entries.sort_by_key(|entry| entry.facts.id);
        entries
    }
}

impl Guard {
    pub(super) fn take_place(&self) -> Result<(), Denial> {
        self.live.take_place(&self.entry)
    }

    /// If the key has all connections that it may, asks each for a sign of life and ends those that give
    /// none. To be called before [`Guard::permit`].
    pub(crate) async fn make_room(&self) {
        let Self { live, entry } = self;
        let Some(key) = entry.facts.peer.fingerprint() else { return };
        let limit = live.limit(&live.policy.load(), &key);
        let Some(_waiting) = Waiting::begin(live, key, limit) else { return };
        let address = entry.link.address();
        let (policy, now) = (live.policy.load_full(), live.clock.now());
        if policy.judge(&entry.facts, &entry.access.load(), &address, now).is_err() {
            return;
        }
        let asked: Vec<_> = live
            .counted(&key)
            .into_iter()
            .filter_map(|other| other.link.ask().map(|heard| (other, heard)))
            .collect();
        let ends = Instant::now() + ANSWER;
        let silent = |(other, heard): &(Arc<Entry>, u64)| other.link.heard() == *heard;
        while asked.iter().any(silent) && Instant::now() < ends {
            sleep(LOOK).await;
        }
        for (other, _) in asked.iter().filter(|asked| silent(asked)) {
            live.deny(other, Denial::GaveWay);
        }
    }
}

/// A newcomer that waits for a place of its key; as many may as the key has places.
struct Waiting<'a> {
    live: &'a Live,
    key: Fingerprint,
}

impl<'a> Waiting<'a> {
    /// `None` if there is room, or nothing to wait for.
    fn begin(live: &'a Live, key: Fingerprint, limit: usize) -> Option<Self> {
        let mut table = live.table();
        if table.per_peer.get(&key).is_none_or(|count| *count < limit) {
            return None;
        }
        let waiting = table.waiting.entry(key).or_default();
        if *waiting >= limit {
            return None;
        }
        *waiting = waiting.saturating_add(1);
        Some(Self { live, key })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.live.table();
        if let Some(waiting) = table.waiting.get_mut(&self.key) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                table.waiting.remove(&self.key);
            }
        }
    }
}
