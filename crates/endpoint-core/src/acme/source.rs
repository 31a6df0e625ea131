//! How does one name get its certificate?
//!
//! Reads the store (another process may have renewed), makes a plan, takes the name's lock, reads again, and
//! orders. Each name has its own order, its own history and its own failures.
//!
//! Always true: an order is entered in the store before it is made, so that no crash forgets it; a record
//! that cannot be trusted is a fault that says so, and never a reason to order; what was issued is served
//! even if it cannot be kept, and then kept as soon as it can be.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{
    hold::Hold,
    order::{Done, Target},
    schedule::Desk,
};
use crate::certs::{
    history::History,
    normalized_name,
    pace::later,
    plan::{self, Directory, Given, Plan, Why},
    source::{Looked, Looking, Source, Standing},
    vault::{Held, Origin},
};

/// The longest that an order may take, whatever the client says.
pub(super) const ORDER: Duration = Duration::from_secs(330);
/// How often the plan is made anew: the wall clock may have jumped.
const RECHECK: Duration = Duration::from_secs(3600);
/// When a store that failed is tried again.
const STORE_RETRY: Duration = Duration::from_secs(30);
/// When it is looked again at what another process has just begun.
const OTHERS_ORDER: Duration = Duration::from_secs(5);
/// Steps of one look: a question, an order at a staging directory, one at the authority, and a look at it.
const STEPS: usize = 5;

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
    /// What could not be kept yet.
    pub(super) unkept: Option<Unkept>,
    pub(super) standing: Standing,
    spent_until: Option<Timestamp>,
    /// Which write of the certificate was looked at last, whatever came of it.
    seen: Option<u64>,
}

/// What was issued and stands in memory only.
#[derive(Clone)]
pub(super) struct Unkept {
    done: Arc<super::issuer::Issued>,
    origin: Origin,
}

impl std::fmt::Debug for Unkept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unkept(..)")
    }
}

/// What is to be done, and what an operator wants to know beside it.
struct Planned {
    plan: Plan,
    spent_until: Option<Timestamp>,
    renewal: Option<Timestamp>,
}

/// How a look ends.
enum End {
    /// Nothing to do until then; whether an order failed before.
    Until(Timestamp, Why, bool),
    /// Another process orders, or there is no place.
    Busy,
    /// The store failed or cannot be trusted.
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

    fn now(&self) -> Timestamp {
        self.desk.clock.now()
    }

    /// Reads certificate and history; gives whether the certificate is another one than before.
    async fn read(&self, now: Timestamp) -> Result<bool, String> {
        let listed = self.desk.generation(&self.name);
        self.state().seen = listed;
        let held = self.desk.vault.load(&self.name, now, &self.desk.provider).await;
        let held = held.map_err(|error| error.to_string())?;
        let history = self.read_history().await?;
        let mut state = self.state();
        if state.unkept.is_some() {
            // Ours is newer than anything that stands there, until it does too.
            return Ok(false);
        }
        let leaf = |held: &Option<Held>| held.as_ref().map(Held::leaf);
        let fresh = held.is_some() && leaf(&held) != leaf(&state.held);
        state.seen = listed.max(held.as_ref().map(|held| held.generation));
        state.held = held;
        state.history = history;
        Ok(fresh)
    }

    fn plan(&self, now: Timestamp, forced: bool) -> Planned {
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
            held: state.held.as_ref().map(|held| held.loaded.validity),
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

    /// Why the certificate that is held must not be replaced by an order: it stands in for a damaged one.
    fn distrust(&self) -> Option<String> {
        let state = self.state();
        let held = state.held.as_ref().filter(|held| held.generation == 0)?;
        held.info.fault.clone()
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
        let mut fault = state.unkept.as_ref().map(|_| {
            format!(
                "the new certificate cannot be kept in {}; it is served from memory and lost at a restart",
                self.desk.store().place()
            )
        });
        let mut shown = None;
        let (mut again, text) = match result {
            End::Until(at, why, failed) => {
                // An operator's order may fail while what is held is fresh.
                if at > now && (failed || why != Why::Fresh) {
                    fault = fault.or_else(|| state.history.last_error.clone());
                }
                shown = Some(told(at, why, renewal));
                (at, why.to_string())
            }
            End::Busy => (later(now, OTHERS_ORDER), "look what another order gave".to_owned()),
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
        if state.unkept.is_some() {
            again = again.min(later(now, STORE_RETRY));
        }
        Looked { fresh, again: Some(again.min(later(now, RECHECK))), fault }
    }

    fn leaf(&self) -> Option<String> {
        self.state().held.as_ref().map(Held::leaf)
    }

    /// Does what is to be done, until there is nothing left for now.
    async fn steps(&self, mut now: Timestamp, mut forced: bool) -> End {
        self.keep_unkept().await;
        if let Err(why) = self.read(now).await {
            return End::Fault(why);
        }
        if let Err(why) = self.rewind(now).await {
            return End::Fault(why);
        }
        let mut failed = false;
        for _ in 0..STEPS {
            if let Some(why) = self.distrust().filter(|_| !forced) {
                return End::Fault(why);
            }
            let Planned { plan, spent_until, .. } = self.plan(now, forced);
            self.state().spent_until = spent_until;
            match plan {
                Plan::Wait { until, why } => {
                    if why == Why::Clock {
                        warn!(name = self.name, "certificate not valid yet: is the clock right?");
                    }
                    return End::Until(until, why, failed);
                }
                Plan::AskWindow { authority } => {
                    if let Err(why) = self.ask(authority, now).await {
                        return End::Fault(why);
                    }
                }
                Plan::Order { .. } => match self.order(forced).await {
                    // Only what a successful order left is looked at again without being forced.
                    Ok(Some(Done::Issued)) => forced = false,
                    Ok(Some(Done::Staged)) => {}
                    Ok(Some(Done::Failed)) => (forced, failed) = (false, true),
                    Ok(None) => return End::Busy,
                    Err(why) => return End::Fault(why),
                },
            }
            now = self.now();
        }
        // A plan that is never done is looked at again in a moment.
        End::Busy
    }

    /// One order, under the name's lock. `None`: somebody else holds it, or has done it meanwhile.
    async fn order(&self, forced: bool) -> Result<Option<Done>, String> {
        let Ok(_place) = self.desk.places.acquire().await else { return Ok(None) };
        let lock = format!("order {}", self.name);
        let hold = Hold::take(self.desk.store(), &lock, &self.desk.clock).await;
        let Some(mut hold) = hold.map_err(|error| error.to_string())? else { return Ok(None) };
        let done = hold.during(self.order_locked(forced)).await;
        hold.release().await;
        done
    }

    async fn order_locked(&self, forced: bool) -> Result<Option<Done>, String> {
        // Nobody writes for this name now: what stands there is the latest.
        let before = self.leaf();
        self.read(self.now()).await?;
        if self.leaf() != before {
            return Ok(None);
        }
        let broken_off = {
            let state = self.state();
            state.unkept.is_none() && state.history.open.is_some()
        };
        if broken_off {
            debug!(name = self.name, "an order was broken off by a crash");
            self.note(|history| _ = history.broken_off()).await?;
        }
        let now = self.now();
        let Plan::Order { authority, staging } = self.plan(now, forced).plan else {
            return Ok(None);
        };
        let Some(production) = self.desk.authorities.get(authority) else { return Ok(None) };
        let (at, twin) = match production.staging.as_deref().filter(|_| staging) {
            Some(staging) => (staging, Some(production.url())),
            None => (production, None),
        };
        let (client, why) = self.desk.clients.client(&at.issuer, &self.name)?;
        self.state().standing.engine = Some((client.engine(), why));
        // Kept before the order is made; without a budget that is kept there is no order.
        self.note(|history| history.begin(at.url(), now)).await?;
        let target = Target { authority: at, client: client.as_ref(), staging: twin.is_some() };
        let issued = timeout(ORDER, self.issue(&target)).await;
        let issued = issued.unwrap_or_else(|_| Err(super::order::too_late(ORDER)));
        let now = self.now();
        match issued {
            Ok(Some((issued, held))) => {
                info!(name = self.name, directory = at.url(), "certificate issued");
                let origin = held.info.origin.clone();
                {
                    let mut state = self.state();
                    state.held = Some(held);
                    state.history.succeeded(at.url(), None, now);
                    state.unkept = Some(Unkept { done: Arc::new(issued), origin });
                }
                self.keep_unkept().await;
                Ok(Some(Done::Issued))
            }
            Ok(None) => {
                let directory = at.url();
                self.note(|history| history.succeeded(directory, twin, now)).await?;
                Ok(Some(Done::Staged))
            }
            Err(error) => {
                let (failure, text) = super::order::counted(&error, at.url());
                let directory = at.url();
                self.note(|history| {
                    history.failed(directory, twin, failure, error.retry_after, &text, now);
                })
                .await?;
                Ok(Some(Done::Failed))
            }
        }
    }

    /// Keeps what was issued and is not kept yet: first the certificate, then that it was issued.
    async fn keep_unkept(&self) {
        let Some(unkept) = self.state().unkept.clone() else { return };
        let Unkept { done, origin } = unkept;
        let now = self.now();
        let kept = self.desk.vault.keep(&self.name, &done.chain, &done.key, &origin, now).await;
        let kept = kept.map_err(|error| error.to_string());
        let history = self.state().history.clone();
        let kept = match kept {
            Ok(()) => self.write_history(&history).await.map_err(|error| error.to_string()),
            failed => failed,
        };
        match kept {
            Ok(()) => {
                self.state().unkept = None;
                // As it stands there, with the number of its write.
                let _ = self.read(now).await;
            }
            Err(reason) => warn!(name = self.name, reason, "new certificate not kept yet"),
        }
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
            if let Err(why) = self.read(now).await {
                self.state().standing.last_error = Some(why.clone());
                return Looked {
                    fresh: None,
                    again: Some(later(now, STORE_RETRY)),
                    fault: Some(why),
                };
            }
            let Planned { plan, renewal, .. } = self.plan(now, false);
            let mut state = self.state();
            let held = state.held.as_ref();
            let usable = held.filter(|held| held.loaded.validity.until >= now);
            let fresh = usable.map(|held| held.loaded.clone());
            let fault = held.and_then(|held| held.info.fault.clone());
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
