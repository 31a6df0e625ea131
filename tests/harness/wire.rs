//! Hostile and foreign clients: rustls and quinn used directly, with every check that a good client makes
//! left out and every lie that TLS lets a client tell.

mod lies;

use std::{
    fmt,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use rustls::{
    ClientConfig, NamedGroup,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::ServerCertVerifier,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub use self::lies::Signs;
use self::lies::{BelievesAnything, Shows};

/// The crypto provider of the tests.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The SubjectPublicKeyInfo of an Ed25519 key made from a seed.
#[must_use]
pub fn spki(seed: u8) -> Vec<u8> {
    spki_of(SigningKey::from_bytes(&[seed; 32]).verifying_key().as_bytes())
}

/// The SubjectPublicKeyInfo around any 32 bytes.
#[must_use]
pub fn spki_of(point: &[u8; 32]) -> Vec<u8> {
    let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    spki.extend_from_slice(point);
    spki
}

/// A self-signed X.509 certificate of the Ed25519 key with this seed.
#[must_use]
pub fn certificate(seed: u8) -> CertificateDer<'static> {
    // PKCS#8 version 1 around the seed (RFC 8410 §7).
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend_from_slice(&[seed; 32]);
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(der);
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)
        .expect("rcgen takes the key");
    let params = rcgen::CertificateParams::new(vec!["peer.example".to_owned()]).expect("a name");
    params.self_signed(&key).expect("a certificate").der().clone()
}

/// What a client shows, and which key signs for it: the two may differ, which is the attack.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The raw SPKI or the chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether the client says that it is a raw public key.
    pub raw: bool,
    /// Seed of the key that signs.
    pub signer: u8,
    /// What is sent in place of a signature.
    pub forged: Option<Vec<u8>>,
}

impl Shown {
    /// An honest raw key.
    #[must_use]
    pub fn raw(seed: u8) -> Self {
        Self { chain: vec![spki(seed).into()], raw: true, signer: seed, forged: None }
    }

    /// An honest self-signed certificate.
    #[must_use]
    pub fn x509(seed: u8) -> Self {
        Self { chain: vec![certificate(seed)], raw: false, signer: seed, forged: None }
    }

    /// The same, signed for by another key.
    #[must_use]
    pub fn signed_by(mut self, signer: u8) -> Self {
        self.signer = signer;
        self
    }

    /// The same, with `signature` in place of a signature.
    #[must_use]
    pub fn forging(mut self, signature: Vec<u8>) -> Self {
        self.forged = Some(signature);
        self
    }

    /// The same with another chain, leaf first.
    #[must_use]
    pub fn chain(mut self, chain: Vec<Vec<u8>>) -> Self {
        self.chain = chain.into_iter().map(CertificateDer::from).collect();
        self
    }
}

/// How a foreign client shakes hands.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it shows, if anything.
    pub shown: Option<Shown>,
    /// Whether it wants the server's raw key; otherwise a certificate.
    pub server_raw: bool,
    /// Protocols offered.
    pub alpns: Vec<Vec<u8>>,
    /// Whether it keeps tickets and offers early data.
    pub resume: bool,
    /// Whether it speaks TLS 1.2 and nothing newer.
    pub old: bool,
    /// Where tickets are kept.
    pub tickets: Arc<Tickets>,
    /// rustls offers a ticket only to the configuration parts that it came from.
    memory: Arc<Mutex<Option<Memory>>>,
}

#[derive(Clone, Debug)]
struct Memory {
    verifier: Arc<BelievesAnything>,
    shows: Arc<Shows>,
}

impl Client {
    /// A raw-key client that wants the server's raw key.
    #[must_use]
    pub fn new(alpns: &[&[u8]]) -> Self {
        Self {
            shown: None,
            server_raw: true,
            alpns: alpns.iter().map(|name| name.to_vec()).collect(),
            resume: false,
            old: false,
            tickets: Arc::default(),
            memory: Arc::default(),
        }
    }

    /// Shows a key.
    #[must_use]
    pub fn showing(mut self, shown: Shown) -> Self {
        self.shown = Some(shown);
        self
    }

    /// Wants a certificate of the server.
    #[must_use]
    pub fn wants_x509(mut self) -> Self {
        self.server_raw = false;
        self
    }

    /// Keeps tickets and tries early data.
    #[must_use]
    pub fn resuming(mut self) -> Self {
        self.resume = true;
        self
    }

    /// Speaks TLS 1.2 and nothing newer.
    #[must_use]
    pub fn tls12(mut self) -> Self {
        self.old = true;
        self
    }

    /// Offers other protocols, with the tickets that it holds.
    #[must_use]
    pub fn offering(mut self, alpns: &[&[u8]]) -> Self {
        self.alpns = alpns.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// The rustls configuration. Clones of a client, however changed since, share what they remember,
    /// so that a ticket is offered wherever the test wants it to be.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let Memory { verifier, shows } = self.memory();
        verifier.raw.store(self.server_raw, Ordering::SeqCst);
        *shows.shown.lock().expect("a lock") = self.shown.clone();
        let versions: &[_] =
            if self.old { &[&rustls::version::TLS12] } else { rustls::DEFAULT_VERSIONS };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(shows);
        config.alpn_protocols = self.alpns.clone();
        config.resumption = if self.resume {
            Resumption::store(self.tickets.clone())
        } else {
            Resumption::disabled()
        };
        config.enable_early_data = self.resume;
        config
    }

    /// For quinn: TLS 1.3 only.
    #[must_use]
    pub fn quic(&self) -> quinn::ClientConfig {
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(Arc::new(self.config()))
            .expect("a QUIC configuration");
        quinn::ClientConfig::new(Arc::new(crypto))
    }

    /// Begins to dial from `socket`; the caller may ask for early data.
    #[must_use]
    pub fn begin(
        &self,
        socket: &quinn::Endpoint,
        server: SocketAddr,
        name: &str,
    ) -> quinn::Connecting {
        self.forget();
        socket.connect_with(self.quic(), server, name).expect("a dial begins")
    }

    /// Dials from `socket`, without waiting for more than the client's half of the handshake.
    ///
    /// # Errors
    /// As quinn says.
    pub async fn dial(
        &self,
        socket: &quinn::Endpoint,
        server: SocketAddr,
        name: &str,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.begin(socket, server, name).await
    }

    /// Dials over TCP from the address `from`, and sends `early` before the handshake is done if it
    /// holds a ticket that lets it.
    ///
    /// # Errors
    /// As rustls and the system say.
    pub async fn dial_tcp(
        &self,
        from: &str,
        server: SocketAddr,
        name: &str,
        early: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.forget();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.parse().expect("an address"), 0))?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connector = TlsConnector::from(Arc::new(self.config()));
        let mut stream = connector.early_data(!early.is_empty()).connect(name, stream).await?;
        // With early data the handshake is driven by the first write.
        if !early.is_empty() {
            stream.write_all(early).await?;
            stream.flush().await?;
        }
        Ok(stream)
    }

    /// Whether the server asked for a key in the last handshake.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.memory().shows.asked.load(Ordering::SeqCst)
    }

    /// Whether the server showed its key in the last handshake: it does in a full one and not in a
    /// resumed one (RFC 8446 §2.2).
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.memory().verifier.shown.load(Ordering::SeqCst)
    }

    fn forget(&self) {
        let Memory { verifier, shows } = self.memory();
        verifier.shown.store(false, Ordering::SeqCst);
        shows.asked.store(false, Ordering::SeqCst);
    }

    fn memory(&self) -> Memory {
        self.memory
            .lock()
            .expect("a lock")
            .get_or_insert_with(|| Memory {
                verifier: Arc::new(BelievesAnything {
                    raw: self.server_raw.into(),
                    ..BelievesAnything::default()
                }),
                shows: Arc::new(Shows { shown: Mutex::default(), asked: AtomicBool::new(false) }),
            })
            .clone()
    }
}

/// Tickets, offered to whichever server comes next: a good client keeps them apart by name.
#[derive(Default)]
pub struct Tickets {
    kept: Mutex<Vec<Tls13ClientSessionValue>>,
    old: Mutex<Option<Tls12ClientSessionValue>>,
    received: AtomicUsize,
    offered: AtomicUsize,
}

impl Tickets {
    /// Tickets received so far.
    #[must_use]
    pub fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }

    /// Tickets taken out to be offered so far.
    #[must_use]
    pub fn offered(&self) -> usize {
        self.offered.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({} received)", self.received())
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.received.fetch_add(1, Ordering::SeqCst);
        *self.old.lock().expect("a lock") = Some(value);
    }

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.old.lock().expect("a lock").clone()
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {
        *self.old.lock().expect("a lock") = None;
    }

    fn insert_tls13_ticket(&self, _name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.received.fetch_add(1, Ordering::SeqCst);
        self.kept.lock().expect("a lock").push(value);
    }

    fn take_tls13_ticket(&self, _name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.kept.lock().expect("a lock").pop();
        self.offered.fetch_add(usize::from(ticket.is_some()), Ordering::SeqCst);
        ticket
    }
}

/// A verifier that takes every server, for clients whose own work is not what is looked at.
#[must_use]
pub fn any_server() -> Arc<dyn ServerCertVerifier> {
    Arc::new(BelievesAnything::default())
}

/// A dialling socket on loopback.
#[must_use]
pub fn socket() -> quinn::Endpoint {
    socket_at("127.0.0.1")
}

/// A dialling socket at another loopback address.
#[must_use]
pub fn socket_at(ip: &str) -> quinn::Endpoint {
    let udp = UdpSocket::bind((ip, 0)).expect("a free port");
    quinn::Endpoint::new(quinn::EndpointConfig::default(), None, udp, Arc::new(quinn::TokioRuntime))
        .expect("a socket")
}

/// The alert in a failed handshake, if one ended it (RFC 9001 §4.8).
#[must_use]
pub fn alert(error: &quinn::ConnectionError) -> Option<u8> {
    let code = match error {
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return None,
    };
    (code >> 8 == 1).then_some((code & 0xff) as u8)
}

/// The application close code of an ended connection.
#[must_use]
pub fn close_code(error: &quinn::ConnectionError) -> Option<u64> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

/// How quinn alone serves these protocols, with a certificate of its own making for `localhost` and no rules.
#[must_use]
pub fn weak_server(protocols: &[&[u8]]) -> quinn::ServerConfig {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a key");
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate");
    tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).expect("TLS 1.3");
    quinn::ServerConfig::with_crypto(Arc::new(crypto))
}
