//! How does a change of the trust file reach live connections?
//!
//! One task: wakes when the file changes, when asked, once a second, and when an unusable file's grace
//! ends. Each look at the file is followed by a judgement of every live connection.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{Endpoint, Shared};
use crate::{
    certs::local::stamp,
    event::Event,
    trust::{GRACE, Reload, file::folder_of},
};

/// How often answers that depend on time or address are judged anew.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a file event: an editor's write is several events, and who edits through the program asks
/// for a reload at once and is told what it closed.
const SETTLE: Duration = Duration::from_millis(100);

impl Endpoint {
    /// Looks at certificates and at the list of authorised keys again, and ends what the list no longer
    /// allows, before it returns.
    pub async fn reload(&self) -> Reload {
        self.0.shared.refresh_certificates().await;
        self.0.shared.reload().await
    }
}

impl Shared {
    pub(super) async fn reload(&self) -> Reload {
        let _one_at_a_time = self.reloading.lock().await;
        let peers = self.peers.clone();
        let (now, tick) = (self.live.now(), Instant::now());
        // Reading a file can block; the accept loops must not wait for a disk, nor may one that hangs
        // keep its last set alive.
        let read = tokio::task::spawn_blocking(move || peers.reload(now, tick));
        let mut reload = match timeout(GRACE, read).await {
            Ok(Ok(reload)) => reload,
            Ok(Err(error)) => self.peers.unusable(error.to_string(), now, tick),
            Err(_) => {
                let reason = "authorized_peers could not be read in time".to_owned();
                self.peers.unusable(reason, now, tick)
            }
        };
        reload.closed = self.live.set_policy(self.peers.policy());
        self.report(&reload);
        reload
    }

    fn report(&self, reload: &Reload) {
        let counters = &self.observer.counters;
        counters.reloads.add(1);
        let path = self.peers.path().unwrap_or_else(|| Path::new("authorized_peers"));
        if let Some(reason) = &reload.unusable {
            counters.trust_alarms.add(1);
            warn!(reason, grants = reload.grants, "authorized_peers unusable");
            return self.observer.tell(|| Event::TrustUnreadable { reason: reason.clone() });
        }
        for fault in &reload.faults {
            counters.trust_alarms.add(1);
            let place = format!("{}:{}:{}", path.display(), fault.line, fault.column);
            warn!(place, reason = fault.message, "line admits nobody");
            self.observer.tell(|| Event::TrustFault { place, reason: fault.message.clone() });
        }
        info!(grants = reload.grants, closed = reload.closed, "authorized_peers reloaded");
        self.observer.tell(|| Event::TrustReloaded {
            grants: reload.grants,
            faults: reload.faults.len(),
            closed: reload.closed,
        });
    }
}

/// Watches until the endpoint ends.
pub(super) async fn watch(shared: Arc<Shared>) {
    let (changes, mut changed) = mpsc::channel(1);
    let mut watcher = shared.peers.path().and_then(|path| watch_folder(path, changes));
    // The file may have changed between the look at start and the beginning of the watch, so the first
    // tick looks again; only an absent file that was absent before is no news.
    let path_of_nobody = shared.peers.path().filter(|_| shared.peers.policy().grants().is_empty());
    let mut seen = path_of_nobody.map(|_| None);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let grace = shared.peers.grace_ends();
        tokio::select! {
            () = shared.ended.cancelled() => break,
            Some(()) = changed.recv(), if watcher.is_some() => {
                tokio::time::sleep(SETTLE).await;
                while changed.try_recv().is_ok() {}
                seen = shared.peers.path().map(stamp);
                shared.reload().await;
            }
            () = sleep_until(grace.unwrap_or_else(Instant::now)), if grace.is_some() => {
                shared.reload().await;
            }
            _ = ticks.tick() => {
                // File systems without events (network mounts) are looked at once a second.
                let stamp = shared.peers.path().map(stamp);
                if stamp != seen {
                    seen = stamp;
                    shared.reload().await;
                }
                shared.look_at_certificates();
                shared.look_at_staples();
                let ended = shared.live.tick();
                if ended > 0 {
                    debug!(ended, "connections ended by time or address");
                }
            }
        }
    }
    watcher.take();
}

/// Watches the folder, because editors replace the file itself.
fn watch_folder(path: &Path, changes: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let name = path.file_name()?.to_owned();
    let on_event = move |event: notify::Result<notify::Event>| {
        let ours = event.is_ok_and(|event| {
            !event.kind.is_access()
                && event.paths.iter().any(|path| path.file_name() == Some(&name))
        });
        if ours {
            // One wake-up that waits is enough for any number of events.
            let _ = changes.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(on_event)
        .inspect_err(|error| warn!(%error, "authorized_peers is looked at once a second only"))
        .ok()?;
    match watcher.watch(folder_of(path), RecursiveMode::NonRecursive) {
        Ok(()) => Some(watcher),
        Err(error) => {
            warn!(%error, "authorized_peers is looked at once a second only");
            None
        }
    }
}
