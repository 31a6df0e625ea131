//! Which key does this endpoint hold?
//!
//! Ground: the key in memory. Not here: its file (`key_file`), its texts (`import`, `spki`).
//!
//! Always true: the seed is wiped when the last clone goes, and no text, log or error holds it.

use std::{fmt, path::Path, sync::Arc};

use aws_lc_rs::{hmac, rand, signature::Ed25519KeyPair};
use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use super::{Fingerprint, ImportKeyError, KeyFileError, PublicKey, import, key_file};

/// The endpoint's own Ed25519 key. Cheap to clone; wiped when the last clone goes.
#[derive(Clone)]
pub struct Identity {
    key: Arc<SigningKey>,
    /// The same key where signing is twice as fast; it wipes its memory too. `None` if it could not
    /// be made: the signatures are the same.
    fast: Option<Arc<Ed25519KeyPair>>,
    public: PublicKey,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Takes a 32-byte seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = Arc::new(SigningKey::from_bytes(seed));
        let public = PublicKey::of_pair(key.verifying_key().to_bytes());
        let fast = Ed25519KeyPair::from_seed_and_public_key(seed, public.as_bytes());
        let fast = fast.ok().map(Arc::new);
        Self { key, fast, public, fingerprint: public.fingerprint() }
    }

    /// Makes a key from the system's randomness. Nothing is written.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system gives none.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut seed = Zeroizing::new([0; 32]);
        rand::fill(seed.as_mut_slice()).map_err(|_| NoRandomness)?;
        Ok(Self::from_seed(&seed))
    }

    /// Makes a key and its file: PKCS#8 version 1 in PEM, mode 0600, never over another file.
    ///
    /// A missing folder is made with mode 0700. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`KeyFileError`], `AlreadyExists` if anything stands at `path`, even a dangling link.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let identity = Self::generate().map_err(KeyFileError::from)?;
        key_file::create(path, &identity.to_pem())?;
        Ok(identity)
    }

    /// Reads the key file at `path`.
    ///
    /// # Errors
    /// [`KeyFileError`] if it is missing, a link, no regular file, owned by another user, open to
    /// others, or holds anything but one Ed25519 key in PKCS#8. The text says what mends it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let bytes = key_file::read(path)?;
        Self::import(&bytes)
            .map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
    }

    /// Reads the key file at `path`, or makes it if nothing is there.
    ///
    /// # Errors
    /// [`KeyFileError`]; a file that cannot be used is never replaced.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(KeyFileError::Missing { .. }) => {}
            loaded => return loaded,
        }
        match Self::create(path) {
            // Another process was faster: its key is the one.
            Err(KeyFileError::AlreadyExists { .. }) => Self::load(path),
            created => created,
        }
    }

    /// Reads a private key that was made elsewhere: PKCS#8 version 1 or 2, PEM or DER.
    ///
    /// # Errors
    /// [`ImportKeyError`], which names the kind of file.
    pub fn import(bytes: &[u8]) -> Result<Self, ImportKeyError> {
        import::identity(bytes)
    }

    /// Writes this key to a new file, as [`Identity::create`] does.
    ///
    /// # Errors
    /// As [`Identity::create`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        key_file::create(path.as_ref(), &self.to_pem())
    }

    /// Puts this key in the place of the one at `path`, which is kept beside it under the name
    /// returned: `identity.key.old-` and 8 hex digits of its fingerprint.
    ///
    /// At every moment a whole key stands at `path`.
    ///
    /// # Errors
    /// [`KeyFileError`] if the present key cannot be loaded or the files cannot be written.
    pub fn replace(&self, path: impl AsRef<Path>) -> Result<std::path::PathBuf, KeyFileError> {
        let path = path.as_ref();
        let old = Self::load(path)?;
        key_file::replace(path, &self.to_pem(), &old.fingerprint.short())
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The 44 bytes of the public half as a `SubjectPublicKeyInfo` (RFC 8410 §4).
    #[must_use]
    pub fn spki(&self) -> [u8; 44] {
        self.public.to_spki()
    }

    /// The key's one name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Signs `message` (RFC 8032 §5.1.6).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let fast = self.fast.as_ref().map(|key| key.sign(message));
        match fast.and_then(|signature| signature.as_ref().try_into().ok()) {
            Some(signature) => signature,
            None => self.key.sign(message).to_bytes(),
        }
    }

    /// Derives a secret that nobody without the key can know: HKDF-SHA256 (RFC 5869) over the seed
    /// with `salt`, and `label` as its info. One block, 32 bytes.
    ///
    /// A label has one purpose; uses of one label are told apart by the salt.
    #[must_use]
    pub fn derive(&self, label: &[u8], salt: &[u8]) -> [u8; 32] {
        // Extract and one round of expand: HMAC cannot fail, the general interface could.
        let prk = sha256_block(salt, &[self.key.as_bytes()]);
        *sha256_block(prk.as_slice(), &[label, &[1]])
    }

    fn to_pem(&self) -> Zeroizing<String> {
        import::to_pem(self.key.as_bytes())
    }
}

fn sha256_block(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hmac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        hmac.update(part);
    }
    let mut block = Zeroizing::new([0; 32]);
    block.copy_from_slice(hmac.sign().as_ref());
    block
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

/// The system gives no randomness.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the system gives no randomness; is /dev/urandom or getrandom(2) blocked?")]
pub struct NoRandomness;

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        hkdf,
        signature::{ED25519, UnparsedPublicKey},
    };

    use super::*;

    #[test]
    fn signs_what_another_library_verifies() {
        let identity = Identity::from_seed(&[7; 32]);
        let signature = identity.sign(b"hello");
        let key = UnparsedPublicKey::new(&ED25519, *identity.public_key().as_bytes());
        assert!(key.verify(b"hello", &signature).is_ok());
        assert!(key.verify(b"hellp", &signature).is_err());
    }

    /// RFC 8032 §7.1, test 2.
    #[test]
    fn signs_as_the_standard_says() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let identity = Identity::from_seed(&seed.try_into().unwrap());
        assert_eq!(
            identity.public_key().to_hex(),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        assert!(identity.fast.is_some());
        assert_eq!(
            identity.sign(&[0x72]).to_vec(),
            hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00")
        );
    }

    #[test]
    fn signs_alike_with_both_libraries() {
        let fast = Identity::from_seed(&[7; 32]);
        let slow = Identity { fast: None, ..fast.clone() };
        assert_eq!(fast.sign(b"hello"), slow.sign(b"hello"));
    }

    #[test]
    fn derives_as_hkdf_does() {
        let seed = [9; 32];
        for salt in [b"".as_slice(), b"127.0.0.1:4433", &[1; 100]] {
            let mut want = [0; 32];
            hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
                .extract(&seed)
                .expand(&[b"label"], hkdf::HKDF_SHA256)
                .unwrap()
                .fill(&mut want)
                .unwrap();
            assert_eq!(Identity::from_seed(&seed).derive(b"label", salt), want);
        }
    }

    #[test]
    fn never_shows_its_seed() {
        let identity = Identity::from_seed(&[0xab; 32]);
        let text = format!("{identity:?} {identity:#?}");
        assert!(!text.contains("abab") && !text.contains("171"), "{text}");
        assert!(text.contains(&identity.fingerprint().to_string()));
    }

    #[test]
    fn makes_another_key_each_time() {
        let keys = [Identity::generate().unwrap(), Identity::generate().unwrap()];
        assert_ne!(keys[0].fingerprint(), keys[1].fingerprint());
    }
}
