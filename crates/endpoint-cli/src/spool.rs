//! What if nobody reads what the server says?
//!
//! A paused terminal, a log driver that is stuck, a full disk: whoever writes to such a stream waits, and in
//! a server everything would wait with it. So `serve` puts its lines into a queue, and a thread of their own
//! takes each stream's lines out. Other commands write at once: there waiting is right.
//!
//! Always true: putting a line waits for no reader; the queue is bounded, and what does not fit is lost and
//! counted; the next line that is written after a loss says how many; a line is written whole or, when the
//! reader goes away in the middle of it, counted.

use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::error::{CliError, Result};

/// Bytes of one stream that may wait, beside what the pipe holds: some thousand lines.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Bytes written at one time.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the end of the program waits for a reader, and for one that takes nothing.
const FLUSH: Duration = Duration::from_secs(1);
const FLUSH_IDLE: Duration = Duration::from_millis(250);
/// How long a result on stdout waits to learn whether it was written.
const RESULT: Duration = Duration::from_millis(500);
/// Pause before a descriptor that cannot take anything now, without waiting itself, is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// The queue of stdout, and the queue of stderr, once the program serves.
static STREAMS: OnceLock<[Spool; 2]> = OnceLock::new();

/// Makes stdout and stderr wait for nobody from now on. `losses` makes the lines that tell of so many lost ones.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn start(losses: [LossLine; 2]) -> Result<()> {
    // Tests run several commands in one process; the first one's queues stay.
    if STREAMS.get().is_some() {
        return Ok(());
    }
    let [out, err] = losses;
    let no_thread =
        |error: io::Error| CliError::failure("runtime", format!("cannot start threads: {error}"));
    let out = Spool::start("stdout", Descriptor::Stdout, out).map_err(no_thread)?;
    let err = Spool::start("stderr", Descriptor::Stderr, err).map_err(no_thread)?;
    let _first = STREAMS.set([out, err]);
    Ok(())
}

/// The queue of stdout, if there is one.
pub(crate) fn stdout() -> Option<&'static Spool> {
    STREAMS.get().map(|[out, _]| out)
}

/// The queue of stderr, if there is one.
pub(crate) fn stderr() -> Option<&'static Spool> {
    STREAMS.get().map(|[_, err]| err)
}

/// Lines of both streams that nobody got since the start.
pub(crate) fn lost() -> u64 {
    STREAMS.get().into_iter().flatten().map(Spool::lost).sum()
}

/// Waits until all is written, or until it is clear that nobody reads.
pub(crate) fn flush() {
    STREAMS.get().into_iter().flatten().for_each(Spool::flush);
}

/// Makes a line that tells of lost ones.
pub(crate) type LossLine = fn(u64) -> Vec<u8>;

/// Where lines go in the end.
enum Descriptor {
    Stdout,
    Stderr,
    #[cfg(test)]
    Other(std::os::fd::OwnedFd),
}

/// The lines of one stream that wait to be written.
pub(crate) struct Spool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    more: Condvar,
    /// Something was written, or could not be.
    moved: Condvar,
    loss_line: LossLine,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Entry>,
    bytes: usize,
    /// Numbers of lines put, and of lines that are done with.
    put: u64,
    done: u64,
    /// Bytes written, to see whether somebody reads.
    written: u64,
    /// Lost since the last line that told of it, and in all.
    untold: u64,
    lost: u64,
    /// Why the last write failed; gone when one succeeds.
    fault: Option<io::ErrorKind>,
}

/// What was put at one time, and what tells of losses before it.
struct Entry {
    bytes: Vec<u8>,
    /// Lines that were put: one, or none if this only tells of losses.
    lines: u64,
    /// Of how many lost ones it tells.
    told: u64,
}

/// Entries that are written together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`, its lines, and of how many lost ones it tells.
    entries: Vec<(usize, u64, u64)>,
}

impl Batch {
    fn push(&mut self, entry: Entry) {
        self.bytes.extend_from_slice(&entry.bytes);
        self.entries.push((self.bytes.len(), entry.lines, entry.told));
    }
}

impl Spool {
    fn start(name: &str, to: Descriptor, loss_line: LossLine) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            more: Condvar::new(),
            moved: Condvar::new(),
            loss_line,
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name(format!("{name} writer")).spawn(move || writer.run(&to))?;
        Ok(Self(shared))
    }

    /// Puts what ends a line, and does not wait. Gives its number.
    pub(crate) fn put(&self, line: Vec<u8>) -> u64 {
        let mut state = self.0.lock();
        state.put += 1;
        let told = state.untold;
        let bytes = match told {
            0 => line,
            told => [(self.0.loss_line)(told), line].concat(),
        };
        if state.bytes + bytes.len() > QUEUE_BYTES {
            state.lose(1);
            state.done += 1;
        } else {
            state.untold = 0;
            state.bytes += bytes.len();
            state.lines.push_back(Entry { bytes, lines: 1, told });
        }
        self.0.more.notify_one();
        state.put
    }

    /// Puts a result and waits a moment to learn of a fault.
    ///
    /// # Errors
    /// The stream takes nothing, for another reason than that nobody reads it.
    pub(crate) fn put_result(&self, line: Vec<u8>) -> io::Result<()> {
        let number = self.put(line);
        let until = Instant::now() + RESULT;
        let mut state = self.0.lock();
        while state.done < number {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(()) };
            (state, _) =
                self.0.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        match state.fault {
            None | Some(io::ErrorKind::BrokenPipe) => Ok(()),
            Some(kind) => Err(kind.into()),
        }
    }

    fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    fn flush(&self) {
        let ends = Instant::now() + FLUSH;
        let mut state = self.0.lock();
        let mut seen = (state.written, Instant::now());
        while state.done < state.put || state.untold > 0 {
            let now = Instant::now();
            if state.written != seen.0 {
                seen = (state.written, now);
            }
            let idle = now.duration_since(seen.1) >= FLUSH_IDLE;
            if idle || now >= ends || state.fault.is_some() {
                return;
            }
            (state, _) =
                self.0.moved.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn lose(&mut self, lines: u64) {
        self.untold += lines;
        self.lost += lines;
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until the program ends.
    fn run(&self, to: &Descriptor) {
        loop {
            let batch = self.next();
            let result = self.write(to, &batch.bytes);
            let mut state = self.lock();
            state.fault = result.as_ref().err().map(|(_, error)| error.kind());
            let written = result.map_or_else(|(written, _)| written, |()| batch.bytes.len());
            for (end, lines, told) in batch.entries {
                state.done += lines;
                if end > written {
                    state.lose(lines);
                    // Nobody was told after all.
                    state.untold += told;
                }
            }
            self.moved.notify_all();
        }
    }

    /// Waits for lines and takes a batch of them out.
    fn next(&self) -> Batch {
        let mut state = self.lock();
        loop {
            let mut batch = Batch::default();
            while batch.bytes.len() < BATCH_BYTES {
                let Some(entry) = state.lines.pop_front() else { break };
                state.bytes -= entry.bytes.len();
                batch.push(entry);
            }
            // Nobody says more, so the loss is told by itself; not to a stream that takes nothing.
            if state.lines.is_empty() && state.untold > 0 && state.fault.is_none() {
                let told = std::mem::take(&mut state.untold);
                batch.push(Entry { bytes: (self.loss_line)(told), lines: 0, told });
            }
            if !batch.entries.is_empty() {
                return batch;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes all of it; on a fault, how much was written.
    fn write(&self, to: &Descriptor, batch: &[u8]) -> std::result::Result<(), (usize, io::Error)> {
        let mut written = 0;
        while let Some(rest) = batch.get(written..).filter(|rest| !rest.is_empty()) {
            match write_some(to, rest) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.lock().written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody made the descriptor one that does not wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

/// Not through `std`'s handle: whoever waits in it holds its lock, and others would wait for that.
fn write_some(to: &Descriptor, bytes: &[u8]) -> io::Result<usize> {
    let count = match to {
        Descriptor::Stdout => rustix::io::write(io::stdout().as_fd(), bytes),
        Descriptor::Stderr => rustix::io::write(io::stderr().as_fd(), bytes),
        #[cfg(test)]
        Descriptor::Other(file) => rustix::io::write(file, bytes),
    };
    Ok(count?)
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spool")
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
