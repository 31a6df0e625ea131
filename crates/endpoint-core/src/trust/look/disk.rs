//! The calls to the disk that a look makes. Tests have disks that hang, tear and lie.

use std::{convert::Infallible, fmt::Debug, path::PathBuf};

use super::{Stamp, TrustFileError};
use crate::trust::file::{self, EditFileError};

/// The folder with the trust file. Every call may take for ever.
pub(crate) trait Disk: Debug + Send + Sync {
    /// What the file looks like, after all checks; `None` if there is none.
    fn stamp(&self) -> Result<Option<Stamp>, TrustFileError>;

    /// Its bytes, and what it looked like when it was opened.
    fn read(&self) -> Result<Option<(Vec<u8>, Stamp)>, TrustFileError>;

    /// Writes removed keys down beside it.
    fn write_removed(&self, text: &str) -> Result<(), TrustFileError>;
}

/// The disk itself.
#[derive(Debug)]
pub(crate) struct RealDisk {
    pub(crate) path: PathBuf,
    pub(crate) removed: PathBuf,
}

impl Disk for RealDisk {
    fn stamp(&self) -> Result<Option<Stamp>, TrustFileError> {
        file::stamp(&self.path)
    }

    fn read(&self) -> Result<Option<(Vec<u8>, Stamp)>, TrustFileError> {
        file::read_stamped(&self.path)
    }

    fn write_removed(&self, text: &str) -> Result<(), TrustFileError> {
        let all = |_: &[u8]| Ok::<_, Infallible>((text.as_bytes().to_vec(), ()));
        match file::edit(&self.removed, all) {
            Ok(()) => Ok(()),
            Err(EditFileError::File(error)) => Err(error),
            Err(EditFileError::Change(never)) => match never {},
        }
    }
}
