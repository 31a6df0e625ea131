//! What happened on a connection, packet by packet, for people with a qlog viewer.
//!
//! A file for each connection, JSON text sequences as in draft-ietf-quic-qlog-main-schema. quinn tells
//! events from inside its state machine, so nothing may block there: a thread of its own writes.
//!
//! Always true: at most [`FILES`] files of [`FILE_BYTES`] each and [`ALL_BYTES`] together, and
//! [`PENDING_BYTES`] waiting to be written. A trace that would have a hole ends instead.

#![allow(clippy::disallowed_methods, reason = "called by bind, and then on the thread that writes")]

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use quinn::{QlogConfig, TransportConfig};

/// Files that one start of the program writes.
const FILES: u32 = 1_000;
/// Bytes of one file.
const FILE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of all files.
const ALL_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes that may wait for a slow disk.
const PENDING_BYTES: usize = 32 * 1024 * 1024;

/// A folder of traces.
#[derive(Debug)]
pub(crate) struct Qlog {
    sender: Sender<Entry>,
    pending: Arc<AtomicUsize>,
    begun: AtomicU32,
    /// Tells the traces of one start from those of another.
    start: u64,
}

/// What the writing thread is told.
#[derive(Debug)]
enum Entry {
    Begin { file: u32, name: String },
    Bytes { file: u32, bytes: Vec<u8> },
    End { file: u32 },
}

impl Qlog {
    /// Makes the folder, for this user alone, and starts to write.
    ///
    /// # Errors
    /// The folder cannot be made or written to.
    pub(crate) fn start(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let about = fs::metadata(folder)?;
        if about.mode() & 0o022 != 0 {
            let what = "others may write to the folder; chmod 700 it";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let start = RandomState::new().hash_one(0);
        let probe = folder.join(format!(".probe-{start:016x}"));
        File::options().write(true).create_new(true).open(&probe)?;
        fs::remove_file(&probe)?;
        let (sender, receiver) = mpsc::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let (folder, counted) = (folder.to_path_buf(), Arc::clone(&pending));
        thread::Builder::new()
            .name("qlog".into())
            .spawn(move || write(&folder, &receiver, &counted))?;
        Ok(Self { sender, pending, begun: AtomicU32::new(0), start })
    }

    /// Traces the connection that `config` is for, in a file of this name, made from a number of its own.
    pub(crate) fn trace(&self, config: &mut TransportConfig, name: impl FnOnce(&str) -> String) {
        let file = self.begun.fetch_add(1, Ordering::Relaxed);
        if file >= FILES {
            if file == FILES {
                tracing::warn!(
                    files = FILES,
                    "no more qlog files are written until the next start"
                );
            }
            return;
        }
        let number = format!("{:08x}-{file}", self.start & 0xffff_ffff);
        let name = format!("{}.sqlog", name(&number));
        if self.sender.send(Entry::Begin { file, name: name.clone() }).is_err() {
            return;
        }
        let trace = Trace {
            sender: self.sender.clone(),
            pending: Arc::clone(&self.pending),
            file,
            line: Vec::new(),
            bytes: 0,
            ended: false,
        };
        let mut qlog = QlogConfig::default();
        qlog.writer(Box::new(trace)).title(Some(name));
        config.qlog_stream(qlog.into_stream());
    }
}

/// Where quinn writes the events of one connection.
struct Trace {
    sender: Sender<Entry>,
    pending: Arc<AtomicUsize>,
    file: u32,
    line: Vec<u8>,
    bytes: usize,
    ended: bool,
}

impl Trace {
    fn hand_on(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        if self.ended || bytes.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes.len());
        let waiting = self.pending.fetch_add(bytes.len(), Ordering::Relaxed);
        if self.bytes > FILE_BYTES || waiting > PENDING_BYTES {
            self.pending.fetch_sub(bytes.len(), Ordering::Relaxed);
            self.ended = true;
            tracing::warn!(
                file = self.file,
                "a qlog file ends early: too large, or the disk too slow"
            );
            return;
        }
        // A thread that is gone has said why.
        let _ = self.sender.send(Entry::Bytes { file: self.file, bytes });
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            self.hand_on();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.hand_on();
        let _ = self.sender.send(Entry::End { file: self.file });
    }
}

/// The writing thread: until every sender is gone.
fn write(folder: &Path, entries: &Receiver<Entry>, pending: &AtomicUsize) {
    let mut files: HashMap<u32, (PathBuf, File)> = HashMap::new();
    let mut written = 0_u64;
    while let Ok(entry) = entries.recv() {
        match entry {
            Entry::Begin { file, name } => {
                let path = folder.join(name);
                // A client may choose the identifier of another trace: the first one stays.
                let opened = File::options().write(true).create_new(true).mode(0o600).open(&path);
                match opened {
                    Ok(opened) => drop(files.insert(file, (path, opened))),
                    Err(error) => tracing::warn!(%error, path = %path.display(), "no qlog file"),
                }
            }
            Entry::Bytes { file, bytes } => {
                pending.fetch_sub(bytes.len(), Ordering::Relaxed);
                let Some((path, opened)) = files.get_mut(&file) else { continue };
                written = written.saturating_add(bytes.len() as u64);
                if written > ALL_BYTES {
                    tracing::warn!("no more is written to qlog files until the next start");
                    return;
                }
                if let Err(error) = opened.write_all(&bytes) {
                    tracing::warn!(%error, path = %path.display(), "a qlog file ends early");
                    files.remove(&file);
                }
            }
            Entry::End { file } => drop(files.remove(&file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_whole_lines_and_ends_a_trace_that_grows_too_large() {
        let (sender, entries) = mpsc::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let mut trace =
            Trace { sender, pending, file: 7, line: Vec::new(), bytes: 0, ended: false };
        trace.write_all(b"a").unwrap();
        assert!(entries.try_recv().is_err());
        trace.write_all(b"b\n").unwrap();
        assert!(
            matches!(entries.try_recv(), Ok(Entry::Bytes { file: 7, bytes }) if bytes == b"ab\n")
        );
        trace.bytes = FILE_BYTES;
        trace.write_all(b"c\n").unwrap();
        trace.write_all(b"d\n").unwrap();
        assert!(entries.try_recv().is_err());
        drop(trace);
        assert!(matches!(entries.try_recv(), Ok(Entry::End { file: 7 })));
    }

    #[test]
    fn refuses_a_folder_that_it_cannot_write_to() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Qlog::start(&file).is_err());
    }
}
