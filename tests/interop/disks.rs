//! Trust files on real file systems that are not like a disk at home: one that hangs (FUSE, with fusepy) and
//! a file that is a mount of its own (`unshare --mount`). Both need root.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use endpoint_tests::{
    count,
    machine::{Machine, Running, Server},
};
use rustix::process::Signal;

use crate::{machine, pypi};

const TRUST: &str = "authorized_peers";
const CONFIGURATION: &str = "endpoint.toml";

/// The state folder of a machine on a file system that can hang.
struct HangingDisk {
    folder: tempfile::TempDir,
    mount: PathBuf,
    _daemon: Running,
}

impl HangingDisk {
    fn under(machine: &Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The machine's folder goes below, and the mount in its place.
        let mount = machine.state();
        let below = folder.path().join("below");
        fs::rename(&mount, &below).unwrap();
        fs::create_dir(&mount).unwrap();
        let words = [&below, &mount, &folder.path().to_owned()]
            .map(|path| path.to_str().unwrap().to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut daemon = pypi::python(pypi::FUSEPY, include_str!("hangfs.py"), &words);
        daemon.current_dir("/");
        let daemon = Running::start(daemon);
        let is_mounted =
            || fs::read_to_string("/proc/mounts").unwrap().contains(mount.to_str().unwrap());
        wait_for("the mount", is_mounted);
        Self { folder, mount, _daemon: daemon }
    }

    /// From now on every file hangs whose path ends in one of these.
    fn hang(&self, ends: &[&str]) {
        let new = self.folder.path().join("new");
        fs::write(&new, ends.join("\n")).unwrap();
        fs::rename(new, self.switch()).unwrap();
    }

    /// From now on the disk answers.
    fn answer(&self) {
        fs::remove_file(self.switch()).unwrap_or_default();
    }

    fn switch(&self) -> PathBuf {
        self.folder.path().join("HANG")
    }

    /// Waits for a call that hangs from now on.
    fn until_held(&self) {
        let held = self.folder.path().join("HELD");
        fs::remove_file(&held).unwrap_or_default();
        wait_for("a call that hangs", || held.exists());
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        self.answer();
        let _ended = Command::new("umount").arg("--lazy").arg(&self.mount).status();
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// For as long as a disk hangs.
fn meanwhile(what: impl Fn()) {
    let ends = Instant::now() + Duration::from_secs(count(1, 60) as u64);
    while Instant::now() < ends {
        what();
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_disk_that_hangs_stops_no_answer_no_revocation_and_no_signal() {
    let (server, client) = (machine(), machine());
    let key = client.fingerprint();
    assert_eq!(server.run(&["trust", "add", &key]).code(), 0);
    let disk = HangingDisk::under(&server);
    let served = server.serve();
    let peer = served.peer();
    let ping = || client.run(&["ping", &peer, "--count", "1"]).code();
    assert_eq!(ping(), 0);
    let mut live = Running::start({
        let mut dial = client.command(&["dial", &peer, "--alpn", "echo/1"]);
        dial.stdin(std::process::Stdio::piped());
        dial
    });
    live.write(b"one\n");
    assert_eq!(live.line().as_deref(), Some("one"));

    disk.hang(&[TRUST]);
    // Asked for while it hangs: the edit waits for the disk, the revocation does not.
    let removing = Running::start(server.command(&["trust", "rm", &key]));
    served.running.until("key revoked");
    live.until_end();
    assert_eq!(live.end().code(), 5);
    served.running.signal(Signal::HUP);
    served.running.until("reload asked for by SIGHUP");
    served.running.until("authorized_peers unusable");
    let begun = Instant::now();
    let status = server.json(&["status"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let problem = status["trust"]["problems"][0].as_str().unwrap();
    assert!(problem.contains("the disk does not answer"), "{problem}");
    assert_eq!(server.run(&["kick", &key]).code(), 0);
    meanwhile(|| {
        let status = server.json(&["status"]);
        assert_eq!((status["trust"]["keys"].as_u64(), ping()), (Some(0), 5));
    });

    disk.answer();
    let removed = removing.end();
    assert!(removed.code() == 0 && removed.out.contains("removed 1 line"), "{removed:?}");
    assert_eq!(ping(), 5);
    assert_eq!(server.run(&["trust", "add", &key]).code(), 0);
    assert_eq!(ping(), 0);

    // The system keeps what is left of a process until the disk answers; its connections and sockets are gone.
    disk.hang(&[TRUST]);
    disk.until_held();
    ends_without_the_disk(served, &disk);
}

/// Ends while the disk hangs: its port is free before it answers.
fn ends_without_the_disk(served: Server, disk: &HangingDisk) {
    let address = served.address();
    let is_free = || UdpSocket::bind(&address).is_ok() && TcpListener::bind(&address).is_ok();
    assert!(!is_free());
    served.running.signal(Signal::TERM);
    served.running.until("stopped");
    wait_for("a free port", is_free);
    disk.answer();
    assert_eq!(served.running.end().code(), 0);
}

#[test]
fn a_configuration_on_a_disk_that_hangs_holds_up_no_reload_of_trust() {
    let (server, client) = (machine(), machine());
    let key = client.fingerprint();
    let file = server.file(CONFIGURATION);
    let handshakes = |count: u32| format!("[limits]\nhandshakes_in_flight = {count}\n");
    fs::write(&file, handshakes(100)).unwrap();
    let disk = HangingDisk::under(&server);
    let served = server.serve();
    let peer = served.peer();
    let ping = || client.run(&["ping", &peer, "--count", "1"]).code();
    let reloads = || server.json(&["status"])["counters"]["reloads"].as_u64().unwrap();
    fs::write(&file, handshakes(101)).unwrap();

    disk.hang(&[CONFIGURATION]);
    // More than once: a reload that waits for the disk keeps no later one from what it can do.
    for _ in 0..2 {
        let before = reloads();
        served.running.signal(Signal::HUP);
        disk.until_held();
        wait_for("a reload", || reloads() > before);
    }
    served.running.until("the disk under the configuration does not answer");
    assert!(!served.running.err().contains("limit changed"), "{}", served.running.err());
    assert_eq!(ping(), 5);
    assert_eq!(server.run(&["trust", "add", &key]).code(), 0);
    meanwhile(|| {
        assert_eq!(ping(), 0);
        assert_eq!(server.run(&["kick", &key]).code(), 0);
        served.running.signal(Signal::HUP);
    });

    disk.answer();
    // Its first reading may have begun before the disk answered, and is waited for.
    wait_for("the change", || {
        served.running.signal(Signal::HUP);
        served.running.err().contains("limit changed")
    });
    disk.hang(&[CONFIGURATION]);
    served.running.signal(Signal::HUP);
    disk.until_held();
    ends_without_the_disk(served, &disk);
}

#[test]
fn a_state_folder_that_hangs_stops_no_answer_and_no_command() {
    let (server, client) = (machine(), machine());
    let runtime = tempfile::tempdir().unwrap();
    let key = client.fingerprint();
    assert_eq!(server.run(&["trust", "add", &key]).code(), 0);
    let disk = HangingDisk::under(&server);
    let command = |words: &[&str]| {
        let mut command = server.command(words);
        command.env("XDG_RUNTIME_DIR", runtime.path());
        command
    };
    let served = Server::of(command(&["serve", "--json", "--listen", "127.0.0.1:0"]));
    let peer = served.peer();
    let ping = || client.run(&["ping", &peer, "--count", "1"]).code();
    assert_eq!(ping(), 0);

    disk.hang(&[""]);
    disk.until_held();
    // They do their work at once; what is left of their processes the system keeps until the disk answers.
    let status = Running::start(command(&["status"]));
    wait_for("the status", || status.out().contains("connections  "));
    let removing = Running::start(command(&["trust", "rm", &key]));
    served.running.until("key revoked");
    assert_eq!(ping(), 5);
    let kick = Running::start(command(&["kick", &key]));
    wait_for("the kick", || kick.out().contains("closed 0 connections"));
    // Without a runtime folder the socket lies on the disk that hangs.
    let lost = Running::start(server.command(&["status"]));
    lost.until("did not answer within 2 s");

    disk.answer();
    assert_eq!(lost.end().code(), 1);
    assert_eq!((status.end().code(), kick.end().code()), (0, 0));
    assert_eq!(removing.end().code(), 0);
    disk.hang(&[""]);
    disk.until_held();
    ends_without_the_disk(served, &disk);
}

/// Runs `endpoint` where the trust file is a mount of a file outside.
fn with_a_mounted_file(
    server: &Machine,
    outside: &Path,
    words: &[&str],
) -> endpoint_tests::machine::Said {
    let file = server.file("authorized_peers");
    let command = server.command(words);
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "sh", "-c"]);
    inside.arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"");
    inside.arg(outside).arg(file).arg(command.get_program()).args(command.get_args());
    Running::start(inside).end()
}

#[test]
fn a_file_that_is_a_mount_of_its_own_is_edited_in_place() {
    let server = machine();
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    for path in [&outside, &server.file("authorized_peers")] {
        fs::write(path, "# outside\n").unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let keys: Vec<String> =
        (0..3).map(|n| format!("sha256:{}", format!("{n:02x}").repeat(32))).collect();
    for key in &keys {
        let said = with_a_mounted_file(&server, &outside, &["trust", "add", key]);
        assert_eq!(said.code(), 0, "{said:?}");
    }
    let said = with_a_mounted_file(&server, &outside, &["trust", "rm", &keys[1]]);
    assert_eq!(said.code(), 0, "{said:?}");
    let text = fs::read_to_string(&outside).unwrap();
    assert_eq!(text, format!("# outside\n{}\n{}\n", keys[0], keys[2]));
    // Below the mount nothing changed, and nothing lies beside it.
    assert_eq!(fs::read_to_string(server.file("authorized_peers")).unwrap(), "# outside\n");
    assert!(!server.file("authorized_peers.whole").exists());
    // The twin: what renames over the file fails there.
    let file = server.file("authorized_peers");
    let script = "mount --bind \"$0\" \"$1\" && touch \"$1.new\" && ! mv \"$1.new\" \"$1\"";
    let renamed = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args([&outside, &file])
        .status();
    assert!(renamed.unwrap().success());
}

#[test]
fn a_mounted_file_that_was_replaced_outside_is_not_believed() {
    let server = machine();
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    for path in [&outside, &server.file("authorized_peers")] {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let file = server.file("authorized_peers");
    let command = server.command(&["trust", "ls"]);
    let script = "mount --bind \"$0\" \"$1\" && rm \"$0\" && shift && exec \"$@\"";
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(&outside)
        .arg(&file);
    inside.arg(command.get_program()).args(command.get_args());
    let said = Running::start(inside).end();
    assert_ne!(said.code(), 0, "{said:?}");
    assert!(said.err.contains("mount its folder instead of the file"), "{said:?}");
}
