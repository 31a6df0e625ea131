//! Which bundle was seen last?
//!
//! A file of one line in the state folder, so that an older bundle is refused after a restart too.
//!
//! Always true: a record that cannot be read or trusted is an error, never «nothing seen yet».

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use sha2::{Digest, Sha256};

use super::{BundleError, SignedBundle};
use crate::{
    certs::private_file::{self, Secrecy},
    identity::PublicKey,
};

/// The memory of one source: in a file, or without a state folder as long as the process lives.
#[derive(Debug)]
pub(super) struct Seen {
    path: Option<PathBuf>,
    memory: Mutex<Option<Entry>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    serial: u64,
    digest: [u8; 32],
}

impl Seen {
    /// The record for those names under that signer. Where the bundle comes from has no part in it: another
    /// place must not lead back to an older one.
    pub(super) fn new(folder: Option<&Path>, names: &[String], signer: &PublicKey) -> Self {
        let mut names = names.to_vec();
        names.sort();
        let id = Sha256::digest(format!("{signer}\n{}", names.join("\n")).as_bytes());
        let id = data_encoding::HEXLOWER.encode(id.get(..8).unwrap_or_default());
        let path = folder.map(|folder| folder.join(format!("bundle-{id}.seen")));
        Self { path, memory: Mutex::new(None) }
    }

    /// Refuses a bundle that is older than the last one, or another with the same number.
    pub(super) fn check(&self, bundle: &SignedBundle) -> Result<(), String> {
        let Some(last) = self.last()? else { return Ok(()) };
        let (got, seen) = (bundle.serial(), last.serial);
        if got < seen {
            return Err(BundleError::RolledBack { got, seen }.to_string());
        }
        if got == seen && bundle.digest() != last.digest {
            return Err(BundleError::SameSerial { serial: got }.to_string());
        }
        Ok(())
    }

    /// Remembers a bundle, before it is served.
    pub(super) fn remember(&self, bundle: &SignedBundle) -> Result<(), String> {
        let entry = Entry { serial: bundle.serial(), digest: bundle.digest() };
        if self.recorded()? == Some(entry) {
            *self.memory() = Some(entry);
            return Ok(());
        }
        if let Some(path) = &self.path {
            private_file::write(path, entry.text().as_bytes(), Secrecy::Private).map_err(|why| {
                format!(
                    "which bundle was seen cannot be kept in {}: {why}; make the folder writable",
                    path.display()
                )
            })?;
        }
        *self.memory() = Some(entry);
        Ok(())
    }

    /// Taken away or put back while this process lives, a record does not make it forget.
    fn last(&self) -> Result<Option<Entry>, String> {
        let (recorded, memory) = (self.recorded()?, *self.memory());
        let newer = |memory: &Entry| recorded.is_none_or(|kept| memory.serial > kept.serial);
        Ok(memory.filter(newer).or(recorded))
    }

    /// What stands in the file; without one, in memory.
    fn recorded(&self) -> Result<Option<Entry>, String> {
        let Some(path) = &self.path else { return Ok(*self.memory()) };
        let Some(bytes) = private_file::read(path, Secrecy::Private, MAX_BYTES)? else {
            return Ok(None);
        };
        Entry::parse(&bytes).map(Some).ok_or_else(|| {
            format!(
                "{} is damaged, so a bundle that was put back could not be told from a new one; if you \
                 trust the bundle that is there now, remove that file",
                path.display()
            )
        })
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Option<Entry>> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Entry {
    fn text(&self) -> String {
        format!("v1 {} {}\n", self.serial, data_encoding::HEXLOWER.encode(&self.digest))
    }

    /// Reads the one text that it writes.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let (serial, digest) = text.strip_prefix("v1 ")?.strip_suffix('\n')?.split_once(' ')?;
        let digest = data_encoding::HEXLOWER.decode(digest.as_bytes()).ok()?;
        let entry = Self { serial: serial.parse().ok()?, digest: digest.try_into().ok()? };
        (entry.text() == text).then_some(entry)
    }
}

const MAX_BYTES: usize = 256;
