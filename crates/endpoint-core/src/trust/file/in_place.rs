//! How is a trust file changed that is a mount of its own?
//!
//! Nothing can be renamed over a mount point (rename(2), EBUSY): `docker run -v ./file:/state/file` makes
//! one. The whole new text is written and synced beside the file first; then what differs is cut off and
//! written anew, so that at each moment the file is the beginning of the new text, or of what both have in
//! common. Options stand before their key, so a line that is cut short is a fault or the same grant, never
//! a wider one. See `adr/0047-one-thread-looks-at-trust-files.md`.

#![allow(
    clippy::disallowed_methods,
    reason = "called at start, by commands, apart, and on the thread that looks"
)]

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, accessat, openat, statx, unlinkat,
};

use super::{Folder, OWNER_ONLY, TrustFileError, check, io_error, name_of};

/// Whether something is mounted exactly on this file. `false` if the kernel (before 5.8) cannot tell.
pub(super) fn is_mount(file: &File) -> bool {
    statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).is_ok_and(|facts| {
        facts.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
            && facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

impl Folder {
    /// Refuses while the whole text of an edit that was cut off lies beside the file.
    pub(super) fn refuse_leftover(&self, path: &Path) -> Result<(), TrustFileError> {
        let whole = whole_path(path)?;
        match accessat(&self.0, name_of(&whole)?, rustix::fs::Access::EXISTS, AtFlags::empty()) {
            Ok(()) => Err(TrustFileError::CutOff { path: path.to_owned(), whole }),
            Err(_) => Ok(()),
        }
    }

    /// Writes over the file itself. The caller holds the lock.
    pub(super) fn write_in_place(
        &self,
        path: &Path,
        before: &[u8],
        after: &[u8],
    ) -> Result<(), TrustFileError> {
        let whole = whole_path(path)?;
        let mode = OWNER_ONLY.bits();
        self.replace(&whole, after, mode)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&self.0, name_of(path)?, flags, Mode::empty());
        let written = opened.map_err(io::Error::from).and_then(|fd| {
            let mut file = File::from(fd);
            let facts = file.metadata()?;
            check(path, &facts).map_err(io::Error::other)?;
            let written = rewrite(&mut file, before, after);
            if written.is_err() {
                // What was there before, so that a disk that is full takes nobody away.
                rewrite(&mut file, after, before)?;
            }
            written
        });
        // Left where it is if the file could not even be put back.
        if written.is_ok() || self.read(path)?.is_some_and(|(bytes, _)| bytes == before) {
            unlinkat(&self.0, name_of(&whole)?, AtFlags::empty())
                .map_err(|why| io_error("remove", &whole, why.into()))?;
        }
        written.map_err(|why| io_error("write", path, why))
    }
}

/// Makes `after` of a file that holds `before` or a part of it: cuts off what differs, then adds.
fn rewrite(file: &mut File, before: &[u8], after: &[u8]) -> io::Result<()> {
    let common = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let kept = u64::try_from(common).unwrap_or(u64::MAX).min(file.metadata()?.len());
    file.set_len(kept)?;
    file.seek(SeekFrom::Start(kept))?;
    let rest = usize::try_from(kept).ok().and_then(|kept| after.get(kept..));
    file.write_all(rest.unwrap_or_default())?;
    file.sync_all()
}

/// Where the whole new text lies while the file is written.
fn whole_path(path: &Path) -> Result<PathBuf, TrustFileError> {
    let mut name = name_of(path)?.to_owned();
    name.push(".whole");
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn is_the_beginning_of_the_new_text_at_each_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (before, after) in [("a\nb\nc\n", "a\nc\n"), ("a\n", "a\nb\n"), ("x", ""), ("", "y")] {
            fs::write(&path, before).unwrap();
            let mut file = File::options().read(true).write(true).open(&path).unwrap();
            rewrite(&mut file, before.as_bytes(), after.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
        // From any beginning of what it was to become, back to what it was.
        for cut in 0..4 {
            fs::write(&path, &"a\nc\n"[..cut]).unwrap();
            let mut file = File::options().read(true).write(true).open(&path).unwrap();
            rewrite(&mut file, b"a\nc\n", b"a\nb\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
        }
    }

    #[test]
    fn writes_over_the_same_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_peers");
        fs::write(&path, "a\nb\n").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let open = Folder::open(&path).unwrap().unwrap();
        open.write_in_place(&path, b"a\nb\n", b"b\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn edits_nothing_over_an_edit_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_peers");
        fs::write(&path, "a\n").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(whole_path(&path).unwrap(), "a\nb\n").unwrap();
        let add = |_: &[u8]| Ok::<_, std::convert::Infallible>((b"c\n".to_vec(), ()));
        let error = super::super::edit(&path, add).unwrap_err().to_string();
        assert!(
            error.contains("was cut off") && error.contains("authorized_peers.whole"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
    }
}
