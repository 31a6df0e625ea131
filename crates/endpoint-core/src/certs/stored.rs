//! Which certificates are served under names that nobody gave when the endpoint was bound?
//!
//! Those that stand in the store: imported, or written by another process. A handshake that misses a name
//! leaves it in a queue and goes on without; a task in the background reads the store, and the next handshake
//! has the certificate.
//!
//! Always true: a look-up never waits, neither for a writer nor for the store; a name that is not in the
//! store costs no read as soon as the store was listed, one per [`FORGET`] at most until then, and all names
//! together [`PAUSE`] between two reads, so that scanners fill no queue; the queue, the memory of misses and
//! the number of names are bounded.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use super::{files::Loaded, vault::Vault};
use crate::{
    clock::Clock,
    store::{Kind, Store},
};

/// Tables that the names are spread over; a change copies one of them.
const SHARDS: usize = 256;
/// Misses that are remembered; a newer one may take an older one's place.
const MISSES: usize = 4096;
/// Names that wait for the store.
const QUEUE: usize = 256;
/// Names that are held.
const MAX_NAMES: usize = 200_000;
/// The time between two reads.
const PAUSE: Duration = Duration::from_millis(20);
/// How often misses are forgotten.
pub(crate) const FORGET: Duration = Duration::from_secs(30);
/// How often the store is asked whether anything has changed.
const REFRESH: Duration = Duration::from_secs(1);

/// An answer of the shelf that is yet to come.
pub(crate) type Fetching<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// The certificates that stand in a store.
pub(crate) trait Shelf: fmt::Debug + Send + Sync {
    /// The one of that name, if there is one that can be served, and which write it is.
    fn load<'a>(&'a self, name: &'a str, now: Timestamp) -> Fetching<'a, Option<(Loaded, u64)>>;
    /// Which write each certificate is.
    fn generations(&self) -> Fetching<'_, HashMap<String, u64>>;
    /// A number that is another one after each change.
    fn version(&self) -> Fetching<'_, u64>;
}

/// The names that were found in the store so far.
pub(crate) struct Stored {
    shards: Vec<ArcSwap<HashMap<Box<str>, Entry>>>,
    count: AtomicUsize,
    missed: Vec<AtomicU64>,
    /// The names in the store as of a second ago; nothing, before it was listed.
    known: ArcSwapOption<HashSet<Box<str>>>,
    hasher: RandomState,
    wanted: mpsc::Sender<String>,
}

#[derive(Clone)]
struct Entry {
    certified: Arc<CertifiedKey>,
    generation: u64,
    until: Timestamp,
}

/// The other end of the queue: what [`Stored::fill`] works off.
#[derive(Debug)]
pub(crate) struct Wanted(mpsc::Receiver<String>);

impl Stored {
    /// Holds nothing yet.
    pub(crate) fn new() -> (Arc<Self>, Wanted) {
        let (wanted, queue) = mpsc::channel(QUEUE);
        let stored = Self {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            count: AtomicUsize::new(0),
            missed: (0..MISSES).map(|_| AtomicU64::new(0)).collect(),
            known: ArcSwapOption::empty(),
            hasher: RandomState::new(),
            wanted,
        };
        (Arc::new(stored), Wanted(queue))
    }

    /// The certificate under `name`, normalised: its own, else the wildcard of its parent. Asks for it if
    /// there is none.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let found = self.get(name).or_else(|| self.get(&wildcard(name)?));
        if found.is_none() {
            self.miss(name);
        }
        found
    }

    /// How many names there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn get(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.shard(name)?.load().get(name).map(|entry| Arc::clone(&entry.certified))
    }

    fn shard(&self, name: &str) -> Option<&ArcSwap<HashMap<Box<str>, Entry>>> {
        let hash = self.hasher.hash_one(name);
        self.shards.get(usize::try_from(hash % SHARDS as u64).ok()?)
    }

    /// Asks for a name that was not asked for lately.
    fn miss(&self, name: &str) {
        if let Some(known) = self.known.load().as_deref() {
            let has = |name: &str| known.contains(name);
            if !has(name) && !wildcard(name).is_some_and(|wildcard| has(&wildcard)) {
                return;
            }
        }
        // The hash is keyed anew at each start, so nobody can choose names that push others out.
        let hash = self.hasher.hash_one(name) | 1;
        let place = usize::try_from((hash >> 8) % MISSES as u64).unwrap_or(0);
        let Some(missed) = self.missed.get(place) else { return };
        if missed.swap(hash, Ordering::Relaxed) != hash
            && self.wanted.try_send(name.to_owned()).is_err()
        {
            missed.store(0, Ordering::Relaxed);
        }
    }

    fn forget_misses(&self) {
        for missed in &self.missed {
            missed.store(0, Ordering::Relaxed);
        }
    }

    fn set(&self, name: &str, entry: Option<Entry>) {
        let Some(shard) = self.shard(name) else { return };
        let had = shard.load().contains_key(name);
        match &entry {
            Some(_) if !had && self.count() >= MAX_NAMES => return,
            Some(_) if !had => self.count.fetch_add(1, Ordering::Relaxed),
            None if had => self.count.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        shard.rcu(|names| {
            let mut names = HashMap::clone(names);
            match entry.clone() {
                Some(entry) => names.insert(name.into(), entry),
                None => names.remove(name),
            };
            names
        });
    }

    /// Works the queue off and keeps what was found as the store has it, for ever.
    pub(crate) async fn fill(
        self: Arc<Self>,
        mut wanted: Wanted,
        shelf: Arc<dyn Shelf>,
        clock: Clock,
    ) {
        let mut pause = interval(PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forgotten = Instant::now();
        let mut version = None;
        loop {
            tokio::select! {
                name = wanted.0.recv() => {
                    let Some(name) = name else { return };
                    pause.tick().await;
                    self.fetch(&name, shelf.as_ref(), clock.now()).await;
                }
                _ = refresh.tick() => {
                    if forgotten.elapsed() >= FORGET {
                        forgotten = Instant::now();
                        self.forget_misses();
                    }
                    let newest = shelf.version().await.ok();
                    if newest != version && self.refresh(shelf.as_ref(), clock.now()).await {
                        version = newest;
                    }
                    self.drop_expired(clock.now());
                }
            }
        }
    }

    async fn fetch(&self, name: &str, shelf: &dyn Shelf, now: Timestamp) {
        for name in [Some(name), wildcard(name).as_deref()].into_iter().flatten() {
            match shelf.load(name, now).await {
                Ok(Some((loaded, generation))) => {
                    debug!(name, "certificate loaded from the store");
                    return self.set(name, Some(Entry::new(loaded, generation)));
                }
                Ok(None) => {}
                Err(reason) => warn!(name, reason, "certificate in the store not served"),
            }
        }
    }

    /// Follows the store: what changed is loaded again, what is gone goes. `false`: the store failed.
    async fn refresh(&self, shelf: &dyn Shelf, now: Timestamp) -> bool {
        let generations = match shelf.generations().await {
            Ok(generations) => generations,
            Err(reason) => {
                debug!(reason, "the store cannot be listed");
                return false;
            }
        };
        for shard in &self.shards {
            let held: Vec<_> =
                shard.load().iter().map(|(name, entry)| (name.clone(), entry.generation)).collect();
            for (name, held) in held {
                match generations.get(name.as_ref()) {
                    Some(generation) if *generation == held => {}
                    Some(_) => self.fetch(&name, shelf, now).await,
                    None => self.set(&name, None),
                }
            }
        }
        let known = generations.into_keys().map(String::into_boxed_str).collect();
        self.known.store(Some(Arc::new(known)));
        // What was not there a moment ago may be there now.
        self.forget_misses();
        true
    }

    fn drop_expired(&self, now: Timestamp) {
        for shard in &self.shards {
            let expired: Vec<_> = shard
                .load()
                .iter()
                .filter(|(_, entry)| entry.until < now)
                .map(|(name, _)| name.clone())
                .collect();
            for name in expired {
                self.set(&name, None);
            }
        }
    }
}

/// The wildcard that a name is under.
fn wildcard(name: &str) -> Option<String> {
    name.split_once('.').map(|(_, parent)| format!("*.{parent}"))
}

impl Entry {
    fn new(loaded: Loaded, generation: u64) -> Self {
        Self { certified: loaded.certified, generation, until: loaded.validity.until }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("names", &self.count()).finish_non_exhaustive()
    }
}

/// The certificates that a vault keeps.
#[derive(Debug)]
pub(crate) struct VaultShelf {
    vault: Vault,
    provider: Arc<CryptoProvider>,
}

impl VaultShelf {
    pub(crate) fn new(store: Arc<dyn Store>, provider: Arc<CryptoProvider>) -> Self {
        Self { vault: Vault::new(store), provider }
    }
}

impl Shelf for VaultShelf {
    fn load<'a>(&'a self, name: &'a str, now: Timestamp) -> Fetching<'a, Option<(Loaded, u64)>> {
        Box::pin(async move {
            let held = self.vault.load(name, now, &self.provider).await;
            let Some(held) = held.map_err(|error| error.to_string())? else { return Ok(None) };
            if let Some(reason) = held.info.fault {
                warn!(name, reason, "certificate in the store has a fault");
            }
            let served = now <= held.loaded.validity.until;
            Ok(served.then_some((held.loaded, held.generation)))
        })
    }

    fn generations(&self) -> Fetching<'_, HashMap<String, u64>> {
        Box::pin(async {
            let list = self.vault.store().list(Kind::Certificate).await;
            Ok(list.map_err(|error| error.to_string())?.into_iter().collect())
        })
    }

    fn version(&self) -> Fetching<'_, u64> {
        Box::pin(async { self.vault.store().version().await.map_err(|error| error.to_string()) })
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
