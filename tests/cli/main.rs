//! Does the program keep its contract: exit codes, JSON, hints, and files that it must not believe?
//!
//! Every test starts the program as a process, each machine with a state folder of its own.

mod bundle;
mod config;
mod key_faults;
mod limits;
mod logs;
mod output;
#[cfg(feature = "qlog")]
mod qlog;
#[cfg(not(feature = "qlog"))]
#[path = "qlog_off.rs"]
mod qlog;
mod serve;
mod stalled;
mod trust_faults;
mod walk;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use endpoint_tests::machine::{Machine, Running, Said, Server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_endpoint-under-test");
/// A user that exists on every machine and is not the one who runs the tests: `nobody`.
const OTHER_USER: u32 = 65_534;

/// A machine that has nothing yet.
fn machine() -> Machine {
    Machine::new(PROGRAM)
}

/// Root may write to files and read them whatever their mode is, and give them away.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A machine whose user is bound by file modes.
fn bound_machine() -> Machine {
    if is_root() { Machine::of_user(PROGRAM, OTHER_USER) } else { machine() }
}

/// Gives a file to another user, which only root can.
///
/// Another user who runs the tests is told so: what needs root is not tested then.
fn give_away(path: &Path) -> bool {
    if !is_root() {
        // Not a print macro: what those print, the test runner hides.
        let text =
            "\nNOT TESTED: files of another user; only root can make them, run this as root\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return false;
    }
    chown(path, Some(OTHER_USER), None).unwrap();
    true
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// One round trip.
fn ping(from: &Machine, to: &Server) -> Said {
    from.run(&["ping", &to.peer(), "-c", "1"])
}

/// A `dial` of `echo/1` that has echoed one line and stays.
fn dial(from: &Machine, to: &Server) -> Running {
    let mut command = from.command(&["dial", &to.peer(), "--alpn", "echo/1"]);
    command.stdin(std::process::Stdio::piped());
    let mut running = Running::start(command);
    running.write(b"hello\n");
    assert_eq!(running.line().as_deref(), Some("hello"), "{running:?}");
    running
}
