//! Whose list is it, and is it fresh?
//!
//! Holds the set of authorised keys and reads it anew when its file changes. At start a fault stops the
//! program. At a reload the good lines are the new set at once and a bad line admits nobody. A file that
//! is missing, unreadable or not the operator's keeps its last set for two seconds, because editors
//! replace files in two steps; then it admits nobody.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    authorized::{self, Grants, LineFault},
    file::{self, TrustFileError},
    policy::Policy,
    removed::Removed,
};

/// How long an unusable file keeps its last set.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// The keys that may connect as peers: a watched file, a fixed list, or nobody.
#[derive(Clone, Debug)]
pub struct AuthorizedPeers {
    path: Option<PathBuf>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    grants: Arc<Grants>,
    removed: Arc<Removed>,
    /// Since when the file has been unusable.
    failing: Option<Instant>,
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
        Ok(Self::holding(Some(path.to_owned()), parsed.grants, removed))
    }

    fn holding(path: Option<PathBuf>, grants: Grants, removed: Removed) -> Self {
        let (grants, removed) = (Arc::new(grants), Arc::new(removed));
        Self { path, state: Arc::new(Mutex::new(State { grants, removed, failing: None })) }
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
        Policy::with_removed(Arc::clone(&state.grants), Arc::clone(&state.removed))
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
        self.take(parsed.grants, now);
        Ok(())
    }

    /// Looks at the file again. `closed` is left at 0: who calls this judges the live connections.
    pub(crate) fn reload(&self, now: Timestamp, tick: Instant) -> Reload {
        let Some(path) = &self.path else {
            return self.outcome(Vec::new(), None);
        };
        match file::read_trust_file(path) {
            Ok(Some(text)) => {
                let parsed = authorized::parse(&text);
                self.take(parsed.grants, now);
                self.outcome(parsed.faults, None)
            }
            Ok(None) => self.unusable(format!("{} is missing", path.display()), now, tick),
            Err(error) => self.unusable(error.to_string(), now, tick),
        }
    }

    /// Notes that a look that began at `began` found the list unusable; after the grace it admits nobody.
    pub(crate) fn unusable(&self, reason: String, now: Timestamp, began: Instant) -> Reload {
        let since = *self.state().failing.get_or_insert(began);
        let tick = Instant::now();
        if tick.duration_since(since) >= GRACE {
            self.set_grants(Grants::default(), now);
        }
        self.outcome(Vec::new(), Some(reason))
    }

    /// When an unusable file stops admitting anybody, if it is unusable now.
    pub(crate) fn grace_ends(&self) -> Option<Instant> {
        let state = self.state();
        state.failing.filter(|_| !state.grants.is_empty()).map(|since| since + GRACE)
    }

    fn take(&self, grants: Grants, now: Timestamp) {
        self.state().failing = None;
        self.set_grants(grants, now);
    }

    /// Swaps the set and notes who fell out of it.
    fn set_grants(&self, grants: Grants, now: Timestamp) {
        let mut state = self.state();
        let mut removed = (*state.removed).clone();
        let gone: Vec<_> = state
            .grants
            .iter()
            .map(|g| g.fingerprint())
            .filter(|k| grants.lookup(k).is_none())
            .collect();
        let back: Vec<_> = grants.iter().map(|g| g.fingerprint()).collect();
        gone.iter().for_each(|key| removed.note(*key, now));
        back.iter().for_each(|key| removed.forget(key));
        state.grants = Arc::new(grants);
        state.removed = Arc::new(removed);
        let text = state.removed.to_text(now);
        // Whoever asks for the policy must not wait for a disk.
        drop(state);
        if let (Some(path), false) = (&self.path, gone.is_empty()) {
            let all = |_: &[u8]| Ok::<_, Infallible>((text.into_bytes(), ()));
            if let Err(error) = file::edit(&removed_path(path), all) {
                tracing::warn!(%error, "removed keys could not be written down");
            }
        }
    }

    fn outcome(&self, faults: Vec<LineFault>, unusable: Option<String>) -> Reload {
        Reload { grants: self.state().grants.len(), faults, unusable, closed: 0 }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
mod tests {
    use std::fs;

    use super::*;
    use crate::identity::Fingerprint;

    fn key(n: u8) -> Fingerprint {
        Fingerprint::from_bytes([n; 32])
    }

    fn noon() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn file(lines: &str) -> (tempfile::TempDir, PathBuf, AuthorizedPeers) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_peers");
        fs::write(&path, lines).unwrap();
        let peers = AuthorizedPeers::watch(&path).unwrap();
        (folder, path, peers)
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_file_keeps_its_set_for_two_seconds_then_admits_nobody() {
        let (_folder, path, peers) = file(&format!("{}\n{}\n", key(1), key(2)));
        let gone = Instant::now();
        assert_eq!(peers.grace_ends(), None);
        fs::remove_file(&path).unwrap();
        let reload = peers.reload(noon(), Instant::now());
        assert_eq!(reload.grants, 2);
        assert!(reload.unusable.unwrap().ends_with("authorized_peers is missing"));
        assert_eq!(peers.grace_ends(), Some(gone + GRACE));
        tokio::time::advance(GRACE - Duration::from_millis(1)).await;
        assert_eq!(peers.reload(noon(), Instant::now()).grants, 2, "looking does not prolong it");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(peers.reload(noon(), Instant::now()).grants, 0);
        assert_eq!(peers.grace_ends(), None, "nothing is left to end");

        fs::write(&path, format!("{}\n", key(1))).unwrap();
        let back = peers.reload(noon(), Instant::now());
        assert_eq!((back.grants, back.unusable), (1, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_back_in_time_starts_a_new_grace_when_it_goes_again() {
        let (_folder, path, peers) = file(&format!("{}\n", key(1)));
        for _ in 0..3 {
            let moved = path.with_extension("moved");
            fs::rename(&path, &moved).unwrap();
            assert_eq!(peers.reload(noon(), Instant::now()).grants, 1);
            tokio::time::advance(Duration::from_millis(1500)).await;
            fs::rename(&moved, &path).unwrap();
            assert_eq!(peers.reload(noon(), Instant::now()).unusable, None);
        }
    }

    #[test]
    fn a_reload_takes_the_good_lines_and_names_the_bad_one() {
        let (_folder, path, peers) = file(&format!("{}\n{}\n", key(1), key(2)));
        fs::write(&path, format!("{}\nsha256:half\n{}\n", key(1), key(3))).unwrap();
        let reload = peers.reload(noon(), Instant::now());
        assert_eq!((reload.grants, reload.faults.len()), (2, 1));
        assert_eq!(reload.faults.first().map(|fault| fault.line), Some(2));
        let grants = Arc::clone(peers.policy().grants());
        assert!(grants.lookup(&key(1)).is_some() && grants.lookup(&key(3)).is_some());
        assert!(grants.lookup(&key(2)).is_none(), "a typo keeps no former entry alive");
        let refused = AuthorizedPeers::watch(&path).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{}:2:1: ", path.display())), "{refused}");
    }

    #[test]
    fn a_list_that_is_no_file_changes_as_a_whole_or_not_at_all() {
        let peers = AuthorizedPeers::from_text(&format!("{}\n", key(1))).unwrap();
        assert!(peers.replace("not a key\n", noon()).is_err());
        assert_eq!(peers.policy().grants().len(), 1);
        peers.replace("", noon()).unwrap();
        assert_eq!(peers.policy().grants().len(), 0);
        assert!(AuthorizedPeers::from_text("not a key\n").is_err());
        assert_eq!(AuthorizedPeers::nobody().policy().grants().len(), 0);
    }

    #[test]
    fn a_list_of_removed_keys_that_cannot_be_believed_stops_the_start() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path, peers) = file(&format!("{}\n", key(1)));
        fs::write(&path, "").unwrap();
        peers.reload(noon(), Instant::now());
        let loose = fs::Permissions::from_mode(0o666);
        fs::set_permissions(removed_path(&path), loose).unwrap();
        let error = AuthorizedPeers::watch(&path).unwrap_err().to_string();
        assert!(error.contains("authorized_peers.removed` has mode 0666"), "{error}");
    }

    #[test]
    fn keys_that_fell_out_are_written_down_and_read_again() {
        let (_folder, path, peers) = file(&format!("{}\n{}\n", key(1), key(2)));
        fs::write(&path, "").unwrap();
        peers.reload(noon(), Instant::now());
        let text = fs::read_to_string(removed_path(&path)).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        fs::write(&path, format!("{}\n", key(2))).unwrap();
        let later = AuthorizedPeers::watch(&path).unwrap();
        let state = later.state();
        assert!(state.removed.is_recent(&key(1), noon()));
        assert!(!state.removed.is_recent(&key(2), noon()), "added again by hand");
    }
}
