//! Has a file of a certificate changed?
//!
//! One plain thread asks every source once a second, and when a reload wants to know at once; the driver
//! reads the answers from memory. A disk that hangs keeps this thread waiting and nothing else: what is served
//! stays, and looks come late.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::warn;

use super::certificates::Group;

/// How the thread is spoken to. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Stirred(Option<SyncSender<oneshot::Sender<()>>>);

impl Stirred {
    /// Starts the thread, if any group has a source.
    pub(super) fn start(groups: &[Arc<Group>]) -> Self {
        let watched: Vec<_> =
            groups.iter().filter(|group| group.member.source.is_some()).cloned().collect();
        if watched.is_empty() {
            return Self(None);
        }
        let (ask, asked) = sync_channel(MAX_WAITING);
        let looks = move || look(&watched, &asked);
        match thread::Builder::new().name("certificate-files".to_owned()).spawn(looks) {
            Ok(_) => Self(Some(ask)),
            Err(error) => {
                warn!(%error, "changes of certificate files are not seen before their time");
                Self(None)
            }
        }
    }

    /// Waits until every source has been asked. A caller has a deadline of its own.
    pub(super) async fn look_now(&self) {
        let Some(ask) = &self.0 else { return };
        let (done, waiting) = oneshot::channel();
        if ask.try_send(done).is_ok() {
            let _ended = waiting.await;
        }
    }
}

fn look(groups: &[Arc<Group>], asked: &Receiver<oneshot::Sender<()>>) {
    loop {
        let waiting = match asked.recv_timeout(PERIOD) {
            Ok(waiting) => Some(waiting),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for group in groups {
            if group.member.source.as_ref().is_some_and(|source| source.changed()) {
                group.changed.store(true, Ordering::Release);
            }
        }
        if let Some(waiting) = waiting {
            // Nobody may wait any more.
            let _ = waiting.send(());
        }
    }
}

const PERIOD: Duration = Duration::from_secs(1);
/// Reloads that wait at one time; one more goes by what is known.
const MAX_WAITING: usize = 64;
