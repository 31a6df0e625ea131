//! What does a program leave behind when one of its file operations goes wrong?
//!
//! Runs any program under a preloaded library (`tests/faults/shim.c`) that counts its file operations under a
//! folder and lets one of them fail: first a run that counts, then one for each point and fault. Linux only,
//! needs `cc`. A kill ends the process, not the machine: what was written but not synced is still there.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What goes wrong at a point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The operation fails with EIO.
    Error,
    /// It fails with ENOSPC.
    Full,
    /// It writes half, and the next write fails with ENOSPC.
    Short,
    /// The process is killed instead of it.
    Before,
    /// The process is killed when it is done.
    After,
}

impl Fault {
    pub const ALL: [Self; 5] = [Self::Error, Self::Full, Self::Short, Self::Before, Self::After];

    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Full => "full",
            Self::Short => "short",
            Self::Before => "before",
            Self::After => "after",
        }
    }

    /// Whether the process cannot report it.
    #[must_use]
    pub const fn kills(self) -> bool {
        matches!(self, Self::Before | Self::After)
    }
}

/// The library, compiled.
#[derive(Debug)]
pub struct Shim {
    folder: tempfile::TempDir,
}

impl Shim {
    /// Compiles it.
    ///
    /// # Panics
    /// Without a C compiler.
    #[must_use]
    pub fn build() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/shim.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&folder.path().join("shim.so"), &source])
            .arg("-ldl")
            .output()
            .expect("cc starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { folder }
    }

    /// Runs without a fault, and gives for each operation under `folder` whether it writes bytes.
    ///
    /// # Panics
    /// If the program fails.
    #[must_use]
    pub fn count(&self, mut command: Command, folder: &Path) -> Vec<bool> {
        let log = self.folder.path().join("log");
        let _ = fs::remove_file(&log);
        self.preload(&mut command, folder).env("FAULT_LOG", &log);
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let log = fs::read(log).unwrap_or_default();
        log.into_iter().map(|byte| byte == b'w').collect()
    }

    /// Runs with one fault: at operation `at`, from 0.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[must_use]
    pub fn run(&self, mut command: Command, folder: &Path, at: usize, fault: Fault) -> Output {
        self.preload(&mut command, folder)
            .env("FAULT_AT", (at + 1).to_string())
            .env("FAULT_KIND", fault.name());
        command.output().expect("the program starts")
    }

    fn preload<'a>(&self, command: &'a mut Command, folder: &Path) -> &'a mut Command {
        command.env("LD_PRELOAD", self.folder.path().join("shim.so")).env("FAULT_FOLDER", folder)
    }
}

/// Every point of these operations with each fault that it can have.
#[must_use]
pub fn points(operations: &[bool]) -> Vec<(usize, Fault)> {
    let faults =
        |writes: bool| Fault::ALL.into_iter().filter(move |f| writes || *f != Fault::Short);
    let of = |(at, writes): (usize, &bool)| faults(*writes).map(move |fault| (at, fault));
    operations.iter().enumerate().flat_map(of).collect()
}

/// At most `count` of them, spread evenly.
#[must_use]
pub fn spread<T: Clone>(all: &[T], count: usize) -> Vec<T> {
    let count = count.min(all.len());
    (0..count).map(|n| all[n * all.len() / count].clone()).collect()
}

/// Files under a folder that others may read, or that hold one of these byte strings.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn leaks(folder: &Path, secrets: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(folder) {
        let mode = fs::symlink_metadata(&path).map_or(0, |facts| facts.mode() & 0o7777);
        if mode & 0o077 != 0 {
            found.push(format!("{} has mode {mode:04o}", path.display()));
        }
        let bytes = fs::read(&path).unwrap_or_default();
        for (n, secret) in secrets.iter().enumerate() {
            if bytes.windows(secret.len()).any(|part| part == secret.as_slice()) {
                found.push(format!("{} holds secret {n}", path.display()));
            }
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(files(&entry.path())),
            _ => all.push(entry.path()),
        }
    }
    all
}

/// Copies the files of a folder into a new one, with their modes.
///
/// # Panics
/// If that fails.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    fs::set_permissions(to, fs::metadata(from).expect("a folder").permissions()).expect("its mode");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}
