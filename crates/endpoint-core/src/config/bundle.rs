//! Where is a shared certificate, and who signs it?
//!
//! Ground: plain data. `certs::bundle` reads and checks what it names.

use std::{fmt, path::PathBuf};

use crate::identity::PublicKey;

/// A certificate with its key that somebody else renews and signs, served on loopback addresses only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// Where it is; its signature is beside it, under the same name and `.sig`.
    pub location: BundleLocation,
    /// The Ed25519 key whose signature it must bear; its text begins with `ed25519:`.
    pub signer: PublicKey,
}

/// Where a bundle is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BundleLocation {
    /// A file of mode 0600.
    File(PathBuf),
    /// An `https` URL; needs feature `http3` or `acme`.
    Url(String),
}

impl BundleLocation {
    /// Reads `https://…` as a URL and everything else as a path.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text.split_once("://") {
            Some(_) => Self::Url(text.to_owned()),
            None => Self::File(text.into()),
        }
    }
}

impl fmt::Display for BundleLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.escape_debug().fmt(f),
        }
    }
}
