//! May this peer do this one request?
//!
//! A web server's connections are open to everybody and its routes are not, so a request is judged by a
//! rule of its own, and judged again at each change of the set and once a second.

use std::sync::Arc;

use super::{Access, Approval, Denial, LinkFacts, Permit, Watch};
use crate::facts::Address;

impl Watch {
    /// Judges the peer by `access`, whatever its connection was judged by. The approval goes with the
    /// permit, for [`Self::no_longer`].
    ///
    /// # Errors
    /// [`Denial`], which says why.
    pub(crate) fn permit(&self, access: &Access) -> Result<(Permit, Approval), Denial> {
        let approval = self.judge(access)?;
        Ok((Permit::new(self.entry.facts.peer, approval.clone(), Arc::default()), approval))
    }

    /// Waits until `access` no longer gives all that `first` told of.
    pub(crate) async fn no_longer(&self, access: &Access, first: &Approval) -> Denial {
        let mut changed = self.live.changed.subscribe();
        loop {
            let mut moved = std::pin::pin!(self.entry.moved.notified());
            // From here on, so that no move between the look and the wait is missed.
            moved.as_mut().enable();
            match self.judge(access) {
                Err(denial) => return denial,
                Ok(now) if !now.upholds(first) => return Denial::GrantChanged,
                Ok(_) => {}
            }
            tokio::select! {
                () = self.entry.denied.cancelled() => {}
                () = moved => {}
                told = changed.changed() => {
                    if told.is_err() {
                        return Denial::GrantChanged;
                    }
                }
            }
        }
    }

    fn judge(&self, access: &Access) -> Result<Approval, Denial> {
        let Self { live, entry } = self;
        if let Some(denial) = entry.denial.get() {
            return Err(denial.clone());
        }
        let address = entry.link.address();
        live.policy.load().judge(&entry.facts, access, &address, live.clock.now())
    }

    /// What the handshake established.
    pub(crate) fn facts(&self) -> &LinkFacts {
        &self.entry.facts
    }

    /// Where the peer is.
    pub(crate) fn address(&self) -> Address {
        self.entry.link.address()
    }
}
