//! How does a change of the trust file reach live connections?
//!
//! A thread looks at the file (`trust::look`). One task takes what it finds, and judges every live connection
//! after each; it also wakes when the grace of a file in doubt ends, and once a second for answers that depend
//! on time or address. Certificates have a task of their own.
//!
//! Always true: nothing here calls the disk. While it hangs, connections, signals and the control socket go
//! on, and [`Endpoint::revoke`] works.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{Endpoint, Shared};
use crate::{
    event::Event,
    identity::Fingerprint,
    trust::{GRACE, Look, Looker, Reload, file::folder_of},
};

/// How often answers that depend on time or address are judged anew.
const TICK: Duration = Duration::from_secs(1);
/// How often one who waits for a look asks whether the disk hangs.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long one waits for a look whose disk answers: 16 MiB of keys take seconds to read.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long one who asks for a reload waits for certificates that are at hand.
const CERTIFICATES_WAIT: Duration = Duration::from_secs(5);

impl Endpoint {
    /// Looks at certificates and at the list of authorised keys again, and ends what the list no longer
    /// allows, before it returns. A disk that hangs is waited for for about two seconds.
    pub async fn reload(&self) -> Reload {
        let shared = &self.0.shared;
        let certificates = timeout(CERTIFICATES_WAIT, shared.refresh_certificates());
        tokio::join!(shared.reload(), certificates).0
    }

    /// Ends every live connection of `key` and lets it in no more, at once and whatever the file says, until
    /// a look has seen the file without it or [`Endpoint::restore`] is called. Gives how many it ended; `None`
    /// if the key is not authorised. Asks no disk.
    #[must_use]
    pub fn revoke(&self, key: &Fingerprint) -> Option<usize> {
        let shared = &self.0.shared;
        let removed = shared.peers.revoke(key, shared.live.now())?;
        if let Some(looker) = &shared.looker {
            looker.write_removed(removed);
        }
        let closed = shared.live.set_policy_from(|| shared.peers.policy());
        info!(%key, closed, "key revoked");
        Some(closed)
    }

    /// Lets a key that was revoked in again, if the list says so: its line was added anew. A list that is a
    /// file is looked at first; [`Endpoint::reload`] waits for that.
    pub fn restore(&self, key: &Fingerprint) {
        let shared = &self.0.shared;
        shared.peers.restore(key);
        shared.live.set_policy_from(|| shared.peers.policy());
    }
}

impl Shared {
    pub(super) async fn reload(&self) -> Reload {
        let Some(looker) = &self.looker else {
            let mut reload = self.peers.outcome();
            reload.closed = self.live.set_policy_from(|| self.peers.policy());
            self.report(&reload);
            return reload;
        };
        let mut answer = looker.ask();
        let asked = Instant::now();
        while asked.elapsed() < LONGEST_WAIT {
            match timeout(PATIENCE, &mut answer).await {
                Ok(Ok(reload)) => return reload,
                // The watch is gone, and its supervisor has said so.
                Ok(Err(_)) => return self.peers.outcome(),
                Err(_) => {}
            }
            if looker.busy_since().is_some_and(|since| since.elapsed() >= GRACE) {
                break;
            }
        }
        self.take_overdue();
        let outcome = self.peers.outcome();
        let reason = "the file could not be read in time; the look goes on".to_owned();
        Reload { unusable: outcome.unusable.or(Some(reason)), ..outcome }
    }

    /// Takes what a look found, and answers who waits for it.
    fn take(&self, look: Look) {
        let Look { number, began, found, asked } = look;
        let taken = self.peers.take(number, began, found, self.live.now(), Instant::now());
        let reload = match taken {
            Some(taken) => {
                let mut reload = taken.reload;
                reload.closed = self.live.set_policy_from(|| self.peers.policy());
                // Before it is told: whoever ends the endpoint at the word waits for the writing.
                if let (Some(looker), Some(removed)) = (&self.looker, taken.removed) {
                    looker.write_removed(removed);
                }
                self.report(&reload);
                reload
            }
            // Another endpoint with the same list took a newer one.
            None => {
                self.live.set_policy_from(|| self.peers.policy());
                self.peers.outcome()
            }
        };
        for waiting in asked {
            let _gone = waiting.send(reload.clone());
        }
    }

    /// Lets nobody in if the file has been in doubt, or its disk silent, for longer than its grace.
    fn take_overdue(&self) {
        let busy = self.looker.as_ref().and_then(|looker| looker.busy_since());
        if let Some(mut reload) = self.peers.overdue(busy, Instant::now()) {
            reload.closed = self.live.set_policy_from(|| self.peers.policy());
            self.report(&reload);
        }
    }

    pub(super) fn report(&self, reload: &Reload) {
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
            let reason = match &fault.help {
                Some(help) => format!("{}; {help}", fault.message),
                None => fault.message.clone(),
            };
            warn!(place, reason, "line admits nobody");
            self.observer.tell(|| Event::TrustFault { place, reason });
        }
        info!(grants = reload.grants, closed = reload.closed, "authorized_peers reloaded");
        self.observer.tell(|| Event::TrustReloaded {
            grants: reload.grants,
            faults: reload.faults.len(),
            closed: reload.closed,
        });
    }
}

/// Watches until the endpoint ends. Returns before that only if nobody looks any more.
pub(super) async fn watch(shared: Arc<Shared>, mut looks: Option<mpsc::Receiver<Look>>) {
    let _watcher = match (&shared.looker, shared.peers.path()) {
        // On a thread: the system's calls for it touch the disk too.
        (Some(looker), Some(path)) => watch_apart(path, Arc::clone(looker)),
        _ => None,
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let busy = shared.looker.as_ref().and_then(|looker| looker.busy_since());
        let grace = shared.peers.grace_ends(busy);
        tokio::select! {
            () = shared.ended.cancelled() => break,
            look = next(&mut looks) => match look {
                Some(look) => shared.take(look),
                None => return,
            },
            () = sleep_until(grace.unwrap_or_else(Instant::now)), if grace.is_some() => {
                shared.take_overdue();
            }
            _ = ticks.tick() => {
                let ended = shared.live.tick();
                if ended > 0 {
                    debug!(ended, "connections ended by time or address");
                }
            }
        }
    }
}

/// The next look; never, where there is no file.
async fn next(looks: &mut Option<mpsc::Receiver<Look>>) -> Option<Look> {
    match looks {
        Some(looks) => looks.recv().await,
        None => std::future::pending().await,
    }
}

/// Looks once a second whether a certificate or a staple is due. Memory only.
pub(super) async fn drive_certificates(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.ended.cancelled() => break,
            _ = ticks.tick() => {
                shared.look_at_certificates();
                shared.look_at_staples();
            }
        }
    }
}

/// Keeps a thread that watches the folder; dropped, it ends.
struct FolderWatch {
    _end: std::sync::mpsc::Sender<()>,
}

/// Watches the folder, because editors replace the file itself.
fn watch_apart(path: &Path, looker: Arc<Looker>) -> Option<FolderWatch> {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let path = path.to_owned();
    let keep = move || {
        let _watching = watch_folder(&path, looker);
        // Until the other end is dropped.
        let _ = ended.recv();
    };
    std::thread::Builder::new().name("trust-watch".to_owned()).spawn(keep).ok()?;
    Some(FolderWatch { _end: end })
}

fn watch_folder(path: &Path, looker: Arc<Looker>) -> Option<RecommendedWatcher> {
    let name = path.file_name()?.to_owned();
    let on_event = move |event: notify::Result<notify::Event>| {
        let ours = event.is_ok_and(|event| {
            !event.kind.is_access()
                && event.paths.iter().any(|path| path.file_name() == Some(&name))
        });
        if ours {
            looker.changed();
        }
    };
    let told =
        |error: &notify::Error| warn!(%error, "authorized_peers is looked at once a second only");
    let mut watcher = notify::recommended_watcher(on_event).inspect_err(told).ok()?;
    watcher.watch(folder_of(path), RecursiveMode::NonRecursive).inspect_err(told).ok()?;
    Some(watcher)
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
