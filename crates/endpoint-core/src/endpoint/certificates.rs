//! Which certificates does this endpoint serve, and are they the newest?
//!
//! Drives the sources: what they have at hand is obtained when the endpoint binds, before it listens; later
//! each look runs on a task of its own, when the source asked for it or something has changed. The next
//! handshake sees the new certificate; live connections stay.
//!
//! Always true: a certificate that cannot be used never replaces one that can; a source is never asked twice
//! at once; a name whose source has nothing yet is served with a self-signed certificate, and says so.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

pub use super::certificate_info::{CertificateInfo, RenewError};
use super::{BindError, Shared, fallback::fallback, sources::Sources, stirred::Stirred};
use crate::{
    certs::{
        CertTable, Names, Served,
        challenges::Challenges,
        files::Loaded,
        normalized_name,
        source::{Looked, Source},
        staple::{Stapler, has_responder},
        stored::Stored,
        vault::pem,
    },
    event::Event,
    facts::Reach,
};

/// When a source that did not say so is looked at again.
const LATER: Duration = Duration::from_secs(3600);
/// When one is looked at again whose look did not come to its end.
const BROKEN_OFF: Duration = Duration::from_secs(60);

/// The certificates of an endpoint.
#[derive(Debug)]
pub(super) struct Certificates {
    table: Arc<CertTable>,
    challenges: Arc<Challenges>,
    groups: Vec<Arc<Group>>,
    stored: Option<Arc<Stored>>,
    pub(super) stapler: Stapler,
    stirred: Stirred,
}

/// Names that share a certificate, and where it comes from.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) names: Vec<String>,
    /// `None`: the raw key only.
    pub(super) source: Option<Arc<dyn Source>>,
    pub(super) file: Option<PathBuf>,
    /// From where its certificate may be seen.
    pub(super) reach: Reach,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) member: Member,
    /// Also answers clients that ask for no name or another.
    is_default: bool,
    state: Mutex<State>,
    /// Whether the driver's thread has seen a change, so that a look is due before its time.
    pub(super) changed: AtomicBool,
    /// Held while the source looks.
    pub(super) looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// When the source is looked at next.
    due: Option<Timestamp>,
    pub(super) served: Option<Loaded>,
    pub(super) fallback: bool,
    pub(super) fault: Option<String>,
    /// When its OCSP responder is asked.
    pub(super) staple_due: Option<Timestamp>,
    /// Whether its authority took it back.
    pub(super) revoked: bool,
    /// When another one was last asked for because of that.
    pub(super) replaced: Option<Timestamp>,
}

impl Certificates {
    /// Obtains every certificate that is at hand. The first group also answers clients that ask for no name
    /// or another.
    pub(super) async fn obtain(sources: Sources, now: Timestamp) -> Result<Self, BindError> {
        let mut table = Names::default();
        let mut groups: Vec<Arc<Group>> = Vec::new();
        for member in sources.members {
            let wrong = |names: &[String], error: String| BindError::certificate(names, error);
            let mut state = State::default();
            let served = match &member.source {
                None => Served::RawKey,
                Some(source) => {
                    let looked = source.kept(now).await;
                    state.due = looked.again;
                    state.fault.clone_from(&looked.fault);
                    let loaded = match (looked.fresh, looked.fault) {
                        (Some(fresh), _) => fresh,
                        (None, Some(fault)) if source.is_fatal() => {
                            return Err(wrong(&member.names, fault));
                        }
                        (None, _) => {
                            state.fallback = true;
                            state.due.get_or_insert(now);
                            fallback(&member.names, sources.folder.clone(), now)
                                .await
                                .map_err(|error| wrong(&member.names, error))?
                        }
                    };
                    state.staple_due = has_responder(&loaded.certified).then_some(now);
                    let certified = Arc::clone(&state.served.insert(loaded).certified);
                    member.served(certified)
                }
            };
            if member.reach == Reach::Loopback {
                table.expect_loopback();
            }
            let is_default = groups.is_empty();
            if is_default {
                table.set_default(served.clone());
            }
            let group = Group {
                member,
                is_default,
                state: Mutex::new(state),
                changed: false.into(),
                looking: Arc::default(),
            };
            table
                .insert(group.server_names(), served)
                .map_err(|error| wrong(&group.member.names, error.to_string()))?;
            groups.push(Arc::new(group));
        }
        let table = Arc::new(CertTable::new(table));
        if let Some(stored) = &sources.stored {
            table.serve_stored(Arc::clone(stored));
        }
        Ok(Self {
            stirred: Stirred::start(&groups),
            table,
            challenges: sources.challenges,
            groups,
            stored: sources.stored,
            stapler: sources.stapler,
        })
    }

    pub(super) fn table(&self) -> Arc<CertTable> {
        Arc::clone(&self.table)
    }

    pub(super) fn challenges(&self) -> Arc<Challenges> {
        Arc::clone(&self.challenges)
    }

    /// What is served now, in the order of the names given.
    pub(super) fn list(&self) -> Vec<CertificateInfo> {
        self.groups.iter().filter_map(|group| group.info()).collect()
    }

    /// The group of a name, an IP address too.
    fn group(&self, name: &str) -> Option<&Arc<Group>> {
        let wanted = comparable(name);
        self.groups
            .iter()
            .find(|group| group.member.names.iter().any(|own| comparable(own) == wanted))
    }

    /// The chain that is served under a name, as PEM.
    pub(super) fn chain(&self, name: &str) -> Option<String> {
        let certified = match self.group(name) {
            Some(group) => Arc::clone(&group.state().served.as_ref()?.certified),
            None => self.stored.as_ref()?.find(&normalized_name(name).ok()?)?,
        };
        Some(certified.cert.iter().map(|certificate| pem(certificate)).collect())
    }
}

impl Shared {
    /// Looks at every source whose time has come or that has changed, each on a task of its own.
    pub(super) fn look_at_certificates(self: &Arc<Self>) {
        let now = self.live.now();
        for group in &self.certificates.groups {
            if !group.is_due(now) {
                continue;
            }
            let Ok(looking) = Arc::clone(&group.looking).try_lock_owned() else { continue };
            let (shared, group) = (Arc::clone(self), Arc::clone(group));
            tokio::spawn(async move {
                let _looking = looking;
                tokio::select! {
                    () = shared.ended.cancelled() => {}
                    () = shared.look_at(&group, false) => {}
                }
            });
        }
    }

    /// Looks at the sources that ask nobody, and waits for them; the others are looked at in the background.
    pub(super) async fn refresh_certificates(self: &Arc<Self>) {
        self.certificates.stirred.look_now().await;
        // One that is being looked at is due no more, but what comes of it is not there yet.
        let due = self.certificates.groups.iter().filter(|group| {
            let is_looked_at = || group.looking.try_lock().is_err();
            group.is_local() && (group.is_due(self.live.now()) || is_looked_at())
        });
        // Each on a task of its own: whoever asked may give up, the look goes on.
        let looks = due.map(|group| {
            let (shared, group) = (Arc::clone(self), Arc::clone(group));
            tokio::spawn(async move {
                let _looking = group.looking.lock().await;
                if group.is_due(shared.live.now()) {
                    shared.look_at(&group, false).await;
                }
            })
        });
        for look in looks.collect::<Vec<_>>() {
            let _ended = look.await;
        }
        self.look_at_certificates();
    }

    /// Asks the source of a name for a newer certificate.
    pub(super) async fn renew_certificate(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<CertificateInfo, RenewError> {
        let Some(group) = self.certificates.group(name) else {
            let groups = self.certificates.groups.iter();
            let known = groups.flat_map(|group| group.member.names.clone()).collect();
            return Err(RenewError::UnknownName { name: name.chars().take(253).collect(), known });
        };
        let source = match &group.member.source {
            Some(source) if !source.is_local() => Arc::clone(source),
            Some(source) => return Err(RenewError::NotRenewable(source.name())),
            None => return Err(RenewError::NotRenewable("raw-key")),
        };
        let (shared, group) = (Arc::clone(self), Arc::clone(group));
        let before = group.state().served.as_ref().map(|served| Arc::clone(&served.certified));
        // On a task of its own: whoever asked may go away, the order goes on.
        let looked = tokio::spawn(async move {
            let _looking = Arc::clone(&group.looking).lock_owned().await;
            let now = group.state().served.as_ref().map(|served| Arc::clone(&served.certified));
            let waits = match (&before, &now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() == now.is_none(),
            };
            // What another order gave while this one waited is what was asked for.
            if waits {
                tokio::select! {
                    () = shared.ended.cancelled() => {}
                    () = shared.look_at(&group, true) => {}
                }
            }
            let state = group.state();
            let after = state.served.as_ref().map(|served| Arc::clone(&served.certified));
            let renewed = match (before, after) {
                (Some(before), Some(after)) => !Arc::ptr_eq(&before, &after),
                (before, after) => before.is_none() && after.is_some(),
            };
            let fault = state.fault.clone();
            drop(state);
            (renewed, group.info(), fault)
        });
        match looked.await {
            Ok((true, Some(info), _)) => Ok(info),
            Ok((_, _, fault)) => Err(match source.spent_until() {
                Some(until) if until > self.live.now() => RenewError::BudgetSpent { until },
                _ => RenewError::Failed(
                    fault.unwrap_or_else(|| "the source has nothing newer".to_owned()),
                ),
            }),
            Err(error) => Err(RenewError::Failed(error.to_string())),
        }
    }

    /// One look. The caller holds `looking`.
    pub(super) async fn look_at(&self, group: &Group, forced: bool) {
        let Some(source) = &group.member.source else { return };
        let now = self.live.now();
        group.changed.store(false, Ordering::Release);
        // Whatever comes of it, the next one is not at once.
        group.state().due = now.checked_add(BROKEN_OFF).ok();
        let looked = source.look(now, forced).await;
        self.deploy(group, source.as_ref(), looked);
    }

    /// Serves what a look found.
    fn deploy(&self, group: &Group, source: &dyn Source, looked: Looked) {
        let names = || group.member.names.clone();
        let Looked { fresh, again, fault } = looked;
        if let Some(fresh) = &fresh {
            self.certificates.serve(group, Arc::clone(&fresh.certified));
            info!(names = names().join(","), source = source.name(), "certificate deployed");
        }
        if let Some(reason) = &fault {
            warn!(names = names().join(","), reason, "certificate not renewed");
        }
        let mut state = group.state();
        let again = match again {
            None if !source.is_local() => self.live.now().checked_add(LATER).ok(),
            again => again,
        };
        state.due = again;
        state.fault.clone_from(&fault);
        let served = fresh.is_some();
        if let Some(fresh) = fresh {
            state.fallback = false;
            state.revoked = false;
            let now = self.live.now();
            state.staple_due = has_responder(&fresh.certified).then_some(now);
            state.served = Some(fresh);
        }
        let not_after = state.served.as_ref().map(|served| served.validity.until);
        drop(state);
        if let Some(not_after) = not_after.filter(|_| served && !source.is_local()) {
            self.observer.tell(|| Event::CertificateObtained {
                names: names(),
                source: source.name(),
                issuer: source.standing().issuer,
                not_after,
            });
        }
        if let Some(reason) = fault {
            self.observer.tell(|| Event::CertificateFailed {
                names: names(),
                source: source.name(),
                reason,
            });
        }
    }
}

impl Certificates {
    pub(super) fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// Shows that certificate to the next handshakes.
    pub(super) fn serve(&self, group: &Group, certified: Arc<CertifiedKey>) {
        let served = group.member.served(certified);
        if group.is_default {
            self.table.swap(None, served.clone());
        }
        if let Some(name) = group.server_names().next() {
            self.table.swap(Some(name), served);
        }
    }
}

impl Member {
    /// How its certificate stands in the table.
    fn served(&self, certified: Arc<CertifiedKey>) -> Served {
        match self.reach {
            Reach::Everywhere => Served::X509(certified),
            Reach::Loopback => Served::Loopback(certified),
        }
    }
}

impl Group {
    /// An address is no server name (RFC 6066 §3); its certificate answers as the default.
    fn server_names(&self) -> impl Iterator<Item = &str> {
        self.member.names.iter().map(String::as_str).filter(|name| name.parse::<IpAddr>().is_err())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_local(&self) -> bool {
        self.member.source.as_ref().is_some_and(|source| source.is_local())
    }

    /// Whether a look may change something. Asks no disk.
    fn is_due(&self, now: Timestamp) -> bool {
        if self.member.source.is_none() {
            return false;
        }
        let due = self.state().due;
        due.is_some_and(|at| now >= at) || self.changed.load(Ordering::Acquire)
    }

    fn info(&self) -> Option<CertificateInfo> {
        let source = self.member.source.as_ref()?;
        let state = self.state();
        let validity = state.served.as_ref()?.validity;
        let standing = source.standing();
        let (engine, engine_reason) = standing.engine.unzip();
        let (next_action, next_at) = match standing.next {
            Some((action, at)) => (Some(action), Some(at)),
            None => (None, state.due),
        };
        Some(CertificateInfo {
            names: self.member.names.clone(),
            source: source.name(),
            file: self.member.file.clone(),
            issuer: standing.issuer,
            engine,
            engine_reason,
            not_before: validity.from,
            not_after: validity.until,
            fallback: state.fallback,
            condition: standing.condition,
            next_action,
            next_at,
            last_error: standing.last_error.or_else(|| state.fault.clone()),
        })
    }
}

/// A name as it is compared, also an address.
fn comparable(name: &str) -> Option<String> {
    match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => Some(address.to_string()),
        Err(_) => normalized_name(name).ok(),
    }
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
