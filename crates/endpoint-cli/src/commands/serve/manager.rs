//! What does the service manager want to know? (sd_notify(3))
//!
//! Ready, reloading, stopping, and that we are alive. Without a manager nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{task::AbortHandle, time::interval};

/// Tells the manager that the endpoint serves, and goes on telling that it lives if that was asked for.
#[derive(Debug)]
pub(super) struct Manager(Option<AbortHandle>);

impl Manager {
    pub(super) fn ready(status: &str) -> Self {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        let every = sd_notify::watchdog_enabled().map(|period| (period / 2).max(SHORTEST));
        Self(every.map(|every| tokio::spawn(alive(every)).abort_handle()))
    }

    /// A reload begins. It ends with [`Self::reloaded`].
    pub(super) fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn reloaded() {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn stopping() {
        tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(alive) = &self.0 {
            alive.abort();
        }
    }
}

/// No watchdog is fed more often.
const SHORTEST: Duration = Duration::from_millis(100);

/// Runs where connections run: an endpoint whose threads are all stuck says nothing.
async fn alive(every: Duration) {
    let mut ticks = interval(every);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
