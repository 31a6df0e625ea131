//! Which connections are alive, and are they still allowed?
//!
//! Every accepted connection is registered **before** it is judged, so that a revocation between the two
//! is never lost. A connection that is denied stays denied: its handler is dropped at once, and its close
//! is sent by a paced sender, because CONNECTION_CLOSE is not retransmitted and a burst overflows the
//! peer's socket (233 of 1 000 peers missed an unpaced one).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::policy::{Approval, Denial, Permit, Policy};
use crate::{
    alpn::Alpn,
    clock::Clock,
    close::CloseCode,
    config::Access,
    facts::{Carrier, LinkFacts, Profile},
    identity::Fingerprint,
    phase::Activity,
    transport::Link,
};

/// Closes sent in one go.
const CLOSES_PER_STEP: usize = 20;
/// Pause between two goes: 20 a millisecond reached all of 1 000 peers within 125 ms.
const STEP: Duration = Duration::from_millis(1);

/// All live connections of an endpoint.
#[derive(Debug)]
pub(crate) struct Live {
    policy: ArcSwap<Policy>,
    /// Held from before a policy is read where it comes from until it is stored here.
    setting: Mutex<()>,
    clock: Clock,
    connections_per_peer: AtomicUsize,
    table: Mutex<Table>,
    closes: mpsc::UnboundedSender<Close>,
    next_id: AtomicU64,
    /// Told at each change of the set and once a second: requests are judged apart from connections.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Arc<Entry>>,
    per_peer: HashMap<Fingerprint, usize>,
    /// Newcomers that wait for a place of their key.
    waiting: HashMap<Fingerprint, usize>,
}

/// One live connection.
#[derive(Debug)]
pub(crate) struct Entry {
    facts: LinkFacts,
    /// The rule of the handler that is registered now.
    access: ArcSwap<Access>,
    link: Link,
    since: Timestamp,
    approval: OnceLock<Approval>,
    denial: OnceLock<Denial>,
    denied: CancellationToken,
    /// Whether time or address can turn the answer, by the grant of now, not only that of the start.
    watched: AtomicBool,
    /// Told to the permit: the grant went away and the connection needs none.
    grant_gone: Arc<AtomicBool>,
    /// Whether it counts towards its key's connections.
    counted: AtomicBool,
    /// Told when the peer moved: requests are judged apart from their connection.
    moved: Notify,
    /// How far it has come and since when it is silent, once somebody says so.
    activity: OnceLock<Activity>,
}

impl Live {
    /// Also gives the closes to send at a pace, on a task that ends when `Live` is dropped.
    pub(crate) fn new(
        policy: Policy,
        clock: Clock,
        connections_per_peer: usize,
    ) -> (Arc<Self>, Arc<Closes>) {
        let (closes, queue) = mpsc::unbounded_channel();
        let live = Arc::new(Self {
            policy: ArcSwap::from_pointee(policy),
            setting: Mutex::default(),
            clock,
            connections_per_peer: connections_per_peer.into(),
            table: Mutex::default(),
            closes,
            next_id: AtomicU64::new(1),
            changed: watch::Sender::new(()),
        });
        (live, Arc::new(Closes::new(queue)))
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the key has a grant now, whatever its options but its end. For budgets; decides nothing.
    pub(crate) fn knows(&self, key: &Fingerprint) -> bool {
        let (policy, now) = (self.policy.load(), self.clock.now());
        let grant = policy.grants().lookup(key);
        grant.is_some_and(|grant| grant.expires().is_none_or(|end| now < end))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Puts a connection into the table, so that a change of the set reaches it. Nothing is decided yet.
    pub(crate) fn register(
        self: &Arc<Self>,
        facts: LinkFacts,
        access: Access,
        link: Link,
    ) -> Guard {
        let entry = Arc::new(Entry {
            access: ArcSwap::from_pointee(access),
            link,
            since: self.clock.now(),
            approval: OnceLock::new(),
            denial: OnceLock::new(),
            denied: CancellationToken::new(),
            watched: false.into(),
            grant_gone: Arc::default(),
            counted: false.into(),
            moved: Notify::new(),
            activity: OnceLock::new(),
            facts,
        });
        self.table().entries.insert(entry.facts.id, Arc::clone(&entry));
        Guard { live: Arc::clone(self), entry }
    }

    /// Swaps the set and judges every connection again. Gives how many it ended.
    ///
    /// One caller at a time reads the policy and stores it: read before, an older one could be stored
    /// over a newer one, and let in again who was revoked between the two.
    pub(crate) fn set_policy_from(&self, read: impl FnOnce() -> Policy) -> usize {
        let setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        self.policy.store(Arc::new(read()));
        drop(setting);
        let ended = self.judge_all(|_| true);
        let trimmed = self.trim(&self.policy.load());
        self.changed.send_replace(());
        ended.saturating_add(trimmed)
    }

    /// A handler of `alpn` was registered: its rule is that of connections that are there too. Gives how many
    /// this ended.
    pub(crate) fn set_access(&self, alpn: &Alpn, access: &Access) -> usize {
        let of_alpn = |entry: &Entry| entry.facts.alpn == *alpn;
        for entry in self.table().entries.values().filter(|entry| of_alpn(entry)) {
            entry.access.store(Arc::new(access.clone()));
        }
        self.judge_all(of_alpn)
    }

    /// Judges again those whose answer depends on time or address.
    pub(crate) fn tick(&self) -> usize {
        let ended = self.judge_all(|entry| entry.watched.load(Ordering::Acquire));
        self.changed.send_replace(());
        ended
    }

    fn judge_all(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let entries: Vec<_> =
            self.table().entries.values().filter(|entry| which(entry)).cloned().collect();
        let policy = self.policy.load();
        let now = self.clock.now();
        entries.iter().filter(|entry| self.rejudge(entry, &policy, now)).count()
    }

    /// Whether this look ended the connection.
    fn rejudge(&self, entry: &Entry, policy: &Policy, now: Timestamp) -> bool {
        if entry.denial.get().is_some() {
            return false;
        }
        match policy.judge(&entry.facts, &entry.access.load(), &entry.link.address(), now) {
            Err(denial) => self.deny(entry, denial),
            Ok(approval) => {
                entry.watch_if_needed(&approval);
                if entry.approval.get().is_none_or(|first| approval.upholds(first)) {
                    return false;
                }
                // What a handler was told at the start must not outlive the grant that said so.
                if matches!(**entry.access.load(), Access::Peer(_)) {
                    return self.deny(entry, Denial::GrantChanged);
                }
                entry.grant_gone.store(true, Ordering::Release);
                false
            }
        }
    }

    /// Denies a connection for good; `false` if it was denied before.
    fn deny(&self, entry: &Entry, denial: Denial) -> bool {
        let code = denial.code(entry.approval.get().is_some());
        let limit =
            if let Denial::TooManyConnections { limit } = denial { Some(limit) } else { None };
        if entry.denial.set(denial).is_err() {
            return false;
        }
        self.release(entry);
        entry.denied.cancel();
        let close = Close { link: entry.link.clone(), code, limit };
        if entry.facts.carrier == Carrier::Tcp {
            // No close of TCP is lost, so none needs a pace; its one stream must not answer once more.
            close.send();
        } else if let Err(mpsc::error::SendError(close)) = self.closes.send(close) {
            // The pacing task is gone with its runtime; close without it.
            close.send();
        }
        true
    }

    /// Ends every connection of `key`; gives how many.
    pub(crate) fn kick(&self, key: &Fingerprint) -> usize {
        let entries: Vec<_> = self.table().entries.values().cloned().collect();
        let of_key = entries.iter().filter(|e| e.facts.peer.fingerprint() == Some(*key));
        of_key.filter(|entry| self.deny(entry, Denial::Kicked)).count()
    }

    /// What is alive now, by number.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> = self
            .table()
            .entries
            .values()
            .filter(|entry| entry.approval.get().is_some() && entry.denial.get().is_none())
            .cloned()
            .collect();
        entries.sort_by_key(|entry| entry.facts.id);
        entries
    }

    /// Entries of the table, and keys with connections that count.
    pub(crate) fn held(&self) -> (usize, usize) {
        let table = self.table();
        (table.entries.len(), table.per_peer.len())
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection in the table while it lives.
#[derive(Debug)]
pub(crate) struct Guard {
    live: Arc<Live>,
    entry: Arc<Entry>,
}

impl Guard {
    /// Judges the connection by the set as it is now. Only after [`Live::register`], so a change that
    /// this look misses finds the connection in the table.
    pub(crate) fn permit(&self) -> Result<Permit, Denial> {
        self.settle(self.judge())
    }

    fn judge(&self) -> Result<Approval, Denial> {
        let Self { live, entry } = self;
        let (policy, now) = (live.policy.load(), live.clock.now());
        let address = entry.link.address();
        let approval = policy.judge(&entry.facts, &entry.access.load(), &address, now)?;
        self.take_place()?;
        Ok(approval)
    }

    /// Apart from [`Self::judge`] because the set can change between the two.
    fn settle(&self, judged: Result<Approval, Denial>) -> Result<Permit, Denial> {
        let Self { live, entry } = self;
        match judged {
            Ok(approval) => {
                entry.watch_if_needed(&approval);
                let _ = entry.approval.set(approval.clone());
                // A look at a newer set may have found nothing yet to hold against it.
                live.rejudge(entry, &live.policy.load(), live.clock.now());
                match entry.denial.get() {
                    // The set changed while we looked.
                    Some(denial) => Err(denial.clone()),
                    None => {
                        let grant_gone = Arc::clone(&entry.grant_gone);
                        Ok(Permit::new(entry.facts.peer, approval, grant_gone))
                    }
                }
            }
            Err(denial) => {
                live.deny(entry, denial.clone());
                Err(denial)
            }
        }
    }

    /// The rule of its handler, before the connection is judged.
    pub(crate) fn set_access(&self, access: &Access) {
        self.entry.access.store(Arc::new(access.clone()));
    }

    /// Where to learn since when the connection is silent.
    pub(crate) fn follow(&self, activity: &Activity) {
        let _ = self.entry.activity.set(activity.clone());
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// What a [`crate::handler::Connection`] asks before each stream.
    pub(crate) fn watch(&self) -> Watch {
        Watch { live: Arc::clone(&self.live), entry: Arc::clone(&self.entry) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.live.table().entries.remove(&self.entry.facts.id);
        self.live.release(&self.entry);
    }
}

/// The standing question of a live connection: is it still allowed?
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    live: Arc<Live>,
    entry: Arc<Entry>,
}

impl Watch {
    /// Asked before each new stream. Where the answer depends on time or address it is judged anew.
    pub(crate) fn check(&self) -> Result<(), CloseCode> {
        if self.entry.watched.load(Ordering::Acquire) {
            let policy = self.live.policy.load();
            self.live.rejudge(&self.entry, &policy, self.live.clock.now());
        }
        match self.entry.denial.get() {
            None => Ok(()),
            Some(denial) => Err(denial.code(true)),
        }
    }

    /// Waits until the connection is denied, and judges it at each of its moves. To be polled before
    /// whatever reads from the connection: what came with a new address is then not read before it is judged.
    pub(crate) async fn follow(&self) -> CloseCode {
        loop {
            tokio::select! {
                biased;
                () = self.entry.link.moved() => self.moved(),
                code = self.denied() => return code,
            }
        }
    }

    fn moved(&self) {
        // Looked at even where nothing depends on it: what follows the peer must not miss where it was.
        let address = self.entry.link.address();
        tracing::debug!(%address, "peer moved");
        let _ = self.check();
        self.entry.moved.notify_waiters();
    }

    /// Waits until the connection is denied.
    pub(crate) async fn denied(&self) -> CloseCode {
        self.entry.denied.cancelled().await;
        self.entry.denial.get().map_or(CloseCode::Revoked, |denial| denial.code(true))
    }
}

impl Entry {
    /// Never takes the watch off again: a look at an older set may end after one at a newer.
    fn watch_if_needed(&self, approval: &Approval) {
        if approval.needs_watching() {
            self.watched.store(true, Ordering::Release);
        }
    }

    pub(crate) fn denial(&self) -> Option<&Denial> {
        self.denial.get()
    }
}

/// A connection that is to be closed.
#[derive(Debug)]
struct Close {
    link: Link,
    code: CloseCode,
    /// The limit that its key is over.
    limit: Option<usize>,
}

impl Close {
    fn send(self) {
        match self.limit {
            None => self.link.close(self.code),
            Some(limit) => self.link.close_at_limit(self.code, limit),
        }
    }
}

/// The closes that wait for their turn. Kept apart from the task that sends them, so that another one can
/// take over.
#[derive(Debug)]
pub(crate) struct Closes(tokio::sync::Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    queue: mpsc::UnboundedReceiver<Close>,
    batch: Vec<Close>,
}

impl Closes {
    fn new(queue: mpsc::UnboundedReceiver<Close>) -> Self {
        Self(tokio::sync::Mutex::new(Waiting { queue, batch: Vec::new() }))
    }

    /// Sends closes at a pace that the peers' sockets can take.
    pub(crate) async fn send(&self) {
        let Waiting { queue, batch } = &mut *self.0.lock().await;
        let mut next = Instant::now();
        while !batch.is_empty() || queue.recv_many(batch, CLOSES_PER_STEP).await > 0 {
            tokio::time::sleep_until(next).await;
            while let Some(close) = batch.pop() {
                close.send();
            }
            next = Instant::now() + STEP;
        }
    }
}

mod info;
mod places;
#[cfg(feature = "http3")]
mod requests;

pub use self::info::ConnectionInfo;

// The connections of these tests are TCP links over pipes in memory.
#[cfg(test)]
#[cfg(feature = "tcp")]
mod tests;
