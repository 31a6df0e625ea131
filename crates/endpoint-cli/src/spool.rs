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
    let [out, err] = losses;
    let no_thread =
        |error: io::Error| CliError::failure("runtime", format!("cannot start threads: {error}"));
    let out = Spool::start("stdout", Descriptor::Stdout, out).map_err(no_thread)?;
    let err = Spool::start("stderr", Descriptor::Stderr, err).map_err(no_thread)?;
    // Tests run several commands in one process; the first one's queues stay.
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
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines taken out that are being written.
    in_hand: usize,
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
        let told = if state.untold > 0 { (self.0.loss_line)(state.untold) } else { Vec::new() };
        if state.bytes + line.len() + told.len() > QUEUE_BYTES {
            state.lose(1);
            state.done += 1;
        } else {
            state.untold = 0;
            state.bytes += line.len() + told.len();
            if told.is_empty() {
                state.lines.push_back(line);
            } else {
                // One entry, so that numbers of lines stay right.
                state.lines.push_back([told, line].concat());
            }
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
            let (batch, lines) = self.next();
            let result = self.write(to, &batch);
            let mut state = self.lock();
            state.in_hand = 0;
            state.done += lines;
            state.fault = result.as_ref().err().map(|(_, error)| error.kind());
            if let Err((written, _)) = result {
                let rest = batch.get(written..).unwrap_or_default();
                let cut = rest.iter().filter(|byte| **byte == b'\n').count();
                state.lose(cut as u64);
            }
            self.moved.notify_all();
        }
    }

    /// Waits for lines and takes a batch of them out, with how many were put.
    fn next(&self) -> (Vec<u8>, u64) {
        let mut state = self.lock();
        loop {
            let mut batch = Vec::new();
            let mut lines = 0;
            while batch.len() < BATCH_BYTES {
                let Some(line) = state.lines.pop_front() else { break };
                state.bytes -= line.len();
                lines += 1;
                batch.extend_from_slice(&line);
            }
            // Nobody says more, so the loss is told by itself; not to a stream that takes nothing.
            if state.lines.is_empty() && state.untold > 0 && state.fault.is_none() {
                batch.extend((self.loss_line)(std::mem::take(&mut state.untold)));
            }
            if !batch.is_empty() {
                state.in_hand = batch.len();
                return (batch, lines);
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
mod tests {
    use std::{io::Read, os::fd::OwnedFd, sync::mpsc};

    use super::*;

    fn told(lines: u64) -> Vec<u8> {
        format!("{lines} lost\n").into_bytes()
    }

    fn pipe() -> (std::fs::File, Spool) {
        let (read, write) = io::pipe().unwrap();
        let spool = Spool::start("test", Descriptor::Other(OwnedFd::from(write)), told).unwrap();
        (std::fs::File::from(OwnedFd::from(read)), spool)
    }

    fn line(number: usize) -> Vec<u8> {
        format!("{number:0>99}\n").into_bytes()
    }

    /// Puts lines until some are lost, as nobody reads; gives how many were put.
    fn fill(spool: &Spool) -> usize {
        (0..100_000)
            .find(|number| {
                spool.put(line(*number));
                spool.lost() >= 10
            })
            .map(|last| last + 1)
            .unwrap()
    }

    fn read_lines(mut reader: std::fs::File, until: &str) -> Vec<String> {
        let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&text).contains(until) {
            let count = reader.read(&mut chunk).unwrap();
            text.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn waits_for_nobody_and_tells_what_was_lost_once_somebody_reads() {
        let (reader, spool) = pipe();
        let put = fill(&spool);
        assert!(put > 10_000, "{put}");
        let lines = read_lines(reader, "lost");
        let (loss, kept) = lines.split_last().unwrap();
        assert_eq!(*loss, format!("{} lost", spool.lost()));
        assert_eq!(kept.len() as u64 + spool.lost(), put as u64);
        for (number, kept) in kept.iter().enumerate() {
            assert_eq!(*kept, format!("{number:0>99}"));
        }
    }

    #[test]
    fn a_writer_without_a_queue_waits() {
        // The weakened twin: the same lines written at once.
        let (_reader, write) = io::pipe().unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for number in 0..2000 {
                let line = line(number);
                let _ = rustix::io::write(&write, &line);
            }
            let _ = tell.send(());
        });
        assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    }

    #[test]
    fn the_next_line_comes_after_the_one_that_tells_of_losses() {
        let (reader, spool) = pipe();
        fill(&spool);
        let next = thread::spawn(move || read_lines(reader, "a line\n"));
        while spool.0.lock().bytes > QUEUE_BYTES / 2 {
            thread::sleep(Duration::from_millis(1));
        }
        spool.put(b"a line\n".to_vec());
        let lines = next.join().unwrap();
        let [.., loss, last] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(last, "a line");
        assert!(loss.ends_with(" lost"), "{loss}");
    }

    #[test]
    fn flushing_ends_soon_where_nobody_reads_and_waits_where_somebody_does() {
        let (_reader, spool) = pipe();
        fill(&spool);
        let began = Instant::now();
        spool.flush();
        assert!(began.elapsed() < FLUSH, "{:?}", began.elapsed());

        let (reader, spool) = pipe();
        (0..1000).for_each(|number| {
            spool.put(line(number));
        });
        let read = thread::spawn(move || read_lines(reader, &format!("{:0>99}", 999)));
        spool.flush();
        assert_eq!(read.join().unwrap().len(), 1000);
    }

    #[test]
    fn a_stream_that_takes_nothing_is_an_error_for_results_and_a_loss_for_lines() {
        let full =
            || OwnedFd::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let spool = Spool::start("test", Descriptor::Other(full()), told).unwrap();
        let error = spool.put_result(line(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        spool.put(line(1));
        spool.flush();
        while spool.lost() < 2 {
            thread::sleep(Duration::from_millis(1));
        }

        let (reader, spool) = pipe();
        drop(reader);
        spool.put_result(line(0)).unwrap();
    }

    #[test]
    fn a_result_that_nobody_reads_is_waited_for_a_moment_only() {
        let (_reader, spool) = pipe();
        fill(&spool);
        let began = Instant::now();
        spool.put_result(line(0)).unwrap();
        assert!(began.elapsed() < 4 * RESULT, "{:?}", began.elapsed());
    }
}
