//! The file of authorised keys while an endpoint runs: every way to change, lose or spoil it.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Clock, CloseCode, ConnectError, Connection, Endpoint, LinkError,
    Target, event::Event, handler::Echo,
};
use endpoint_tests::{
    node::{PEER, alpn, dialler, echo, identity, noon},
    until, within,
};
use tempfile::TempDir;
use tokio::sync::broadcast;

fn line(n: u8) -> String {
    format!("{}\n", identity(n).fingerprint())
}

/// An endpoint that watches a file.
struct Watching {
    _folder: TempDir,
    path: PathBuf,
    endpoint: Endpoint,
    events: broadcast::Receiver<Event>,
    clock: Clock,
}

impl Watching {
    async fn start(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_peers");
        write(&path, lines);
        Self::open(folder, path).await
    }

    async fn open(folder: TempDir, path: PathBuf) -> Self {
        let clock = Clock::manual(noon());
        let endpoint = Endpoint::builder(identity(1))
            .listen("127.0.0.1:0".parse().unwrap())
            .authorized(AuthorizedPeers::watch(&path).unwrap())
            .clock(clock.clone())
            .handle(alpn(PEER), Access::default(), Echo)
            .handle(Alpn::ENROLL_1, Access::Enroll, Echo)
            .bind()
            .await
            .unwrap();
        let events = endpoint.events();
        Self { _folder: folder, path, endpoint, events, clock }
    }

    async fn dial(&self, n: u8, protocol: impl TryInto<Alpn>) -> Result<Connection, ConnectError> {
        let (key, addr) = (self.endpoint.fingerprint(), self.endpoint.local_addrs()[0]);
        let target: Target = format!("peer://{}@{addr}", key.hex()).parse().unwrap();
        dialler(n).await.connect(&target, protocol).await
    }

    async fn is_admitted(&self, n: u8) -> bool {
        match self.dial(n, PEER).await {
            Ok(_) => true,
            Err(ConnectError::NotAuthorized { .. }) => false,
            Err(other) => panic!("neither yes nor no: {other:?}"),
        }
    }

    /// The next event for which `wanted` gives something.
    async fn next<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let event = async {
            loop {
                if let Some(found) = wanted(&self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        within(10, "the event comes", event).await
    }

    /// Waits until the set has `wanted` keys.
    async fn holds(&mut self, wanted: usize) {
        self.next(|event| match event {
            Event::TrustReloaded { grants, .. } => (*grants == wanted).then_some(()),
            _ => None,
        })
        .await;
    }

    async fn is_unusable(&mut self) -> String {
        self.next(|event| match event {
            Event::TrustUnreadable { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
    }
}

/// As an editor that keeps the file.
fn write(path: &Path, lines: &str) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// As an editor that replaces the file.
fn replace(path: &Path, lines: &str) {
    let beside = path.with_extension("new");
    write(&beside, lines);
    fs::rename(&beside, path).unwrap();
}

async fn is_revoked(connection: &Connection, seconds: u64) {
    let told = within(seconds, "the peer is told", connection.closed()).await;
    assert!(matches!(told, LinkError::Closed(CloseCode::Revoked)), "{told:?}");
}

#[tokio::test]
async fn a_line_taken_out_ends_its_connections_however_the_file_is_written() {
    for write in [write, replace] {
        let server = Watching::start(&(line(2) + &line(3))).await;
        let removed = server.dial(2, PEER).await.unwrap();
        let kept = server.dial(3, PEER).await.unwrap();
        write(&server.path, &line(3));
        is_revoked(&removed, 2).await;
        echo(&kept, b"still allowed").await.unwrap();
        assert!(!server.is_admitted(2).await);
    }
}

#[tokio::test]
async fn a_line_added_lets_its_key_in() {
    let mut server = Watching::start("").await;
    assert!(!server.is_admitted(2).await, "an empty file admits nobody");
    replace(&server.path, &line(2));
    server.holds(1).await;
    assert!(server.is_admitted(2).await);
}

#[tokio::test]
async fn an_absent_file_admits_nobody_until_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorized_peers");
    let mut server = Watching::open(folder, path).await;
    assert!(!server.is_admitted(2).await);
    write(&server.path, &line(2));
    server.holds(1).await;
    assert!(server.is_admitted(2).await);
}

#[tokio::test]
async fn an_editor_that_replaces_the_file_in_two_steps_ends_nobody() {
    for _ in 0..5 {
        let mut server = Watching::start(&line(2)).await;
        let live = server.dial(2, PEER).await.unwrap();
        let began = Instant::now();
        fs::rename(&server.path, server.path.with_extension("bak")).unwrap();
        let reason = server.is_unusable().await;
        assert!(reason.contains("authorized_peers is missing"), "{reason}");
        let between = echo(&live, b"between the steps").await;
        let admitted = server.is_admitted(2).await;
        // Whole at once: on a machine with much else to do an empty file may stand for longer than an editor's does.
        replace(&server.path, &(line(2) + &line(3)));
        server.holds(2).await;
        if began.elapsed() > EDITORS_TAKE {
            // Slower than the grace of an editor: the file has to be believed gone by then.
            continue;
        }
        between.unwrap();
        assert!(admitted);
        echo(&live, b"after the second").await.unwrap();
        assert_eq!(server.endpoint.counters().ended_by_policy, 0);
        return;
    }
    panic!("this machine never took less than {EDITORS_TAKE:?} for both steps");
}

/// Less than the two seconds for which a missing file keeps its set.
const EDITORS_TAKE: Duration = Duration::from_millis(1900);

#[tokio::test]
async fn a_file_that_stays_away_admits_nobody_after_two_seconds() {
    let mut server = Watching::start(&line(2)).await;
    let live = server.dial(2, PEER).await.unwrap();
    let began = Instant::now();
    fs::remove_file(&server.path).unwrap();
    server.is_unusable().await;
    echo(&live, b"within the grace").await.unwrap();
    is_revoked(&live, 4).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(8), "{took:?}");
    assert!(!server.is_admitted(2).await);
    write(&server.path, &line(2));
    server.holds(1).await;
    assert!(server.is_admitted(2).await, "the file is back, and so is its key");
}

/// A way to spoil a file, and a part of what is said then.
struct Case {
    what: &'static str,
    spoil: fn(&Path),
    says: &'static str,
}

#[tokio::test]
async fn a_file_that_cannot_be_believed_admits_nobody_after_two_seconds() {
    let mut cases = vec![
        Case {
            what: "others may write to it",
            spoil: |path| fs::set_permissions(path, Permissions::from_mode(0o660)).unwrap(),
            says: "chmod",
        },
        Case {
            what: "a link",
            spoil: |path| {
                let elsewhere = path.with_extension("elsewhere");
                fs::rename(path, &elsewhere).unwrap();
                symlink(&elsewhere, path).unwrap();
            },
            says: "link",
        },
        Case {
            what: "a folder",
            spoil: |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            says: "not a regular file",
        },
    ];
    cases.push(match rustix::process::geteuid().is_root() {
        true => Case {
            what: "another's",
            spoil: |path| chown(path, Some(65_534), None).unwrap(),
            says: "65534",
        },
        // Root reads everything, so this one is for the others.
        false => Case {
            what: "unreadable",
            spoil: |path| fs::set_permissions(path, Permissions::from_mode(0o200)).unwrap(),
            says: "may not read",
        },
    });
    let checks = cases.into_iter().map(|Case { what, spoil, says }| async move {
        let mut server = Watching::start(&line(2)).await;
        let live = server.dial(2, PEER).await.unwrap();
        spoil(&server.path);
        // Between two steps of spoiling it may be missing.
        let reason = loop {
            let reason = server.is_unusable().await;
            if !reason.contains("is missing") {
                break reason;
            }
        };
        assert!(reason.contains(says), "{what}: {reason}");
        assert!(reason.contains(&server.path.display().to_string()), "{what}: {reason}");
        is_revoked(&live, 4).await;
        assert!(!server.is_admitted(2).await, "{what}");
        let again = AuthorizedPeers::watch(&server.path).unwrap_err().to_string();
        assert!(again.contains(says), "at start, {what}: {again}");
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn a_bad_line_admits_nobody_spares_the_good_ones_and_raises_an_alarm() {
    let mut server = Watching::start(&(line(2) + &line(3) + &line(4))).await;
    let (good, bad) = (server.dial(2, PEER).await.unwrap(), server.dial(3, PEER).await.unwrap());
    let mistyped = format!("{}no-such-option {}{}{}", line(2), line(3), line(4), line(5));
    replace(&server.path, &mistyped);
    let (place, reason) = server
        .next(|event| match event {
            Event::TrustFault { place, reason } => Some((place.clone(), reason.clone())),
            _ => None,
        })
        .await;
    assert_eq!(place, format!("{}:2:1", server.path.display()));
    assert!(reason.contains("no-such-option"), "{reason}");
    is_revoked(&bad, 2).await;
    echo(&good, b"spared").await.unwrap();
    for (n, admitted) in [(2, true), (3, false), (4, true), (5, true)] {
        assert_eq!(server.is_admitted(n).await, admitted, "key {n}");
    }
    assert!(server.endpoint.counters().trust_alarms > 0);
    let at_start = AuthorizedPeers::watch(&server.path).unwrap_err().to_string();
    assert!(at_start.starts_with(&format!("{}:2:1: ", server.path.display())), "{at_start}");
}

#[tokio::test]
async fn garbage_and_half_a_file_admit_only_whole_good_lines() {
    let half = line(2) + &line(3)[..40];
    for (garbage, admitted) in [(half.as_bytes(), true), (&[0xff, 0, 1, 2][..], false)] {
        let server = Watching::start(&(line(2) + &line(3))).await;
        let third = server.dial(3, PEER).await.unwrap();
        let beside = server.path.with_extension("new");
        write(&beside, "");
        fs::write(&beside, garbage).unwrap();
        fs::rename(&beside, &server.path).unwrap();
        is_revoked(&third, 2).await;
        assert_eq!(server.is_admitted(2).await, admitted);
        assert!(!server.is_admitted(3).await);
    }
}

#[tokio::test]
async fn a_removed_key_is_refused_enrolment_for_ninety_days_across_restarts() {
    let mut server = Watching::start(&(line(2) + &line(3))).await;
    replace(&server.path, "");
    server.holds(0).await;
    // One comes back by hand while nothing runs.
    let Watching { _folder: folder, path, endpoint, .. } = server;
    endpoint.shutdown().await;
    drop(endpoint);
    // On a disk that is slower than the end waits for it, the writing goes on.
    let (removed, key) =
        (path.with_file_name("authorized_peers.removed"), identity(2).fingerprint().to_string());
    until("the list of removed keys is written", || {
        fs::read_to_string(&removed).is_ok_and(|text| text.contains(&key))
    })
    .await;
    write(&path, &line(3));
    let server = Watching::open(folder, path).await;
    let refused = server.dial(2, Alpn::ENROLL_1).await;
    assert!(matches!(refused, Err(ConnectError::NotAuthorized { .. })), "{refused:?}");
    server.dial(3, Alpn::ENROLL_1).await.unwrap();
    server.clock.advance(90 * 24 * 3600);
    server.dial(2, Alpn::ENROLL_1).await.unwrap();
}
