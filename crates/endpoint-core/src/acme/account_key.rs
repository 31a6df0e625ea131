//! Which key signs our requests to an authority?
//!
//! ECDSA on P-256 in PKCS#8, the one kind that both engines take.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use zeroize::Zeroizing;

use super::issuer::AccountKey;

impl AccountKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`AccountKeyError::Make`] if the system has no random bytes to give.
    pub(crate) fn generate() -> Result<Self, AccountKeyError> {
        let made = |_| AccountKeyError::Make;
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(made)?;
        let der = pair.to_pkcs8v1().map_err(made)?;
        Ok(Self(Zeroizing::new(der.as_ref().to_vec())))
    }

    /// Takes a key that was kept.
    ///
    /// # Errors
    /// [`AccountKeyError::Form`] if it is no P-256 key in PKCS#8.
    pub(crate) fn from_pkcs8(der: Zeroizing<Vec<u8>>) -> Result<Self, AccountKeyError> {
        let key = Self(der);
        key.pair().map(|_| key)
    }

    /// The key, ready to sign.
    pub(super) fn pair(&self) -> Result<EcdsaKeyPair, AccountKeyError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.0)
            .map_err(|_| AccountKeyError::Form)
    }
}

/// Why there is no account key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum AccountKeyError {
    #[error("the account key is no ECDSA P-256 key in PKCS#8; remove the account to make another")]
    Form,
    #[error("no account key can be made: the system gives no random bytes")]
    Make,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_taken_by_both_engines_and_never_shown() {
        let key = AccountKey::generate().unwrap();
        assert!(AccountKey::from_pkcs8(key.0.clone()).is_ok());
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from(key.0.as_slice());
        assert!(::instant_acme::Key::from_pkcs8_der(der).is_ok());
        assert!(key.pair().is_ok(), "the form that rustls-acme signs with");
        assert_eq!(format!("{key:?}"), "AccountKey(..)");
        assert_ne!(key.0, AccountKey::generate().unwrap().0);
    }

    #[test]
    fn refuses_other_keys_and_every_cut() {
        let key = AccountKey::generate().unwrap();
        for cut in 0..key.0.len() {
            assert!(AccountKey::from_pkcs8(key.0[..cut].to_vec().into()).is_err(), "cut at {cut}");
        }
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(AccountKey::from_pkcs8(other.serialize_der().into()).is_err());
    }
}
