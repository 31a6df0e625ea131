//! Is this file ours alone, and how is one made that is?
//!
//! For the secret and the database. A check is made on the opened file where it is read here.
//!
//! Always true: a file that is made has mode 0600 from its first byte; a link is never followed.

#![allow(
    clippy::disallowed_methods,
    reason = "called apart, and while a store is opened, before the endpoint listens"
)]

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Who may own a file and read it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// Us, and nobody else reads it.
    Us,
    /// Us or root, and nobody outside its group reads it: how systemd hands credentials over.
    UsOrRoot,
}

/// Makes the folder of a file, 0700, if there is none; refuses one that others may change.
pub(super) fn folder(path: &Path) -> Result<(), String> {
    let folder = folder_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|why| told("make the folder", folder, &why))?;
    let facts = fs::metadata(folder).map_err(|why| told("examine the folder", folder, &why))?;
    let user = rustix::process::geteuid().as_raw();
    if facts.uid() != user && facts.uid() != 0 {
        return Err(format!(
            "the folder `{}` belongs to user {}, not to user {user} who runs this; `chown {user} '{}'`",
            folder.display(),
            facts.uid(),
            folder.display()
        ));
    }
    if facts.mode() & 0o022 != 0 {
        return Err(format!(
            "others may change the folder `{}` (mode {:04o}); `chmod 700 '{}'`",
            folder.display(),
            facts.mode() & 0o7777,
            folder.display()
        ));
    }
    Ok(())
}

/// The length of a file that is ours alone; `None` if there is none.
pub(super) fn examine(path: &Path) -> Result<Option<u64>, String> {
    match fs::symlink_metadata(path) {
        Ok(facts) => judge(path, &facts, Owner::Us).map(|()| Some(facts.len())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(told("examine", path, &why)),
    }
}

/// Reads a file that is ours alone; `None` if there is none.
pub(super) fn read(path: &Path, owner: Owner) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    if let Ok(facts) = fs::symlink_metadata(path) {
        judge(path, &facts, owner)?;
    }
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(told("open", path, &why)),
    };
    let facts = file.metadata().map_err(|why| told("examine", path, &why))?;
    judge(path, &facts, owner)?;
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(|why| told("read", path, &why))?;
    Ok(Some(bytes))
}

/// Makes a file of these bytes that appears whole or not at all. `false`: there is one already.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<bool, String> {
    let mut mark = [0; 8];
    aws_lc_rs::rand::fill(&mut mark).map_err(|_| "the system gives no randomness".to_owned())?;
    let name = format!(".store-{}.new", data_encoding::HEXLOWER.encode(&mark));
    let draft = folder_of(path).join(name);
    let made = write(&draft, bytes).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(why) => Err(why),
    });
    // A draft that stays is readable for its owner alone.
    let _ = fs::remove_file(&draft);
    let made = made.map_err(|why| told("make", path, &why))?;
    sync_folder(path)?;
    Ok(made)
}

/// Puts a file in the place of another, durably.
pub(super) fn replace(from: &Path, path: &Path) -> Result<(), String> {
    fs::rename(from, path).map_err(|why| told("replace", path, &why))?;
    sync_folder(path)
}

/// That path with something added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have taken bits that the owner needs; it can never have added any.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> Result<(), String> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|why| told("sync the folder", folder, &why))
}

fn judge(path: &Path, facts: &fs::Metadata, owner: Owner) -> Result<(), String> {
    let shown = path.display();
    if facts.is_symlink() {
        return Err(format!("`{shown}` is a link; name the file itself"));
    }
    if !facts.is_file() {
        return Err(format!("`{shown}` is a folder, a pipe or a device; name a regular file"));
    }
    let user = rustix::process::geteuid().as_raw();
    let (ours, loose) = match owner {
        Owner::Us => (facts.uid() == user, 0o7177),
        Owner::UsOrRoot => (facts.uid() == user || facts.uid() == 0, 0o7137),
    };
    if !ours {
        return Err(format!(
            "`{shown}` belongs to user {}, not to user {user} who runs this; if it is yours: \
             `chown {user} '{shown}'`",
            facts.uid()
        ));
    }
    if facts.mode() & loose != 0 {
        return Err(format!(
            "`{shown}` has mode {:04o}, so others may have read it; `chmod 600 '{shown}'`",
            facts.mode() & 0o7777
        ));
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn told(action: &str, path: &Path, why: &io::Error) -> String {
    let hint = match why.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        io::ErrorKind::ReadOnlyFilesystem => "; put it on a file system that can be written",
        io::ErrorKind::PermissionDenied => "; check its owner and mode, and those of its folder",
        _ => "",
    };
    format!("cannot {action} `{}`: {why}{hint}", path.display())
}

/// More than any secret is long.
const LONGEST: usize = 4096;
