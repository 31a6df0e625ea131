//! How does the endpoint show its own key?
//!
//! As a raw public key (RFC 7250): the 44 bytes of its SPKI where a certificate would stand, and
//! Ed25519 signatures made by the identity itself, so that no copy of the seed leaves it.

use std::sync::Arc;

use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, Signer, SigningKey},
};

use crate::identity::Identity;

/// The identity as rustls wants it: its SPKI and a key that signs.
pub(crate) fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let spki = CertificateDer::from(identity.spki().to_vec());
    Arc::new(CertifiedKey::new(vec![spki], Arc::new(IdentityKey(identity.clone()))))
}

/// Signs handshakes with the identity.
#[derive(Clone, Debug)]
pub(crate) struct IdentityKey(pub(crate) Identity);

impl SigningKey for IdentityKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.0.spki().to_vec()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for IdentityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Shows the raw key to every client, whatever name it asks for: peers know the key, not the name.
#[derive(Debug)]
pub(crate) struct RawKeyResolver(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for RawKeyResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}
