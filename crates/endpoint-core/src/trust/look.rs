//! What stands in the trust file now?
//!
//! One plain thread looks, so that a disk that hangs holds up nothing else: once a second, when the system
//! tells of a change, and when it is asked. It reads and parses; each look has a number and the time at
//! which it began. What follows from a look is decided in memory, by whoever takes it (`peers`).
//!
//! A change is read when the file has stood still for [`QUIET`], twice that if it grew shorter in place or
//! ends within a line, because an editor may be writing it; never later than [`LONGEST_QUIET`] after it was
//! first seen. Whoever asks wants no such pause: it was asked after the writing.
//!
//! Always true: what was read stood still from before it was opened until after it was read, or is of a file
//! that is written without rest for longer than that, as it was a moment ago; a change that leaves time and
//! length as they were is seen at the next confirmation. What was given to be written is written before the
//! thread ends by itself.

mod disk;

use std::{
    pin::pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout},
};

pub(crate) use self::disk::{Disk, RealDisk};
use super::{
    authorized::{self, Grants, LineFault},
    file::{Stamp, TrustFileError},
    peers::{AuthorizedPeers, GRACE, Reload},
};

/// How often the file is looked at without being told.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a file stands still before a change is read.
const QUIET: Duration = Duration::from_millis(100);
/// The longest wait for that.
const LONGEST_QUIET: Duration = GRACE;
/// When a change is read once more, whatever the file looks like: times of files are coarse.
const CONFIRM: Duration = Duration::from_secs(2);

/// What one look found.
#[derive(Debug)]
pub(crate) struct Look {
    /// Greater than that of every look that began before.
    pub(crate) number: u64,
    pub(crate) began: Instant,
    pub(crate) found: Found,
    /// Who waits for what comes of it.
    pub(crate) asked: Vec<oneshot::Sender<Reload>>,
}

#[derive(Debug)]
pub(crate) enum Found {
    /// Why the file cannot be used.
    Unusable(String),
    /// The bytes are those of the look before.
    Same,
    /// A new text; `gone` are the keys of `before` that it lacks.
    Text {
        grants: Grants,
        faults: Vec<LineFault>,
        before: Arc<Grants>,
        gone: Vec<crate::Fingerprint>,
    },
}

/// How the thread is spoken to. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Looker(Arc<Shared>);

/// A thread, and what it finds.
type Started = (Arc<Looker>, mpsc::Receiver<Look>);

#[derive(Debug)]
struct Shared {
    orders: Mutex<Orders>,
    bell: Condvar,
    /// Since when a call to the disk has been under way.
    busy: Mutex<Option<Instant>>,
    /// Told when something was written, or never will be.
    written: Notify,
    /// Somebody has waited for that at the end; nobody does so twice.
    waited: AtomicBool,
}

#[derive(Debug, Default)]
struct Orders {
    asked: Vec<oneshot::Sender<Reload>>,
    changed: bool,
    ended: bool,
    /// Removed keys to write down.
    removed: Option<String>,
    /// They are being written.
    writing: bool,
    /// The thread is there no more.
    gone: bool,
}

impl Orders {
    /// Whether something is still to be written, and somebody there to do it.
    fn owes(&self) -> bool {
        !self.gone && (self.writing || self.removed.is_some())
    }
}

impl Looker {
    /// Starts the thread for the file of `peers`; `None` if there is no file.
    pub(crate) fn start(peers: &AuthorizedPeers) -> std::io::Result<Option<Started>> {
        Self::start_with(peers, QUIET)
    }

    fn start_with(peers: &AuthorizedPeers, quiet: Duration) -> std::io::Result<Option<Started>> {
        let Some(disk) = peers.disk() else { return Ok(None) };
        let shared = Arc::new(Shared {
            orders: Mutex::default(),
            bell: Condvar::new(),
            busy: Mutex::default(),
            written: Notify::new(),
            waited: AtomicBool::new(false),
        });
        let (looks, receiver) = mpsc::channel(1);
        let thread = Thread {
            shared: Arc::clone(&shared),
            disk,
            looks,
            numbers: peers.numbers(),
            last: peers.policy().grants().is_empty().then_some(Outcome::Missing),
            text: Vec::new(),
            confirm: None,
            peers: peers.clone(),
            quiet,
        };
        thread::Builder::new().name("trust-file".to_owned()).spawn(move || thread.run())?;
        Ok(Some((Arc::new(Self(shared)), receiver)))
    }

    /// Asks for a look that begins from now on.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Reload> {
        let (asked, answer) = oneshot::channel();
        let mut orders = self.0.orders();
        // Who went away meanwhile, perhaps because the disk hangs, takes no room.
        orders.asked.retain(|waiting| !waiting.is_closed());
        orders.asked.push(asked);
        drop(orders);
        self.0.bell.notify_all();
        answer
    }

    /// Tells that the file may have changed.
    pub(crate) fn changed(&self) {
        self.0.orders().changed = true;
        self.0.bell.notify_all();
    }

    /// Has removed keys written down beside the file. Only the newest text counts.
    pub(crate) fn write_removed(&self, text: String) {
        self.0.orders().removed = Some(text);
        self.0.bell.notify_all();
    }

    /// At the end: waits until removed keys are written down, for `longest`, so that a program that begins anew
    /// at once reads them. Once for each thread, here or in [`Self::wait_written`].
    pub(crate) async fn written(&self, longest: Duration) {
        if self.0.waited.swap(true, Ordering::AcqRel) {
            return;
        }
        let written = async {
            loop {
                let mut told = pin!(self.0.written.notified());
                // From here on nothing that is told is missed.
                told.as_mut().enable();
                if !self.0.orders().owes() {
                    return;
                }
                told.await;
            }
        };
        // A disk that hangs holds nobody up; the thread goes on as long as the program does.
        let _late = timeout(longest, written).await;
    }

    /// The same where nothing can be awaited: blocks.
    pub(crate) fn wait_written(&self, longest: Duration) {
        if !self.0.waited.swap(true, Ordering::AcqRel) {
            let orders = self.0.orders();
            drop(self.0.bell.wait_timeout_while(orders, longest, |orders| orders.owes()));
        }
    }

    /// Since when the disk has kept the thread waiting, if it does.
    pub(crate) fn busy_since(&self) -> Option<Instant> {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.0.orders().ended = true;
        self.0.bell.notify_all();
    }
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an order, or until the time has passed. Orders to write wait for the next round.
    fn wait(&self, time: Duration) -> Wake {
        let mut orders = self.orders();
        if orders.asked.is_empty() && !orders.changed && !orders.ended && orders.removed.is_none() {
            let woken =
                self.bell.wait_timeout(orders, time).unwrap_or_else(PoisonError::into_inner);
            orders = woken.0;
        }
        match (orders.ended, orders.asked.is_empty()) {
            (true, _) => Wake::End,
            (false, false) => Wake::Asked,
            (false, true) => Wake::Time { told: std::mem::take(&mut orders.changed) },
        }
    }

    fn tell_written(&self) {
        self.written.notify_waiters();
        self.bell.notify_all();
    }

    /// A call to the disk; while it lasts, everybody can see since when.
    fn call<T>(&self, work: impl FnOnce() -> T) -> T {
        let busy = || self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy() = Some(Instant::now());
        let result = work();
        *busy() = None;
        result
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wake {
    Asked,
    End,
    Time { told: bool },
}

/// What was told last.
#[derive(Debug, Eq, PartialEq)]
enum Outcome {
    Good(Stamp),
    Missing,
    Unusable(String),
}

struct Thread {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    looks: mpsc::Sender<Look>,
    numbers: Arc<AtomicU64>,
    last: Option<Outcome>,
    /// What was read last.
    text: Vec<u8>,
    confirm: Option<Instant>,
    peers: AuthorizedPeers,
    /// [`QUIET`]; tests have time.
    quiet: Duration,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.orders().gone = true;
        self.shared.tell_written();
    }
}

impl Thread {
    fn run(mut self) {
        let mut wake = Wake::Time { told: false };
        loop {
            self.write_removed();
            let ends = wake == Wake::End || !self.look(wake);
            self.write_removed();
            if ends {
                return;
            }
            wake = self.shared.wait(PERIOD);
        }
    }

    /// Writes removed keys down, if there are some to write.
    fn write_removed(&self) {
        let text = {
            let mut orders = self.shared.orders();
            let text = orders.removed.take();
            orders.writing = text.is_some();
            text
        };
        let Some(text) = text else { return };
        if let Err(error) = self.shared.call(|| self.disk.write_removed(&text)) {
            tracing::warn!(%error, "removed keys could not be written down");
        }
        self.shared.orders().writing = false;
        self.shared.tell_written();
    }

    /// One look. `false`: nobody takes looks any more.
    fn look(&mut self, wake: Wake) -> bool {
        // Taken before anything is looked at: whoever asks later wants a later look.
        let asked = std::mem::take(&mut self.shared.orders().asked);
        let number = self.numbers.fetch_add(1, Ordering::AcqRel) + 1;
        let began = Instant::now();
        let told = wake == Wake::Time { told: true };
        let found = self.find(!asked.is_empty(), told, began);
        let Some(found) = found else {
            return !self.looks.is_closed();
        };
        self.looks.blocking_send(Look { number, began, found, asked }).is_ok()
    }

    /// What is new; `None` if nothing is and nobody asked.
    fn find(&mut self, asked: bool, told: bool, began: Instant) -> Option<Found> {
        let stamp = match self.stamp() {
            Ok(stamp) => stamp,
            Err(unusable) => return self.unusable(asked, unusable),
        };
        let confirm = self.confirm.is_some_and(|at| began >= at);
        let changed = self.last != Some(Outcome::Good(stamp));
        // A set that is in doubt waits for the word that all is well, also if nothing has changed.
        let asked = asked || self.peers.in_doubt();
        if !asked && !told && !changed && !confirm {
            return None;
        }
        let (stamp, text) = match self.settled(asked, changed || told, stamp, began) {
            Ok(read) => read,
            Err(unusable) => return self.unusable(asked, unusable),
        };
        let same = matches!(self.last, Some(Outcome::Good(_))) && text == self.text;
        self.confirm = (changed || told || !same).then(|| Instant::now() + CONFIRM);
        let news = asked || changed || !same;
        self.last = Some(Outcome::Good(stamp));
        if same {
            return news.then_some(Found::Same);
        }
        let parsed = authorized::parse(&text);
        self.text = text;
        let before = self.peers.grants();
        let gone = before.iter().map(|grant| grant.fingerprint());
        let gone = gone.filter(|key| parsed.grants.lookup(key).is_none()).collect();
        Some(Found::Text { grants: parsed.grants, faults: parsed.faults, before, gone })
    }

    /// The text, once the file stands still.
    fn settled(
        &self,
        asked: bool,
        pause: bool,
        mut stamp: Stamp,
        began: Instant,
    ) -> Result<(Stamp, Vec<u8>), Outcome> {
        let in_time = || began.elapsed() < LONGEST_QUIET;
        let mut hurry = asked || !pause;
        let mut longer = false;
        let mut again = false;
        loop {
            if !hurry {
                thread::sleep(self.quiet);
                // They do not wait for a writer of the list that takes its time.
                self.write_removed();
                hurry = !self.shared.orders().asked.is_empty();
                let now = self.stamp()?;
                if now != stamp && in_time() {
                    stamp = now;
                    longer = false;
                    continue;
                }
            }
            let called = Instant::now();
            let (text, read) = self.read()?;
            let after = self.stamp()?;
            let hung = called.elapsed() >= LONGEST_QUIET;
            let torn = after != read;
            let shorter = matches!(self.last, Some(Outcome::Good(last))
                if last.inode == read.inode && read.bytes < last.bytes);
            let half = text.last().is_some_and(|byte| *byte != b'\n');
            let doubtful = !hurry && !longer && (shorter || half);
            if (torn || doubtful) && in_time() {
                // Also who asked waits for a writer that is seen at work.
                hurry = hurry && !torn;
                longer = doubtful && !torn;
                stamp = after;
                continue;
            }
            // The text may be long past that a disk gave out at last: it is read once more. One who writes
            // without rest keeps out nobody who is listed.
            if torn && hung && again {
                return Err(Outcome::Unusable(format!(
                    "{} changed while it was read",
                    self.name()
                )));
            }
            if torn && !again {
                again = true;
                hurry = true;
                stamp = after;
                continue;
            }
            return Ok((read, text));
        }
    }

    fn stamp(&self) -> Result<Stamp, Outcome> {
        match self.shared.call(|| self.disk.stamp()) {
            Ok(Some(stamp)) => Ok(stamp),
            Ok(None) => Err(Outcome::Missing),
            Err(error) => Err(Outcome::Unusable(error.to_string())),
        }
    }

    fn read(&self) -> Result<(Vec<u8>, Stamp), Outcome> {
        match self.shared.call(|| self.disk.read()) {
            Ok(Some(read)) => Ok(read),
            Ok(None) => Err(Outcome::Missing),
            Err(error) => Err(Outcome::Unusable(error.to_string())),
        }
    }

    fn name(&self) -> std::path::Display<'_> {
        self.peers.path().unwrap_or(std::path::Path::new("authorized_peers")).display()
    }

    fn unusable(&mut self, asked: bool, outcome: Outcome) -> Option<Found> {
        let news = asked || self.last.as_ref() != Some(&outcome);
        let reason = match &outcome {
            Outcome::Unusable(reason) => reason.clone(),
            _ => format!("{} is missing", self.name()),
        };
        self.last = Some(outcome);
        news.then_some(Found::Unusable(reason))
    }
}

#[cfg(test)]
mod tests;
