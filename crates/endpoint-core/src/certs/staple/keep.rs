//! Is the answer at hand still good, and when is a new one asked for?
//!
//! One [`Stapler`] for all certificates that are served. What it was answered is kept in the store, if there
//! is one, so that a restart or a second process need not ask.
//!
//! Always true: what is read from the store is verified as if the responder had just sent it; no certificate's
//! answers or failures touch those of another.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use sha2::{Digest, Sha256};
use tracing::{debug, error};
use zeroize::Zeroizing;

use super::{Question, Staple, StapleError};
use crate::{
    certs::{ask::Web, pace},
    store::{Change, Kind, Store},
};

/// Fetches and keeps the OCSP answers of certificates.
pub(crate) struct Stapler {
    web: Web,
    store: Option<Arc<dyn Store>>,
    provider: Arc<CryptoProvider>,
    /// By the leaf's digest.
    known: Mutex<HashMap<String, Entry>>,
}

/// What is known of one leaf.
struct Entry {
    held: Option<Staple>,
    failures: u32,
    looked: Timestamp,
}

/// What a look came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stapled {
    /// What to staple until the next look; `None`: nothing.
    pub(crate) staple: Option<Staple>,
    /// When to look again; `None`: the certificate names no responder.
    pub(crate) again: Option<Timestamp>,
    /// What went wrong, with what to do about it.
    pub(crate) fault: Option<String>,
    /// The authority took the certificate back: a new one is due at once.
    pub(crate) revoked: bool,
}

impl Stapler {
    /// `store` keeps answers; without it, memory does.
    ///
    /// # Errors
    /// A sentence, if the provider cannot make a client.
    pub(crate) fn new(
        store: Option<Arc<dyn Store>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let web = Web::plain(Arc::clone(&provider), MAX_BYTES)?;
        Ok(Self { web, store, provider, known: Mutex::default() })
    }

    /// The answer for that certificate: the one at hand until half of its life is over, then a new one; the
    /// old one until its end if there is no new one. Never call it inside a handshake.
    pub(crate) async fn look(&self, certified: &CertifiedKey, now: Timestamp) -> Stapled {
        let leaf = certified.cert.first().map(|leaf| Sha256::digest(leaf.as_ref()));
        let id = data_encoding::HEXLOWER.encode(leaf.unwrap_or_default().as_slice());
        let question = match Question::about(certified) {
            Ok(None) => return Stapled::default(),
            Ok(Some(question)) => question,
            Err(why) => return self.failed(&id, &why, None, now),
        };
        let held = self.held(&id, &question, now).await;
        if let Some(held) = held.clone().filter(|held| now < held.refresh) {
            return Stapled { again: Some(held.refresh), staple: Some(held), ..Stapled::default() };
        }
        match question.ask(&self.web, &self.provider, now).await {
            Ok(staple) => {
                self.keep(&id, &staple, now).await;
                // A short life must not lead to a question each second.
                let soonest = pace::later(now, SignedDuration::from_secs(60));
                let again = Some(staple.refresh.max(soonest));
                Stapled { again, staple: Some(staple), ..Stapled::default() }
            }
            Err(why) => {
                if why.is_revoked() {
                    self.forget(&id, now).await;
                }
                let held = held.filter(|_| !why.is_revoked());
                self.failed(&id, &why, held, now)
            }
        }
    }

    /// The answer in memory or in the store, if it still holds.
    async fn held(&self, id: &str, question: &Question, now: Timestamp) -> Option<Staple> {
        let memory = self.known().get(id).and_then(|entry| entry.held.clone());
        if let Some(staple) = memory {
            return Some(staple).filter(|staple| now < staple.until);
        }
        let record = match self.store.as_ref()?.read(Kind::Staple, id).await {
            Ok(record) => record?,
            Err(why) => {
                // An answer is public and can be had again.
                debug!(reason = %why, "kept OCSP answer not read");
                return None;
            }
        };
        let staple = question.verify(&record.body, &self.provider, now).ok()?;
        self.entry(id, now, |entry| entry.held = Some(staple.clone()));
        Some(staple)
    }

    async fn keep(&self, id: &str, staple: &Staple, now: Timestamp) {
        self.entry(id, now, |entry| {
            entry.failures = 0;
            entry.held = Some(staple.clone());
        });
        let body = Zeroizing::new(staple.response.clone());
        self.write(Change::Replace(Kind::Staple, id.to_owned(), None, body), now).await;
    }

    async fn forget(&self, id: &str, now: Timestamp) {
        self.entry(id, now, |entry| entry.held = None);
        self.write(Change::Delete(Kind::Staple, id.to_owned()), now).await;
    }

    async fn write(&self, change: Change, now: Timestamp) {
        let Some(store) = &self.store else { return };
        if let Err(why) = store.write(vec![change], now).await {
            debug!(reason = %why, "OCSP answer not kept");
        }
    }

    fn failed(&self, id: &str, why: &StapleError, held: Option<Staple>, now: Timestamp) -> Stapled {
        let failures = self.entry(id, now, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        });
        let mut again = pace::spread(now, pace::after_failures(failures));
        // What is stapled goes when it ends, whatever the responder does.
        again = held.as_ref().map_or(again, |held| again.min(held.until));
        if why.is_revoked() {
            error!(reason = %why, "certificate revoked");
        }
        let fault = Some(why.to_string());
        Stapled { staple: held, again: Some(again), fault, revoked: why.is_revoked() }
    }

    /// Changes what is known of a leaf, and forgets leaves that nobody looks at any more.
    fn entry<T>(&self, id: &str, now: Timestamp, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut known = self.known();
        known.retain(|_, entry| {
            let remembered = now <= pace::later(entry.looked, FORGOTTEN_AFTER);
            remembered || entry.held.as_ref().is_some_and(|held| now < held.until)
        });
        let fresh = || Entry { held: None, failures: 0, looked: now };
        let entry = known.entry(id.to_owned()).or_insert_with(fresh);
        entry.looked = now;
        change(entry)
    }

    /// How many leaves something is known of.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.known().len()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stapler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stapler").field("store", &self.store).finish_non_exhaustive()
    }
}

/// An answer with its certificates has a few thousand bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Longer than the longest pause between two looks after a failure.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(2);
