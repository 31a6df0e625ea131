//! Stand-in servers that make the mistakes which the endpoint must not make: an attack that fails
//! against the endpoint has to succeed here, or the test of it shows nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::wire::{self, Signs};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{verify_tls13_signature, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        ClientHello, NoClientAuth, ResolvesServerCert, ServerSessionMemoryCache,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

/// The one protocol name of a weak server is whatever the client offers of these.
const PROTOCOLS: [&[u8]; 8] =
    [b"public/1", b"enroll/1", b"peer/1", b"scoped/1", b"loopback/1", b"h3", b"h2", b"http/1.1"];

/// Which mistakes a server makes.
#[derive(Clone, Copy, Debug)]
pub struct Weakness {
    /// Shows a raw key; otherwise a certificate.
    pub server_raw: bool,
    /// Asks the client for a key: raw or X.509.
    pub asks: Option<Form>,
    /// Checks CertificateVerify.
    pub checks_signature: bool,
    /// Gives tickets that allow early data, whatever it asks for.
    pub tickets: bool,
}

/// The form in which a key is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// RFC 7250.
    Raw,
    /// In a certificate.
    X509,
}

/// What reached the application of a weak server.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the client is taken to hold.
    pub leaf: Option<Vec<u8>>,
    /// Whether the request came as early data.
    pub early: bool,
}

/// A weak server on UDP and TCP; both echo.
#[derive(Debug)]
pub struct Weak {
    quic: quinn::Endpoint,
    tcp: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    memory: Memory,
    tasks: Vec<AbortHandle>,
}

/// What the verifier of a weak server remembers.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// Whether it takes no keys any more.
    revoked: Arc<AtomicBool>,
    /// Every CertificateVerify that it was sent.
    signatures: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Weak {
    /// Starts on free ports of 127.0.0.1 with key 1.
    pub async fn start(weakness: Weakness) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let memory = Memory::default();
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config(weakness, &memory))
            .expect("a QUIC configuration");
        let any = "127.0.0.1:0".parse().expect("an address");
        let quic = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), any)
            .expect("a free port");
        let listener = TcpListener::bind(any).await.expect("a free port");
        let tcp = listener.local_addr().expect("an address");
        let tasks = vec![
            tokio::spawn(serve_quic(quic.clone(), Arc::clone(&seen))).abort_handle(),
            tokio::spawn(serve_tcp(listener, config(weakness, &memory))).abort_handle(),
        ];
        Self { quic, tcp, seen, memory, tasks }
    }

    /// Where it listens on UDP.
    pub fn addr(&self) -> SocketAddr {
        self.quic.local_addr().expect("an address")
    }

    /// Where it listens on TCP.
    pub fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// Takes no client keys from now on. A weak server looks at a key only where it is shown.
    pub fn revoke(&self) {
        self.memory.revoked.store(true, Ordering::SeqCst);
    }

    /// The CertificateVerify signatures that clients sent.
    pub fn signatures(&self) -> Vec<Vec<u8>> {
        self.memory.signatures.lock().expect("a lock").clone()
    }

    /// What its application was asked so far, over QUIC.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("a lock").clone()
    }
}

impl Drop for Weak {
    fn drop(&mut self) {
        self.quic.close(0_u32.into(), b"");
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn serve_quic(quic: quinn::Endpoint, seen: Arc<Mutex<Vec<Seen>>>) {
    while let Some(incoming) = quic.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let Ok(connecting) = incoming.accept() else { return };
            let Ok((connection, _)) = connecting.into_0rtt() else { return };
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                let Ok(bytes) = recv.read_to_end(1 << 16).await else { continue };
                let shown = connection.peer_identity();
                let chain = shown.and_then(|c| c.downcast::<Vec<CertificateDer<'_>>>().ok());
                let leaf = chain.and_then(|c| c.first().map(|leaf| leaf.to_vec()));
                seen.lock().expect("a lock").push(Seen { leaf, early: recv.is_0rtt() });
                let _ = send.write_all(&bytes).await;
                let _ = send.finish();
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, config: ServerConfig) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut bytes = [0; 1024];
            while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..n]).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn config(weakness: Weakness, memory: &Memory) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(wire::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    let verifier: Arc<dyn ClientCertVerifier> = match weakness.asks {
        Some(form) => Arc::new(Gullible {
            form,
            checks_signature: weakness.checks_signature,
            memory: memory.clone(),
        }),
        None => Arc::new(NoClientAuth),
    };
    let shown = if weakness.server_raw { wire::spki(1).into() } else { wire::certificate(1) };
    let key = Arc::new(CertifiedKey::new(vec![shown], Arc::new(Signs(1))));
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shows { key, raw: weakness.server_raw }));
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    if weakness.tickets {
        config.session_storage = ServerSessionMemoryCache::new(64);
        config.max_early_data_size = u32::MAX;
    } else {
        config.send_tls13_tickets = 0;
    }
    config
}

#[derive(Debug)]
struct Shows {
    key: Arc<CertifiedKey>,
    raw: bool,
}

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }

    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// Takes any key of any shape, and its owner's word for it unless told to check.
#[derive(Debug)]
struct Gullible {
    form: Form,
    checks_signature: bool,
    memory: Memory,
}

impl ClientCertVerifier for Gullible {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.memory.revoked.load(Ordering::SeqCst) {
            true => Err(Error::General("revoked".to_owned())),
            false => Ok(ClientCertVerified::assertion()),
        }
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.memory.signatures.lock().expect("a lock").push(signed.signature().to_vec());
        if !self.checks_signature {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = wire::provider().signature_verification_algorithms;
        match self.form {
            Form::Raw => {
                let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
                verify_tls13_signature_with_raw_key(message, &spki, signed, &algorithms)
            }
            Form::X509 => verify_tls13_signature(message, cert, signed, &algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        wire::provider().signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.form == Form::Raw
    }
}
