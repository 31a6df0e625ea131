use std::{collections::VecDeque, io, time::Instant as Wall};

use super::*;
use crate::Fingerprint;

fn line(n: u8) -> String {
    format!("{}\n", Fingerprint::from_bytes([n; 32]))
}

/// A disk that a test writes to. It can hang, and be written to while it is read.
#[derive(Debug, Default)]
struct TestDisk {
    state: Mutex<DiskState>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct DiskState {
    file: Option<(u64, String)>,
    clock: i64,
    hangs: bool,
    /// Calls that hang now.
    waiting: usize,
    reads: usize,
    /// What is written while the next reads go on, one each.
    torn: VecDeque<String>,
    /// The next read hangs when the file has been opened.
    hangs_open: bool,
    /// The file is replaced, by the same text, during each read.
    restless: bool,
    /// Reads that take two seconds each.
    slow: usize,
}

impl TestDisk {
    fn with(text: &str) -> Arc<Self> {
        let disk = Arc::new(Self::default());
        disk.replace(text);
        disk
    }

    fn change<T>(&self, change: impl FnOnce(&mut DiskState) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let result = change(&mut state);
        self.moved.notify_all();
        result
    }

    /// By rename: another file.
    fn replace(&self, text: &str) {
        self.change(|state| {
            state.clock += 1;
            state.file = Some((u64::try_from(state.clock).unwrap(), text.to_owned()));
        });
    }

    /// In place: the same file.
    fn write(&self, text: &str) {
        self.change(|state| {
            state.clock += 1;
            state.file.as_mut().unwrap().1 = text.to_owned();
        });
    }

    /// In place, and too fast for the clock of the file system.
    fn write_unseen(&self, text: &str) {
        self.change(|state| state.file.as_mut().unwrap().1 = text.to_owned());
    }

    fn hang(&self, hangs: bool) {
        self.change(|state| state.hangs = hangs);
    }

    fn until(&self, what: impl Fn(&DiskState) -> bool) {
        let state = self.state.lock().unwrap();
        drop(self.moved.wait_while(state, |state| !what(state)).unwrap());
    }

    fn call(&self) -> MutexGuard<'_, DiskState> {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.moved.notify_all();
        while state.hangs {
            state = self.moved.wait(state).unwrap();
        }
        state.waiting -= 1;
        state
    }
}

impl DiskState {
    fn stamp(&self) -> Option<Stamp> {
        let (inode, text) = self.file.as_ref()?;
        Some(Stamp::made(*inode, u64::try_from(text.len()).unwrap(), self.clock))
    }
}

impl Disk for TestDisk {
    fn stamp(&self) -> Result<Option<Stamp>, TrustFileError> {
        Ok(self.call().stamp())
    }

    fn read(&self) -> Result<Option<(Vec<u8>, Stamp)>, TrustFileError> {
        let mut state = self.call();
        state.reads += 1;
        self.moved.notify_all();
        let Some(stamp) = state.stamp() else { return Ok(None) };
        let mut text = state.file.as_ref().unwrap().1.clone();
        if let Some(after) = state.torn.pop_front() {
            // The first half of what was there, because it is written over meanwhile.
            text.truncate(text.len() / 2);
            state.clock += 1;
            state.file.as_mut().unwrap().1 = after;
        }
        if state.restless {
            state.clock += 1;
            state.file.as_mut().unwrap().0 = u64::try_from(state.clock).unwrap();
        }
        if state.slow > 0 {
            state.slow -= 1;
            state = self.moved.wait_timeout_while(state, LONGEST_QUIET, |_| true).unwrap().0;
        }
        while state.hangs_open {
            state = self.moved.wait(state).unwrap();
        }
        Ok(Some((text.into_bytes(), stamp)))
    }

    fn write_removed(&self, _: &str) -> Result<(), TrustFileError> {
        let _hangs = self.call();
        let source = io::Error::other("no room");
        Err(TrustFileError::Io { action: "write", path: "removed".into(), source })
    }
}

/// A thread that looks at a test's disk, and takes what it finds as the watch does.
struct Watching {
    peers: AuthorizedPeers,
    disk: Arc<TestDisk>,
    looker: Arc<Looker>,
    looks: mpsc::Receiver<Look>,
}

impl Watching {
    fn start(text: &str) -> Self {
        Self::start_with(text, QUIET)
    }

    fn start_with(text: &str, quiet: Duration) -> Self {
        let disk = TestDisk::with(text);
        let peers = AuthorizedPeers::from_text(text).unwrap().on(disk.clone());
        let (looker, looks) = Looker::start_with(&peers, quiet).unwrap().unwrap();
        Self { peers, disk, looker, looks }
    }

    /// Takes the next look: the set's size and what is wrong.
    fn take(&mut self) -> (usize, Option<String>) {
        let Look { number, began, found, asked } = self.looks.blocking_recv().unwrap();
        let now = "2026-06-01T12:00:00Z".parse().unwrap();
        let taken = self.peers.take(number, began, found, now, Instant::now()).unwrap();
        asked.into_iter().for_each(|asked| drop(asked.send(taken.reload.clone())));
        (taken.reload.grants, taken.reload.unusable)
    }
}

#[test]
fn tells_of_the_file_at_its_start_of_each_change_and_of_its_end() {
    let mut watching = Watching::start(&line(1));
    assert_eq!(watching.take(), (1, None));
    watching.disk.replace(&(line(1) + &line(2)));
    watching.looker.changed();
    assert_eq!(watching.take(), (2, None));
    watching.disk.change(|state| state.file = None);
    watching.looker.changed();
    let (grants, unusable) = watching.take();
    assert!(grants == 2 && unusable.unwrap().ends_with("is missing"));
    // Nobody tells of it: the file system has no events.
    watching.disk.replace(&line(3));
    assert_eq!(watching.take(), (1, None));
}

#[test]
fn answers_who_asks_also_if_nothing_has_changed() {
    let mut watching = Watching::start(&line(1));
    assert_eq!(watching.take(), (1, None));
    let mut answer = watching.looker.ask();
    assert!(answer.try_recv().is_err());
    assert_eq!(watching.take(), (1, None));
    assert_eq!(answer.blocking_recv().unwrap().grants, 1);
}

#[test]
fn shows_since_when_the_disk_hangs_and_says_that_all_is_well_when_it_is() {
    let mut watching = Watching::start(&line(1));
    assert_eq!(watching.take(), (1, None));
    watching.disk.hang(true);
    watching.looker.changed();
    watching.disk.until(|state| state.waiting > 0);
    let since = watching.looker.busy_since().unwrap();
    assert!(watching.peers.overdue(Some(since), since + GRACE).is_some());
    assert_eq!(watching.peers.policy().grants().len(), 0);
    assert!(watching.looks.try_recv().is_err());
    // The file is as it was, and nobody asks: the thread says so all the same.
    watching.disk.hang(false);
    assert_eq!(watching.take(), (1, None));
    assert_eq!(watching.peers.policy().grants().len(), 1);
}

#[test]
fn reads_again_what_was_written_over_while_it_was_read() {
    let all = line(1) + &line(2) + &line(3);
    let mut watching = Watching::start(&all);
    assert_eq!(watching.take(), (3, None));
    // Twice in a row the text is cut in the middle of the read: a key that is listed is never lost.
    watching.disk.change(|state| state.torn.extend([all.clone(), all.clone() + &line(4)]));
    watching.disk.write(&all);
    watching.looker.changed();
    assert_eq!(watching.take(), (4, None));
}

/// The twin: one read, whatever happens meanwhile.
#[test]
fn one_read_alone_would_lose_keys_that_are_listed() {
    let all = line(1) + &line(2) + &line(3);
    let disk = TestDisk::with(&all);
    disk.change(|state| state.torn.push_back(all.clone()));
    let (text, _) = disk.read().unwrap().unwrap();
    assert_eq!(authorized::parse(&text).grants.len(), 1);
}

#[test]
fn waits_for_a_writer_in_place_and_no_longer_than_two_seconds() {
    let all: String = (1..=8).map(line).collect();
    // Much longer than the writer pauses, also on a slow machine.
    let mut watching = Watching::start_with(&all, Duration::from_millis(600));
    assert_eq!(watching.take(), (8, None));
    // Cut off, then written line by line, faster than the pause.
    watching.disk.write("");
    watching.looker.changed();
    for n in 1..=8 {
        thread::sleep(Duration::from_millis(5));
        watching.disk.write(&(1..=n).map(line).collect::<String>());
        watching.looker.changed();
    }
    assert_eq!(watching.take(), (8, None), "nobody who is listed was lost");
    // A writer without end does not keep a key for ever.
    let begun = Wall::now();
    let (disk, stop) = (Arc::clone(&watching.disk), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let writer = thread::spawn(move || {
        while !stopped.load(Ordering::Acquire) && begun.elapsed() < Duration::from_secs(60) {
            disk.write(&line(1));
            thread::sleep(Duration::from_millis(25));
        }
    });
    watching.looker.changed();
    assert_eq!(watching.take(), (1, None));
    assert!(begun.elapsed() < LONGEST_QUIET * 10, "{:?}", begun.elapsed());
    stop.store(true, Ordering::Release);
    writer.join().unwrap();
}

#[test]
fn believes_no_text_of_a_file_that_was_replaced_while_the_disk_hung() {
    let mut watching = Watching::start(&line(1));
    assert_eq!(watching.take(), (1, None));
    let reads = watching.disk.change(|state| {
        state.hangs_open = true;
        state.reads
    });
    watching.disk.replace(&(1..=3).map(line).collect::<String>());
    watching.looker.changed();
    watching.disk.until(|state| state.reads > reads);
    // Opened with three keys; two of them are removed while the read hangs.
    watching.disk.replace(&line(1));
    while watching.looker.busy_since().is_some_and(|since| since.elapsed() < LONGEST_QUIET) {
        thread::sleep(QUIET / 4);
    }
    watching.disk.change(|state| state.hangs_open = false);
    assert_eq!(watching.take(), (1, None), "the first that is told is the file as it is");
}

#[test]
fn a_file_that_is_replaced_during_each_read_is_believed_unless_the_disk_hangs_as_well() {
    let mut watching = Watching::start(&line(1));
    assert_eq!(watching.take(), (1, None));
    watching.disk.change(|state| state.restless = true);
    watching.disk.replace(&(line(1) + &line(2)));
    watching.looker.changed();
    assert_eq!(watching.take(), (2, None), "nobody who is listed is kept out");
    // The read hangs, and so does the one after it.
    watching.disk.change(|state| state.slow = 2);
    watching.looker.changed();
    let (_, unusable) = watching.take();
    assert_eq!(unusable.unwrap(), "authorized_peers changed while it was read");
    watching.disk.change(|state| state.restless = false);
    watching.looker.changed();
    while watching.take() != (2, None) {}
}

#[test]
fn sees_a_change_that_left_time_and_length_as_they_were() {
    let mut watching = Watching::start(&line(1));
    assert_eq!(watching.take(), (1, None));
    watching.disk.until(|state| state.reads > 0);
    watching.disk.write_unseen(&line(2));
    assert_eq!(watching.take(), (1, None));
    assert!(watching.peers.policy().grants().lookup(&Fingerprint::from_bytes([2; 32])).is_some());
}

#[test]
fn a_burst_of_changes_ends_with_the_last_one() {
    let mut watching = Watching::start("");
    let last: String = (1..=9).map(line).collect();
    for round in 0..200_u8 {
        watching.disk.replace(&(1..=round % 7).map(line).collect::<String>());
        watching.looker.changed();
    }
    watching.disk.replace(&last);
    watching.looker.changed();
    while watching.take() != (9, None) {}
}

#[test]
fn goes_on_when_removed_keys_cannot_be_written_down_and_ends_when_nobody_wants_it() {
    let mut watching = Watching::start(&line(1));
    assert_eq!(watching.take(), (1, None));
    watching.looker.write_removed("x".to_owned());
    let answer = watching.looker.ask();
    assert_eq!(watching.take(), (1, None));
    assert!(answer.blocking_recv().is_ok());
    let Watching { looker, mut looks, .. } = watching;
    drop(looker);
    while looks.blocking_recv().is_some() {}
}
