//! Which socket belongs to this state folder, and is somebody serving it already?
//!
//! `endpoint.pid` in the state folder is locked by the one server of that folder and holds its
//! process id and the path of its socket, so that commands find the socket whatever their
//! environment is. The lock ends with the process: nothing stale keeps a server from starting.
//!
//! Always true: the socket lies in a folder of mode 0700 that belongs to this user.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    error::{CliError, Result},
    state::State,
};

/// The right to serve a state folder; ends when dropped or when the process ends.
#[derive(Debug)]
pub struct Claim {
    /// Locked for as long as it is open.
    file: File,
    socket: PathBuf,
}

impl Claim {
    /// Claims `state`, whose folder must exist.
    ///
    /// # Errors
    /// Another server has it (exit 1, the text names its pid), or the file cannot be written.
    pub fn take(state: &State) -> Result<Self> {
        let path = state.file(PID_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(|error| CliError::io("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(already_running(state, &mut file)),
            Err(TryLockError::Error(error)) => return Err(CliError::io("lock", &path, &error)),
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let socket = socket_path(state, runtime.as_deref())?;
        let text = format!("{}\n{}\n", std::process::id(), socket.display());
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()))
            .map_err(|error| CliError::io("write", &path, &error))?;
        Ok(Self { file, socket })
    }

    /// The socket to listen on.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Both are only tidiness: commands take a dead socket for no server. On a thread, because a disk that
        // hangs must not keep the program from ending.
        let socket = self.socket.clone();
        let Ok(file) = self.file.try_clone() else { return };
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            let _removed = fs::remove_file(&socket);
            let _emptied = file.set_len(0);
            // The lock goes with its last handle.
            drop(file);
            let _waited_for = done.send(());
        });
        let _in_time = ended.recv_timeout(TIDYING);
    }
}

/// How long the end waits for the disk.
const TIDYING: Duration = Duration::from_millis(500);

/// The process id of the server that wrote its name into the state folder, dead or alive.
#[must_use]
pub fn running_pid(state: &State) -> Option<u32> {
    read_pid_file(state).map(|(pid, _)| pid)
}

/// The socket of the server that wrote its name into the state folder, dead or alive.
pub(super) fn socket_of_server(state: &State) -> Option<PathBuf> {
    read_pid_file(state).map(|(_, socket)| socket)
}

fn read_pid_file(state: &State) -> Option<(u32, PathBuf)> {
    let mut file =
        OpenOptions::new().read(true).custom_flags(no_follow()).open(state.file(PID_FILE)).ok()?;
    parse_pid_file(&mut file)
}

fn parse_pid_file(file: &mut File) -> Option<(u32, PathBuf)> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    Some((lines.next()?.parse().ok()?, PathBuf::from(lines.next()?)))
}

fn already_running(state: &State, file: &mut File) -> CliError {
    let folder = state.folder().display();
    let message = match parse_pid_file(file) {
        Some((pid, _)) => {
            format!("an endpoint serves the state folder {folder} already, pid {pid}")
        }
        None => format!("an endpoint serves the state folder {folder} already"),
    };
    CliError::failure("already-running", message)
        .hint(format!("ask it how it is: {}", state.command("status")))
        .hint("run a second one on a folder of its own: endpoint --state DIR serve")
}

/// The first folder that is short enough: the user's runtime folder, the state folder, `/tmp`.
fn socket_path(state: &State, runtime: Option<&Path>) -> Result<PathBuf> {
    let name = format!("{}.sock", short_hash(state.folder()));
    let own = state.file("control.sock");
    if let Some(runtime) = runtime.filter(|folder| folder.is_absolute()) {
        let folder = runtime.join("endpoint");
        let path = folder.join(&name);
        // A runtime folder that is missing or somebody else's is no reason not to start.
        if fits(&path) && private_folder(&folder).is_ok() {
            return Ok(path);
        }
    }
    if fits(&own) && fs::metadata(state.folder()).is_ok_and(|found| found.mode() & 0o077 == 0) {
        return Ok(own);
    }
    let me = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("endpoint-{me}"));
    private_folder(&folder)?;
    Ok(folder.join(name))
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES
}

/// Makes `folder` with mode 0700, or checks that it is such a folder and ours.
fn private_folder(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(CliError::io("make the folder", folder, &error)),
    }
    let found = fs::symlink_metadata(folder).map_err(|e| CliError::io("open", folder, &e))?;
    let me = rustix::process::geteuid().as_raw();
    if found.is_dir() && found.uid() == me && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let message = format!("{} is not a folder of this user alone", folder.display());
    let word = crate::error::shell_word(folder);
    Err(CliError::failure("control-folder", message).hint(format!("look at it: ls -ld {word}")))
}

/// Names a folder in 16 hex digits: FNV-1a, to tell folders apart, not to hide them.
fn short_hash(folder: &Path) -> String {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let bytes = folder.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn no_follow() -> i32 {
    // The bits of O_NOFOLLOW fit an int on every platform that has it.
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

const PID_FILE: &str = "endpoint.pid";

/// `sockaddr_un` holds 108 bytes on Linux and 104 on macOS, the ending zero included.
const MAX_SOCKET_PATH_BYTES: usize = 100;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn state(root: &Path) -> State {
        let state = State::resolve(Some(&root.join("state"))).unwrap();
        state.make().unwrap();
        state
    }

    #[test]
    fn refuses_a_second_server_with_the_pid_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let state = state(root.path());
        let first = Claim::take(&state).unwrap();
        let error = Claim::take(&state).unwrap_err();
        let pid = std::process::id();
        assert!(error.message.ends_with(&format!("pid {pid}")), "{error}");
        assert_eq!(error.exit, crate::error::ExitKind::Failure);
        assert_eq!(running_pid(&state), Some(pid));
        assert_eq!(socket_of_server(&state).as_deref(), Some(first.socket()));
        drop(first);
        assert_eq!(running_pid(&state), None);
        Claim::take(&state).unwrap();
    }

    #[test]
    fn takes_over_a_file_that_a_killed_server_left() {
        let root = tempfile::tempdir().unwrap();
        let state = state(root.path());
        fs::write(state.file(PID_FILE), "999999\n/nowhere.sock\n").unwrap();
        Claim::take(&state).unwrap();
    }

    #[test]
    fn follows_no_link_in_place_of_the_pid_file() {
        let root = tempfile::tempdir().unwrap();
        let state = state(root.path());
        let victim = root.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, state.file(PID_FILE)).unwrap();
        Claim::take(&state).unwrap_err();
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }

    #[test]
    fn prefers_the_runtime_folder_and_keeps_paths_short() {
        let root = tempfile::tempdir().unwrap();
        let near = state(root.path());
        let path = socket_path(&near, Some(root.path())).unwrap();
        assert_eq!(path.parent(), Some(root.path().join("endpoint").as_path()));
        assert_eq!(socket_path(&near, None).unwrap(), near.file("control.sock"));
        let far = state(&root.path().join("x".repeat(90)));
        let path = socket_path(&far, None).unwrap();
        assert!(path.as_os_str().len() <= 100, "{}", path.display());
        assert!(path.starts_with(std::env::temp_dir()), "{}", path.display());
    }

    #[test]
    fn passes_over_a_runtime_folder_that_others_can_enter() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("endpoint");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let state = state(root.path());
        assert_eq!(socket_path(&state, Some(root.path())).unwrap(), state.file("control.sock"));
    }
}
