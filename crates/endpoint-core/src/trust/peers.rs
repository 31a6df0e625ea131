//! Whose list is it, and may it be believed now?
//!
//! Holds the set of authorised keys and takes what looks at its file find (`look`). At start a fault stops
//! the program. Later the good lines are the new set at once and a bad line admits nobody. A file that is
//! missing, unreadable, not the operator's, or on a disk that does not answer keeps its last set for two
//! seconds, because editors replace files in two steps; then it admits nobody, until a look finds it well.
//!
//! Pure apart from [`AuthorizedPeers::watch`], which reads the file once: memory, and the time as an argument.
//!
//! Always true: an older look never overwrites a newer one; a key that was revoked here stays out until a
//! look has seen the file without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    authorized::{self, Grants, LineFault},
    file::{self, TrustFileError},
    look::{Disk, Found, RealDisk},
    policy::Policy,
    removed::Removed,
};
use crate::identity::Fingerprint;

/// How long an unusable file keeps its last set.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// The keys that may connect as peers: a watched file, a fixed list, or nobody.
#[derive(Clone, Debug)]
pub struct AuthorizedPeers {
    path: Option<PathBuf>,
    disk: Option<Arc<dyn Disk>>,
    /// The number of the last look that began.
    numbers: Arc<AtomicU64>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What the file said when it could last be read.
    grants: Arc<Grants>,
    /// Who is let in now: nobody in doubt, and no key that was revoked.
    effective: Arc<Grants>,
    removed: Arc<Removed>,
    faults: Vec<LineFault>,
    /// The look that `grants` and `faults` come from.
    taken: u64,
    doubt: Option<Doubt>,
    /// Keys taken away here, which the file has been seen with.
    revoked: BTreeSet<Fingerprint>,
    /// Those of them that were added anew, and the last look that had begun before.
    restoring: BTreeMap<Fingerprint, u64>,
}

/// Why the file is not believed, and since when.
#[derive(Debug)]
struct Doubt {
    since: Instant,
    reason: String,
    /// The grace is over.
    nobody: bool,
    /// Nobody looks any more: no look will end this.
    for_good: bool,
}

/// What a fresh look at the list gave.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reload {
    /// Keys in the set now.
    pub grants: usize,
    /// Lines that admit nobody.
    pub faults: Vec<LineFault>,
    /// Why the file could not be used, if it could not.
    pub unusable: Option<String>,
    /// Live connections that this look ended.
    pub closed: usize,
}

/// A change of the set, and what to write down about it.
#[derive(Debug)]
pub(crate) struct Taken {
    /// `closed` is left at 0: who takes this judges the live connections.
    pub(crate) reload: Reload,
    /// The text of the file of removed keys, if it changed.
    pub(crate) removed: Option<String>,
}

impl AuthorizedPeers {
    /// Nobody: every handler of access `peer` refuses.
    #[must_use]
    pub fn nobody() -> Self {
        Self::holding(None, Grants::default(), Removed::default())
    }

    /// The keys in `text`, which has the grammar of `authorized_peers`.
    ///
    /// # Errors
    /// [`AuthorizedPeersError::BadLines`] if any line is faulty.
    pub fn from_text(text: &str) -> Result<Self, AuthorizedPeersError> {
        let parsed = authorized::parse(text.as_bytes());
        match parsed.faults.is_empty() {
            true => Ok(Self::holding(None, parsed.grants, Removed::default())),
            false => Err(AuthorizedPeersError::BadLines {
                path: PathBuf::from("authorized_peers"),
                faults: parsed.faults,
            }),
        }
    }

    /// The keys in the file at `path`, now and whenever it changes while an endpoint is bound. An
    /// absent or empty file means nobody, until it appears.
    ///
    /// # Errors
    /// [`AuthorizedPeersError`] if the file is not the operator's own, cannot be read, or has a faulty
    /// line.
    pub fn watch(path: impl AsRef<Path>) -> Result<Self, AuthorizedPeersError> {
        let path = path.as_ref();
        let text = file::read_trust_file(path).map_err(AuthorizedPeersError::Unusable)?;
        let parsed = authorized::parse(&text.unwrap_or_default());
        if !parsed.faults.is_empty() {
            let path = path.to_owned();
            return Err(AuthorizedPeersError::BadLines { path, faults: parsed.faults });
        }
        // Each line of this file refuses somebody: without it, a key that was removed could enrol again.
        let removed = file::read_trust_file(&removed_path(path));
        let removed = removed.map_err(AuthorizedPeersError::Unusable)?;
        let removed = removed.map(|text| Removed::parse(&String::from_utf8_lossy(&text)));
        let mut removed = removed.unwrap_or_default();
        // Added again by hand, perhaps while nothing ran.
        parsed.grants.iter().for_each(|grant| removed.forget(&grant.fingerprint()));
        let disk = RealDisk { path: path.to_owned(), removed: removed_path(path) };
        let peers = Self::holding(Some(path.to_owned()), parsed.grants, removed);
        Ok(Self { disk: Some(Arc::new(disk)), ..peers })
    }

    /// The same list, looked at on another disk.
    #[cfg(test)]
    pub(crate) fn on(self, disk: Arc<dyn Disk>) -> Self {
        Self { disk: Some(disk), ..self }
    }

    fn holding(path: Option<PathBuf>, grants: Grants, removed: Removed) -> Self {
        let grants = Arc::new(grants);
        let effective = Arc::clone(&grants);
        let state = State { grants, effective, removed: Arc::new(removed), ..State::default() };
        Self { path, disk: None, numbers: Arc::default(), state: Arc::new(Mutex::new(state)) }
    }

    /// The file watched, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What connections are judged by now.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let state = self.state();
        Policy::with_removed(Arc::clone(&state.effective), Arc::clone(&state.removed))
    }

    /// What is wrong with the list, as far as is known: faulty lines with their place, why the file is not
    /// believed, keys that were revoked and still stand in it. Asks no disk.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let state = self.state();
        let path = self.path.as_deref().unwrap_or(Path::new("authorized_peers"));
        let doubt = state.doubt.iter().map(|doubt| doubt.reason.clone());
        let faults = state.faults.iter().map(|fault| {
            format!("{}:{}:{}: {}", path.display(), fault.line, fault.column, fault.message)
        });
        let revoked = state.revoked.iter().map(|key| {
            format!("{key} was revoked and still stands in {}; remove its line", path.display())
        });
        doubt.chain(faults).chain(revoked).collect()
    }

    /// Replaces a list that is not a file's. Bound endpoints take it up when asked to reload.
    ///
    /// # Errors
    /// [`AuthorizedPeersError::BadLines`] if any line is faulty; then nothing changes.
    pub fn replace(&self, text: &str, now: Timestamp) -> Result<(), AuthorizedPeersError> {
        let parsed = authorized::parse(text.as_bytes());
        if !parsed.faults.is_empty() {
            let path = PathBuf::from("authorized_peers");
            return Err(AuthorizedPeersError::BadLines { path, faults: parsed.faults });
        }
        let mut state = self.state();
        let gone = state.gone(&parsed.grants);
        state.set_grants(parsed.grants, &gone, now);
        Ok(())
    }

    /// Takes what a look found, unless a newer one was taken before. `tick` is the present, `now` its date.
    pub(crate) fn take(
        &self,
        number: u64,
        began: Instant,
        found: Found,
        now: Timestamp,
        tick: Instant,
    ) -> Option<Taken> {
        let mut state = self.state();
        if number <= state.taken || state.doubt.as_ref().is_some_and(|doubt| doubt.for_good) {
            return None;
        }
        state.taken = number;
        let mut changed = false;
        match found {
            Found::Unusable(reason) => state.is_in_doubt(reason, began, tick),
            Found::Same => {
                state.doubt = None;
                state.restore_seen_by(number);
                state.settle();
            }
            Found::Text { grants, faults, before, gone } => {
                state.doubt = None;
                state.restore_seen_by(number);
                state.faults = faults;
                let gone = match Arc::ptr_eq(&before, &state.grants) {
                    true => gone,
                    false => state.gone(&grants),
                };
                changed = !gone.is_empty();
                state.set_grants(grants, &gone, now);
            }
        }
        let removed = changed.then(|| Arc::clone(&state.removed));
        let reload = state.outcome();
        // Whoever asks for the policy does not wait for a long text.
        drop(state);
        Some(Taken { reload, removed: removed.map(|removed| removed.to_text(now)) })
    }

    /// When a file in doubt, or one on a disk that has been `busy` since then, stops admitting anybody.
    pub(crate) fn grace_ends(&self, busy: Option<Instant>) -> Option<Instant> {
        let state = self.state();
        let doubt = match &state.doubt {
            Some(doubt) if doubt.nobody => return None,
            Some(doubt) if !state.grants.is_empty() => Some(doubt.since),
            Some(_) | None => None,
        };
        doubt.into_iter().chain(busy).min().map(|since| since + GRACE)
    }

    /// Lets nobody in if the grace is over at `tick`. `None`: it is not, or nobody was let in before.
    pub(crate) fn overdue(&self, busy: Option<Instant>, tick: Instant) -> Option<Reload> {
        if self.grace_ends(busy).is_none_or(|end| tick < end) {
            return None;
        }
        let mut state = self.state();
        let since = state.doubt.as_ref().map(|doubt| doubt.since).into_iter().chain(busy).min()?;
        let reason = match (&state.doubt, busy) {
            (Some(doubt), _) => doubt.reason.clone(),
            (None, _) => {
                let path = self.path.as_deref().unwrap_or(Path::new("authorized_peers"));
                format!("{} could not be read in time: the disk does not answer", path.display())
            }
        };
        state.is_in_doubt(reason, since, tick);
        Some(state.outcome())
    }

    /// Lets nobody in for good: nobody looks at the file any more.
    pub(crate) fn blind(&self, reason: String, tick: Instant) -> Reload {
        let mut state = self.state();
        state.doubt = Some(Doubt { since: tick, reason, nobody: true, for_good: true });
        state.settle();
        state.outcome()
    }

    /// Lets a key in no more, whatever the file says, until a look has seen the file without it. Gives the
    /// text of the file of removed keys; `None` if the key is not in the set.
    pub(crate) fn revoke(&self, key: &Fingerprint, now: Timestamp) -> Option<String> {
        let mut state = self.state();
        state.grants.lookup(key)?;
        state.revoked.insert(*key);
        state.restoring.remove(key);
        let mut removed = (*state.removed).clone();
        removed.note(*key, now);
        state.removed = Arc::new(removed);
        state.settle();
        let removed = Arc::clone(&state.removed);
        drop(state);
        Some(removed.to_text(now))
    }

    /// Lets a revoked key in again if the file says so: its line was added anew. Not before a look that
    /// begins from now on: what is known of the file may be the line that was removed, with a wider grant.
    pub(crate) fn restore(&self, key: &Fingerprint) {
        let mut state = self.state();
        if !state.revoked.contains(key) {
            return;
        }
        let begun = self.numbers.load(Ordering::Acquire);
        state.restoring.insert(*key, begun);
        if self.disk.is_none() {
            state.restore_seen_by(u64::MAX);
            state.settle();
        }
    }

    /// Whether a look has to say that all is well before the file is believed.
    pub(super) fn in_doubt(&self) -> bool {
        self.state().doubt.is_some()
    }

    /// What the file said last, also of keys that are not let in.
    pub(super) fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.state().grants)
    }

    pub(super) fn disk(&self) -> Option<Arc<dyn Disk>> {
        self.disk.clone()
    }

    pub(super) fn numbers(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.numbers)
    }

    /// What a look gave that changed nothing.
    pub(crate) fn outcome(&self) -> Reload {
        self.state().outcome()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes a fault of the file that began at `since`; past its grace it admits nobody.
    fn is_in_doubt(&mut self, reason: String, since: Instant, tick: Instant) {
        let since = self.doubt.as_ref().map_or(since, |doubt| doubt.since.min(since));
        let nobody = tick.duration_since(since) >= GRACE
            || self.doubt.as_ref().is_some_and(|doubt| doubt.nobody);
        self.doubt = Some(Doubt { since, reason, nobody, for_good: false });
        self.settle();
    }

    /// Revokes those no more that were added anew before this look began.
    fn restore_seen_by(&mut self, number: u64) {
        if self.restoring.is_empty() {
            return;
        }
        let mut removed = (*self.removed).clone();
        let Self { restoring, revoked, .. } = self;
        restoring.retain(|key, begun| {
            let seen = number > *begun;
            if seen {
                revoked.remove(key);
                removed.forget(key);
            }
            !seen
        });
        self.removed = Arc::new(removed);
    }

    /// The keys that a new set lacks.
    fn gone(&self, grants: &Grants) -> Vec<Fingerprint> {
        let keys = self.grants.iter().map(|grant| grant.fingerprint());
        keys.filter(|key| grants.lookup(key).is_none()).collect()
    }

    /// Swaps the set and notes who fell out of it.
    fn set_grants(&mut self, grants: Grants, gone: &[Fingerprint], now: Timestamp) {
        let mut removed = (*self.removed).clone();
        gone.iter().for_each(|key| removed.note(*key, now));
        self.revoked.retain(|key| grants.lookup(key).is_some());
        removed.forget_all(|key| grants.lookup(key).is_some() && !self.revoked.contains(key));
        self.removed = Arc::new(removed);
        self.grants = Arc::new(grants);
        self.settle();
    }

    /// Works out who is let in.
    fn settle(&mut self) {
        self.effective = match &self.doubt {
            Some(doubt) if doubt.nobody => Arc::default(),
            _ if self.revoked.is_empty() => Arc::clone(&self.grants),
            _ => Arc::new(self.grants.without(&self.revoked)),
        };
    }

    fn outcome(&self) -> Reload {
        Reload {
            grants: self.effective.len(),
            faults: self.faults.clone(),
            unusable: self.doubt.as_ref().map(|doubt| doubt.reason.clone()),
            closed: 0,
        }
    }
}

/// Where removed keys are written down: beside the list.
fn removed_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".removed");
    path.with_file_name(name)
}

/// Why a list of keys cannot be used at start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizedPeersError {
    /// Lines are faulty; each names its place.
    #[error("{}", bad_lines(.path, .faults))]
    BadLines {
        /// The file.
        path: PathBuf,
        /// Every faulty line.
        faults: Vec<LineFault>,
    },
    /// The file is not the operator's own or cannot be read.
    #[error(transparent)]
    Unusable(TrustFileError),
}

fn bad_lines(path: &Path, faults: &[LineFault]) -> String {
    let lines: Vec<_> = faults
        .iter()
        .map(|fault| {
            format!("{}:{}:{}: {}", path.display(), fault.line, fault.column, fault.message)
        })
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests;
