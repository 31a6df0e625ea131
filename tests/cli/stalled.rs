//! What if nobody reads what the server says, or it cannot be written?

use std::{
    fs::File,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{PipeReader, PipeWriter, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use endpoint_tests::{chance::Chance, machine::Machine};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::machine;

/// Longest that anything may take that must not wait for a reader.
const SOON: Duration = Duration::from_secs(10);
/// Longest that a test may go on.
const LONG: Duration = Duration::from_secs(60);

/// A `serve` whose streams are the test's, killed when dropped.
struct Serving {
    child: Child,
    machine: Machine,
    at: SocketAddr,
}

/// Where nobody else is: what the server says of its port may not come out, so it is chosen here. Each has an
/// address of loopback of its own, and a free port there that no other test can take meanwhile.
fn address() -> SocketAddr {
    // Hashers have keys from the system's chance.
    let mut chance = Chance::new(RandomState::new().build_hasher().finish());
    for _ in 0..100 {
        // Other tests are at 127.0 and 127.64.
        let parts = [chance.between(128, 250), chance.between(1, 250), chance.between(1, 250)];
        let [b, c, d] = parts.map(|part| u8::try_from(part).unwrap());
        let ip = Ipv4Addr::new(127, b, c, d);
        let at = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
        // Somebody may listen to TCP at all addresses.
        if TcpListener::bind(at).is_ok() {
            return SocketAddrV4::new(ip, at.port()).into();
        }
    }
    panic!("no port is free");
}

impl Serving {
    fn start(words: &[&str], out: impl Into<Stdio>, err: impl Into<Stdio>) -> Self {
        let machine = machine();
        let at = address();
        let listen = at.to_string();
        let mut command: Command =
            machine.command(&[&["serve", "--listen", &listen, "--json"], words].concat());
        let child = command.stdout(out).stderr(err).spawn().unwrap();
        Self { child, machine, at }
    }

    /// `status`, once it answers.
    fn status(&self) -> Value {
        let until = Instant::now() + SOON;
        loop {
            let said = self.machine.run(&["status", "--json"]);
            if said.code() == 0 {
                return said.objects().remove(0);
            }
            assert!(Instant::now() < until, "no answer: {said:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Makes it say things, and shows that it lives meanwhile: `rounds` reloads at least, and refused peers.
    fn works(&self, rounds: u64) {
        let stranger = machine();
        let fingerprint = self.status()["fingerprint"].as_str().unwrap().to_owned();
        let key = fingerprint.strip_prefix("sha256:").unwrap();
        let peer = format!("peer://{key}@{}", self.at);
        let (mut done, until) = (0, Instant::now() + LONG);
        let reloads = || self.status()["counters"]["reloads"].as_u64().unwrap();
        let before = reloads();
        // Signals that come while one waits are one: what counts is what came of them.
        while done < rounds {
            for round in 0..25 {
                self.signal(Signal::HUP);
                std::thread::sleep(Duration::from_millis(4));
                if (done + round) % 50 == 0 {
                    assert_eq!(stranger.run(&["ping", &peer, "-c", "1"]).code(), 5);
                }
            }
            done = reloads() - before;
            assert!(Instant::now() < until, "{done} reloads");
        }
        let began = Instant::now();
        self.status();
        assert!(began.elapsed() < SOON);
    }

    /// Waits until more than `most` lines of the log were lost: they are written behind what is done.
    fn loses(&self, most: u64) {
        let until = Instant::now() + SOON;
        while self.status()["log"]["lines_lost"].as_u64().unwrap() <= most {
            assert!(Instant::now() < until, "{}", self.status()["log"]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it by a signal; its exit code.
    fn ends(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "alive {SOON:?} after SIGTERM");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A pipe that takes one page and no more.
fn narrow() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    (reader, writer)
}

/// A pipe that takes nothing at all.
fn full() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = narrow();
    writer.write_all(&[b'\n'; 4096]).unwrap();
    (reader, writer)
}

#[test]
fn a_reader_of_the_log_that_stalls_stops_neither_service_nor_signals() {
    for words in [&[][..], &["-v"], &["-vv"], &["--log-format", "json", "-v"]] {
        let (mut reader, writer) = narrow();
        let serving = Serving::start(words, Stdio::null(), writer);
        serving.works(150);
        assert_eq!(serving.ends(), Some(0), "{words:?}");
        // What was in the pipe is whole lines, but for the last.
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() > 3500, "{words:?}: the pipe was not full: {}", text.len());
        if words.contains(&"json") {
            let objects = text.lines().filter(|line| line.starts_with('{'));
            let whole = objects.filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
            assert!(whole > 5, "{text}");
        }
    }
}

#[test]
fn a_reader_that_goes_on_reading_gets_every_line() {
    let (mut reader, writer) = narrow();
    let serving = Serving::start(&["-v"], Stdio::null(), writer);
    serving.works(150);
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(serving.status()["log"]["lines_lost"], 0);
    assert_eq!(serving.ends(), Some(0));
    let text = read.join().unwrap();
    let reloads = text.matches("reload asked for by SIGHUP").count();
    assert!(reloads > 50, "{reloads}");
    assert!(text.lines().last().unwrap_or_default().contains("endpoint"), "{text}");
}

#[test]
fn a_reader_of_stdout_that_stalls_stops_nothing() {
    let (_reader, writer) = full();
    let serving = Serving::start(&[], writer, Stdio::null());
    serving.works(10);
    assert_eq!(serving.ends(), Some(0));
}

#[test]
fn streams_that_nobody_reads_any_more_stop_nothing() {
    let (reader, writer) = narrow();
    drop(reader);
    let (out_reader, out) = narrow();
    drop(out_reader);
    let serving = Serving::start(&["-v"], out, writer);
    serving.works(20);
    serving.loses(10);
    assert_eq!(serving.ends(), Some(0));
}

#[test]
fn a_full_disk_under_the_log_stops_nothing_and_is_counted() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let serving = Serving::start(&["-v"], Stdio::null(), full);
    serving.works(20);
    serving.loses(10);
    assert_eq!(serving.ends(), Some(0));
}

#[test]
fn a_full_disk_under_the_result_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut serving = Serving::start(&[], full, Stdio::null());
    let until = Instant::now() + SOON;
    while serving.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it serves although its result was not written");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(serving.child.wait().unwrap().code(), Some(1));
}
