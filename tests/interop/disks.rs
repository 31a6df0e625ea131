//! Trust files on real file systems that are not like a disk at home: one that hangs (FUSE, with fusepy) and
//! a file that is a mount of its own (`unshare --mount`). Both need root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use endpoint_tests::machine::{Machine, Running};
use rustix::process::Signal;

use crate::{machine, pypi};

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

    fn hang(&self, hangs: bool) {
        let switch = self.folder.path().join("HANG");
        match hangs {
            true => fs::write(switch, "").unwrap(),
            false => fs::remove_file(switch).unwrap_or_default(),
        }
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
        self.hang(false);
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

    disk.hang(true);
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
    assert_eq!(ping(), 5);

    disk.hang(false);
    let removed = removing.end();
    assert!(removed.code() == 0 && removed.out.contains("removed 1 line"), "{removed:?}");
    assert_eq!(ping(), 5);
    assert_eq!(server.run(&["trust", "add", &key]).code(), 0);
    assert_eq!(ping(), 0);

    // The system keeps what is left of a process until the disk answers; its connections and sockets are gone.
    disk.hang(true);
    disk.until_held();
    served.running.signal(Signal::TERM);
    served.running.until("stopped");
    disk.hang(false);
    assert_eq!(served.running.end().code(), 0);
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
