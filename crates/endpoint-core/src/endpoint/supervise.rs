//! What if a task dies that the endpoint cannot do without?
//!
//! Each of them runs under a supervisor, which learns of a panic and of an end that nobody asked for:
//!
//! | part | then |
//! |---|---|
//! | the watch of the trust file, its thread too | nobody is let in, for good; alarm |
//! | a loop that accepts connections | the endpoint ends, [`Endpoint::failed`] says why; alarm |
//! | the driver of certificates, the pacing of closes, the queue of arrivals | begins anew after a second; alarm |
//! | what fills certificates from the store, what watches orders | stays away, what is served stays; alarm |
//!
//! Always true: the end of the endpoint itself is no death.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::{Endpoint, Shared};
use crate::event::{Event, Part};

/// Why an endpoint ended by itself.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{part} ended: {reason}; this is a defect of the program: report it with the log, then start it again"
)]
#[non_exhaustive]
pub struct Failure {
    /// What died.
    pub part: Part,
    /// How.
    pub reason: String,
}

impl Endpoint {
    /// Waits until the endpoint has ended because it can accept no more; an endpoint that works, or was
    /// shut down, never gives an answer.
    pub async fn failed(&self) -> Failure {
        let mut failed = self.0.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // The sender lives in the endpoint that is being asked.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Shared {
    /// Runs a task that is begun once.
    pub(super) fn supervise(
        self: &Arc<Self>,
        part: Part,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(reason) = shared.death_of(part, task).await {
                shared.bury(part, reason);
            }
        });
    }

    /// Runs a task that is begun anew when it dies.
    pub(super) fn supervise_again<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        part: Part,
        begin: impl Fn() -> F + Send + 'static,
    ) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(reason) = shared.death_of(part, begin()).await {
                shared.bury(part, reason);
                sleep(PAUSE).await;
            }
        });
    }

    /// Runs a task to its end; gives how it died, if it did.
    async fn death_of(&self, part: Part, task: impl Future<Output = ()>) -> Option<String> {
        let task = async {
            tokio::select! {
                biased;
                () = self.deaths.of(part) => {}
                () = task => {}
                // What the task waits for may live as long as the endpoint, which lives in the task.
                () = self.over() => {}
            }
        };
        let reason = match AssertUnwindSafe(task).catch_unwind().await {
            Ok(()) => "it came to its end".to_owned(),
            Err(panic) => format!("it panicked: {}", words(panic.as_ref())),
        };
        let accepts = matches!(part, Part::AcceptQuic | Part::AcceptTcp);
        let wanted = self.ended.is_cancelled() || (accepts && self.draining.is_cancelled());
        (!wanted).then_some(reason)
    }

    /// Waits until the endpoint has ended, and closes that were on their way have gone.
    async fn over(&self) {
        self.ended.cancelled().await;
        sleep(LINGER).await;
    }

    /// What follows from a death.
    fn bury(self: &Arc<Self>, part: Part, reason: String) {
        self.observer.counters.task_failures.add(1);
        error!(reason, "{part} ended");
        self.observer.tell(|| Event::PartFailed { part, reason: reason.clone() });
        match part {
            Part::TrustWatch => {
                let reason =
                    format!("{part} ended ({reason}), so nobody is let in; restart the program");
                let mut reload = self.peers.blind(reason, Instant::now());
                reload.closed = self.live.set_policy_from(|| self.peers.policy());
                self.report(&reload);
            }
            Part::AcceptQuic | Part::AcceptTcp => {
                self.failed.send_replace(Some(Failure { part, reason }));
                self.end();
            }
            Part::Admission | Part::CertificateHelper | Part::Certificates | Part::Pacing => {}
        }
    }
}

/// What a panic said, as one line.
fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("without a word").chars().take(MAX_CHARS).flat_map(char::escape_debug).collect()
}

/// Where tests make a part die; in the program nothing does.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    #[cfg(test)]
    asked: [tokio::sync::Notify; 7],
}

impl Deaths {
    #[cfg(not(test))]
    async fn of(&self, _part: Part) {
        std::future::pending().await
    }

    #[cfg(test)]
    async fn of(&self, part: Part) {
        self.asked[part as usize].notified().await;
        panic!("a test wanted it\n");
    }

    #[cfg(test)]
    pub(super) fn cause(&self, part: Part) {
        self.asked[part as usize].notify_one();
    }
}

/// For what is on its way when the endpoint ends.
const LINGER: Duration = Duration::from_millis(500);
/// Before a part begins anew.
const PAUSE: Duration = Duration::from_secs(1);
/// Of what a panic said.
const MAX_CHARS: usize = 200;

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
