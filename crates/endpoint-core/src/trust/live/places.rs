//! How many connections may a key have, and which of them give way?
//!
//! A peer that was cut off leaves connections behind that look alive until their idle timeout. So when a key
//! has all that it may, each of them is asked for a sign of life, and those that give none give their places
//! to the newcomer. Over TCP the kernel asks; what lies behind a proxy may be dead all the same, so where
//! nobody was found HTTP without a request under way gives way, which either side may end at any time (RFC 9112
//! §9.5, RFC 9113 §9.1).
//!
//! Always true: a connection that answers, or has a request under way, is never ended for a newcomer, only
//! for a limit that was lowered; nobody waits longer than [`ANSWER`] and [`KERNEL`]; a key's limit holds on
//! every protocol, whatever its handler asks for.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Denial, Entry, Fingerprint, Guard, Live, Policy};
use crate::{facts::Carrier, phase::Activity, transport::Question};

/// How long a connection has to answer when another of its key waits for its place, and how long HTTP has to
/// have been silent over TCP.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the kernel needs beyond that: it asks once nothing came for a second, and waits for another.
const KERNEL: Duration = Duration::from_millis(1_500);
/// How often answers are looked for.
const LOOK: Duration = Duration::from_millis(20);

impl Live {
    fn limit(&self, policy: &Policy, key: &Fingerprint) -> usize {
        let own = policy.grants().lookup(key).and_then(|grant| grant.max_connections());
        own.unwrap_or_else(|| self.connections_per_peer.load(Ordering::Acquire))
    }

    /// Sets how many connections a key may have whose line does not say so, and ends what is above it. Gives
    /// how many.
    pub(crate) fn set_connections_per_peer(&self, limit: usize) -> usize {
        self.connections_per_peer.store(limit, Ordering::Release);
        self.trim(&self.policy.load())
    }

    /// Takes a place for a connection, once.
    fn take_place(&self, entry: &Entry) -> Result<(), Denial> {
        let Some(key) = entry.facts.peer.fingerprint() else { return Ok(()) };
        let mut table = self.table();
        if entry.counted.load(Ordering::Acquire) {
            return Ok(());
        }
        // Under the lock: a limit that is lowered meanwhile finds the connection counted.
        let limit = self.limit(&self.policy.load(), &key);
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

    /// Ends what keys have above their limits, which may have been lowered, the longest silent first. Gives
    /// how many.
    pub(super) fn trim(&self, policy: &Policy) -> usize {
        let keys: Vec<_> =
            self.table().per_peer.iter().map(|(key, count)| (*key, *count)).collect();
        let over = keys.into_iter().filter_map(|(key, count)| {
            let limit = self.limit(policy, &key);
            count.checked_sub(limit).filter(|over| *over > 0).map(|over| (key, limit, over))
        });
        let ended = over.map(|(key, limit, over)| {
            let silent = self.counted(&key).into_iter().take(over);
            silent.filter(|entry| self.deny(entry, Denial::TooManyConnections { limit })).count()
        });
        ended.sum()
    }

    /// The connections of a key that have a place: first the longest silent, of those that are as silent the
    /// oldest; last those with something under way.
    fn counted(&self, key: &Fingerprint) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> = self.table().entries.values().cloned().collect();
        entries.retain(|entry| {
            entry.facts.peer.fingerprint() == Some(*key) && entry.counted.load(Ordering::Acquire)
        });
        entries.sort_by_cached_key(|entry| {
            let since = entry.silent_since();
            (since.is_none(), since, entry.facts.id)
        });
        entries
    }
}

impl Entry {
    /// Since when nothing has been under way; `None` while something is.
    fn silent_since(&self) -> Option<Instant> {
        match self.facts.carrier {
            // Whose protocol nobody knows.
            Carrier::Tcp if !self.facts.alpn.is_http() => self.link.moved_at(),
            _ => self.activity.get()?.silent_since(),
        }
    }

    /// Whether it is HTTP over TCP and has been silent for long enough to give way unasked.
    fn lies_idle(&self) -> bool {
        let http = self.facts.carrier == Carrier::Tcp && self.facts.alpn.is_http();
        let silent = || self.silent_since().is_some_and(|since| since.elapsed() >= ANSWER);
        let told = || self.activity.get().is_none_or(|activity| activity.told().is_some());
        http && silent() && !told()
    }
}

impl Guard {
    pub(super) fn take_place(&self) -> Result<(), Denial> {
        self.live.take_place(&self.entry)
    }

    /// If the key has all connections that it may, asks each for a sign of life, ends those that give none, and
    /// takes a place that comes free. To be called before [`Guard::permit`].
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
        let asked: Vec<(Arc<Entry>, Question)> = live
            .counted(&key)
            .into_iter()
            .filter_map(|other| other.link.ask().map(|question| (other, question)))
            .collect();
        let began = Instant::now();
        let unanswered = || asked.iter().filter(|(_, question)| question.is_unanswered());
        while unanswered().next().is_some() && began.elapsed() < ANSWER {
            sleep(LOOK).await;
        }
        for (other, _) in unanswered() {
            live.deny(other, Denial::GaveWay);
        }
        let over_tcp = asked.iter().any(|(other, _)| other.facts.carrier == Carrier::Tcp);
        let mut told: Option<Arc<Entry>> = None;
        // A place is taken as soon as there is one: another newcomer may wait for the next, or take this one's.
        while self.take_place().is_err() && over_tcp && began.elapsed() < ANSWER + KERNEL {
            // It says goodbye in its own manner, which takes a moment.
            let is_leaving = |other: &Arc<Entry>| other.counted.load(Ordering::Acquire);
            if !told.as_ref().is_some_and(is_leaving) {
                let idle = live.counted(&key).into_iter().find(|other| other.lies_idle());
                told = idle.filter(|other| other.activity.get().is_some_and(Activity::give_way));
            }
            sleep(LOOK).await;
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
