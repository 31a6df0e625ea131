//! May this trust file be believed, and how is it changed?
//!
//! For `authorized_peers` and `known_peers`. All checks are made on what was opened, the folder
//! first and the file inside it, so nothing can be swapped between check and use.
//!
//! Always true: a file that another user could have written, or put in place, is an error and never
//! a text; a file that is changed is whole at every moment, and keeps its mode. A file that is a mount of
//! its own cannot be replaced: it is written in place (`in_place`), where a reader may see its beginning
//! alone, never a line that admits more than it should.

#![allow(
    clippy::disallowed_methods,
    reason = "called at start, by commands, apart, and on the thread that looks"
)]

mod in_place;

use std::{
    ffi::OsStr,
    fs::{DirBuilder, File, Metadata},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, fchmod, openat, renameat, unlinkat},
    io::Errno,
    process::geteuid,
};

/// The bytes of a trust file; `None` if there is no such file.
///
/// Reads at most 16 MiB, never through a link, and never waits on a pipe.
///
/// # Errors
/// [`TrustFileError`] if the file or its folder belongs to another user than this process's or
/// root, others may write to either, it is no regular file, or it cannot be read.
pub fn read_trust_file(path: &Path) -> Result<Option<Vec<u8>>, TrustFileError> {
    Ok(read_stamped(path)?.map(|(bytes, _)| bytes))
}

/// As [`read_trust_file`], with the stamp of what was read.
pub(super) fn read_stamped(path: &Path) -> Result<Option<(Vec<u8>, Stamp)>, TrustFileError> {
    let Some(folder) = Folder::open(path)? else { return Ok(None) };
    Ok(folder.read(path)?.map(|(bytes, facts)| (bytes, Stamp::of(&facts))))
}

/// The stamp of a trust file that may be believed, without its bytes; `None` if there is no such file.
pub(super) fn stamp(path: &Path) -> Result<Option<Stamp>, TrustFileError> {
    let Some(folder) = Folder::open(path)? else { return Ok(None) };
    Ok(folder.open_file(path)?.map(|(_, facts)| Stamp::of(&facts)))
}

/// What can be seen of a file from outside; a change of its bytes, owner or mode changes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    device: u64,
    pub(super) inode: u64,
    pub(super) bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    owner: u32,
    mode: u32,
}

impl Stamp {
    fn of(facts: &Metadata) -> Self {
        Self {
            device: facts.dev(),
            inode: facts.ino(),
            bytes: facts.size(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
            owner: facts.uid(),
            mode: facts.mode(),
        }
    }

    /// One for tests: a file of that identity and length, changed at that time.
    #[cfg(test)]
    pub(crate) fn made(inode: u64, bytes: u64, changed: i64) -> Self {
        let changed = (changed, 0);
        Self { device: 1, inode, bytes, modified: changed, changed, owner: 0, mode: 0o600 }
    }
}

/// Changes a trust file under a lock that every editor of this program takes: `change` gets the
/// present bytes (none if there is no file) and gives the new ones and a result. Bytes that are the
/// same are not written. A new file has mode 0600, a missing folder is made with mode 0700.
///
/// Waits for another editor to finish. Readers never wait: the file is replaced by a rename.
///
/// # Errors
/// [`EditFileError::File`] if the present file is refused or the new one cannot be written,
/// [`EditFileError::Change`] with what `change` said; the file is then as it was.
pub fn edit<T, E>(
    path: &Path,
    change: impl FnOnce(&[u8]) -> Result<(Vec<u8>, T), E>,
) -> Result<T, EditFileError<E>> {
    edit_keeping(path, None, change)
}

/// As [`edit`]; before the file is replaced, its former bytes go to the file of the name `keep_as` in
/// the same folder.
pub(crate) fn edit_keeping<T, E>(
    path: &Path,
    keep_as: Option<&OsStr>,
    change: impl FnOnce(&[u8]) -> Result<(Vec<u8>, T), E>,
) -> Result<T, EditFileError<E>> {
    let folder = Folder::open_or_create(path)?;
    // Released when the handle is dropped, and by the system if the process ends.
    let _lock = folder.lock(path)?;
    let present = folder.read(path)?;
    let mode = present.as_ref().map_or(0o600, |(_, facts)| facts.mode() & 0o7777);
    let present = present.map(|(bytes, _)| bytes);
    let before = present.as_deref().unwrap_or_default();
    let (after, result) = change(before).map_err(EditFileError::Change)?;
    if after != before {
        // Whatever an edit that was cut off left, it is looked at before it is written over.
        folder.refuse_leftover(path)?;
        if let Some(name) = keep_as {
            folder.replace(&path.with_file_name(name), before, mode)?;
        }
        match folder.replace(path, &after, mode) {
            Err(TrustFileError::Io { source, .. }) if is_busy(&source) => {
                folder.write_in_place(path, before, &after)?;
            }
            replaced => replaced?,
        }
    }
    Ok(result)
}

/// The folder of a trust file, opened and checked.
struct Folder(OwnedFd);

impl Folder {
    /// `None` if there is no such folder.
    fn open(path: &Path) -> Result<Option<Self>, TrustFileError> {
        let folder = folder_of(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match openat(CWD, folder, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(why) => return Err(io_error("open", folder, why.into())),
        };
        let file = File::from(fd);
        let facts = file.metadata().map_err(|why| io_error("examine", folder, why))?;
        check(folder, &facts)?;
        Ok(Some(Self(file.into())))
    }

    fn open_or_create(path: &Path) -> Result<Self, TrustFileError> {
        let folder = folder_of(path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|why| io_error("make", folder, why))?;
        let gone = || io_error("open", folder, io::ErrorKind::NotFound.into());
        Self::open(path)?.ok_or_else(gone)
    }

    fn read(&self, path: &Path) -> Result<Option<(Vec<u8>, Metadata)>, TrustFileError> {
        let Some((file, facts)) = self.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(LONGEST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|why| io_error("read", path, why))?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST_BYTES) {
            return Err(TrustFileError::TooLong { path: path.to_owned() });
        }
        Ok(Some((bytes, facts)))
    }

    /// The file itself, opened and checked; `None` if there is none.
    fn open_file(&self, path: &Path) -> Result<Option<(File, Metadata)>, TrustFileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.0, name_of(path)?, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(TrustFileError::Link { path: path.to_owned() }),
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(TrustFileError::Unreadable { path: path.to_owned() });
            }
            // A socket.
            Err(Errno::NXIO) => return Err(TrustFileError::NotAFile { path: path.to_owned() }),
            Err(why) => return Err(io_error("open", path, why.into())),
        };
        let facts = file.metadata().map_err(|why| io_error("examine", path, why))?;
        if !facts.is_file() {
            return Err(TrustFileError::NotAFile { path: path.to_owned() });
        }
        check(path, &facts)?;
        if facts.nlink() == 0 && in_place::is_mount(&file) {
            return Err(TrustFileError::Detached { path: path.to_owned() });
        }
        Ok(Some((file, facts)))
    }

    /// Takes the lock beside the file, which stays there: removing it would let two editors in.
    fn lock(&self, path: &Path) -> Result<File, TrustFileError> {
        let mut name = name_of(path)?.to_owned();
        name.push(".lock");
        let path = path.with_file_name(&name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.0, &name, flags, OWNER_ONLY)
            .map_err(|why| io_error("open", &path, why.into()))?;
        let file = File::from(fd);
        file.lock().map_err(|why| io_error("lock", &path, why))?;
        Ok(file)
    }

    /// Puts new bytes in the place of a file: written beside it, synced, renamed.
    fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), TrustFileError> {
        let name = name_of(path)?;
        let mut mark = [0; 8];
        rand::fill(&mut mark)
            .map_err(|_| io_error("write", path, io::Error::other("no randomness")))?;
        let draft = format!(".trust-{}.new", data_encoding::HEXLOWER.encode(&mark));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written =
            openat(&self.0, &draft, flags, OWNER_ONLY).map_err(io::Error::from).and_then(|fd| {
                fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))?;
                let mut file = File::from(fd);
                file.write_all(bytes)?;
                file.sync_all()?;
                renameat(&self.0, &draft, &self.0, name)?;
                rustix::fs::fsync(&self.0).map_err(io::Error::from)
            });
        written.map_err(|why| {
            // After the rename there is nothing left to remove.
            let _ = unlinkat(&self.0, &draft, AtFlags::empty());
            io_error("write", path, why)
        })
    }
}

/// Whether the system says that something is mounted there (rename(2)).
fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

/// Whether only this user or root can have written here (OpenSSH's `StrictModes`).
fn check(path: &Path, facts: &Metadata) -> Result<(), TrustFileError> {
    check_for(geteuid().as_raw(), path, facts)
}

fn check_for(user: u32, path: &Path, facts: &Metadata) -> Result<(), TrustFileError> {
    let path = || path.to_owned();
    if facts.uid() != user && facts.uid() != 0 {
        return Err(TrustFileError::ForeignOwner { path: path(), owner: facts.uid(), user });
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(TrustFileError::Writable { path: path(), mode });
    }
    Ok(())
}

/// The folder that a file stands in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name_of(path: &Path) -> Result<&OsStr, TrustFileError> {
    path.file_name().ok_or_else(|| TrustFileError::NotAFile { path: path.to_owned() })
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> TrustFileError {
    TrustFileError::Io { action, path: path.to_owned(), source }
}

/// Why a trust file cannot be believed, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustFileError {
    /// An edit in place was cut off, and its whole text still lies beside the file.
    #[error(
        "an earlier change of `{}` was cut off; the whole of it is in `{}`: compare the two, then \
         `cat '{}' > '{}'` if it is right, and `rm '{}'`", path.display(), whole.display(),
        whole.display(), path.display(), whole.display()
    )]
    CutOff {
        /// The file.
        path: PathBuf,
        /// What it should have become.
        whole: PathBuf,
    },
    /// The file is a mount of its own, and was removed or replaced where it came from.
    #[error(
        "`{}` is a mount of a file that was removed or replaced outside, so changes there never come \
         here; mount its folder instead of the file", path.display()
    )]
    Detached {
        /// The file.
        path: PathBuf,
    },
    /// Another user owns the file or its folder.
    #[error(
        "`{}` belongs to user {owner}, neither to user {user} who runs this nor to root; \
         if it is yours: `chown {user} '{}'`", path.display(), path.display()
    )]
    ForeignOwner {
        /// The file or folder.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// The system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path names a symbolic link.
    #[error(
        "`{}` is a link; name the file itself, or put it here: \
         `mv \"$(readlink -f '{}')\" '{}'`", path.display(), path.display(), path.display()
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The path names a folder, a pipe, a socket or a device.
    #[error("`{}` is not a regular file; move it away: `mv '{}' '{}.away'`",
        path.display(), path.display(), path.display())]
    NotAFile {
        /// What it names.
        path: PathBuf,
    },
    /// The file is longer than 16 MiB.
    #[error("`{}` is longer than 16 MiB; is it the right file? `head '{}'` shows it",
        path.display(), path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// This process may not read the file.
    #[error("this process may not read `{}`; `chmod u+r '{}'`", path.display(), path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// Others may write to the file or its folder.
    #[error(
        "`{}` has mode {mode:04o}, so others can write to it; `chmod go-w '{}'`",
        path.display(), path.display()
    )]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Why a trust file was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditFileError<E> {
    /// The change itself was refused.
    #[error("{0}")]
    Change(E),
    /// The file was refused, or could not be written.
    #[error(transparent)]
    File(#[from] TrustFileError),
}

const LONGEST_BYTES: u64 = 16 * 1024 * 1024;
const OWNER_ONLY: Mode = Mode::from_raw_mode(0o600);

#[cfg(test)]
mod tests;
