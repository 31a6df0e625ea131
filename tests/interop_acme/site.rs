//! The program with an authority: its configuration, what it says about certificates, and what it shows.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use endpoint_tests::machine::{Machine, Running, Server};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

/// Longest time until an authority has done what it is asked for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A machine with that configuration.
pub fn machine(config: &str) -> Machine {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    std::fs::write(machine.file("endpoint.toml"), config).unwrap();
    machine
}

/// `serve` with nothing but its configuration.
pub fn serve(machine: &Machine) -> Server {
    let mut running = Running::start(machine.command(&["serve", "--json", "-v"]));
    let line = running.line();
    let ready = line.as_deref().map(serde_json::from_str::<Value>);
    let Some(Ok(ready)) = ready else { panic!("not ready: {line:?}: {:?}", running.end()) };
    Server { running, ready }
}

/// What `cert list --json` says.
pub fn certificates(machine: &Machine) -> Vec<Value> {
    let said = machine.run(&["cert", "list", "--json"]);
    assert_eq!(said.code(), 0, "{said:?}");
    said.objects()
}

/// Waits until every certificate fits.
pub async fn until(machine: &Machine, what: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let ends = Instant::now() + PATIENCE;
    loop {
        let list = certificates(machine);
        if !list.is_empty() && list.iter().all(&fits) {
            return list;
        }
        assert!(Instant::now() < ends, "waited in vain: {what}: {list:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether what is served was issued by the authority.
pub fn issued(certificate: &Value) -> bool {
    certificate["source"] == "acme" && certificate["fallback"] == false
}

/// The chain that is shown over TCP under a name.
pub async fn shown(address: SocketAddr, name: &str) -> Vec<CertificateDer<'static>> {
    let seen = Arc::new(Seen::default());
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    std::mem::take(&mut *seen.0.lock().unwrap())
}

/// Keeps the chain, believes everything: what is shown is the question, not whether it is trusted.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<CertificateDer<'static>>>);

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(others);
        *self.0.lock().unwrap() = chain.map(|cert| cert.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
