//! How is a record kept so that only the holder of the secret can read it or make one?
//!
//! XChaCha20-Poly1305 with a random nonce of 24 bytes for each write. The keys are derived from the secret
//! with HKDF-SHA256 (RFC 5869), salted with a number of the store. What a record is — kind, id, generation,
//! when it was written, which key — is authenticated with it.
//!
//! Always true: sealed bytes open only as the record that they were sealed as.

use std::fmt;

use aws_lc_rs::{
    hkdf::{HKDF_SHA256, KeyType, Salt},
    hmac,
};
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::secret::Secret;

/// What a record is, apart from what stands in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label<'a> {
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
    pub(super) generation: i64,
    pub(super) written: i64,
}

/// The newest write of an id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
    pub(super) generation: i64,
    pub(super) present: bool,
    /// SHA-256 of the sealed bytes; empty for a deletion.
    pub(super) digest: &'a [u8],
}

/// The keys of a store.
pub(super) struct Sealer {
    cipher: XChaCha20Poly1305,
    heads: hmac::Key,
    key_id: [u8; 16],
}

/// The bytes are not what was sealed, or there is no randomness.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unsealed;

impl Sealer {
    /// The keys that this secret gives for the store of that number.
    pub(super) fn new(secret: &Secret, store: &[u8]) -> Result<Self, Unsealed> {
        let mut cipher = Zeroizing::new([0; 32]);
        let mut heads = Zeroizing::new([0; 32]);
        let mut key_id = [0; 16];
        let from = Salt::new(HKDF_SHA256, store).extract(secret.bytes());
        let derive = |label: &[u8], out: &mut [u8]| {
            from.expand(&[b"endpoint store 1: ", label], Length(out.len()))
                .and_then(|key| key.fill(out))
                .map_err(|_| Unsealed)
        };
        derive(b"records", &mut *cipher)?;
        derive(b"heads", &mut *heads)?;
        derive(b"name of the key", &mut key_id)?;
        Ok(Self {
            cipher: XChaCha20Poly1305::new_from_slice(&*cipher).map_err(|_| Unsealed)?,
            heads: hmac::Key::new(hmac::HMAC_SHA256, &*heads),
            key_id,
        })
    }

    /// Names the keys without giving anything of them away.
    pub(super) const fn key_id(&self) -> &[u8; 16] {
        &self.key_id
    }

    pub(super) fn seal(&self, label: Label<'_>, body: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let mut nonce = [0; NONCE];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Unsealed)?;
        // Room for all of it at once: a vector that grows leaves plaintext behind.
        let mut sealed = Vec::with_capacity(NONCE + body.len() + TAG);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(body);
        let (_, text) = sealed.split_at_mut(NONCE);
        let tag = self
            .cipher
            .encrypt_inout_detached(&XNonce::from(nonce), &self.label(label), text.into())
            .map_err(|_| Unsealed)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    pub(super) fn open(
        &self,
        label: Label<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unsealed> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or(Unsealed)?;
        let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(Unsealed)?;
        let mut body = Zeroizing::new(text.to_vec());
        self.cipher
            .decrypt_inout_detached(
                &XNonce::from(*nonce),
                &self.label(label),
                body.as_mut_slice().into(),
                &(*tag).into(),
            )
            .map_err(|_| Unsealed)?;
        Ok(body)
    }

    pub(super) fn mac(&self, head: Head<'_>) -> Vec<u8> {
        hmac::sign(&self.heads, &self.head(head)).as_ref().to_vec()
    }

    pub(super) fn holds(&self, head: Head<'_>, mac: &[u8]) -> bool {
        hmac::verify(&self.heads, &self.head(head), mac).is_ok()
    }

    fn label(&self, label: Label<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        text(&mut bytes, b"record");
        text(&mut bytes, label.kind.as_bytes());
        text(&mut bytes, label.id.as_bytes());
        bytes.extend_from_slice(&label.generation.to_be_bytes());
        bytes.extend_from_slice(&label.written.to_be_bytes());
        bytes.extend_from_slice(&self.key_id);
        bytes
    }

    fn head(&self, head: Head<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        text(&mut bytes, b"head");
        text(&mut bytes, head.kind.as_bytes());
        text(&mut bytes, head.id.as_bytes());
        bytes.extend_from_slice(&head.generation.to_be_bytes());
        bytes.push(u8::from(head.present));
        text(&mut bytes, head.digest);
        bytes.extend_from_slice(&self.key_id);
        bytes
    }
}

/// Its length before it, so that no two lists of texts give the same bytes.
fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    bytes.extend_from_slice(text);
}

/// How much HKDF shall give.
#[derive(Clone, Copy, Debug)]
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

const NONCE: usize = 24;
const TAG: usize = 16;
