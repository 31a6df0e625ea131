//! Whom do we know elsewhere? The file `known_peers`, the dialling side's pins.
//!
//! One line is one key: `NAMES KEY [comment]`; NAMES are `host:port`, `[v6]:port` and aliases with
//! commas between them, at least one of them an address; KEY in any form that
//! [`KeyText`] reads, on one line; `#` begins a comment line.
//!
//! Always true: a line that cannot be read is an error and never "unknown", and so is a name with
//! two keys: whoever damages a line must not make the next dial trust a stranger.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    authorized::{
        LineFault,
        line::{self, Fault},
    },
    file::{self, EditFileError, TrustFileError},
};
use crate::{
    identity::{Fingerprint, KeyText, ssh_key_type},
    target::{HostPort, is_alias},
};

/// The pins of one `known_peers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownPeers {
    path: PathBuf,
    entries: Vec<KnownPeer>,
}

/// One line of `known_peers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownPeer {
    hosts: Vec<HostPort>,
    aliases: Vec<String>,
    fingerprint: Fingerprint,
    comment: String,
    line: usize,
}

impl KnownPeer {
    /// Where the peer answers: at least one address.
    #[must_use]
    pub fn hosts(&self) -> &[HostPort] {
        &self.hosts
    }

    /// What else it is called here.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// The key expected.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The rest of the line after the key.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The line in the file, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    fn has(&self, name: &Name) -> bool {
        match name {
            Name::Host(host) => self.hosts.contains(host),
            Name::Alias(alias) => self.aliases.contains(alias),
        }
    }
}

/// What `known_peers` says of a key at an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Known {
    /// The address is known, with another key.
    Changed {
        /// The key that stands there.
        expected: Fingerprint,
        /// The file it stands in.
        file: PathBuf,
        /// The line it stands on, from 1.
        line: usize,
    },
    /// The address is known, with this key.
    Match,
    /// The address is not known.
    Unknown,
}

impl KnownPeers {
    /// Reads the file at `path`; no file means that nobody is known.
    ///
    /// # Errors
    /// [`KnownError::File`] if the file cannot be believed or read, [`KnownError::Line`] for its first
    /// line that is not in order.
    pub fn load(path: &Path) -> Result<Self, KnownError> {
        let bytes = file::read_trust_file(path)?.unwrap_or_default();
        Self::parse(path, &bytes)
    }

    /// Reads `text` as the content of the file at `path`, which only errors and answers name.
    ///
    /// # Errors
    /// [`KnownError::Line`] for the first line that is not in order.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, KnownError> {
        let mut known = Self { path: path.to_owned(), entries: Vec::new() };
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            known
                .read_line(number, line.strip_suffix(b"\r").unwrap_or(line))
                .map_err(|fault| KnownError::Line { path: path.to_owned(), fault })?;
        }
        Ok(known)
    }

    /// Whether `fingerprint` is the key known at `host`.
    #[must_use]
    pub fn lookup(&self, host: &HostPort, fingerprint: &Fingerprint) -> Known {
        match self.entries.iter().find(|entry| entry.hosts.contains(host)) {
            None => Known::Unknown,
            Some(entry) if entry.fingerprint == *fingerprint => Known::Match,
            Some(entry) => Known::Changed {
                expected: entry.fingerprint,
                file: self.path.clone(),
                line: entry.line,
            },
        }
    }

    /// The key and the address to dial for an alias or a `host:port`: of an alias, the first address
    /// on its line.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(Fingerprint, HostPort)> {
        let name = Name::read(name).ok()?;
        let entry = self.entries.iter().find(|entry| entry.has(&name))?;
        let host = match name {
            Name::Host(host) => host,
            Name::Alias(_) => entry.hosts.first()?.clone(),
        };
        Some((entry.fingerprint, host))
    }

    /// All lines, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &KnownPeer> {
        self.entries.iter()
    }

    fn read_line(&mut self, number: usize, line: &[u8]) -> Result<(), LineFault> {
        if line::is_silent(line) {
            return Ok(());
        }
        let text = line::text(line).map_err(|(shown, fault)| fault.at_line(number, &shown))?;
        let place = |fault: Fault| fault.at_line(number, text);
        let (names_at, names) = word(text, 0);
        let (key_at, key) = key_word(text, names_at + names.len());
        let mut found = Vec::new();
        let mut at = names_at;
        for name in names.split(',') {
            let read = Name::read(name)
                .map_err(|why| place(Fault::new(at, name.len(), why).help(SHAPE)))?;
            found.push((at, name, read));
            at += name.len() + 1;
        }
        if !found.iter().any(|(_, _, name)| matches!(name, Name::Host(_))) {
            let fault = Fault::new(names_at, names.len(), "there is no address among the names");
            return Err(place(fault.help(SHAPE)));
        }
        if key.is_empty() {
            let fault = Fault::new(text.len(), 1, "there is no key after the names");
            return Err(place(fault.help(SHAPE)));
        }
        let fingerprint = KeyText::parse(key)
            .map_err(|why| place(Fault::new(key_at, key.len(), why.to_string())))?
            .fingerprint();
        let comment = text.get(key_at + key.len()..).unwrap_or_default();
        let comment = comment.trim_matches(line::is_blank).to_owned();
        let (hosts, aliases) = (Vec::new(), Vec::new());
        let mut peer = KnownPeer { hosts, aliases, fingerprint, comment, line: number };
        for (at, shown, name) in found {
            if let Some(other) = self.rival(&name, fingerprint) {
                let message = format!("`{shown}` stands on line {other} with another key");
                let help = format!("`endpoint known forget {shown}` removes both");
                return Err(place(Fault::new(at, shown.len(), message).help(help)));
            }
            match name {
                Name::Host(host) => peer.hosts.push(host),
                Name::Alias(alias) => peer.aliases.push(alias),
            }
        }
        self.entries.push(peer);
        Ok(())
    }

    /// The line on which this name stands with another key.
    fn rival(&self, name: &Name, fingerprint: Fingerprint) -> Option<usize> {
        let entry = self.entries.iter().find(|entry| entry.has(name))?;
        (entry.fingerprint != fingerprint).then_some(entry.line)
    }
}

/// Adds the key at `host` to the file at `path`, which is made if it is missing. A key that is known
/// there already stays as it is.
///
/// # Errors
/// [`KnownError::Changed`] if another key is known there, else as [`KnownPeers::load`].
pub fn learn(path: &Path, host: &HostPort, fingerprint: &Fingerprint) -> Result<(), KnownError> {
    let learnt = file::edit(path, |text| {
        match KnownPeers::parse(path, text)?.lookup(host, fingerprint) {
            Known::Match => return Ok((text.to_vec(), ())),
            Known::Changed { expected, file, line } => {
                let host = host.clone();
                return Err(KnownError::Changed { host, expected, file, line });
            }
            Known::Unknown => {}
        }
        let mut text = text.to_vec();
        if text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(format!("{host} {fingerprint}\n").as_bytes());
        Ok((text, ()))
    });
    learnt.map_err(KnownError::from_edit)
}

/// Removes every line that has `name`, an alias or a `host:port`, among its names, and gives their
/// number. The former file is kept beside it with `.old` after its name. Lines that cannot be read
/// are removed if they begin with the name, and else stay.
///
/// # Errors
/// [`KnownError::File`] if the file cannot be believed, read or written.
pub fn forget(path: &Path, name: &str) -> Result<usize, KnownError> {
    let mut old = path.file_name().unwrap_or_default().to_owned();
    old.push(".old");
    let name = Name::spelling(name);
    let forgotten = file::edit_keeping(path, Some(&old), |text| {
        let mut kept = Vec::with_capacity(text.len());
        let mut removed = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let shown = String::from_utf8_lossy(line);
            let (_, names) = word(&shown, 0);
            let silent = line::is_silent(line);
            if !silent && names.trim_end().split(',').any(|known| Name::spelling(known) == name) {
                removed += 1;
            } else {
                kept.extend_from_slice(line);
            }
        }
        Ok::<_, KnownError>((kept, removed))
    });
    forgotten.map_err(KnownError::from_edit)
}

/// A name on a line.
#[derive(Debug, Eq, PartialEq)]
enum Name {
    Alias(String),
    Host(HostPort),
}

impl Name {
    fn read(text: &str) -> Result<Self, String> {
        if is_alias(text) {
            return Ok(Self::Alias(text.to_owned()));
        }
        match text.parse() {
            Ok(host) => Ok(Self::Host(host)),
            Err(_) if text.is_empty() => Err("the list of names has an empty item".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }

    /// The text to compare by: the one spelling of an address, everything else as it is.
    fn spelling(text: &str) -> String {
        text.parse::<HostPort>().map_or_else(|_| text.to_owned(), |host| host.to_string())
    }
}

impl fmt::Display for KnownPeer {
    /// The line as this program would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.hosts.iter().map(ToString::to_string);
        let names: Vec<_> = hosts.chain(self.aliases.iter().cloned()).collect();
        write!(f, "{} {}", names.join(","), self.fingerprint)?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

/// The word at or after byte `from`, and its place.
fn word(text: &str, from: usize) -> (usize, &str) {
    let rest = text.get(from..).unwrap_or_default();
    let begin = from + rest.find(|c| !line::is_blank(c)).unwrap_or(rest.len());
    let rest = text.get(begin..).unwrap_or_default();
    (begin, rest.split(line::is_blank).next().unwrap_or_default())
}

/// As [`word`]; an SSH key is two words.
fn key_word(text: &str, from: usize) -> (usize, &str) {
    let (at, kind) = word(text, from);
    if ssh_key_type(kind).is_none() {
        return (at, kind);
    }
    let (second_at, second) = word(text, at + kind.len());
    let end = if second.is_empty() { at + kind.len() } else { second_at + second.len() };
    (at, text.get(at..end).unwrap_or_default())
}

/// Why `known_peers` cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnownError {
    /// Another key is known at this address.
    #[error(
        "another key is known for {host}: {expected}, {}:{line}; if the peer did change its key: \
         `endpoint known forget {host}`", file.display()
    )]
    Changed {
        /// The address.
        host: HostPort,
        /// The key that stands there.
        expected: Fingerprint,
        /// The file it stands in.
        file: PathBuf,
        /// The line it stands on, from 1.
        line: usize,
    },
    /// The file cannot be believed, read or written.
    #[error(transparent)]
    File(#[from] TrustFileError),
    /// A line is not in order.
    #[error("{}:{}:{}: {}{}", path.display(), fault.line, fault.column, fault.message,
        fault.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
    Line {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        fault: LineFault,
    },
}

impl KnownError {
    fn from_edit(error: EditFileError<Self>) -> Self {
        match error {
            EditFileError::Change(error) => error,
            EditFileError::File(error) => Self::File(error),
        }
    }
}

const SHAPE: &str = "a line is `NAMES KEY [comment]`, as in `node.example:4433,bob sha256:…`";

#[cfg(test)]
mod tests;
