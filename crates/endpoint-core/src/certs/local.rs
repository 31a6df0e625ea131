//! How do certificates come that nobody has to be asked for?
//!
//! From files of the operator, or made here. Both are at hand when the endpoint binds. A file that is not there
//! is an error then; one that is there and cannot be served, because it has ended, was cut or does not fit its
//! key, is a fault that is told and keeps nobody else from being served.
//!
//! Always true: a certificate that cannot be used never replaces one that can.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;

use super::{
    files::{self, CertFileError, Loaded},
    self_signed,
    source::{Looked, Looking, Source, Standing},
    vault::Condition,
};
use crate::apart::apart;

/// When a certificate that could not be made or kept is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// When files are looked at again that cannot be served and did not change.
const AGAIN: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// Identity, time, size and mode of a file: what a replacement changes.
type Stamp = (u64, i64, i64, u64, u32);

/// The stamp of the file at `path`, if there is one.
#[allow(clippy::disallowed_methods, reason = "called by bind, apart, and on the driver's thread")]
fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len(), meta.mode()))
}

/// A chain and its key in two PEM files, looked at again when either changes.
#[derive(Debug)]
pub(crate) struct FilesSource {
    cert: PathBuf,
    key: PathBuf,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    stamps: [Option<Stamp>; 2],
    fault: Option<String>,
    condition: Condition,
    /// A file cannot be read at all.
    unread: bool,
    /// Until when what was served last is valid.
    served_until: Option<Timestamp>,
}

impl FilesSource {
    /// Serves the chain in `cert` with the key in `key` under `names`.
    pub(crate) fn new(
        cert: PathBuf,
        key: PathBuf,
        names: Vec<String>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { cert, key, names, provider, seen: Mutex::default() }
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [stamp(&self.cert), stamp(&self.key)]
    }

    async fn load(&self, now: Timestamp) -> Looked {
        let (cert, key, names) = (self.cert.clone(), self.key.clone(), self.names.clone());
        let provider = Arc::clone(&self.provider);
        let read = move || {
            // Taken first: a change while the files are read is seen at the next look.
            let stamps = [stamp(&cert), stamp(&key)];
            Ok::<_, String>((stamps, files::load(&cert, &key, &names, &provider)))
        };
        let (stamps, loaded) = match apart(read).await {
            Ok(read) => read,
            Err(why) => ([None; 2], Err(CertFileError::Pem { path: self.cert.clone(), why })),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.stamps = stamps;
        let (fresh, fault, condition) = match loaded {
            Ok(loaded) => match files::dated(&loaded, &self.cert, now) {
                Ok(()) => (Some(loaded), None, Condition::Whole),
                Err(fault) => {
                    // The right key and name, wrong dates: better than a certificate that nobody knows, and this
                    // machine's clock may be what is wrong. Never in the place of one that holds.
                    let holds = seen.served_until.is_some_and(|until| now <= until);
                    ((!holds).then_some(loaded), Some(fault), Condition::OutOfDate)
                }
            },
            Err(fault) => (None, Some(fault), Condition::Damaged),
        };
        seen.unread = matches!(fault, Some(CertFileError::Read { .. }));
        seen.condition = condition;
        seen.fault = fault.map(|fault| fault.to_string());
        if let Some(fresh) = &fresh {
            seen.served_until = Some(fresh.validity.until);
        }
        // Looked at again when its end is over, or the clock may have been set.
        let hour = now.checked_add(AGAIN).ok();
        let again = match (&seen.fault, &fresh) {
            (None, Some(fresh)) => fresh.validity.until.checked_add(SECOND).ok(),
            (_, Some(fresh)) if now < fresh.validity.from => {
                hour.map(|hour| hour.min(fresh.validity.from))
            }
            _ => hour,
        };
        Looked { fresh, again, fault: seen.fault.clone() }
    }
}

impl Source for FilesSource {
    fn name(&self) -> &'static str {
        "files"
    }

    fn is_local(&self) -> bool {
        true
    }

    fn is_fatal(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).unread
    }

    fn kept<'a>(&'a self, now: Timestamp) -> Looking<'a> {
        Box::pin(self.load(now))
    }

    fn look<'a>(&'a self, now: Timestamp, _forced: bool) -> Looking<'a> {
        Box::pin(self.load(now))
    }

    fn changed(&self) -> bool {
        let stamps = self.stamps();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).stamps != stamps
    }

    fn standing(&self) -> Standing {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Standing {
            last_error: seen.fault.clone(),
            condition: seen.condition,
            ..Standing::default()
        }
    }
}

/// A self-signed certificate, made again a month before its end.
#[derive(Debug)]
pub(crate) struct SelfSignedSource {
    names: Vec<String>,
    folder: Option<PathBuf>,
    provider: Arc<CryptoProvider>,
    standing: Mutex<Standing>,
}

impl SelfSignedSource {
    /// For `names`; kept in `folder` if there is one.
    pub(crate) fn new(
        names: Vec<String>,
        folder: Option<PathBuf>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { names, folder, provider, standing: Mutex::default() }
    }

    /// Where it is kept.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self_signed::file(&self.names, self.folder.as_deref()?)
    }

    async fn make(&self, now: Timestamp) -> Looked {
        let (names, folder) = (self.names.clone(), self.folder.clone());
        let provider = Arc::clone(&self.provider);
        let make = move || self_signed::obtain(&names, folder.as_deref(), &provider, now);
        let renewal = |made: &Loaded| Some(self_signed::renewal(made.validity));
        let mut looked = looked(apart(make).await, renewal);
        if looked.fresh.is_none() {
            looked.again = now.checked_add(RETRY).ok();
        }
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.last_error.clone_from(&looked.fault);
        if let Some(at) = looked.again {
            standing.next = Some(("renew".to_owned(), at));
        }
        looked
    }
}

impl Source for SelfSignedSource {
    fn name(&self) -> &'static str {
        "self-signed"
    }

    fn is_local(&self) -> bool {
        true
    }

    fn kept<'a>(&'a self, now: Timestamp) -> Looking<'a> {
        Box::pin(self.make(now))
    }

    fn look<'a>(&'a self, now: Timestamp, _forced: bool) -> Looking<'a> {
        Box::pin(self.make(now))
    }

    fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What an attempt comes to.
fn looked(
    loaded: Result<Loaded, String>,
    again: impl FnOnce(&Loaded) -> Option<Timestamp>,
) -> Looked {
    match loaded {
        Ok(loaded) => Looked { again: again(&loaded), fresh: Some(loaded), fault: None },
        Err(fault) => Looked { fresh: None, again: None, fault: Some(fault) },
    }
}
