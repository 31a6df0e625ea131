//! What does one look do?
//!
//! Keeps what could not be kept, reads the store, mends it, and does what the plan says until there is nothing
//! left for now.
//!
//! Always true: an order is entered in the store before it is made, so that no crash forgets it; while the
//! store cannot be written it is entered in memory, and `unkept` says whether it may be made at all.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{
    entries::NoteError,
    hold::Hold,
    order::{Done, Target},
    source::{AcmeSource, End, Planned},
};
use crate::certs::{
    plan::{Plan, Why},
    vault::{Held, marks::Mark},
};

/// The longest that an order may take, whatever the client says.
pub(super) const ORDER: Duration = Duration::from_secs(330);
/// Steps of one look: a question, an order at a staging directory, one at the authority, and a look at it.
const STEPS: usize = 5;

impl AcmeSource {
    /// Does what is to be done, until there is nothing left for now.
    pub(super) async fn steps(&self, mut now: Timestamp, mut forced: bool) -> End {
        self.state().trouble = None;
        self.keep_unkept().await;
        self.read(now).await;
        self.mend(now).await;
        self.rewind(now).await;
        let mut failed = false;
        for _ in 0..STEPS {
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
                    Err(end) => return end,
                },
            }
            now = self.now();
        }
        // A plan that is never done is looked at again in a moment.
        End::Busy
    }

    /// One order, under the name's lock. `None`: somebody else holds it, or has done it meanwhile.
    async fn order(&self, forced: bool) -> Result<Option<Done>, End> {
        let Ok(_place) = self.desk.places.acquire().await else { return Ok(None) };
        let lock = format!("order {}", self.name);
        let mut hold = match Hold::take(self.desk.store(), &lock, &self.desk.clock).await {
            Ok(Some(hold)) => hold,
            Ok(None) => return Ok(None),
            Err(error) if error.is_of_the_store() => {
                // Nobody can be kept from ordering too, so it is seldom enough for several.
                self.may_order_unkept(&error.to_string())?;
                return self.order_locked(forced).await;
            }
            Err(error) => return Err(End::Fault(error.to_string())),
        };
        let done = hold.during(self.order_locked(forced)).await;
        hold.release().await;
        done
    }

    async fn order_locked(&self, forced: bool) -> Result<Option<Done>, End> {
        // Nobody writes for this name now: what stands there is the latest.
        let before = self.leaf();
        self.read(self.now()).await;
        if self.leaf() != before {
            return Ok(None);
        }
        let broken_off = {
            let state = self.state();
            state.unkept.is_none() && state.history.open.is_some()
        };
        if broken_off {
            debug!(name = self.name, "an order was broken off by a crash");
            self.noted(self.note(|history| _ = history.broken_off()).await)?;
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
        let (client, why) = self.desk.clients.client(&at.issuer, &self.name).map_err(End::Fault)?;
        self.state().standing.engine = Some((client.engine(), why));
        // Kept before the order is made; what cannot be kept holds in memory, and is asked for seldom.
        match self.note(|history| history.begin(at.url(), now)).await {
            Ok(()) => {}
            Err(NoteError::Store(why)) => self.begin_unkept(&why)?,
            Err(NoteError::Other(why)) => return Err(End::Fault(why)),
        }
        let target = Target { authority: at, client: client.as_ref(), staging: twin.is_some() };
        let issued = timeout(ORDER, self.issue(&target)).await;
        let issued = issued.unwrap_or_else(|_| Err(super::order::too_late(ORDER)));
        let now = self.now();
        match issued {
            Ok(Some(held)) => {
                info!(name = self.name, directory = at.url(), "certificate issued");
                self.take_issued(held, at.url(), forced, now);
                self.keep_unkept().await;
                Ok(Some(Done::Issued))
            }
            Ok(None) => {
                let directory = at.url();
                let noted = self.note(|history| history.succeeded(directory, twin, now)).await;
                self.noted(noted)?;
                Ok(Some(Done::Staged))
            }
            Err(error) => {
                let (failure, text) = super::order::counted(&error, at.url());
                let directory = at.url();
                let noted = self.note(|history| {
                    history.failed(directory, twin, failure, error.retry_after, &text, now);
                });
                self.noted(noted.await)?;
                Ok(Some(Done::Failed))
            }
        }
    }

    /// What could not be entered in the store stands in memory, which is enough for now.
    fn noted(&self, noted: Result<(), NoteError>) -> Result<(), End> {
        match noted {
            Ok(()) | Err(NoteError::Store(_)) => Ok(()),
            Err(NoteError::Other(why)) => Err(End::Fault(why)),
        }
    }

    /// Serves what was issued, from memory until it is kept.
    fn take_issued(&self, held: Held, directory: &str, forced: bool, now: Timestamp) {
        let mut state = self.state();
        state.history.succeeded(directory, None, now);
        state.lost = None;
        state.unkept = Some(Arc::clone(&held.kept));
        let old = state.held.clone().filter(|old| now <= old.loaded.validity.until);
        if let Some(old) = old.as_ref().filter(|_| forced) {
            // Whoever wants another one before its time may know why.
            state.marks.push((old.leaf(), Mark::replaced(now)));
        }
        match old {
            // Clients do not take it yet.
            Some(mut old) if now < held.loaded.validity.from => {
                old.newest = Some(held.loaded.validity);
                state.held = Some(old);
                state.early = Some(held);
            }
            _ => (state.held, state.early) = (Some(held), None),
        }
    }
}
