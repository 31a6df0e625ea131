//! Does the client hold the key that it shows?
//!
//! The accept-any verifier: no chain is followed, because authorisation looks at the key alone and
//! later; the signature of CertificateVerify is always checked (RFC 8446 §4.4.3), because a public
//! key is no secret.
//!
//! Always true: a client that reaches the end of the handshake with a key holds its private half;
//! the key is strong, canonical, and of an allowed algorithm; whether it is raw is known from the
//! profile, never from its bytes.

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        WebPkiSupportedAlgorithms, verify_tls13_signature, verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::{
    facts::KeyKind,
    identity::{Fingerprint, PublicKey, name_again, spki_fingerprint},
};

use super::provider;

/// Takes any client key of one kind, and makes the client prove that it holds it.
#[derive(Debug)]
pub(crate) struct AnyClientKey {
    kind: KeyKind,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClientKey {
    pub(crate) fn new(kind: KeyKind) -> Self {
        Self { kind, algorithms: provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyClientKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = 1 + intermediates.len();
        let bytes = intermediates.iter().map(|c| c.len()).sum::<usize>() + end_entity.len();
        if chain > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
            return Err(CertificateError::BadEncoding.into());
        }
        if self.kind == KeyKind::Raw && chain != 1 {
            return Err(CertificateError::BadEncoding.into());
        }
        fingerprint(self.kind, end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = self.supported_verify_schemes();
        verify_signature(self.kind, message, cert, signed, &schemes, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self.kind {
            KeyKind::Raw => vec![SignatureScheme::ED25519],
            KeyKind::X509 => {
                vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
            }
        }
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.kind == KeyKind::Raw
    }
}

/// The name of a key that a peer showed, after the strict check of its form. Proves nothing by
/// itself.
pub(crate) fn fingerprint(kind: KeyKind, shown: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    let named = match kind {
        KeyKind::Raw => PublicKey::from_spki(shown.as_ref()).map(|key| key.fingerprint()),
        KeyKind::X509 => {
            let certificate = ParsedCertificate::try_from(shown)?;
            spki_fingerprint(certificate.subject_public_key_info().as_ref())
        }
    };
    named.map_err(|_| CertificateError::BadEncoding.into())
}

/// The name of a key that [`fingerprint`] named earlier in the same handshake.
pub(super) fn fingerprint_again(
    kind: KeyKind,
    shown: &CertificateDer<'_>,
) -> Result<Fingerprint, Error> {
    match kind {
        KeyKind::Raw => {
            name_again(shown.as_ref()).map_err(|_| CertificateError::BadEncoding.into())
        }
        KeyKind::X509 => fingerprint(kind, shown),
    }
}

/// Checks a CertificateVerify against the key that was shown, made in one of the `schemes` asked for.
pub(crate) fn verify_signature(
    kind: KeyKind,
    message: &[u8],
    shown: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    schemes: &[SignatureScheme],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    if !schemes.contains(&signed.scheme) {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    match kind {
        KeyKind::Raw => verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(shown.as_ref()),
            signed,
            algorithms,
        ),
        KeyKind::X509 => verify_tls13_signature(message, shown, signed, algorithms),
    }
}

/// TLS 1.2 has no raw public keys here and does not sign the whole handshake; it is not offered.
pub(crate) fn refuse_tls12() -> Error {
    Error::General("keys are proven in TLS 1.3 only".into())
}

const MAX_CHAIN: usize = 4;
const MAX_CHAIN_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certs::self_signed::of_identity,
        tls::tests::{CLIENT, identity, p256},
    };

    /// The points of small order, and encodings of them that are not canonical.
    const SMALL_ORDER: [&str; 14] = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];

    fn judge(kind: KeyKind, shown: &[&[u8]]) -> Result<ClientCertVerified, Error> {
        let chain = shown.iter().map(|c| CertificateDer::from(*c)).collect::<Vec<_>>();
        let (leaf, rest) = chain.split_first().unwrap();
        AnyClientKey::new(kind).verify_client_cert(
            leaf,
            rest,
            UnixTime::since_unix_epoch(std::time::Duration::ZERO),
        )
    }

    #[test]
    fn takes_one_raw_key_and_refuses_weak_cut_and_doubled_ones() {
        let good = identity(CLIENT).spki();
        assert!(judge(KeyKind::Raw, &[&good]).is_ok());
        assert!(judge(KeyKind::Raw, &[&good, &good]).is_err());
        assert!(judge(KeyKind::Raw, &[&good[..43]]).is_err());
        assert!(judge(KeyKind::Raw, &[&[&good[..], &[0]].concat()]).is_err());
        assert!(judge(KeyKind::Raw, &[b""]).is_err());
        for point in SMALL_ORDER {
            let point = data_encoding::HEXLOWER.decode(point.as_bytes()).unwrap();
            let weak = [&good[..12], &point].concat();
            assert!(judge(KeyKind::Raw, &[&weak]).is_err());
        }
    }

    #[test]
    fn knows_the_form_from_the_profile_and_not_from_the_bytes() {
        let own = identity(CLIENT);
        let certificate = of_identity(&own);
        assert!(judge(KeyKind::X509, &[&certificate]).is_ok());
        assert!(judge(KeyKind::Raw, &[&certificate]).is_err());
        assert!(judge(KeyKind::X509, &[&own.spki()]).is_err());
        for bit in 0..certificate.len() {
            let mut bad = certificate.to_vec();
            bad[bit] ^= 1;
            let _ = judge(KeyKind::X509, &[&bad]);
        }
    }

    #[test]
    fn takes_p256_in_a_certificate_and_no_other_curve() {
        let p256 = p256(&["client"]);
        assert!(judge(KeyKind::X509, &[&p256.cert[0]]).is_ok());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let p384 = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        assert!(judge(KeyKind::X509, &[p384.der()]).is_err());
    }

    #[test]
    fn bounds_the_chain_before_it_reads_it() {
        let leaf = of_identity(&identity(CLIENT));
        let leaf: &[u8] = &leaf;
        assert!(judge(KeyKind::X509, &[leaf; 4]).is_ok());
        assert!(judge(KeyKind::X509, &[leaf; 5]).is_err());
        let large = vec![0x30; 16 * 1024];
        assert!(judge(KeyKind::X509, &[leaf, &large]).is_err());
        let start = std::time::Instant::now();
        let huge = vec![0x30; 64 * 1024];
        assert!(judge(KeyKind::X509, &[&huge]).is_err());
        assert!(judge(KeyKind::X509, &[leaf; 100]).is_err());
        assert!(start.elapsed() < std::time::Duration::from_millis(50));
    }

    #[test]
    fn has_no_answer_for_tls_1_2() {
        assert!(matches!(refuse_tls12(), Error::General(_)));
        assert!(!AnyClientKey::new(KeyKind::Raw).client_auth_mandatory());
        assert!(AnyClientKey::new(KeyKind::Raw).offer_client_auth());
    }
}
