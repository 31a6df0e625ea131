//! Why did a command fail, and what should its user do next?
//!
//! One type for every command: what is wrong, a code that scripts may rely on, hints that name a
//! command, and the exit code. `output` turns it into text or JSON; nothing else does.
//!
//! Always true: a failure that ends the program has a message, and the message holds no secret.

use std::{
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// What a command returns.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// The exit codes of the contract.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitKind {
    /// Something failed that is none of the following.
    Failure,
    /// Wrong arguments, or a bad configuration or trust file at start.
    Usage,
    /// The peer's identity is not known here.
    PeerUnknown,
    /// The peer shows another identity than the one expected.
    PeerChanged,
    /// The peer does not let us in.
    NotAuthorized,
    /// No answer, or no route, name or room.
    Unreachable,
    /// What `run` ends with: the command's own code, or 125 to 127.
    Passed(u8),
}

impl ExitKind {
    /// The number that the program exits with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::PeerUnknown => 3,
            Self::PeerChanged => 4,
            Self::NotAuthorized => 5,
            Self::Unreachable => 6,
            Self::Passed(code) => code,
        }
    }
}

/// Where in a file a fault stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file as the user named it.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line's text, if it can be shown.
    pub source: Option<String>,
    /// Characters at fault from `column` on, at least 1.
    pub width: usize,
    /// What to write under them.
    pub label: String,
    /// What would be right, as a sentence.
    pub help: Option<String>,
}

/// Why a command failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CliError {
    /// Stable name of the kind of failure.
    pub code: &'static str,
    /// What the program exits with.
    pub exit: ExitKind,
    /// What is wrong, with which value.
    pub message: String,
    /// What to do next, each a sentence with a command.
    pub hints: Vec<String>,
    /// Where the fault stands, if in a file.
    pub place: Option<Box<Place>>,
    /// Faults of the same kind found at the same time, told before this one.
    pub others: Vec<CliError>,
}

impl CliError {
    /// A failure with an exit code of its own.
    #[must_use]
    pub fn new(code: &'static str, exit: ExitKind, message: impl fmt::Display) -> Self {
        Self {
            code,
            exit,
            message: message.to_string(),
            hints: Vec::new(),
            place: None,
            others: Vec::new(),
        }
    }

    /// The exit code of a command that was run, which has said itself what was wrong.
    #[must_use]
    pub fn silent(code: u8) -> Self {
        Self::new("passed", ExitKind::Passed(code), "")
    }

    /// A failure without an exit code of its own: 1.
    #[must_use]
    pub fn failure(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(code, ExitKind::Failure, message)
    }

    /// Wrong arguments or a bad configuration: 2.
    #[must_use]
    pub fn usage(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(code, ExitKind::Usage, message)
    }

    /// An operation on a file failed; the text names the file.
    #[must_use]
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let cause = io_cause(error);
        Self::failure("io", format!("cannot {action} {}: {cause}", path.display()))
            .hint(format!("look at it, its owner and mode: ls -ld {}", shell_word(path)))
    }

    /// The library's text for an error: what is wrong up to the first `; `, what to do after it.
    #[must_use]
    pub fn told(code: &'static str, exit: ExitKind, error: &impl fmt::Display) -> Self {
        let text = plain(&error.to_string());
        match text.split_once("; ") {
            Some((message, hint)) => Self::new(code, exit, message).hint(hint),
            None => Self::new(code, exit, text),
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Says where the fault stands.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    /// One error out of all faults of `file`: the fault itself if it is alone, else a sum.
    ///
    /// `None` without faults.
    #[must_use]
    pub fn sum(mut faults: Vec<Self>, file: &Path) -> Option<Self> {
        match faults.len() {
            0 | 1 => faults.pop(),
            count => {
                let exit = faults.first().map_or(ExitKind::Usage, |f| f.exit);
                let mut sum =
                    Self::new("problems", exit, format!("{count} problems in {}", file.display()));
                sum.others = faults;
                Some(sum)
            }
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// A text without the system's own numbers: ` (os error 13)`.
pub(crate) fn plain(text: &str) -> String {
    let Some((before, rest)) = text.split_once(" (os error ") else { return text.to_owned() };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{before}{after}")
}

/// The cause of an I/O error in plain words, without the `(os error N)` tail.
#[must_use]
pub fn io_cause(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file or folder".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::AlreadyExists => "it exists already".into(),
        _ => {
            let text = plain(&error.to_string());
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_lowercase().chain(letters).collect::<String>()
            })
        }
    }
}

/// A path as one word of a shell command.
#[must_use]
pub fn shell_word(path: impl AsRef<Path>) -> String {
    let text = path.as_ref().to_string_lossy().into_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The known name nearest to `word`, if near enough to be what was meant.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(word, name), *name))
        .filter(|(nearness, _)| *nearness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_file_and_the_cause_without_the_system_number() {
        let error = io::Error::from_raw_os_error(2);
        let made = CliError::io("read", Path::new("/etc/none"), &error);
        assert_eq!(made.message, "cannot read /etc/none: there is no such file or folder");
        assert_eq!(io_cause(&io::Error::from_raw_os_error(98)), "address already in use");
    }

    #[test]
    fn makes_a_hint_of_what_the_library_advises() {
        let error = CliError::told("key-mode", ExitKind::Usage, &"loose; `chmod 600 k`, or new");
        assert_eq!(error.message, "loose");
        assert_eq!(error.hints, ["`chmod 600 k`, or new"]);
        let error = CliError::told("io", ExitKind::Failure, &"cannot open: No (os error 2); try");
        assert_eq!(error.message, "cannot open: No");
    }

    #[test]
    fn quotes_a_path_only_when_a_shell_would_split_it() {
        assert_eq!(shell_word("/a/b-c.key"), "/a/b-c.key");
        assert_eq!(shell_word("/my files/it's"), "'/my files/it'\\''s'");
    }

    #[test]
    fn suggests_a_near_name_and_no_far_one() {
        assert_eq!(did_you_mean("conections", &["connections", "listen"]), Some("connections"));
        assert_eq!(did_you_mean("colour", &["connections", "listen"]), None);
    }

    #[test]
    fn sums_several_faults_and_leaves_a_single_one_alone() {
        let fault = CliError::usage("config", "a");
        assert_eq!(CliError::sum(vec![], Path::new("f")), None);
        assert_eq!(CliError::sum(vec![fault.clone()], Path::new("f")), Some(fault.clone()));
        let sum = CliError::sum(vec![fault.clone(), fault], Path::new("f")).unwrap();
        assert_eq!(sum.message, "2 problems in f");
        assert_eq!(sum.exit, ExitKind::Usage);
    }
}
