//! How are a bundle and its signature had so that they belong together?
//!
//! The signature is read before and after the bundle: if it is another one then, the two were being replaced
//! in between, and nothing of what was read is used.
//!
//! Always true: what is given was read while its signature stood still.

#![allow(
    clippy::disallowed_methods,
    reason = "the stamps are taken on the driver's thread or apart"
)]

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::crypto::CryptoProvider;
use zeroize::Zeroizing;

use super::{MAX_BYTES, MAX_SIGNATURE_BYTES, signature_path};
use crate::{
    apart::apart,
    certs::{
        ask::Web,
        private_file::{self, Secrecy},
    },
    config::BundleLocation,
};

/// Where a bundle and its signature are.
#[derive(Debug)]
pub(super) enum Place {
    File { bundle: PathBuf, signature: PathBuf },
    Url { web: Web, bundle: String, signature: String },
}

/// A bundle and the signature that stood beside it before and after.
pub(super) struct Taken {
    pub(super) bundle: Zeroizing<Vec<u8>>,
    pub(super) signature: Zeroizing<Vec<u8>>,
}

/// Why nothing was taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// The two are being replaced: worth another try at once.
    Changing,
    /// Something else, with what to do about it.
    Fault(String),
}

impl Place {
    pub(super) fn new(
        location: &BundleLocation,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        match location {
            BundleLocation::File(path) => {
                Ok(Self::File { bundle: path.clone(), signature: signature_path(path) })
            }
            BundleLocation::Url(url) => Self::web(url, Web::new(None, provider, MAX_BYTES)?),
        }
    }

    pub(super) fn web(url: &str, web: Web) -> Result<Self, String> {
        let shown = url.escape_debug();
        let rest = url.strip_prefix("https://").ok_or_else(|| {
            format!("`{shown}` is no place for a bundle; give a path, or a URL that begins with https://")
        })?;
        let clean = |c: char| c.is_ascii_graphic() && c != '#';
        if rest.is_empty() || rest.starts_with('/') || !rest.chars().all(clean) {
            return Err(format!(
                "`{shown}` is no URL; expected https://HOST/PATH in ASCII, without spaces or `#`"
            ));
        }
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let signature = match query {
            "" => format!("{path}.sig"),
            query => format!("{path}.sig?{query}"),
        };
        Ok(Self::Url { web, bundle: url.to_owned(), signature })
    }

    /// Reads signature, bundle, signature.
    pub(super) async fn take(&self) -> Result<Taken, NotTaken> {
        let signature = self.signature().await?;
        let bundle = self.bundle().await?;
        if *self.signature().await? != *signature {
            return Err(NotTaken::Changing);
        }
        Ok(Taken { bundle, signature })
    }

    async fn signature(&self) -> Result<Zeroizing<Vec<u8>>, NotTaken> {
        match self {
            Self::File { signature, .. } => {
                read(signature, Secrecy::Public, MAX_SIGNATURE_BYTES).await
            }
            Self::Url { web, signature, .. } => {
                let body = get(web, signature).await?;
                if body.len() > MAX_SIGNATURE_BYTES {
                    return Err(NotTaken::Fault(format!(
                        "{} has {} bytes, a signature {MAX_SIGNATURE_BYTES}; put the file there that \
                         `endpoint bundle sign` made",
                        signature.escape_debug(),
                        body.len()
                    )));
                }
                Ok(body)
            }
        }
    }

    async fn bundle(&self) -> Result<Zeroizing<Vec<u8>>, NotTaken> {
        match self {
            Self::File { bundle, .. } => read(bundle, Secrecy::Private, MAX_BYTES).await,
            Self::Url { web, bundle, .. } => get(web, bundle).await,
        }
    }

    /// What can be seen of the files without reading them; the same for a URL at all times.
    pub(super) fn stamps(&self) -> [Option<Stamp>; 2] {
        match self {
            Self::File { bundle, signature } => [Stamp::of(bundle), Stamp::of(signature)],
            Self::Url { .. } => [None; 2],
        }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// A file as it looks from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    mode: u32,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = path.symlink_metadata().ok()?;
        Some(Self {
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            mode: found.mode(),
        })
    }
}

async fn read(path: &Path, secrecy: Secrecy, limit: usize) -> Result<Zeroizing<Vec<u8>>, NotTaken> {
    let owned = path.to_owned();
    match apart(move || private_file::read(&owned, secrecy, limit)).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(NotTaken::Fault(format!(
            "{} does not exist; put the bundle there and its signature beside it, under the same name \
             and `.sig`",
            path.display()
        ))),
        Err(why) => Err(NotTaken::Fault(why)),
    }
}

async fn get(web: &Web, url: &str) -> Result<Zeroizing<Vec<u8>>, NotTaken> {
    let answer = web.get(url).await.map_err(NotTaken::Fault)?;
    if answer.status() != 200 {
        return Err(NotTaken::Fault(format!(
            "{} answered with status {}; is the bundle there, and its signature beside it under the same \
             name and `.sig`?",
            url.escape_debug(),
            answer.status()
        )));
    }
    Ok(answer.into_body())
}
