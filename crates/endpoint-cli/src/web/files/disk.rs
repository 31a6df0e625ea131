//! What if the disk of a folder hangs?
//!
//! What may have to ask a disk is asked on a blocking thread. A folder takes so many of them at one time and
//! no more, so that a disk that hangs leaves threads for other folders and for look-ups of names. Whoever asks
//! waits for a thread and for the answer so long and no longer.
//!
//! Closing a file may ask too: FUSE and network file systems are told of it, and wait. Files there are closed
//! by a thread of the folder that does nothing else. On file systems that are known to open, read and close
//! from memory what they have in memory ([`Disk::is_at_once`]), that is done where it is asked for.
//!
//! Always true: no more threads of a folder are stuck than it may take, and the one that closes.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Blocking threads that all folders together may take; the runtime has 512.
const ALL_THREADS: usize = 256;
/// Those of one folder: as many reads as a disk has to choose from.
const MOST_THREADS: usize = 32;
const FEWEST_THREADS: usize = 2;
/// The longest wait for a thread. So many threads are busy for so long only if the disk hangs.
const TURN: Duration = Duration::from_secs(5);
/// The longest wait for an answer: a drive that slept, or a network that lost its server for a moment, has come
/// back by then.
const ANSWER: Duration = Duration::from_secs(30);
/// How often the log tells of one folder.
const TOLD: Duration = Duration::from_secs(60);

/// File systems that ask nobody for what is in memory (statfs(2)): not FUSE, and none over a network.
const AT_ONCE: [u32; 13] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // zfs
    0xf2f5_2010, // f2fs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlay
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
    0x9660,      // iso9660
    0x4d44,      // fat
];

/// The threads of one folder. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    threads: Arc<Semaphore>,
    turn: Duration,
    answer: Duration,
    /// When the log was last told that it hangs.
    told: Mutex<Option<Instant>>,
    closer: OnceLock<Option<mpsc::Sender<File>>>,
}

impl Disk {
    /// For one of so many folders.
    pub(super) fn of(folders: usize) -> Self {
        let threads = (ALL_THREADS / folders.max(1)).clamp(FEWEST_THREADS, MOST_THREADS);
        Self::with(threads, TURN, ANSWER)
    }

    fn with(threads: usize, turn: Duration, answer: Duration) -> Self {
        Self(Arc::new(Inner {
            threads: Arc::new(Semaphore::new(threads)),
            turn,
            answer,
            told: Mutex::default(),
            closer: OnceLock::new(),
        }))
    }

    /// Runs what may have to ask the disk.
    ///
    /// # Errors
    /// What `work` says; [`io::ErrorKind::TimedOut`] if the disk does not answer. `work` may go on then.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Inner { threads, turn, answer, .. } = &*self.0;
        let Ok(taken) = timeout(*turn, Arc::clone(threads).acquire_owned()).await else {
            return Err(self.hangs());
        };
        let taken = taken.map_err(io::Error::other)?;
        let work = tokio::task::spawn_blocking(move || {
            // Given back by the thread: with a disk that hangs it stays taken.
            let _taken = taken;
            work()
        });
        match timeout(*answer, work).await {
            Ok(done) => done.map_err(io::Error::other)?,
            Err(_) => Err(self.hangs()),
        }
    }

    fn hangs(&self) -> io::Error {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TOLD) {
            *told = Some(Instant::now());
            tracing::warn!(
                "a disk with files of a site does not answer: requests for them get 503"
            );
        }
        io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")
    }

    /// Whether a file's system opens, reads and closes from memory what it has there. Blocks.
    pub(super) fn is_at_once(file: impl AsFd) -> bool {
        // The field is signed on some machines.
        rustix::fs::fstatfs(file).is_ok_and(|about| AT_ONCE.contains(&(about.f_type as u32)))
    }

    /// Closes a file where that may block.
    fn close(&self, file: File) {
        let start = || {
            let (closer, files) = mpsc::channel::<File>();
            let close = move || files.into_iter().for_each(drop);
            thread::Builder::new().name("site-files".to_owned()).spawn(close).ok()?;
            Some(closer)
        };
        match self.0.closer.get_or_init(start) {
            // Files wait no longer than the threads that opened them; so their number is bounded as those are.
            Some(closer) => drop(closer.send(file)),
            None => drop(file),
        }
    }
}

/// An open file of a folder, closed where that may block.
#[derive(Debug)]
pub(super) struct Held {
    /// Taken at the end only.
    file: Option<File>,
    disk: Disk,
    at_once: bool,
}

impl Held {
    /// `at_once`: see [`Disk::is_at_once`].
    pub(super) fn new(file: File, disk: Disk, at_once: bool) -> Self {
        Self { file: Some(file), disk, at_once }
    }

    /// The file, if what is in memory may be read from it in a task.
    pub(super) fn at_once(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.at_once)
    }

    /// The file, for where calls may block.
    pub(super) fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.file.take() {
            Some(file) if !self.at_once => self.disk.close(file),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// A disk that hangs until the sender is dropped, and how many calls it has.
    fn hanging() -> (mpsc::Sender<()>, Arc<AtomicUsize>, impl Fn() -> io::Result<()> + Clone) {
        let (disk, hangs) = mpsc::channel::<()>();
        let (hangs, begun) = (Arc::new(Mutex::new(hangs)), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&begun);
        let work = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = hangs.lock().unwrap().recv();
            Ok(())
        };
        (disk, begun, work)
    }

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_its_threads_and_no_other_folder_s() {
        let (folder, other) = (Disk::with(3, SHORT, SHORT), Disk::with(1, SHORT, SHORT));
        let (disk, begun, work) = hanging();
        for _ in 0..6 {
            let error = folder.ask(work.clone()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        assert_eq!(other.ask(|| Ok(1)).await.unwrap(), 1);
        drop(disk);
        // The threads come back when the disk answers.
        let patient = Disk(Arc::new(Inner {
            threads: Arc::clone(&folder.0.threads),
            turn: Duration::from_secs(20),
            answer: Duration::from_secs(20),
            told: Mutex::default(),
            closer: OnceLock::new(),
        }));
        assert_eq!(patient.ask(|| Ok(2)).await.unwrap(), 2);
    }

    /// The twin: without an own number of threads, one folder takes all that the runtime has.
    #[test]
    fn without_a_number_of_its_own_a_folder_would_take_every_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let other_is_served = |threads: usize| {
            let (disk, _begun, work) = hanging();
            let served = runtime.block_on(async {
                let folder = Disk::with(threads, SHORT, SHORT);
                for _ in 0..6 {
                    let _ = folder.ask(work.clone()).await;
                }
                Disk::with(1, SHORT, SHORT).ask(|| Ok(())).await.is_ok()
            });
            drop(disk);
            served
        };
        assert!(other_is_served(3));
        assert!(!other_is_served(usize::MAX >> 4));
    }

    #[test]
    fn all_folders_together_leave_threads_to_others() {
        for folders in [0, 1, 8, 100] {
            let threads = Disk::of(folders).0.threads.available_permits();
            assert!((FEWEST_THREADS..=MOST_THREADS).contains(&threads));
            assert!(threads * folders.max(1) <= ALL_THREADS);
        }
    }

    #[test]
    fn a_file_of_a_strange_system_is_closed_by_the_thread_for_it() {
        let (reader, writer) = std::io::pipe().unwrap();
        let disk = Disk::of(1);
        drop(Held::new(File::from(std::os::fd::OwnedFd::from(writer)), disk.clone(), false));
        // Its end comes when it is closed.
        assert_eq!(io::read_to_string(reader).unwrap(), "");
        assert!(disk.0.closer.get().is_some_and(Option::is_some));
        drop(Held::new(tempfile::tempfile().unwrap(), Disk::of(1), true));
        let strange = Held::new(tempfile::tempfile().unwrap(), disk, false);
        assert!(strange.at_once().is_none() && strange.file().is_ok());
    }
}
