//! Keys that the client does not hold, and keys in the wrong form.

use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    client::danger::HandshakeSignatureValid,
    pki_types::UnixTime,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::*;
use crate::{
    certs::self_signed::of_identity,
    tls::raw_key::{IdentityKey, RawKeyResolver},
};

/// What the product's verifier would be without the check of the signature.
#[derive(Debug)]
struct Credulous(KeyKind);

impl ClientCertVerifier for Credulous {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0 == KeyKind::Raw
    }
}

fn credulous(kind: KeyKind) -> Arc<dyn quinn_proto::crypto::ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Credulous(kind)))
        .with_cert_resolver(Arc::new(RawKeyResolver(certified(&identity(SERVER)))));
    config.alpn_protocols = vec![b"echo/1".to_vec()];
    let config = QuicServerConfig::with_initial(Arc::new(config), initial_suite().unwrap());
    Arc::new(config.unwrap())
}

/// A thief shows the victim's public key, raw or in its certificate, and signs with another.
#[tokio::test]
async fn refuses_a_stolen_public_key_that_a_credulous_verifier_takes() {
    let thief: Arc<IdentityKey> = Arc::new(IdentityKey(identity(THIEF)));
    let victim = certified(&identity(CLIENT));
    let victim_cert = p256(&["victim"]);
    let stolen = [
        (KeyKind::Raw, CertifiedKey::new(victim.cert.clone(), thief.clone()), victim.cert.clone()),
        (
            KeyKind::X509,
            CertifiedKey::new(victim_cert.cert.clone(), p256(&["thief"]).key.clone()),
            victim_cert.cert.clone(),
        ),
        (
            KeyKind::X509,
            CertifiedKey::new(victim_cert.cert.clone(), thief.clone()),
            victim_cert.cert.clone(),
        ),
    ];
    let server = server();
    for (kind, loot, shown) in stolen {
        let client = Client::new(KeyKind::Raw, &["echo/1"]).showing(kind, Arc::new(loot));
        for _ in 0..20 {
            let broken = with(&server, &client).await.err().expect("a thief is refused");
            assert!(broken.server.is_some());
            assert!([42, 51].contains(&broken.alert()), "{broken:?}");
        }
        let (config, _) = client.config();
        let link = shake(credulous(kind), config, client.name()).await.unwrap();
        let taken = link.server.peer_identity().unwrap();
        let taken = taken.downcast::<Vec<CertificateDer<'static>>>().unwrap();
        assert_eq!(*taken, shown, "the weak verifier takes the thief for the victim");
    }
}

#[tokio::test]
async fn refuses_a_certificate_sent_as_a_raw_key_and_the_reverse() {
    let server = server();
    let own = identity(CLIENT);
    let raw = certified(&own);
    let certificate = of_identity(&own);
    let with_chain = |cert| Arc::new(CertifiedKey::new(cert, raw.key.clone()));
    // The signatures are honest, so that only the form is at fault.
    let confused = [
        (KeyKind::Raw, with_chain(vec![certificate])),
        (KeyKind::X509, raw.clone()),
        // More than one raw key.
        (KeyKind::Raw, with_chain(vec![raw.cert[0].clone(), raw.cert[0].clone()])),
    ];
    for (kind, key) in confused {
        let client = Client::new(KeyKind::Raw, &["echo/1"]).showing(kind, key);
        let broken = with(&server, &client).await.err().expect("refused");
        assert!([42, 50].contains(&broken.alert()), "{broken:?}");
    }
}

#[tokio::test]
async fn gives_one_key_one_fingerprint_raw_and_in_a_certificate() {
    let server = server();
    let own = identity(CLIENT);
    let key = certified(&own);
    let certificate = CertifiedKey::new(vec![of_identity(&own)], key.key.clone());
    for (kind, key) in [(KeyKind::Raw, key), (KeyKind::X509, Arc::new(certificate))] {
        for shown in [KeyKind::Raw, KeyKind::X509] {
            let client = Client::new(shown, &["echo/1"]).showing(kind, key.clone());
            let (link, _) = with(&server, &client).await.unwrap();
            assert_eq!(link.peer(), PeerKey::Proven(kind, own.fingerprint()));
        }
    }
}
