//! What is shown to an ordinary client: the chain, and the OCSP answer beside it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::wire::{provider, socket};

/// What a server showed in a handshake.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shown {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Empty if there was none.
    pub ocsp: Vec<u8>,
}

impl Shown {
    /// The first of the chain.
    ///
    /// # Panics
    /// If nothing was shown.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        self.chain.first().expect("a certificate")
    }
}

/// What is shown over QUIC and over TCP, which must be the same.
///
/// # Panics
/// If they differ, or no handshake comes about.
pub async fn everywhere(address: SocketAddr, name: &str) -> Shown {
    let (quic, tcp) = (over_quic(address, name).await, over_tcp(address, name).await);
    assert!(quic == tcp, "{name}: QUIC and TCP show different certificates or answers");
    tcp
}

/// What is shown over TCP.
///
/// # Panics
/// If no handshake comes about.
pub async fn over_tcp(address: SocketAddr, name: &str) -> Shown {
    let (config, seen) = config(b"http/1.1");
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    seen.take()
}

/// What is shown over QUIC.
///
/// # Panics
/// If no handshake comes about.
pub async fn over_quic(address: SocketAddr, name: &str) -> Shown {
    let (config, seen) = config(b"h3");
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(Arc::new(config)).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let socket = socket();
    let connection = socket.connect_with(config, address, name).unwrap().await.unwrap();
    connection.close(0_u32.into(), b"");
    seen.take()
}

fn config(alpn: &[u8]) -> (ClientConfig, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    (config, seen)
}

/// Keeps what it is shown, believes everything: whether it is trusted is another question.
#[derive(Debug, Default)]
struct Seen(Mutex<Shown>);

impl Seen {
    fn take(&self) -> Shown {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(others);
        let chain = chain.map(|cert| cert.clone().into_owned()).collect();
        *self.0.lock().unwrap() = Shown { chain, ocsp: ocsp.to_vec() };
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
