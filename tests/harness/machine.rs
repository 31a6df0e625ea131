//! The program as a process, on machines that are told apart by their state folder.

use std::{
    io::{Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest time that a command may take: far more than any needs, so that only one that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A state folder and the program that works on it.
#[derive(Debug)]
pub struct Machine {
    program: PathBuf,
    folder: tempfile::TempDir,
    user: Option<u32>,
}

impl Machine {
    /// A machine on which nothing has happened yet, with `program` as its `endpoint`.
    #[must_use]
    pub fn new(program: impl AsRef<Path>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { program: program.as_ref().to_owned(), folder, user: None }
    }

    /// A machine that is used by another user than this one; needs root.
    ///
    /// The program is copied to where that user can start it.
    #[must_use]
    pub fn of_user(program: impl AsRef<Path>, user: u32) -> Self {
        use std::os::unix::fs::{PermissionsExt, chown};
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("endpoint");
        // Copied by another process: one that another test starts meanwhile would inherit a
        // descriptor open for writing, and the copy could not be executed ("text file busy").
        let copied = Command::new("cp").arg(program.as_ref()).arg(&copy).status();
        assert!(copied.expect("cp starts").success(), "a copy of the program");
        for path in [folder.path(), &copy] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its mode");
        }
        chown(folder.path(), Some(user), Some(user)).expect("root may give a folder away");
        Self { program: copy, folder, user: Some(user) }
    }

    /// The state folder; made by the first command that writes.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A file in the state folder, which is made if missing.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        let state = self.state();
        if !state.exists() {
            use std::os::unix::fs::{DirBuilderExt as _, chown};
            std::fs::DirBuilder::new().mode(0o700).create(&state).expect("a state folder");
            chown(&state, self.user, self.user).expect("root may give a folder away");
        }
        state.join(name)
    }

    /// `endpoint --state … WORDS`, not yet started, without a stdin.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--state").arg(self.state()).args(words).stdin(Stdio::null());
        for name in ["ENDPOINT_STATE", "ENDPOINT_CONFIG", "NO_COLOR", "XDG_RUNTIME_DIR", "RUST_LOG"]
        {
            command.env_remove(name);
        }
        if let Some(user) = self.user {
            use std::os::unix::process::CommandExt as _;
            command.uid(user).gid(user).current_dir("/");
        }
        command
    }

    /// Runs a command to its end.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Said {
        Running::start(self.command(words)).end()
    }

    /// Runs a command with `--json` to its end, which must be a success; gives its one object.
    ///
    /// # Panics
    /// If it fails or says something else.
    pub fn json(&self, words: &[&str]) -> Value {
        let said = self.run(&[words, &["--json"]].concat());
        assert_eq!(said.code(), 0, "{words:?}: {said:?}");
        let objects = said.objects();
        assert_eq!(objects.len(), 1, "{words:?}: {said:?}");
        objects.into_iter().next().expect("one")
    }

    /// The fingerprint of the identity, which is made if missing.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        string(&self.json(&["key", "show"]), "fingerprint")
    }

    /// `serve` on a free port of loopback.
    #[must_use]
    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// The same with more arguments.
    #[must_use]
    pub fn serve_with(&self, words: &[&str]) -> Server {
        let listen = ["serve", "--json", "--listen", "127.0.0.1:0"];
        Server::of(self.command(&[&listen, words].concat()))
    }
}

/// A string field.
///
/// # Panics
/// If the object lacks it.
#[must_use]
pub fn string(object: &Value, field: &str) -> String {
    match object.get(field) {
        Some(Value::String(text)) => text.clone(),
        other => panic!("`{field}` is {other:?} in {object}"),
    }
}

/// The names of an object's fields, sorted.
#[must_use]
pub fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> =
        object.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

/// What a process said and how it ended.
#[derive(Clone, Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout.
    pub out: String,
    /// Its stderr, without colour.
    pub err: String,
}

impl Said {
    /// The exit code.
    ///
    /// # Panics
    /// If a signal ended it: no command may end so.
    #[must_use]
    pub fn code(&self) -> i32 {
        assert_eq!(self.status.signal(), None, "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        self.status.code().expect("a code")
    }

    /// The objects on stdout, one a line.
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        let parsed = self.out.lines().map(|line| serde_json::from_str(line).expect("an object"));
        parsed.collect()
    }

    /// The commands that hints name.
    #[must_use]
    pub fn hints(&self) -> Vec<&str> {
        self.err.lines().filter_map(|line| line.trim_start().strip_prefix("hint: ")).collect()
    }
}

/// A process whose output is gathered while it runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: Gathered,
    err: Gathered,
    /// Bytes of stdout that were given as lines.
    given: usize,
    readers: Vec<JoinHandle<()>>,
    stdin: Option<ChildStdin>,
}

impl Running {
    /// Starts it.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let (out, err) = (Gathered::default(), Gathered::default());
        let readers = vec![
            gather(child.stdout.take().expect("a stdout"), &out),
            gather(child.stderr.take().expect("a stderr"), &err),
        ];
        Self { child, out, err, given: 0, readers, stdin }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout; `None` if the process ends without one.
    ///
    /// # Panics
    /// If nothing comes.
    pub fn line(&mut self) -> Option<String> {
        let ends = Instant::now() + PATIENCE;
        loop {
            let over = self.readers.iter().all(JoinHandle::is_finished);
            let text = self.out();
            let rest = text.get(self.given..).unwrap_or_default();
            if let Some((line, _)) = rest.split_once('\n') {
                self.given += line.len() + 1;
                return Some(line.to_owned());
            }
            if over {
                return None;
            }
            assert!(Instant::now() < ends, "silence: {self:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Writes to its stdin, which must be a pipe.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("a stdin");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("the process reads");
    }

    /// The same, but it may have ended already.
    pub fn try_write(&mut self, bytes: &[u8]) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
        }
    }

    /// Ends its stdin.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// What stdout holds so far.
    #[must_use]
    pub fn out(&self) -> String {
        text_of(&self.out)
    }

    /// What stderr holds so far.
    #[must_use]
    pub fn err(&self) -> String {
        text_of(&self.err)
    }

    /// Waits until stdout or stderr holds `text`.
    ///
    /// # Panics
    /// If it does not come.
    pub fn until(&self, text: &str) {
        let ends = Instant::now() + PATIENCE;
        while !self.out().contains(text) && !self.err().contains(text) {
            let over = self.readers.iter().all(JoinHandle::is_finished);
            let late = over && !self.out().contains(text) && !self.err().contains(text);
            assert!(!late && Instant::now() < ends, "waited in vain for {text}: {self:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to this process.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("it runs");
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a state").is_none()
    }

    /// Waits for its end while its stdin stays open.
    ///
    /// # Panics
    /// If it does not end.
    pub fn until_end(&mut self) {
        let ends = Instant::now() + PATIENCE;
        while self.runs() {
            assert!(Instant::now() < ends, "does not end: {self:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end; its stdin ends now.
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn end(mut self) -> Said {
        self.end_input();
        self.until_end();
        let status = self.child.wait().expect("a state");
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        Said { status, out: self.out(), err: self.err() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

type Gathered = Arc<Mutex<Vec<u8>>>;

fn text_of(gathered: &Gathered) -> String {
    String::from_utf8_lossy(&gathered.lock().expect("no reader panics")).into_owned()
}

fn gather(mut from: impl Read + Send + 'static, into: &Gathered) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            into.lock().expect("no reader panics").extend_from_slice(&chunk[..count]);
        }
    })
}

/// A `serve` that is ready.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub running: Running,
    /// Its first line.
    pub ready: Value,
}

impl Server {
    /// Starts `command`, which serves and says so in JSON.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn of(command: Command) -> Self {
        let mut running = Running::start(command);
        let line = running.line();
        let ready = line.as_deref().map(serde_json::from_str::<Value>);
        let Some(Ok(ready)) = ready else { panic!("not ready: {line:?}: {:?}", running.end()) };
        assert_eq!(string(&ready, "event"), "ready", "{ready}");
        Self { running, ready }
    }

    /// How to dial it by its key.
    #[must_use]
    pub fn peer(&self) -> String {
        string(&self.ready, "peer")
    }

    /// Where it listens, as text.
    #[must_use]
    pub fn address(&self) -> String {
        self.ready["listen"][0].as_str().expect("an address").to_owned()
    }

    /// A number of bytes of `/proc/PID/status`, such as `VmRSS`.
    #[must_use]
    pub fn status_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.running.pid());
        let text = std::fs::read_to_string(path).expect("the process lives");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = line.expect("a line of that name").trim().trim_end_matches(" kB");
        kibibytes.parse::<u64>().expect("a number") << 10
    }

    /// The port number, of UDP and TCP.
    #[must_use]
    pub fn port(&self) -> String {
        self.address().rsplit_once(':').expect("a port").1.to_owned()
    }
}
