//! A server in a process of its own, which can be killed and starved.

use std::{
    io::BufRead as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use endpoint_core::{Access, AuthorizedPeers, Endpoint, Limits, Target, handler::Echo};
use endpoint_tests::node::{PEER, alpn, identity};
use rustix::process::{Resource, Rlimit, setrlimit};

pub(crate) fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

pub(crate) fn trusting(n: u8) -> AuthorizedPeers {
    let line = format!("max-connections=\"100\" {}\n", identity(n).fingerprint());
    AuthorizedPeers::from_text(&line).unwrap()
}

pub(crate) fn target(addr: SocketAddr) -> Target {
    format!("peer://{}@{addr}", identity(1).fingerprint().hex()).parse().unwrap()
}

const PORT: &str = "ENDPOINT_TEST_SERVER_PORT";
const STATE: &str = "ENDPOINT_TEST_SERVER_STATE";
const UNVALIDATED: &str = "ENDPOINT_TEST_SERVER_UNVALIDATED";
const FILES: &str = "ENDPOINT_TEST_SERVER_FILES";

/// What a server process has at its disposal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    /// Its limit of that name.
    pub(crate) unvalidated_in_flight: usize,
    /// Open files at the most.
    pub(crate) files: u64,
}

impl Default for Given {
    fn default() -> Self {
        Self { unvalidated_in_flight: 64, files: 1024 }
    }
}

/// Not a test of its own: the server that other tests start as a process and kill. Identity 1, `peer/1`
/// for identity 2.
#[tokio::test]
async fn as_a_server() {
    let Ok(port) = std::env::var(PORT) else { return };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let files = Some(number(FILES));
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
    let unvalidated = usize::try_from(number(UNVALIDATED)).unwrap();
    let _server = Endpoint::builder(identity(1))
        .listen(loopback(port.parse().unwrap()))
        .state_dir(std::env::var(STATE).unwrap())
        .limits(Limits::default().unvalidated_in_flight(unvalidated))
        .authorized(trusting(2))
        .handle(alpn(PEER), Access::default(), Echo)
        .bind()
        .await
        .unwrap();
    println!("\nready");
    std::future::pending().await
}

/// A server process; killed when dropped, without a chance to say goodbye.
pub(crate) struct Process(Child);

impl Process {
    /// Returns when it listens on `port` of 127.0.0.1.
    pub(crate) fn start(port: u16, state: &Path, given: Given) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::as_a_server", "--nocapture"])
            .env(PORT, port.to_string())
            .env(STATE, state)
            .env(UNVALIDATED, given.unvalidated_in_flight.to_string())
            .env(FILES, given.files.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.unwrap() == "ready");
        assert!(ready, "the server process came up");
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
