//! Files of one folder, opened so that none outside can be.
//!
//! The kernel resolves each name beneath the folder (`openat2`, `RESOLVE_BENEATH`): links that stay inside
//! work, others do not, whenever they were made. Kernels before Linux 5.6 lack it; there each part of a
//! name is opened for itself and no link is followed.
//!
//! A name that the kernel has in memory is opened where it is asked for, if its file system asks nobody then;
//! others where that may block (`disk`).

use std::{
    ffi::OsStr,
    fs::{self, File},
    future::Future,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use rustix::{
    fs::{Dir, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};
use tower_http::services::fs::Backend;

use super::{
    disk::{Disk, Held},
    opened::{About, Note, Opened},
};

/// A folder. Clones are the same folder.
#[derive(Clone, Debug)]
pub(super) struct Beneath {
    folder: Arc<OwnedFd>,
    disk: Disk,
    at_once: bool,
}

impl Beneath {
    /// Opens a folder; later names are found from it, wherever it moves.
    pub(super) fn open(folder: &Path, disk: Disk) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let at_once = Disk::is_at_once(&folder);
        Ok(Self { folder: Arc::new(folder), disk, at_once })
    }

    /// Where calls may block.
    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Opens a file or folder beneath. Blocks.
    fn find(&self, path: &Path) -> io::Result<Found> {
        let path = named(path);
        let found = match openat2(&*self.folder, path, FLAGS, Mode::empty(), RESOLVE) {
            Err(Errno::NOSYS) => self.find_by_parts(path, FLAGS)?,
            found => found?,
        };
        let at_once = Disk::is_at_once(&found);
        self.about(found.into(), at_once)
    }

    /// The same if all parts of the name are in the kernel's memory; `None` if that has to ask a disk, or
    /// cannot tell (before Linux 5.12). Another file system mounted beneath may be one that always asks.
    fn find_at_once(&self, path: &Path) -> Option<io::Result<Found>> {
        if !self.at_once {
            return None;
        }
        let resolve = RESOLVE | ResolveFlags::CACHED | ResolveFlags::NO_XDEV;
        match openat2(&*self.folder, named(path), FLAGS, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::XDEV) => None,
            found => Some(
                found.map_err(Into::into).and_then(|found| self.about(found.into(), self.at_once)),
            ),
        }
    }

    fn about(&self, file: File, at_once: bool) -> io::Result<Found> {
        let held = Held::new(file, self.disk.clone(), at_once);
        let about = held.file()?.metadata()?;
        match about.is_file() || about.is_dir() {
            true => Ok((held, about)),
            // Devices, pipes and sockets are no files of a site.
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The same, wherever it has to be looked for.
    async fn look_for(self, path: PathBuf) -> io::Result<Found> {
        match self.find_at_once(&path) {
            Some(found) => found,
            None => {
                let disk = self.disk.clone();
                disk.ask(move || self.find(&path)).await
            }
        }
    }

    fn find_by_parts(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let mut here = self.folder.try_clone()?;
        let parts: Vec<&OsStr> = path
            .components()
            .filter(|part| !matches!(part, Component::CurDir))
            .map(|part| match part {
                Component::Normal(name) => Ok(name),
                _ => Err(io::Error::from(io::ErrorKind::NotFound)),
            })
            .collect::<io::Result<_>>()?;
        let Some((last, folders)) = parts.split_last() else { return Ok(here) };
        for folder in folders {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            here = openat(&here, *folder, flags, Mode::empty())?;
        }
        Ok(openat(&here, *last, flags | OFlags::NOFOLLOW, Mode::empty())?)
    }

    /// Names in a folder beneath, folders with a slash, at most `most`. Blocks.
    pub(super) fn names(&self, path: &Path, most: usize) -> io::Result<Vec<String>> {
        let (folder, _) = self.find(path)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(folder.file()?)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.starts_with('.') || names.len() >= most {
                continue;
            }
            let is_folder = match entry.file_type() {
                rustix::fs::FileType::Directory => true,
                rustix::fs::FileType::Symlink | rustix::fs::FileType::Unknown => {
                    // A link that leads out of the folder has no place in the list.
                    match self.find(&path.join(name)) {
                        Ok((_, about)) => about.is_dir(),
                        Err(_) => continue,
                    }
                }
                _ => false,
            };
            names.push(format!("{name}{}", if is_folder { "/" } else { "" }));
        }
        names.sort_by(|a, b| b.ends_with('/').cmp(&a.ends_with('/')).then_with(|| a.cmp(b)));
        Ok(names)
    }
}

/// A file or folder, and what is known of it.
type Found = (Held, fs::Metadata);

// Without NONBLOCK a named pipe would hold the thread until somebody writes.
const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

fn named(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// The folder as one request sees it: notes the file that it opened last.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) beneath: Beneath,
    pub(super) note: Note,
}

impl Backend for Asked {
    type File = Opened;
    type Metadata = About;
    type OpenFuture = Pin<Box<dyn Future<Output = io::Result<Opened>> + Send>>;
    type MetadataFuture = Pin<Box<dyn Future<Output = io::Result<About>> + Send>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let (asked, note) = (self.clone(), self.note.clone());
        Box::pin(async move {
            asked.find(path).await.map(|(file, about)| Opened::new(file, about, note))
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let asked = self.clone();
        Box::pin(async move { asked.find(path).await.map(|(_, about)| About(about)) })
    }
}

impl Asked {
    /// One name of those that a request is tried with. After one for which the disk did not answer there are no
    /// more.
    async fn find(self, path: PathBuf) -> io::Result<Found> {
        if self.note.is_late() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let found = self.beneath.look_for(path).await;
        if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.note.late();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn opens_what_is_inside_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(place.path().join("secret"), "canary").unwrap();
        fs::write(root.join("sub/a"), "a").unwrap();
        symlink("sub/a", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink(place.path().join("secret"), root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let beneath = Beneath::open(&root, Disk::of(1)).unwrap();
        for found in ["sub/a", "inside", "sub/../sub/a", "", "sub"] {
            assert!(beneath.find(Path::new(found)).is_ok(), "{found}");
            // Found a moment ago, so known without a disk, where the kernel can tell.
            let at_once = beneath.find_at_once(Path::new(found));
            assert!(at_once.is_none_or(|found| found.is_ok()), "{found}");
        }
        for lost in
            ["outside", "absolute", "up/secret", "../secret", "sub/../../secret", "/etc/passwd"]
        {
            assert!(beneath.find(Path::new(lost)).is_err(), "{lost}");
            let at_once = beneath.find_at_once(Path::new(lost));
            assert!(at_once.is_none_or(|found| found.is_err()), "{lost}");
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        assert!(beneath.find_by_parts(Path::new("sub/a"), flags).is_ok());
        for lost in ["inside", "outside", "up/secret", "../secret", "/etc/passwd"] {
            assert!(beneath.find_by_parts(Path::new(lost), flags).is_err(), "{lost}");
        }
        assert_eq!(beneath.names(Path::new(""), 10).unwrap(), ["sub/", "inside"]);
    }
}
