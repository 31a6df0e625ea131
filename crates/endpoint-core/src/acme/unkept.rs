//! What happens while the store is damaged, or cannot be written?
//!
//! What was issued, tried or registered stands in memory and is kept as soon as that is possible. Damaged
//! records are set aside.
//!
//! Always true: without a budget that is kept, a name is ordered at most once by a process, and not in its
//! first [`SETTLE`], so that a program which restarts for ever on a full disk asks no authority for ever; what
//! was tried counts in memory all the same.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tracing::{error, warn};

use super::source::{AcmeSource, End};
use crate::certs::{pace::later, vault::VaultError};

/// From the start of the process to the first order that cannot be entered in the store.
pub(super) const SETTLE: Duration = Duration::from_secs(600);

impl AcmeSource {
    /// Whether an order may be made that cannot be entered in the store.
    pub(super) fn may_order_unkept(&self, why: &str) -> Result<(), End> {
        let first = later(self.desk.started, SETTLE);
        let (ordered, now) = (self.state().ordered_unkept, self.now());
        let place = self.desk.store().place();
        if ordered {
            let why = format!(
                "{why}; one order was made without {place} since the start, the next one waits until it can be \
                 written"
            );
            return Err(End::Unkept { until: None, why });
        }
        if now < first {
            return Err(End::Unkept { until: Some(first), why: why.to_owned() });
        }
        Ok(())
    }

    /// An order was entered in memory only.
    pub(super) fn begin_unkept(&self, why: &str) -> Result<(), End> {
        if let Err(end) = self.may_order_unkept(why) {
            let mut state = self.state();
            state.history.open = None;
            state.history.attempts = state.history.attempts.saturating_sub(1);
            return Err(end);
        }
        warn!(name = self.name, reason = why, "order made without a budget that is kept");
        self.state().ordered_unkept = true;
        Ok(())
    }

    /// Keeps what was issued and is not kept yet: first the certificate, then that it was issued.
    pub(super) async fn keep_unkept(&self) {
        if let Err(why) = self.desk.keep_accounts().await {
            self.state().trouble = Some(why);
        }
        let now = self.now();
        let unkept = self.state().unkept.clone();
        if let Some(kept) = unkept {
            let origin = &kept.origin;
            let done = self.desk.vault.keep(&self.name, &kept.chain, &kept.key, origin, now).await;
            if let Err(reason) = done {
                warn!(name = self.name, %reason, "new certificate not kept yet");
                return;
            }
            {
                let mut state = self.state();
                let same = |own: &Arc<_>| Arc::ptr_eq(own, &kept);
                state.unkept = state.unkept.take().filter(|own| !same(own));
                state.early = None;
                state.adrift = true;
            }
        }
        self.keep_marks(now).await;
        if self.state().adrift && self.note(|_| {}).await.is_ok() {
            // As it stands there, with the number of its write.
            self.read(now).await;
        }
    }

    async fn keep_marks(&self, now: Timestamp) {
        loop {
            let Some((leaf, mark)) = self.state().marks.first().cloned() else { return };
            if let Err(reason) = self.desk.vault.mark(&leaf, mark, now).await {
                warn!(name = self.name, %reason, "mark of a certificate not kept yet");
                return;
            }
            self.state().marks.retain(|(of, kept)| *of != leaf || *kept != mark);
        }
    }

    /// Sets damaged certificates of the name aside.
    pub(super) async fn mend(&self, now: Timestamp) {
        let lost = {
            let state = self.state();
            state.lost.clone().filter(|_| state.unkept.is_none() && state.trouble.is_none())
        };
        let Some(reason) = lost else { return };
        match self.desk.vault.mend(&self.name, now, &self.desk.provider).await {
            Ok(mended) if mended.is_empty() => {}
            Ok(mended) => {
                let done: Vec<_> = mended
                    .iter()
                    .map(|mended| format!("{} {}", mended.kind, mended.done))
                    .collect();
                let done = done.join("; ");
                error!(name = self.name, reason, done, "damaged certificate set aside");
                self.read(now).await;
                self.state().lost = Some(format!("{reason}; {done}"));
            }
            Err(VaultError::Store(error)) if error.is_of_the_store() => {
                self.state().trouble = Some(format!("{reason}; {error}"));
            }
            Err(error) => warn!(name = self.name, %error, "damaged certificate not set aside"),
        }
    }
}
