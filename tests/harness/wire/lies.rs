//! What a hostile client shows and believes: keys that sign with another, forged signatures, a verifier
//! that checks nothing.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use ed25519_dalek::{Signer as _, SigningKey};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey},
};

use super::{Shown, provider};

/// Shows what it was told to, whoever asks.
#[derive(Debug)]
pub(super) struct Shows {
    pub(super) shown: Mutex<Option<Shown>>,
    pub(super) asked: AtomicBool,
}

impl ResolvesClientCert for Shows {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::SeqCst);
        let shown = self.shown.lock().expect("a lock").clone()?;
        let key: Arc<dyn TlsSigningKey> = match shown.forged {
            Some(signature) => Arc::new(Forges(signature)),
            None => Arc::new(Signs(shown.signer)),
        };
        Some(Arc::new(CertifiedKey::new(shown.chain, key)))
    }

    fn only_raw_public_keys(&self) -> bool {
        self.shown.lock().expect("a lock").as_ref().is_some_and(|shown| shown.raw)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Signs with the key of a seed, whatever is shown.
#[derive(Clone, Debug)]
pub struct Signs(pub u8);

impl TlsSigningKey for Signs {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as _)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Signs {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(SigningKey::from_bytes(&[self.0; 32]).sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Sends the same bytes for every signature.
#[derive(Clone, Debug)]
struct Forges(Vec<u8>);

impl TlsSigningKey for Forges {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as _)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Forges {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.clone())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A client that takes any server for the right one.
#[derive(Debug, Default)]
pub(super) struct BelievesAnything {
    pub(super) raw: AtomicBool,
    /// Whether the server has shown a key.
    pub(super) shown: AtomicBool,
}

impl ServerCertVerifier for BelievesAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.shown.store(true, Ordering::SeqCst);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw.load(Ordering::SeqCst)
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
