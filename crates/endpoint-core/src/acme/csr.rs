//! What is a certificate asked for with, and is what came back it?

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
};
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    issuer::{Fault, IssueError, Issued},
    problem::{Step, unavailable},
};
use crate::{config::CertificateKey, transport::fetch::cut};

/// A new key, and the request that is signed with it.
pub(super) struct Csr {
    /// DER.
    pub(super) request: Vec<u8>,
    /// PKCS#8.
    key: Zeroizing<Vec<u8>>,
}

impl Csr {
    /// A request for one name, a DNS name or an IP address.
    pub(super) fn new(name: &str, key: CertificateKey) -> Result<Self, IssueError> {
        let made = |why: rcgen::Error| IssueError {
            kind: Fault::Refused,
            detail: format!("no certificate can be asked for: {}", cut(&why.to_string())),
            retry_after: None,
        };
        let kind = match key {
            CertificateKey::P256 => &PKCS_ECDSA_P256_SHA256,
            CertificateKey::P384 => &PKCS_ECDSA_P384_SHA384,
        };
        let key = KeyPair::generate_for(kind).map_err(made)?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(made)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(made)?;
        Ok(Self { request: request.der().to_vec(), key: Zeroizing::new(key.serialize_der()) })
    }

    /// The chain that came back, if its leaf is for our key.
    pub(super) fn issued(self, pem: &str, provider: &CryptoProvider) -> Result<Issued, IssueError> {
        let wrong = |why: &str| unavailable(Step::Certificate, why);
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| wrong("the answer is no PEM text"))?;
        if chain.is_empty() {
            return Err(wrong("the answer holds no certificate"));
        }
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.to_vec()));
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|_| wrong("our own key cannot be read"))?;
        if CertifiedKey::new(chain.clone(), key).keys_match().is_err() {
            return Err(wrong("the certificate that came is not for our key"));
        }
        Ok(Issued { chain, key: self.key })
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    #[test]
    fn takes_only_a_chain_for_its_own_key() {
        let provider = default_provider();
        let own = || Csr::new("a.example", CertificateKey::P256).unwrap();
        let good = own();
        let key = PrivatePkcs8KeyDer::from(good.key.to_vec());
        let key = KeyPair::try_from(&key).unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        assert_eq!(good.issued(&pem, &provider).unwrap().chain.len(), 1);
        for (bad, says) in [
            (pem.as_str(), "not for our key"),
            ("", "no certificate"),
            ("<html>", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "no PEM"),
        ] {
            let refused = own().issued(bad, &provider).unwrap_err();
            assert!(refused.detail.contains(says), "{refused}");
        }
        let refused = Csr::new("a\u{1b}ö", CertificateKey::P256).err().unwrap();
        assert!(!refused.detail.contains('\u{1b}'), "{refused}");
    }
}
