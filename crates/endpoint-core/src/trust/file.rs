//! May this trust file be believed, and how is it changed?
//!
//! For `authorized_peers` and `known_peers`. All checks are made on what was opened, the folder
//! first and the file inside it, so nothing can be swapped between check and use.
//!
//! Always true: a file that another user could have written, or put in place, is an error and never
//! a text; a file that is changed is whole at every moment, and keeps its mode.

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
    match Folder::open(path)? {
        Some(folder) => Ok(folder.read(path)?.map(|(bytes, _)| bytes)),
        None => Ok(None),
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
        if let Some(name) = keep_as {
            folder.replace(&path.with_file_name(name), before, mode)?;
        }
        folder.replace(path, &after, mode)?;
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
        let mut bytes = Vec::new();
        file.take(LONGEST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|why| io_error("read", path, why))?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST_BYTES) {
            return Err(TrustFileError::TooLong { path: path.to_owned() });
        }
        Ok(Some((bytes, facts)))
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
mod tests {
    use std::{
        convert::Infallible,
        fs,
        os::unix::fs::{PermissionsExt, chown, symlink},
        thread,
    };

    use super::*;

    /// A state folder with a trust file in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_peers");
        fs::write(&path, "# hello\n").unwrap();
        chmod(&path, 0o600);
        (folder, path)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    /// The error of reading, after showing that editing fails alike and changes nothing.
    fn refusal(path: &Path) -> String {
        let error = read_trust_file(path).unwrap_err().to_string();
        let edited = edit(path, |_| Ok::<_, Infallible>((b"edited".to_vec(), ())));
        assert_eq!(edited.unwrap_err().to_string(), error);
        if path.symlink_metadata().is_ok_and(|facts| facts.is_file()) {
            assert_ne!(fs::read(path).unwrap(), b"edited");
        }
        error
    }

    #[test]
    fn reads_a_file_and_tells_a_missing_one() {
        let (folder, path) = folder();
        assert_eq!(read_trust_file(&path).unwrap().unwrap(), b"# hello\n");
        for tight in [0o400, 0o600, 0o640, 0o644, 0o755] {
            chmod(&path, tight);
            assert!(read_trust_file(&path).unwrap().is_some(), "{tight:o}");
        }
        assert!(read_trust_file(&folder.path().join("none")).unwrap().is_none());
        assert!(read_trust_file(&folder.path().join("no/folder/none")).unwrap().is_none());
    }

    #[test]
    fn refuses_a_file_that_others_can_write() {
        let (_folder, path) = folder();
        for loose in [0o620, 0o602, 0o666, 0o660] {
            chmod(&path, loose);
            let error = refusal(&path);
            assert!(error.contains(&format!("has mode {loose:04o}")), "{error}");
            assert!(error.contains(&format!("`chmod go-w '{}'`", path.display())), "{error}");
        }
    }

    #[test]
    fn refuses_a_folder_that_others_can_write() {
        let (folder, path) = folder();
        for loose in [0o770, 0o707, 0o1777] {
            chmod(folder.path(), loose);
            for path in [&path, &folder.path().join("missing")] {
                let error = refusal(path);
                let command = format!("`chmod go-w '{}'`", folder.path().display());
                assert!(error.contains(&command), "{error}");
            }
        }
        chmod(folder.path(), 0o755);
        assert!(read_trust_file(&path).is_ok());
    }

    #[test]
    fn refuses_a_foreign_owner_of_file_or_folder() {
        let (folder, path) = folder();
        if !geteuid().is_root() {
            // Only root can give files away; to another user this one is foreign.
            let facts = path.metadata().unwrap();
            let error = check_for(facts.uid() + 1, &path, &facts).unwrap_err().to_string();
            assert!(error.contains("belongs to user") && error.contains("`chown "), "{error}");
            return;
        }
        chown(&path, Some(4321), None).unwrap();
        let error = refusal(&path);
        assert!(error.contains("belongs to user 4321") && error.contains("`chown 0 '"), "{error}");
        chown(&path, Some(0), None).unwrap();
        chown(folder.path(), Some(4321), None).unwrap();
        let error = refusal(&path);
        assert!(error.contains(&format!("`chown 0 '{}'`", folder.path().display())), "{error}");
    }

    #[test]
    fn refuses_links_folders_pipes_and_sockets() {
        let (folder, path) = folder();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let dangling = folder.path().join("dangling");
        symlink("nowhere", &dangling).unwrap();
        for path in [link, dangling] {
            let error = refusal(&path);
            assert!(error.contains("is a link") && error.contains("`mv "), "{error}");
        }
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, OWNER_ONLY, 0).unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for path in [pipe, socket, inner] {
            let error = refusal(&path);
            assert!(error.contains("is not a regular file") && error.contains("`mv "), "{error}");
        }
    }

    #[test]
    fn refuses_a_file_of_more_than_16_mebibytes() {
        let (_folder, path) = folder();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(LONGEST_BYTES).unwrap();
        assert!(read_trust_file(&path).is_ok());
        file.set_len(LONGEST_BYTES + 1).unwrap();
        assert!(refusal(&path).contains("is longer than 16 MiB"));
    }

    #[test]
    fn names_the_file_when_the_system_refuses() {
        let (_folder, path) = folder();
        let error = refusal_of_reading(&path.join("below-a-file"));
        assert!(
            error.starts_with("cannot open `") && error.contains("authorized_peers"),
            "{error}"
        );
        chmod(&path, 0o000);
        match read_trust_file(&path) {
            // Root reads everything.
            Ok(bytes) => assert!(geteuid().is_root() && bytes.is_some()),
            Err(error) => assert!(error.to_string().contains("`chmod u+r '"), "{error}"),
        }
    }

    fn refusal_of_reading(path: &Path) -> String {
        read_trust_file(path).unwrap_err().to_string()
    }

    #[test]
    fn edits_in_one_step_and_keeps_the_mode() {
        let (folder, path) = folder();
        chmod(&path, 0o640);
        let before = path.metadata().unwrap().ino();
        let length = edit(&path, |text| Ok::<_, Infallible>(([text, b"x\n"].concat(), text.len())));
        assert_eq!(length.unwrap(), 8);
        assert_eq!(fs::read(&path).unwrap(), b"# hello\nx\n");
        assert_eq!(mode(&path), 0o640);
        assert_ne!(path.metadata().unwrap().ino(), before, "replaced, not written over");
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["authorized_peers", "authorized_peers.lock"]);
        assert_eq!(mode(&folder.path().join("authorized_peers.lock")), 0o600);
    }

    #[test]
    fn makes_a_missing_file_and_folder_for_the_owner_alone() {
        let (folder, _) = folder();
        let path = folder.path().join("a/b/known_peers");
        edit(&path, |text| Ok::<_, Infallible>(([text, b"x"].concat(), ()))).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(read_trust_file(&path).unwrap().unwrap(), b"x");
    }

    #[test]
    fn leaves_the_file_alone_when_nothing_changes_or_the_change_is_refused() {
        let (_folder, path) = folder();
        let before = path.metadata().unwrap().ino();
        edit(&path, |text| Ok::<_, Infallible>((text.to_vec(), ()))).unwrap();
        let error = edit::<(), _>(&path, |_| Err("no")).unwrap_err();
        assert_eq!(error.to_string(), "no");
        assert_eq!(path.metadata().unwrap().ino(), before);
    }

    #[test]
    fn loses_no_edit_of_many_at_once() {
        let (_folder, path) = folder();
        thread::scope(|scope| {
            for n in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..5 {
                        let add =
                            |text: &[u8]| Ok::<_, Infallible>(([text, &[b'0' + n]].concat(), ()));
                        edit(path, add).unwrap();
                    }
                });
            }
        });
        let mut bytes = fs::read(&path).unwrap().split_off(8);
        bytes.sort_unstable();
        assert_eq!(bytes, b"00000111112222233333444445555566666777777".get(..40).unwrap());
    }
}
