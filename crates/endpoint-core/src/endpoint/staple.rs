//! Does a certificate carry the answer of its OCSP responder?
//!
//! Only where it names one (RFC 6960); most authorities ended that in 2025. Asked in the background, at half
//! of an answer's life; without an answer the certificate is served bare.
//!
//! Always true: a certificate that its authority took back carries no answer, and asks for a new one, at most
//! once an hour, until there is one: an authority that takes back whatever it issues is not asked in a circle.

use std::sync::Arc;

use jiff::SignedDuration;
use tracing::{debug, warn};

use super::{Shared, certificates::Group};
use crate::certs::{pace, staple::Stapled};

impl Shared {
    /// Asks for every answer whose time has come, each on a task of its own.
    pub(super) fn look_at_staples(self: &Arc<Self>) {
        let now = self.live.now();
        for group in self.certificates.groups() {
            if group.state().staple_due.is_none_or(|due| now < due) {
                continue;
            }
            let Ok(looking) = Arc::clone(&group.looking).try_lock_owned() else { continue };
            let (shared, group) = (Arc::clone(self), Arc::clone(group));
            tokio::spawn(async move {
                let _looking = looking;
                tokio::select! {
                    () = shared.ended.cancelled() => {}
                    () = shared.staple(&group) => {}
                }
            });
        }
    }

    /// One question. The caller holds `looking`.
    async fn staple(&self, group: &Group) {
        let now = self.live.now();
        let served = {
            let mut state = group.state();
            state.staple_due = None;
            state.served.clone()
        };
        let Some(served) = served else { return };
        let Stapled { staple, again, fault, revoked } =
            self.certificates.stapler.look(&served.certified, now).await;
        let certified = match &staple {
            Some(staple) => Arc::new(staple.on(&served.certified)),
            None => Arc::clone(&served.certified),
        };
        self.certificates.serve(group, certified);
        let names = group.member.names.join(",");
        match &fault {
            Some(reason) if revoked => warn!(names, reason, "certificate revoked"),
            Some(reason) => debug!(names, reason, "no OCSP answer stapled"),
            None => {}
        }
        let renew = {
            let mut state = group.state();
            state.staple_due = again;
            if revoked {
                state.fault = fault;
            } else if staple.is_some() && state.revoked {
                // It stood on hold (RFC 5280 §5.3.1).
                state.fault = None;
            }
            state.revoked = revoked || (state.revoked && staple.is_none());
            let waits = state.replaced.is_some_and(|last| now < pace::later(last, REPLACED_AFTER));
            let renew = revoked && !waits && !group.is_local();
            if revoked && let Some(source) = &group.member.source {
                source.taken_back();
            }
            if renew {
                state.replaced = Some(now);
            }
            renew
        };
        if renew {
            // Whatever its dates say; the budget still holds.
            self.look_at(group, true).await;
        }
    }
}

/// Between two orders for the same reason.
const REPLACED_AFTER: SignedDuration = SignedDuration::from_hours(1);

#[cfg(test)]
#[cfg(any(feature = "acme", feature = "http3"))]
#[path = "staple_tests.rs"]
mod tests;
