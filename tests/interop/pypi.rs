//! Packages from PyPI: clients that Debian 12 does not have.
//!
//! Fetched once, into a folder of the build that carries their name and version.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use endpoint_tests::machine::Running;

/// A QUIC stack of its own, in the version that the tests were written for.
pub const AIOQUIC: &str = "aioquic==1.7.2";

/// File systems in user space, by libfuse 2. Pure Python, given as source alone.
pub const FUSEPY: &str = "fusepy==3.0.1";

/// The folder with the package in it.
pub fn package(name: &str) -> PathBuf {
    // One at a time: another test of this process may want the same one.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _one = FETCHING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.is_dir() {
        return folder;
    }
    // Installed beside and renamed, so that a run that is cut off leaves no half of it.
    let beside =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip.args(["--root-user-action", "ignore"]);
    if name != FUSEPY {
        pip.args(["--only-binary", ":all:"]);
    }
    pip.arg("--target");
    pip.arg(&beside).arg(name);
    let said = Running::start(pip).end();
    assert_eq!(said.code(), 0, "PyPI is needed for {name}: {said:?}");
    // Another process may have been faster.
    if std::fs::rename(&beside, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&beside);
    }
    assert!(folder.is_dir());
    folder
}

/// `python3 -c SCRIPT WORDS` with a package in reach.
pub fn python(name: &str, script: &str, words: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", script]).args(words).env("PYTHONPATH", package(name));
    python
}
