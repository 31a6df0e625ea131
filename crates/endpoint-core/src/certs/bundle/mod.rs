//! Is this bundle what its signer made, whole and in date?
//!
//! A bundle is a certificate chain with its key that one party renews for many: text with a serial number,
//! the end and the names of the certificate, then PEM. Beside it stands a detached Ed25519 signature. Not
//! here: where bundles are fetched from and which serial numbers were seen (`source`).
//!
//! Always true: nothing of a document is parsed before its signature holds; a document has one form, so what
//! is read, written again, gives the same bytes.

mod document;
mod error;
mod fetch;
mod listen;
mod seen;
mod source;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use self::document::Content;
pub use self::error::BundleError;
pub(crate) use self::{listen::check_listen, source::BundleSource};
use super::{
    files::Loaded,
    private_file::{self, Secrecy},
};
use crate::identity::{Identity, PublicKey};

/// A bundle whose signature and content hold.
#[derive(Clone)]
pub struct SignedBundle {
    document: Zeroizing<Vec<u8>>,
    signature: String,
    serial: u64,
    names: Vec<String>,
    loaded: Loaded,
}

impl SignedBundle {
    /// Makes a bundle of a chain (PEM, leaf first) and its key (PEM, PKCS#8), and signs it.
    ///
    /// `serial` must be higher than that of every bundle signed before, or those who have seen that one
    /// refuse this one.
    ///
    /// # Errors
    /// [`BundleError`] if the two do not fit together, cannot be served at `now`, or do not fit into a bundle.
    pub fn sign(
        chain: &[u8],
        key: &[u8],
        serial: u64,
        signer: &Identity,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
        let document = Content::from_pem(serial, chain, key)?.encode()?;
        let signature = signer.sign(&message(&document));
        let signature = format!("{SIGNATURE}{}\n", data_encoding::HEXLOWER.encode(&signature));
        // Nothing is signed that would not be taken.
        Self::verify(&document, signature.as_bytes(), &signer.public_key(), now)
    }

    /// Checks a document and its signature.
    ///
    /// # Errors
    /// [`BundleError`], which says what is wrong and what to do.
    pub fn verify(
        document: &[u8],
        signature: &[u8],
        signer: &PublicKey,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
        Self::verify_with(document, signature, signer, now, &default_provider())
    }

    pub(crate) fn verify_with(
        document: &[u8],
        signature: &[u8],
        signer: &PublicKey,
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<Self, BundleError> {
        if document.len() > MAX_BYTES {
            return Err(BundleError::TooLong { got: document.len() });
        }
        let text = check_signature(document, signature, signer)?;
        let content = Content::decode(document)?;
        let loaded = content.load(provider)?;
        let validity = loaded.validity;
        if now < validity.from {
            return Err(BundleError::NotYet { from: validity.from });
        }
        if now > validity.until {
            return Err(BundleError::Expired { until: validity.until });
        }
        Ok(Self {
            document: Zeroizing::new(document.to_vec()),
            signature: text,
            serial: content.serial,
            names: content.names,
            loaded,
        })
    }

    /// Whether a text begins as a bundle does.
    #[must_use]
    pub fn is_document(bytes: &[u8]) -> bool {
        bytes.starts_with(document::FIRST_LINE.as_bytes())
    }

    /// The serial number that a document claims, whoever wrote it: to number the next one, not to trust it.
    #[must_use]
    pub fn serial_of(document: &[u8]) -> Option<u64> {
        document::serial(str::from_utf8(document).ok()?)
    }

    /// Writes the document, mode 0600, and then its signature beside it; each whole, by rename.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        private_file::write(path, &self.document, Secrecy::Private)?;
        private_file::write(&signature_path(path), self.signature.as_bytes(), Secrecy::Public)
    }

    /// The document; it holds the private key.
    #[must_use]
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// The signature's text, as it stands in the file beside the document.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Its number, which rises with each bundle of a signer.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Until when its certificate is good.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.loaded.validity.until
    }

    /// From when on its certificate is good.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.loaded.validity.from
    }

    /// The names in its certificate, sorted.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// SHA-256 of the document.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.document.as_slice()).into()
    }

    /// Whether its certificate is good for that name; for `*.parent`, for some child of it.
    fn covers(&self, name: &str) -> bool {
        let leaf = self.loaded.certified.end_entity_cert();
        let leaf = leaf.and_then(rustls::server::ParsedCertificate::try_from);
        leaf.is_ok_and(|leaf| super::files::covers(&leaf, name))
    }

    /// Takes it over for serving.
    fn into_loaded(self) -> Loaded {
        self.loaded
    }
}

impl fmt::Debug for SignedBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedBundle")
            .field("serial", &self.serial)
            .field("names", &self.names)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// Reads a document as if its signature held, and writes it again. For fuzzing alone.
pub(super) fn reread(document: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let content = Content::decode(document).ok()?;
    content.load(&default_provider()).ok()?;
    content.encode().ok()
}

/// Where the signature of the bundle in that file stands: the same name and `.sig`.
#[must_use]
pub fn signature_path(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// What is signed: a sentence that no other use of the key begins with, then the document, each after its
/// length, so that neither can pass for a part of the other.
fn message(document: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(DOMAIN.len() + document.len() + 16));
    for part in [DOMAIN, document] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

/// Gives the signature's text if it holds.
fn check_signature(
    document: &[u8],
    signature: &[u8],
    signer: &PublicKey,
) -> Result<String, BundleError> {
    let malformed = || BundleError::SignatureForm;
    let text = str::from_utf8(signature).map_err(|_| malformed())?;
    let digits = text.strip_prefix(SIGNATURE).and_then(|text| text.strip_suffix('\n'));
    let bytes = data_encoding::HEXLOWER.decode(digits.ok_or_else(malformed)?.as_bytes());
    let bytes: [u8; 64] = bytes.map_err(|_| malformed())?.try_into().map_err(|_| malformed())?;
    let wrong = || BundleError::WrongSignature { signer: signer.to_string() };
    VerifyingKey::from_bytes(signer.as_bytes())
        .and_then(|key| key.verify_strict(&message(document), &Signature::from_bytes(&bytes)))
        .map_err(|_| wrong())?;
    Ok(text.to_owned())
}

/// The longest document that is read or made, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The longest signature file, in bytes.
pub const MAX_SIGNATURE_BYTES: usize = SIGNATURE.len() + 2 * 64 + 1;

const DOMAIN: &[u8] = b"endpoint certificate bundle, version 1";
const SIGNATURE: &str = "endpoint-bundle-signature v1 ";

#[cfg(test)]
mod tests;
