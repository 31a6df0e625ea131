//! May this key file be used, and how is one written?
//!
//! The one part of `identity` that touches the disk. All checks are made on the opened file, not on
//! its name, so nothing can be swapped between check and use.
//!
//! Always true: a file that is written has mode 0600 from its first moment, appears whole or not at
//! all, and replaces nothing unless asked to.

#![allow(clippy::disallowed_methods, reason = "called by commands and before an endpoint is bound")]

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

use super::ImportKeyError;

/// Reads a key file after checking that nobody else can have read or written it.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(KeyFileError::Missing { path: path.to_owned() }),
        Err(Errno::LOOP) => return Err(KeyFileError::Link { path: path.to_owned() }),
        Err(why) => return Err(io_error("open", path, why.into())),
    };
    let facts = file.metadata().map_err(|why| io_error("examine", path, why))?;
    if !facts.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let user = geteuid().as_raw();
    if facts.uid() != user {
        return Err(KeyFileError::ForeignOwner { path: path.to_owned(), owner: facts.uid(), user });
    }
    let mode = facts.mode() & 0o7777;
    if mode & !0o600 != 0 {
        return Err(KeyFileError::LooseMode { path: path.to_owned(), mode });
    }
    if facts.len() > LONGEST {
        let source = ImportKeyError::Damaged;
        return Err(KeyFileError::Content { path: path.to_owned(), source });
    }
    // Room for all of it at once: a vector that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(LONGEST).unwrap_or(0)]);
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match (&file).read(room) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(io_error("read", path, why)),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Writes a new key file; whatever stands at `path` already stays.
pub(super) fn create(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let folder = folder_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|why| io_error("make the folder of", path, why))?;
    if path.symlink_metadata().is_ok() {
        return Err(KeyFileError::AlreadyExists { path: path.to_owned() });
    }
    let draft = write_draft(path, text)?;
    // A second name for the draft is refused if the name is taken: exclusive, and whole at once.
    let linked = fs::hard_link(&draft.0, path);
    drop(draft);
    match linked {
        Ok(()) => sync_folder(path),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeyFileError::AlreadyExists { path: path.to_owned() })
        }
        Err(why) => Err(io_error("write", path, why)),
    }
}

/// Replaces a key file, keeping the former one under another name, which is returned.
pub(super) fn replace(path: &Path, text: &str, mark: &str) -> Result<PathBuf, KeyFileError> {
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".old-{mark}"));
    let kept = PathBuf::from(kept);
    let draft = write_draft(path, text)?;
    match fs::hard_link(path, &kept) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            // Left by a rotation that was cut off, or by one that went back and forth: the same key.
            if *read(&kept)? != *read(path)? {
                return Err(KeyFileError::AlreadyExists { path: kept });
            }
        }
        Err(why) => return Err(io_error("keep a copy of", path, why)),
    }
    fs::rename(&draft.0, path).map_err(|why| io_error("replace", path, why))?;
    sync_folder(path)?;
    Ok(kept)
}

/// A file that is not in place yet; removed when it goes out of use.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove; a draft that stays harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

fn write_draft(path: &Path, text: &str) -> Result<Draft, KeyFileError> {
    let mut mark = [0; 8];
    rand::fill(&mut mark).map_err(|_| super::NoRandomness)?;
    let name = format!(".identity-{}.new", data_encoding::HEXLOWER.encode(&mark));
    let draft = folder_of(path).join(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::open(&draft, flags, mode)
        .map_err(|why| io_error("write beside", path, why.into()))?;
    let draft = Draft(draft);
    // The umask may have taken bits that the owner needs; it can never have added any.
    rustix::fs::fchmod(&file, mode).map_err(|why| io_error("write beside", path, why.into()))?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|why| io_error("write beside", path, why))?;
    Ok(draft)
}

fn sync_folder(path: &Path) -> Result<(), KeyFileError> {
    File::open(folder_of(path))
        .and_then(|folder| folder.sync_all())
        .map_err(|why| io_error("sync the folder of", path, why))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io { action, path: path.to_owned(), source }
}

/// Why a key file cannot be used or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Something stands where the file should be made.
    #[error(
        "`{}` exists already and is never overwritten; \
         `endpoint key show` prints its key, `endpoint key rotate` replaces it", path.display()
    )]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no key that this endpoint can use.
    #[error("key file `{}`: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with what it holds.
        source: ImportKeyError,
    },
    /// Another user owns the file, and could have read or replaced the key.
    #[error(
        "key file `{}` belongs to user {owner}, not to user {user} who runs this; \
         if the key is yours: `chown {user} '{}'`", path.display(), path.display()
    )]
    ForeignOwner {
        /// The file.
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
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path names a symbolic link.
    #[error("key file `{}` is a link; name the file itself, or move it here: `mv \"$(readlink -f '{}')\" '{}'`",
        path.display(), path.display(), path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Others may read or write the file, or it is executable.
    #[error(
        "key file `{}` has mode {mode:04o}, so others may have read the key; \
         `chmod 600 '{}'`, or make a new key", path.display(), path.display()
    )]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no file.
    #[error("key file `{}` does not exist; `endpoint key new` makes it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no randomness.
    #[error(transparent)]
    NoRandomness(#[from] super::NoRandomness),
    /// The path names a folder, a pipe or a device.
    #[error("key file `{}` is a folder, a pipe or a device; name a regular file", path.display())]
    NotAFile {
        /// What it names.
        path: PathBuf,
    },
}

/// No Ed25519 key file is longer; an RSA one of 16,384 bits fits too, so its kind can be told.
const LONGEST: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        process::Command,
        thread,
    };

    use super::{
        super::{Identity, KeyText},
        *,
    };

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn refusal(path: &Path) -> String {
        let error = Identity::load(path).unwrap_err().to_string();
        // A file that cannot be used is never replaced by a new one.
        assert_eq!(Identity::load_or_create(path).unwrap_err().to_string(), error);
        error
    }

    #[test]
    fn makes_a_key_once_and_finds_it_again() {
        let folder = folder();
        let path = folder.path().join("new/deep/identity.key");
        let made = Identity::load_or_create(&path).unwrap();
        let found = Identity::load_or_create(&path).unwrap();
        assert_eq!(made.fingerprint(), found.fingerprint());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&folder.path().join("new")), 0o700);
        assert_eq!(names(path.parent().unwrap()), ["identity.key"]);
    }

    /// OpenSSL 3.0 is the other reader and writer: `openssl pkey -in KEY -pubout -outform DER`.
    #[test]
    fn agrees_with_openssl_in_both_directions() {
        let folder = folder();
        let path = folder.path().join("identity.key");
        let ours = Identity::create(&path).unwrap();
        let openssl = |args: &[&str]| {
            let output =
                Command::new("openssl").args(args).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", output.stderr.escape_ascii());
            output.stdout
        };
        let spki = openssl(&["pkey", "-in", "identity.key", "-pubout", "-outform", "DER"]);
        assert_eq!(spki, ours.public_key().to_spki());
        fs::write(folder.path().join("spki"), &spki).unwrap();
        let sum = Command::new("sha256sum").arg(folder.path().join("spki")).output().unwrap();
        assert!(sum.stdout.starts_with(ours.fingerprint().hex().as_bytes()));
        let pem = openssl(&["pkey", "-in", "identity.key", "-pubout"]);
        assert_eq!(pem, ours.public_key().to_pem().as_bytes());

        openssl(&["genpkey", "-algorithm", "ed25519", "-out", "theirs.key"]);
        fs::set_permissions(folder.path().join("theirs.key"), PermissionsExt::from_mode(0o600))
            .unwrap();
        let theirs = Identity::load(folder.path().join("theirs.key")).unwrap();
        let pem = openssl(&["pkey", "-in", "theirs.key", "-pubout"]);
        let text = KeyText::parse(str::from_utf8(&pem).unwrap()).unwrap();
        assert_eq!(text.public_key(), Some(theirs.public_key()));
    }

    #[test]
    fn never_writes_over_anything() {
        let folder = folder();
        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        let dangling = folder.path().join("dangling");
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        for path in [&file, &dangling, &folder.path().to_owned()] {
            let error = Identity::create(path).unwrap_err().to_string();
            assert!(error.contains("exists already and is never overwritten"), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(names(folder.path()), ["dangling", "file"]);
    }

    #[test]
    fn gives_one_key_to_many_who_start_at_once() {
        let folder = folder();
        let path = folder.path().join("identity.key");
        let keys: Vec<_> = thread::scope(|scope| {
            let start = || Identity::load_or_create(&path).unwrap().fingerprint();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(names(folder.path()), ["identity.key"]);
    }

    #[test]
    fn refuses_every_looser_mode_and_names_the_command() {
        let folder = folder();
        let path = folder.path().join("identity.key");
        Identity::create(&path).unwrap();
        for loose in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o700, 0o610, 0o601, 0o4600] {
            fs::set_permissions(&path, PermissionsExt::from_mode(loose)).unwrap();
            let error = refusal(&path);
            assert!(error.contains(&format!("has mode {loose:04o}")), "{error}");
            assert!(error.contains(&format!("`chmod 600 '{}'`", path.display())), "{error}");
        }
        for tight in [0o600, 0o400] {
            fs::set_permissions(&path, PermissionsExt::from_mode(tight)).unwrap();
            assert!(Identity::load(&path).is_ok(), "{tight:o}");
        }
    }

    #[test]
    fn refuses_a_foreign_owner() {
        let folder = folder();
        let mut path = folder.path().join("identity.key");
        Identity::create(&path).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(4321), None).unwrap();
        } else {
            path = PathBuf::from("/etc/passwd");
        }
        let error = refusal(&path);
        assert!(error.contains("belongs to user") && error.contains("`chown "), "{error}");
    }

    #[test]
    fn refuses_links_folders_and_pipes() {
        let folder = folder();
        let path = folder.path().join("identity.key");
        Identity::create(&path).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let dangling = folder.path().join("dangling");
        symlink("nowhere", &dangling).unwrap();
        for path in [link, dangling] {
            let error = refusal(&path);
            assert!(error.contains("is a link") && error.contains("mv "), "{error}");
        }
        let pipe = folder.path().join("pipe");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [folder.path(), &pipe] {
            let error = refusal(path);
            assert!(error.contains("is a folder, a pipe or a device"), "{error}");
        }
    }

    #[test]
    fn refuses_what_is_no_whole_ed25519_key_and_names_the_file() {
        let folder = folder();
        let path = folder.path().join("identity.key");
        Identity::create(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let table: [(&[u8], &str); 6] = [
            (b"", "the key file is empty"),
            (&whole[..60], "written only in part"),
            (&[0; 119], "not a PKCS#8 private key"),
            (&[b'x'; 100_000], "not a PKCS#8 private key"),
            (b"-----BEGIN RSA PRIVATE KEY-----\n", "RSA key: only Ed25519"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "this is an OpenSSH private key"),
        ];
        for (content, want) in table {
            fs::write(&path, content).unwrap();
            let error = refusal(&path);
            assert!(error.contains(want), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn tells_a_missing_file_and_a_path_that_cannot_be() {
        let folder = folder();
        let missing = folder.path().join("identity.key");
        let error = Identity::load(&missing).unwrap_err().to_string();
        assert!(error.contains("does not exist; `endpoint key new` makes it"), "{error}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = refusal(&file.join("identity.key"));
        assert!(error.starts_with("cannot open `"), "{error}");
    }

    #[test]
    fn replaces_a_key_and_keeps_the_former_one() {
        let folder = folder();
        let path = folder.path().join("identity.key");
        let old = Identity::create(&path).unwrap();
        let new = Identity::generate().unwrap();
        let kept = new.replace(&path).unwrap();
        assert_eq!(Identity::load(&path).unwrap().fingerprint(), new.fingerprint());
        assert_eq!(Identity::load(&kept).unwrap().fingerprint(), old.fingerprint());
        let name = format!("identity.key.old-{}", old.fingerprint().short());
        assert_eq!(names(folder.path()), ["identity.key".to_owned(), name]);
        // Back and forth: the kept files are those already there.
        old.replace(&path).unwrap();
        new.replace(&path).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
    }
}
