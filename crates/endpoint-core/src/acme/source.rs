//! How does one name get its certificate?
//!
//! Reads the store (another process may have renewed), makes a plan, takes the name's lock, reads again, and
//! orders. Each name has its own order, its own history and its own failures.
//!
//! Not here: how an order is made (`steps`), what happens while the store fails (`unkept`).
//!
//! Always true: what is whole is served, from the store or from memory, and never given up for less; a damaged
//! record is told, set aside and renewed within the budget; what was issued is served even if it cannot be
//! kept, and then kept as soon as it can be.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::schedule::Desk;
use crate::certs::{
    history::History,
    normalized_name,
    pace::later,
    plan::{self, Directory, Given, Plan, Why},
    source::{Looked, Looking, Source, Standing},
    validity::Validity,
    vault::{Condition, Held, Kept, Origin, VaultError, marks::Mark},
};
use jiff::Timestamp;

/// How often the plan is made anew: the wall clock may have jumped.
const RECHECK: Duration = Duration::from_secs(3600);
/// When a store that failed is tried again.
const STORE_RETRY: Duration = Duration::from_secs(30);
/// When it is looked again at what another process has just begun.
const OTHERS_ORDER: Duration = Duration::from_secs(5);

/// The certificate of one name.
#[derive(Debug)]
pub(crate) struct AcmeSource {
    pub(super) desk: Arc<Desk>,
    pub(super) name: String,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) held: Option<Held>,
    /// As the store has it; as it would have, if it could be written.
    pub(super) history: History,
    /// Whether anything is known of what was tried.
    pub(super) known: bool,
    /// Whether the history in memory is ahead of the store's.
    pub(super) adrift: bool,
    /// What could not be kept yet.
    pub(super) unkept: Option<Arc<Kept>>,
    /// What was issued and begins later, while another one is valid.
    pub(super) early: Option<Held>,
    /// What speaks against leaves, and is not kept yet.
    pub(super) marks: Vec<(String, Mark)>,
    /// Why the store cannot be used.
    pub(super) trouble: Option<String>,
    /// Which record was damaged, until a certificate was issued since.
    pub(super) lost: Option<String>,
    /// What is held is the newest all the same: it stood in memory, whole, when its record was found damaged.
    newest_held: bool,
    /// An order was made that could not be entered.
    pub(super) ordered_unkept: bool,
    pub(super) standing: Standing,
    pub(super) spent_until: Option<Timestamp>,
    /// Which write of the certificate was looked at last, whatever came of it.
    seen: Option<u64>,
}

impl State {
    /// Serves what was issued earlier, as soon as it has begun.
    fn take_early(&mut self, now: Timestamp) {
        let begun = self.early.as_ref().is_some_and(|early| early.loaded.validity.from <= now);
        if begun {
            self.held = self.early.take();
        }
    }

    /// Goes on with what is whole in memory, and has it kept again.
    fn keep_again(&mut self, in_memory: Option<Held>) {
        self.newest_held = in_memory.is_some();
        self.unkept = in_memory.as_ref().map(|held| Arc::clone(&held.kept));
        self.held = in_memory;
    }

    /// The validity that renewal goes by; `None`: as if there were none at hand.
    fn planned(&self) -> Option<Validity> {
        let held = self.held.as_ref()?;
        // One that stands in for a damaged one was due when that was issued.
        (self.lost.is_none() || self.newest_held)
            .then(|| held.newest.unwrap_or(held.loaded.validity))
    }

    fn condition(&self) -> Condition {
        if self.unkept.is_some() {
            Condition::Unkept
        } else if self.lost.is_some() {
            Condition::Damaged
        } else {
            self.held.as_ref().map_or(Condition::Whole, |held| held.info.condition)
        }
    }

    fn waits_for_the_store(&self) -> bool {
        self.unkept.is_some() || self.adrift || self.trouble.is_some() || !self.marks.is_empty()
    }
}

/// What is to be done, and what an operator wants to know beside it.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) spent_until: Option<Timestamp>,
    renewal: Option<Timestamp>,
}

/// How a look ends.
pub(super) enum End {
    /// Nothing to do until then; whether an order failed before.
    Until(Timestamp, Why, bool),
    /// Another process orders, or there is no place.
    Busy,
    /// What was tried cannot be entered, and no order may be made without that before then, or ever.
    Unkept { until: Option<Timestamp>, why: String },
    /// The store or the configuration fails.
    Fault(String),
}

impl AcmeSource {
    /// The certificate of `name`, a DNS name or an IP address.
    ///
    /// # Errors
    /// A sentence, if no authority issues for such a name over these challenges.
    pub(crate) fn new(desk: Arc<Desk>, name: &str) -> Result<Self, String> {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => normalized_name(name).map_err(|error| error.to_string())?,
        };
        if name.starts_with("*.") {
            return Err(format!(
                "`{name}` is a wildcard, which authorities prove over DNS only; name each host, or give files"
            ));
        }
        for authority in &desk.authorities {
            desk.clients.client(&authority.issuer, &name)?;
        }
        let seed = seed_of(&name);
        Ok(Self { desk, name, seed, state: Mutex::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.desk.clock.now()
    }

    /// Reads certificate and history. What is whole in memory is never given up for less.
    pub(super) async fn read(&self, now: Timestamp) {
        let listed = self.desk.generation(&self.name);
        self.state().seen = listed;
        let wanted = |origin: &Origin| self.is_wanted(origin);
        let vault = &self.desk.vault;
        let found = vault.load_from(&self.name, now, &self.desk.provider, &wanted).await;
        self.read_history(now).await;
        let mut state = self.state();
        state.take_early(now);
        if state.unkept.is_some() {
            // Ours is newer than anything that stands there, until it does too.
            return;
        }
        let holds = |held: &Held| now <= held.loaded.validity.until;
        let in_memory = state.held.clone().filter(holds);
        match found {
            // A store that cannot be read says nothing about the certificate.
            Err(VaultError::Store(error)) if error.is_of_the_store() => {
                state.trouble = Some(error.to_string());
            }
            Err(error) => {
                state.lost = Some(error.to_string());
                state.keep_again(in_memory);
            }
            Ok(None) => state.keep_again(in_memory),
            Ok(Some(held)) => {
                let damaged = held.info.condition == Condition::Damaged;
                if damaged {
                    state.lost.clone_from(&held.info.fault);
                    state.newest_held = false;
                }
                let same = in_memory.as_ref().is_some_and(|own| own.leaf() == held.leaf());
                if damaged && in_memory.is_some() && !same {
                    state.keep_again(in_memory);
                } else {
                    state.seen = listed.max(Some(held.generation));
                    state.held = Some(held);
                }
            }
        }
    }

    /// Whether a certificate is from somebody who is still asked, or from the operator.
    fn is_wanted(&self, origin: &Origin) -> bool {
        let Some(issuer) = origin.issuer.as_deref().filter(|_| origin.source == "acme") else {
            return true;
        };
        self.desk.authorities.iter().any(|authority| authority.url() == issuer)
    }

    pub(super) fn plan(&self, now: Timestamp, forced: bool) -> Planned {
        let state = self.state();
        let directories: Vec<Directory<'_>> = self
            .desk
            .authorities
            .iter()
            .map(|authority| Directory {
                url: authority.url(),
                staging: authority.staging.as_ref().map(|staging| staging.url()),
            })
            .collect();
        let leaf = state.held.as_ref().map(Held::leaf);
        let issuer = state.held.as_ref().and_then(|held| held.info.origin.issuer.as_deref());
        let of = |url: &str| directories.iter().position(|directory| directory.url == url);
        let given = Given {
            now,
            held: state.planned(),
            leaf: leaf.as_deref().zip(issuer.and_then(of)),
            renew_before: self.desk.config.renew_before,
            directories: &directories,
            history: &state.history,
            seed: self.seed,
            forced,
        };
        Planned {
            plan: plan::plan(&given),
            spent_until: plan::spent_until(&given),
            renewal: plan::renewal(&given),
        }
    }

    async fn looked(&self, now: Timestamp, forced: bool) -> Looked {
        let before = self.leaf();
        let result = self.steps(now, forced).await;
        let now = self.now();
        let renewal = self.plan(now, false).renewal;
        let mut state = self.state();
        let fresh = (state.held.as_ref().map(Held::leaf) != before)
            .then(|| state.held.as_ref().map(|held| held.loaded.clone()))
            .flatten();
        let mut fault = self.fault(&state);
        let mut shown = None;
        let (mut again, text) = match result {
            End::Until(at, why, failed) => {
                // An operator's order may fail while what is held is fresh.
                if at > now && (failed || why != Why::Fresh) {
                    let parts = [state.history.last_error.clone(), fault.take()];
                    let parts: Vec<_> = parts.into_iter().flatten().collect();
                    fault = (!parts.is_empty()).then(|| parts.join("; "));
                }
                shown = Some(told(at, why, renewal));
                (at, why.to_string())
            }
            End::Busy => (later(now, OTHERS_ORDER), "look what another order gave".to_owned()),
            End::Unkept { until, why } => {
                fault = Some(why);
                state.spent_until = until.or(state.spent_until);
                let again = later(now, STORE_RETRY);
                (
                    until.map_or(again, |until| until.min(again)),
                    "look at the store again".to_owned(),
                )
            }
            End::Fault(why) => {
                fault = Some(why);
                (later(now, STORE_RETRY), "look at the store again".to_owned())
            }
        };
        let issuer = state.held.as_ref().and_then(|held| held.info.origin.issuer.clone());
        let first = self.desk.authorities.first().map(|authority| authority.url().to_owned());
        state.standing.issuer = issuer.or(first);
        state.standing.next = Some((text, shown.unwrap_or(again)));
        state.standing.last_error = fault.clone().or_else(|| state.history.last_error.clone());
        state.standing.condition = state.condition();
        if state.waits_for_the_store() {
            again = again.min(later(now, STORE_RETRY));
        }
        Looked { fresh, again: Some(again.min(later(now, RECHECK))), fault }
    }

    pub(super) fn leaf(&self) -> Option<String> {
        self.state().held.as_ref().map(Held::leaf)
    }

    /// What an operator must know, beside what an order came to.
    fn fault(&self, state: &State) -> Option<String> {
        let unkept = state.unkept.as_ref().map(|_| {
            format!(
                "the new certificate cannot be kept in {}; it is served from memory and lost at a restart",
                self.desk.store().place()
            )
        });
        let stands = state.held.as_ref().and_then(|held| held.info.fault.clone());
        let lost = state.lost.clone().or(stands);
        let parts: Vec<_> = [unkept, state.trouble.clone(), lost].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// The leaf that is held, and its digest.
    pub(super) fn leaf_certificate(
        &self,
    ) -> Option<(rustls_pki_types::CertificateDer<'static>, String)> {
        let state = self.state();
        let held = state.held.as_ref()?;
        Some((held.loaded.certified.cert.first()?.clone(), held.leaf()))
    }

    /// Whether the certificate that is held was issued by that authority.
    pub(super) fn issued_by(&self, directory: &str) -> bool {
        let state = self.state();
        let held = state.held.as_ref();
        held.and_then(|held| held.info.origin.issuer.as_deref()) == Some(directory)
    }
}

impl Source for AcmeSource {
    fn name(&self) -> &'static str {
        "acme"
    }

    fn kept<'a>(&'a self, now: Timestamp) -> Looking<'a> {
        Box::pin(async move {
            self.read(now).await;
            self.mend(now).await;
            let Planned { plan, renewal, .. } = self.plan(now, false);
            let mut state = self.state();
            let held = state.held.as_ref();
            let usable = held.filter(|held| held.loaded.validity.until >= now);
            let fresh = usable.map(|held| held.loaded.clone());
            let fault = self.fault(&state);
            let issuer = held.and_then(|held| held.info.origin.issuer.clone());
            let first = self.desk.authorities.first();
            state.standing.issuer =
                issuer.or_else(|| first.map(|authority| authority.url().to_owned()));
            let client = first.map(|first| self.desk.clients.client(&first.issuer, &self.name));
            state.standing.engine =
                client.and_then(Result::ok).map(|(client, why)| (client.engine(), why));
            let (again, at, text) = match plan {
                Plan::Wait { until, why } => (until, told(until, why, renewal), why.to_string()),
                Plan::AskWindow { .. } => (now, now, "ask when to renew".to_owned()),
                Plan::Order { .. } => (now, now, "order".to_owned()),
            };
            state.standing.next = Some((text, at));
            state.standing.last_error = fault.clone().or_else(|| state.history.last_error.clone());
            state.standing.condition = state.condition();
            Looked { fresh, again: Some(again.min(later(now, RECHECK))), fault }
        })
    }

    fn look<'a>(&'a self, now: Timestamp, forced: bool) -> Looking<'a> {
        Box::pin(self.looked(now, forced))
    }

    /// Whether another process has written a newer certificate.
    fn changed(&self) -> bool {
        let Some(newest) = self.desk.generation(&self.name) else { return false };
        let state = self.state();
        // A record that cannot be trusted is not looked at once a second.
        state.unkept.is_none() && state.seen.is_none_or(|seen| seen < newest)
    }

    fn spent_until(&self) -> Option<Timestamp> {
        self.state().spent_until
    }

    fn taken_back(&self) {
        let (leaf, now) = (self.leaf(), self.now());
        let mut state = self.state();
        if let Some(leaf) = leaf.filter(|leaf| state.marks.iter().all(|(of, _)| of != leaf)) {
            state.marks.push((leaf, Mark::revoked(now)));
        }
    }

    fn standing(&self) -> Standing {
        self.state().standing.clone()
    }
}

/// What an operator is told: when it is renewed, although the authority may be asked about it before.
fn told(at: Timestamp, why: Why, renewal: Option<Timestamp>) -> Timestamp {
    if why == Why::Fresh { renewal.map_or(at, |renewal| renewal.max(at)) } else { at }
}

/// Another number for each name, the same at each start.
fn seed_of(name: &str) -> u64 {
    // FNV-1a; nothing secret hangs on it.
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
