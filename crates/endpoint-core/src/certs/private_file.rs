//! Can nobody else have read or changed this file?
//!
//! For files that hold a certificate's key, or what must not be rolled back. All checks are made on the
//! opened file, not on its name.
//!
//! Always true: what is written has mode 0600 from its first byte and appears whole or not at all.

#![allow(clippy::disallowed_methods, reason = "called by bind and apart")]

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

/// Who may know what is in a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Secrecy {
    /// Its owner alone.
    Private,
    /// Everybody: what it holds proves itself.
    Public,
}

/// Reads a file of at most `limit` bytes; `None` if there is none. The error says what mends it.
pub(crate) fn read(
    path: &Path,
    secrecy: Secrecy,
    limit: usize,
) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let shown = path.display();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(format!("{shown} is a link; name the file itself")),
        Err(why) => return Err(format!("{shown} cannot be opened: {}", io::Error::from(why))),
    };
    let failed = |why: io::Error| format!("{shown} cannot be read: {why}");
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(format!("{shown} is a folder, a pipe or a device; name a regular file"));
    }
    if secrecy == Secrecy::Private {
        let user = geteuid().as_raw();
        if facts.uid() != user {
            let owner = facts.uid();
            return Err(format!(
                "{shown} belongs to user {owner}, not to user {user} who runs this; \
                 `chown {user} '{shown}'`"
            ));
        }
        let mode = facts.mode() & 0o7777;
        if mode & !0o600 != 0 {
            return Err(format!(
                "{shown} has mode {mode:04o}, so others may have read or changed it; \
                 `chmod 600 '{shown}'`"
            ));
        }
    }
    if facts.len() > limit as u64 {
        return Err(format!("{shown} has {} bytes; expected at most {limit}", facts.len()));
    }
    // Room for all of it at once: a vector that grows leaves copies of the key behind.
    let room = usize::try_from(facts.len()).unwrap_or(limit).saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    (&file).take(room as u64).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() >= room {
        return Err(format!("{shown} grew while it was read; look again"));
    }
    Ok(Some(bytes))
}

/// Writes beside, then renames over. Makes the folder, mode 0700, if there is none.
pub(crate) fn write(path: &Path, bytes: &[u8], secrecy: Secrecy) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut mark = [0; 8];
    aws_lc_rs::rand::fill(&mut mark).map_err(|_| io::Error::other("no randomness"))?;
    let mark = data_encoding::HEXLOWER.encode(&mark);
    let mut beside = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    beside.push(format!(".{mark}.new"));
    let beside = folder.join(beside);
    let mode = if secrecy == Secrecy::Private { 0o600 } else { 0o644 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    let written = io::Write::write_all(&mut file, bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // Already renamed, or of no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn reads_back_what_it_writes_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/deep/file");
        for text in ["one", "two"] {
            write(&path, text.as_bytes(), Secrecy::Private).unwrap();
            let read = read(&path, Secrecy::Private, 3).unwrap().unwrap();
            assert_eq!(read.as_slice(), text.as_bytes());
        }
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(read(&folder.path().join("none"), Secrecy::Private, 3).unwrap().is_none());
    }

    #[test]
    fn refuses_links_loose_modes_folders_and_what_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"long", Secrecy::Private).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let refusal = |path: &Path, secrecy, limit| read(path, secrecy, limit).unwrap_err();
        assert!(refusal(&link, Secrecy::Public, 9).contains("is a link"));
        assert!(refusal(folder.path(), Secrecy::Public, 9).contains("is a folder"));
        assert!(refusal(&path, Secrecy::Private, 3).contains("expected at most 3"));
        for loose in [0o640, 0o604, 0o620, 0o644, 0o700] {
            fs::set_permissions(&path, PermissionsExt::from_mode(loose)).unwrap();
            let text = refusal(&path, Secrecy::Private, 9);
            assert!(text.contains(&format!("has mode {loose:04o}")) && text.contains("chmod 600"));
        }
        assert!(read(&path, Secrecy::Public, 9).is_ok());
    }
}
