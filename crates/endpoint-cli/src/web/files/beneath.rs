//! Files of one folder, opened so that none outside can be.
//!
//! The kernel resolves each name beneath the folder (`openat2`, `RESOLVE_BENEATH`): links that stay inside
//! work, others do not, whenever they were made. Kernels before Linux 5.6 lack it; there each part of a
//! name is opened for itself and no link is followed.
//!
//! A name that the kernel has in memory is opened where it is asked for, others where that may block.

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

use super::opened::{About, Note, Opened};

/// A folder. Clones are the same folder.
#[derive(Clone, Debug)]
pub(super) struct Beneath(Arc<OwnedFd>);

impl Beneath {
    /// Opens a folder; later names are found from it, wherever it moves.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(Arc::new(rustix::fs::open(folder, flags, Mode::empty())?)))
    }

    /// Opens a file or folder beneath. Blocks.
    fn find(&self, path: &Path) -> io::Result<Found> {
        let path = named(path);
        let found = match openat2(&*self.0, path, FLAGS, Mode::empty(), RESOLVE) {
            Err(Errno::NOSYS) => self.find_by_parts(path, FLAGS)?,
            found => found?,
        };
        about(found.into())
    }

    /// The same if all parts of the name are in the kernel's memory; `None` if that has to ask a disk, or
    /// cannot tell (before Linux 5.12).
    fn find_at_once(&self, path: &Path) -> Option<io::Result<Found>> {
        let resolve = RESOLVE | ResolveFlags::CACHED;
        match openat2(&*self.0, named(path), FLAGS, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS | Errno::PERM) => None,
            found => Some(found.map_err(Into::into).and_then(|found| about(found.into()))),
        }
    }

    /// The same, wherever it has to be looked for.
    async fn look_for(self, path: PathBuf) -> io::Result<Found> {
        match self.find_at_once(&path) {
            Some(found) => found,
            None => off_thread(move || self.find(&path)).await,
        }
    }

    fn find_by_parts(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let mut here = self.0.try_clone()?;
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
        for entry in Dir::read_from(&folder)? {
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
type Found = (File, fs::Metadata);

// Without NONBLOCK a named pipe would hold the thread until somebody writes.
const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

fn named(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn about(file: File) -> io::Result<Found> {
    let about = file.metadata()?;
    match about.is_file() || about.is_dir() {
        true => Ok((file, about)),
        // Devices, pipes and sockets are no files of a site.
        false => Err(io::ErrorKind::NotFound.into()),
    }
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
        let found = self.beneath.clone().look_for(path);
        let note = self.note.clone();
        Box::pin(async { found.await.map(|(file, about)| Opened::new(file, about, note)) })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let found = self.beneath.clone().look_for(path);
        Box::pin(async { found.await.map(|(_, about)| About(about)) })
    }
}

/// Runs what blocks where it may.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
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
        let beneath = Beneath::open(&root).unwrap();
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
