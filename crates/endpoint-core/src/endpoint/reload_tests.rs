//! What stands still while the disk does, and what does not.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex},
    time::Instant as Wall,
};

use super::*;
use crate::{
    Access, Alpn, AuthorizedPeers, ConnectError, Connection, Identity, Target,
    handler::Echo,
    trust::{
        Disk,
        file::{Stamp, TrustFileError},
    },
};

fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

fn listing(keys: &[u8]) -> String {
    keys.iter().map(|n| format!("{}\n", identity(*n).fingerprint())).collect()
}

/// A disk of which every call hangs while a test wants it.
#[derive(Debug, Default)]
struct Hanging {
    state: Mutex<(bool, String, i64)>,
    moved: Condvar,
    /// What was written down of removed keys.
    removed: Mutex<String>,
}

impl Hanging {
    fn hang(&self, hangs: bool) {
        self.state.lock().unwrap().0 = hangs;
        self.moved.notify_all();
    }

    fn write(&self, text: String) {
        let mut state = self.state.lock().unwrap();
        state.1 = text;
        state.2 += 1;
    }

    fn call(&self) -> (String, Stamp) {
        let state = self.state.lock().unwrap();
        let state = self.moved.wait_while(state, |state| state.0).unwrap();
        let stamp = Stamp::made(1, u64::try_from(state.1.len()).unwrap(), state.2);
        (state.1.clone(), stamp)
    }
}

impl Disk for Hanging {
    fn stamp(&self) -> Result<Option<Stamp>, TrustFileError> {
        Ok(Some(self.call().1))
    }

    fn read(&self) -> Result<Option<(Vec<u8>, Stamp)>, TrustFileError> {
        let (text, stamp) = self.call();
        Ok(Some((text.into_bytes(), stamp)))
    }

    fn write_removed(&self, text: &str) -> Result<(), TrustFileError> {
        self.call();
        // As slow as a disk may be: who does not wait for it has not got it.
        std::thread::sleep(Duration::from_millis(100));
        text.clone_into(&mut self.removed.lock().unwrap());
        Ok(())
    }
}

const OPEN: &[u8] = b"open/1";

async fn bound(keys: &[u8]) -> (Endpoint, Arc<Hanging>) {
    let disk = Arc::new(Hanging::default());
    disk.write(listing(keys));
    let peers = AuthorizedPeers::from_text(&listing(keys)).unwrap().on(disk.clone());
    let endpoint = Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .authorized(peers)
        .handle(Alpn::ECHO_1, Access::default(), Echo)
        .handle(Alpn::new(OPEN).unwrap(), Access::Public, Echo)
        .bind()
        .await
        .unwrap();
    (endpoint, disk)
}

async fn dial(endpoint: &Endpoint, n: u8, alpn: &[u8]) -> Result<Connection, ConnectError> {
    let (key, at) = (endpoint.fingerprint(), endpoint.local_addrs()[0]);
    let target: Target = format!("peer://{}@{at}", key.hex()).parse().unwrap();
    let dialler = Endpoint::builder(identity(n)).bind().await.unwrap();
    dialler.connect(&target, Alpn::new(alpn).unwrap()).await
}

async fn echoes(connection: &Connection) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"still here").await.unwrap();
    send.finish().await.unwrap();
    let answer = timeout(Duration::from_secs(5), receive.read_to_end(64)).await.unwrap();
    assert_eq!(answer.unwrap(), b"still here");
}

async fn closes(connection: &Connection) {
    timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
}

async fn until(what: impl Fn() -> bool) {
    let waited = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), waited).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_hangs_stops_no_open_connection_no_revocation_and_no_kick() {
    let (endpoint, disk) = bound(&[2, 3, 4]).await;
    let open = dial(&endpoint, 9, OPEN).await.unwrap();
    let peers: HashMap<u8, Connection> = {
        let mut peers = HashMap::new();
        for n in [2, 3, 4] {
            peers.insert(n, dial(&endpoint, n, b"echo/1").await.unwrap());
        }
        peers
    };
    disk.hang(true);
    let hung = Wall::now();
    assert_eq!(endpoint.revoke(&identity(2).fingerprint()), Some(1));
    closes(&peers[&2]).await;
    assert_eq!(endpoint.kick(&identity(3).fingerprint()), 1);
    closes(&peers[&3]).await;
    assert!(hung.elapsed() < GRACE, "before anybody is in doubt");
    assert!(dial(&endpoint, 2, b"echo/1").await.is_err());

    // In doubt nobody is let in, and whoever asks is told in time.
    let asked = Wall::now();
    let reload = endpoint.reload().await;
    assert!(asked.elapsed() < GRACE * 2, "{:?}", asked.elapsed());
    assert!(reload.unusable.unwrap().contains("could not be read in time"));
    until(|| endpoint.0.shared.peers.policy().grants().is_empty()).await;
    closes(&peers[&4]).await;
    assert!(dial(&endpoint, 4, b"echo/1").await.is_err());
    assert!(endpoint.counters().trust_alarms > 0);
    echoes(&open).await;
    echoes(&dial(&endpoint, 9, OPEN).await.unwrap()).await;

    // The file was never changed; who is listed is let in, the revoked key is not.
    disk.hang(false);
    until(|| endpoint.0.shared.peers.policy().grants().len() == 2).await;
    echoes(&dial(&endpoint, 4, b"echo/1").await.unwrap()).await;
    assert!(dial(&endpoint, 2, b"echo/1").await.is_err());
    disk.write(listing(&[3, 4]));
    assert_eq!(endpoint.reload().await.grants, 2);
    disk.write(listing(&[2, 3, 4]));
    assert_eq!(endpoint.reload().await.grants, 3);
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_hold_up_the_end() {
    let (endpoint, disk) = bound(&[2]).await;
    let live = dial(&endpoint, 2, b"echo/1").await.unwrap();
    disk.hang(true);
    let begun = Wall::now();
    assert_eq!(endpoint.revoke(&identity(2).fingerprint()), Some(1));
    endpoint.shutdown_within(Duration::from_secs(1)).await;
    closes(&live).await;
    // Waited for once: neither does this hang, nor the drop.
    endpoint.close_now();
    drop(endpoint);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // The last of it was given to the thread all the same.
    assert!(disk.removed.lock().unwrap().is_empty());
    disk.hang(false);
    let key = identity(2).fingerprint().to_string();
    until(|| disk.removed.lock().unwrap().contains(&key)).await;
}

#[tokio::test]
async fn a_removed_key_is_written_down_before_the_end_however_it_ends() {
    let key = identity(2).fingerprint();
    for end in ["shutdown", "close_now", "drop"] {
        let (endpoint, disk) = bound(&[2]).await;
        assert_eq!(endpoint.revoke(&key), Some(0));
        match end {
            "shutdown" => _ = endpoint.shutdown().await,
            "close_now" => endpoint.close_now(),
            _ => drop(endpoint),
        }
        let removed = disk.removed.lock().unwrap().clone();
        assert!(removed.contains(&key.to_string()), "{end}: {removed:?}");
    }
}

/// The twin: a look from inside a task, as it was, stands still with everything else.
#[tokio::test]
async fn a_look_from_inside_a_task_would_stop_everything() {
    let (endpoint, disk) = bound(&[2]).await;
    let open = dial(&endpoint, 9, OPEN).await.unwrap();
    disk.hang(true);
    let release = Arc::clone(&disk);
    let releaser = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        release.hang(false);
    });
    let begun = Wall::now();
    let look = tokio::spawn(async move { disk.call() });
    echoes(&open).await;
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    look.await.unwrap();
    releaser.join().unwrap();
}

/// 16 MiB of keys take seconds to read in a build for tests.
#[tokio::test]
async fn a_long_file_refuses_nobody_who_is_listed_while_it_is_read() {
    let (endpoint, disk) = bound(&[2]).await;
    let live = dial(&endpoint, 2, b"echo/1").await.unwrap();
    let long = std::env::var_os("ENDPOINT_TEST_LONG").is_some();
    let keys: u32 = if long { 230_000 } else { 40_000 };
    let mut text = String::new();
    for n in 0..keys {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        text += &format!("{}\n", Fingerprint::from_bytes(bytes));
    }
    disk.write(text + &listing(&[2]));
    let reload = endpoint.reload().await;
    assert_eq!((reload.grants, reload.unusable), (keys as usize + 1, None));
    echoes(&live).await;
    echoes(&dial(&endpoint, 2, b"echo/1").await.unwrap()).await;
    assert_eq!(endpoint.counters().trust_alarms, 0);
}
