//! What signs resets and seals tokens?
//!
//! quinn-proto's own implementations are for the types of one library, and which one depends on features
//! that anybody in a build can turn on: with `rustls-ring` a key of aws-lc-rs no longer fits. These are for
//! types of our own, so that the choice of a library stays ours.
//!
//! Always true: the same bytes as quinn-proto's, so that keys that were kept before stay good.

use aws_lc_rs::{aead, hkdf, hmac};
use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};

/// Makes stateless reset tokens (RFC 9000 §10.3.2): HMAC with SHA-256.
pub(super) struct ResetKey(hmac::Key);

impl ResetKey {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        for (at, byte) in signature.iter_mut().zip(hmac::sign(&self.0, data).as_ref()) {
            *at = *byte;
        }
    }

    fn signature_len(&self) -> usize {
        SIGNATURE_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

const SIGNATURE_BYTES: usize = 32;

/// Seals Retry and address tokens (RFC 9000 §8.1.4): for each a key of its own, from HKDF with SHA-256 and
/// the token's random number; then AES-256-GCM.
pub(super) struct TokenKey(hkdf::Prk);

impl TokenKey {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret))
    }

    fn of_token(&self, random: &[u8]) -> Option<aead::LessSafeKey> {
        let info = [random];
        let key = self.0.expand(&info, &aead::AES_256_GCM).ok()?;
        Some(aead::LessSafeKey::new(aead::UnboundKey::from(key)))
    }
}

impl HandshakeTokenKey for TokenKey {
    fn aead_from_hkdf(&self, random: &[u8]) -> Box<dyn AeadKey> {
        Box::new(OneTokenKey(self.of_token(random)))
    }
}

/// The key of one token; `None`, which no known length leads to, opens and seals nothing.
struct OneTokenKey(Option<aead::LessSafeKey>);

/// A key seals one token only, so its nonce may be what it likes.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

impl AeadKey for OneTokenKey {
    fn seal(&self, data: &mut Vec<u8>, additional: &[u8]) -> Result<(), CryptoError> {
        let key = self.0.as_ref().ok_or(CryptoError)?;
        let additional = aead::Aad::from(additional);
        key.seal_in_place_append_tag(nonce(), additional, data).map_err(|_| CryptoError)
    }

    fn open<'a>(&self, data: &'a mut [u8], additional: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let key = self.0.as_ref().ok_or(CryptoError)?;
        key.open_in_place(nonce(), aead::Aad::from(additional), data).map_err(|_| CryptoError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [9; 32];

    #[test]
    fn resets_are_what_quinn_proto_would_make() {
        let (ours, theirs) = (ResetKey::new(&SECRET), hmac::Key::new(hmac::HMAC_SHA256, &SECRET));
        let (mut a, mut b) = ([0; 32], [0; 32]);
        ours.sign(b"an id", &mut a);
        HmacKey::sign(&theirs, b"an id", &mut b);
        assert_eq!(a, b);
        assert_eq!(ours.signature_len(), theirs.signature_len());
        assert!(ours.verify(b"an id", &a).is_ok());
        assert!(ours.verify(b"another", &a).is_err());
    }

    #[test]
    fn tokens_pass_between_ours_and_quinn_protos_and_no_others() {
        let ours = TokenKey::new(&SECRET);
        let theirs = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&SECRET);
        let mut token = b"token".to_vec();
        ours.aead_from_hkdf(b"number").seal(&mut token, b"").unwrap();
        let mut copy = token.clone();
        assert_eq!(theirs.aead_from_hkdf(b"number").open(&mut copy, b"").unwrap(), b"token");
        let mut copy = token.clone();
        assert!(ours.aead_from_hkdf(b"another").open(&mut copy, b"").is_err());
        assert!(TokenKey::new(&[8; 32]).aead_from_hkdf(b"number").open(&mut token, b"").is_err());
    }
}
