//! Is there a newer bundle, and may it take the place of the one that is served?
//!
//! Always true: every check is passed before a bundle is remembered, and it is remembered before it is
//! served; whatever fails, what is served stays.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rustls::crypto::CryptoProvider;

use super::{
    BundleError, SignedBundle,
    fetch::{NotTaken, Place, Stamp, Taken},
    seen::Seen,
};
use crate::{
    apart::apart,
    certs::{
        pace,
        source::{Looked, Looking, Source, Standing},
        validity::Validity,
    },
    config::Bundle,
    identity::PublicKey,
};

/// Certificates from a signed bundle, for loopback addresses only: see [`Reach`](crate::facts::Reach).
#[derive(Debug)]
pub(crate) struct BundleSource {
    place: Arc<Place>,
    checks: Arc<Checks>,
    state: Mutex<State>,
}

/// What a bundle is held against.
#[derive(Debug)]
struct Checks {
    signer: PublicKey,
    names: Vec<String>,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug, Default)]
struct State {
    /// The digest of what is served.
    served: Option<[u8; 32]>,
    failures: u32,
    stamps: [Option<Stamp>; 2],
    standing: Standing,
}

impl BundleSource {
    /// Looks for the bundle of these names. `folder`, the state folder, remembers which one was seen last;
    /// without it, the process does.
    ///
    /// # Errors
    /// A sentence, if the location is neither a path nor an `https` URL, or it is a URL and the build has no
    /// client for it.
    pub(crate) fn new(
        bundle: &Bundle,
        names: &[String],
        folder: Option<&Path>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let place = Place::new(&bundle.location, Arc::clone(&provider))?;
        Ok(Self::of(place, bundle.signer, names, folder, provider))
    }

    pub(super) fn of(
        place: Place,
        signer: PublicKey,
        names: &[String],
        folder: Option<&Path>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        let seen = Seen::new(folder, names, &signer);
        let checks = Checks { signer, names: names.to_vec(), seen, provider };
        let state = State {
            standing: Standing { issuer: Some(signer.to_string()), ..Standing::default() },
            ..State::default()
        };
        Self { place: Arc::new(place), checks: Arc::new(checks), state: Mutex::new(state) }
    }

    async fn search(&self, now: Timestamp) -> Looked {
        let place = Arc::clone(&self.place);
        let stamps = apart(move || Ok::<_, String>(place.stamps())).await;
        self.state().stamps = stamps.unwrap_or_default();
        let found = self.obtain(now).await;
        let mut state = self.state();
        let again = match &found {
            Ok(bundle) => {
                state.failures = 0;
                pace::spread(now, period(bundle.loaded.validity))
            }
            Err(_) => {
                state.failures = state.failures.saturating_add(1);
                pace::spread(now, pace::after_failures(state.failures))
            }
        };
        state.standing.next = Some(("look for a newer bundle".to_owned(), again));
        state.standing.last_error = found.as_ref().err().cloned();
        let fault = state.standing.last_error.clone();
        let fresh = found.ok().filter(|bundle| state.served != Some(bundle.digest()));
        if let Some(bundle) = &fresh {
            state.served = Some(bundle.digest());
        }
        Looked { fresh: fresh.map(SignedBundle::into_loaded), again: Some(again), fault }
    }

    /// A bundle that passed every check. Two that do not fit together are looked at a few times more: most
    /// of all, they are being replaced.
    async fn obtain(&self, now: Timestamp) -> Result<SignedBundle, String> {
        let mut why = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let taken = match self.place.take().await {
                Ok(taken) => taken,
                Err(NotTaken::Fault(why)) => return Err(why),
                Err(NotTaken::Changing) => {
                    why = "the bundle and its signature were replaced again and again while they were \
                           read; replace them seldom, and each whole, by rename"
                        .into();
                    continue;
                }
            };
            let checks = Arc::clone(&self.checks);
            // What is refused is no error of the thread's.
            let staged = apart(move || Ok::<_, String>(checks.stage(&taken, now))).await;
            match staged {
                Ok(Ok(bundle)) => return Ok(bundle),
                Ok(Err(Refused { why: text, fits: false })) => why = text,
                Ok(Err(Refused { why, .. })) => return Err(why),
                Err(why) => return Err(format!("the bundle was not checked: {why}")),
            }
        }
        Err(why)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for BundleSource {
    fn name(&self) -> &'static str {
        "bundle"
    }

    fn kept<'a>(&'a self, now: Timestamp) -> Looking<'a> {
        if self.place.is_file() {
            return Box::pin(self.search(now));
        }
        Box::pin(async move { Looked { fresh: None, again: Some(now), fault: None } })
    }

    fn look<'a>(&'a self, now: Timestamp, _forced: bool) -> Looking<'a> {
        Box::pin(self.search(now))
    }

    fn changed(&self) -> bool {
        self.place.is_file() && self.place.stamps() != self.state().stamps
    }

    fn standing(&self) -> Standing {
        self.state().standing.clone()
    }
}

/// Why a bundle was not taken.
struct Refused {
    why: String,
    /// Whether bundle and signature fit together, so that looking again at once is of no use.
    fits: bool,
}

impl Checks {
    /// Passes a bundle through every check, and remembers it.
    fn stage(&self, taken: &Taken, now: Timestamp) -> Result<SignedBundle, Refused> {
        let provider = &self.provider;
        let verified =
            SignedBundle::verify_with(&taken.bundle, &taken.signature, &self.signer, now, provider);
        let bundle = verified.map_err(|error| {
            let torn = BundleError::SignatureForm == error
                || matches!(error, BundleError::WrongSignature { .. });
            Refused { why: error.to_string(), fits: !torn }
        })?;
        let refused = |why| Refused { why, fits: true };
        if let Some(name) = self.names.iter().find(|name| !bundle.covers(name)) {
            let (name, has) = (name.clone(), bundle.names().join(" "));
            return Err(refused(BundleError::NotCovered { name, has }.to_string()));
        }
        self.seen.check(&bundle).map_err(refused)?;
        self.seen.remember(&bundle).map_err(refused)?;
        Ok(bundle)
    }
}

/// How often a newer one is looked for: an hour, more often where certificates live for days.
fn period(validity: Validity) -> SignedDuration {
    let life = validity.until.duration_since(validity.from);
    (life / 50).clamp(SignedDuration::from_secs(60), SignedDuration::from_hours(1))
}

const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
#[cfg(any(feature = "acme", feature = "http3"))]
#[path = "source_tests.rs"]
mod tests;
