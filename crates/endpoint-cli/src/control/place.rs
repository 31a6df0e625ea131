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

use tokio::{sync::oneshot, time::timeout};

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

/// How long a command waits for the disk to say where the server is.
const ANSWERING: Duration = Duration::from_secs(2);

/// How long the end waits for the disk.
const TIDYING: Duration = Duration::from_millis(500);

/// The process id of the server that wrote its name into the state folder, dead or alive.
#[must_use]
pub fn running_pid(state: &State) -> Option<u32> {
    read_pid_file(state).map(|(pid, _)| pid)
}

/// Process id and socket of the server that wrote its name into the state folder, dead or alive; `None` if
/// there is none. While the disk under the folder hangs, the socket where it would be in the runtime folder,
/// and no id.
///
/// # Errors
/// The disk hangs, and the runtime folder holds no such socket (code `state-hangs`).
pub(super) async fn server(state: &State) -> Result<Option<(Option<u32>, PathBuf)>> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let of = state.clone();
    server_by(state, runtime.as_deref(), ANSWERING, move || read_pid_file(&of)).await
}

async fn server_by(
    state: &State,
    runtime: Option<&Path>,
    patience: Duration,
    read: impl FnOnce() -> Option<(u32, PathBuf)> + Send + 'static,
) -> Result<Option<(Option<u32>, PathBuf)>> {
    let (done, waiting) = oneshot::channel();
    // A thread that the program's end does not wait for.
    thread::Builder::new()
        .spawn(move || {
            let _waited_for = done.send(read());
        })
        .map_err(|error| CliError::io("start a thread to read", &state.file(PID_FILE), &error))?;
    if let Ok(read) = timeout(patience, waiting).await {
        return Ok(read.ok().flatten().map(|(pid, socket)| (Some(pid), socket)));
    }
    // Named after the folder as it was given: what it really is only the disk knows.
    let socket = runtime.map(|runtime| socket_in(runtime, state.folder()));
    if let Some(socket) = socket.filter(|socket| socket.exists()) {
        return Ok(Some((None, socket)));
    }
    let (folder, word) = (state.folder().display(), crate::error::shell_word(state.folder()));
    let seconds = patience.as_secs();
    let message = format!("the state folder {folder} did not answer within {seconds} s");
    Err(CliError::failure("state-hangs", message)
        .hint(format!("see which disk it lies on: findmnt --target {word}"))
        .hint(
            "give the endpoint a runtime folder on another one (XDG_RUNTIME_DIR), and it can be asked \
             without the disk",
        ))
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
    let real = fs::canonicalize(state.folder());
    let real = real.as_deref().unwrap_or(state.folder());
    let own = state.file("control.sock");
    if let Some(runtime) = runtime.filter(|folder| folder.is_absolute()) {
        let folder = runtime.join(RUNTIME_FOLDER);
        let path = socket_in(runtime, real);
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
    Ok(folder.join(socket_name(real)))
}

/// Where the socket of a state folder lies in a runtime folder.
fn socket_in(runtime: &Path, state: &Path) -> PathBuf {
    runtime.join(RUNTIME_FOLDER).join(socket_name(state))
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

/// Named after a folder in 16 hex digits: FNV-1a, to tell folders apart, not to hide them.
fn socket_name(folder: &Path) -> String {
    let bytes = folder.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}.sock")
}

fn no_follow() -> i32 {
    // The bits of O_NOFOLLOW fit an int on every platform that has it.
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

const PID_FILE: &str = "endpoint.pid";

/// The folder of all our sockets in a runtime folder.
const RUNTIME_FOLDER: &str = "endpoint";

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
        assert_eq!(read_pid_file(&state), Some((pid, first.socket().to_owned())));
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

    #[tokio::test]
    async fn finds_the_socket_in_the_runtime_folder_while_the_disk_hangs() {
        let root = tempfile::tempdir().unwrap();
        let state = state(root.path());
        let find = async |runtime: Option<&Path>| {
            let (_disk, hangs) = mpsc::channel();
            let read = move || hangs.recv().unwrap_or_default();
            server_by(&state, runtime, Duration::from_millis(10), read).await
        };
        for runtime in [None, Some(root.path())] {
            assert_eq!(find(runtime).await.unwrap_err().code, "state-hangs");
        }
        let socket = socket_path(&state, Some(root.path())).unwrap();
        fs::write(&socket, "").unwrap();
        assert_eq!(find(Some(root.path())).await, Ok(Some((None, socket.clone()))));
        // A disk that answers is believed.
        let elsewhere = Some((7, root.path().join("elsewhere")));
        let read = {
            let elsewhere = elsewhere.clone();
            move || elsewhere
        };
        let found = server_by(&state, Some(root.path()), Duration::from_secs(60), read).await;
        assert_eq!(found, Ok(elsewhere.map(|(pid, socket)| (Some(pid), socket))));
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
