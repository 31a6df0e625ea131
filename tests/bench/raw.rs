//! quinn without us: as it comes, and with everything that we set but nothing that we decide.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quinn::{
    ClientConfig, Endpoint, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
        pem::PemObject,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use crate::subject::{MAX_REQUEST_BYTES, Subject, Work};

pub const ALPN: &[u8] = b"bench/1";
pub const NAME: &str = "bench.example";
const STRIDE: usize = 7919;

/// One of many names, all of which the certificate is for.
pub fn nth_name(n: usize) -> String {
    format!("host-{n}.{NAME}")
}

/// A certificate with a P-256 key.
pub struct Pem {
    pub certificate: String,
    pub key: String,
    der: Vec<u8>,
}

impl Pem {
    pub fn new() -> Result<Self, String> {
        Self::of(&[NAME, &format!("*.{NAME}")])
    }

    pub fn of(names: &[&str]) -> Result<Self, String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names);
        let made = made.map_err(|error| error.to_string())?;
        let key = made.signing_key.serialize_pem();
        Ok(Self { certificate: made.cert.pem(), key, der: made.cert.der().to_vec() })
    }

    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.der)
    }
}

/// Starts a server. The text is the certificate that its clients trust, in hex.
pub fn serve(subject: Subject, work: Work) -> Result<(Endpoint, String), String> {
    let pem = Pem::new()?;
    let provider = provider(subject);
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?;
    let mut tls = if subject == Subject::QuinnDefault {
        let chain = vec![CertificateDer::from(pem.der.clone())];
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes());
        let key = key.map_err(|error| error.to_string())?;
        let tls = builder.with_no_client_auth().with_single_cert(chain, key);
        tls.map_err(|error| error.to_string())?
    } else {
        let key = Arc::new(raw_key(&provider, [1; 32])?);
        let mut tls = builder
            .with_client_cert_verifier(Arc::new(AnyRawKey(Arc::clone(&provider))))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut granted = None;
    if subject != Subject::QuinnDefault {
        let streams = work.tuned_streams();
        let at_once = subject == Subject::QuinnTunedAtOnce;
        granted = (!at_once).then_some(streams);
        let mut transport = our_transport();
        transport.max_concurrent_bidi_streams(if at_once { streams } else { 0 }.into());
        config.transport_config(Arc::new(transport));
    }
    let endpoint = Endpoint::new(
        quinn::EndpointConfig::default(),
        Some(config),
        socket()?,
        Arc::new(quinn::TokioRuntime),
    );
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    tokio::spawn(accept(endpoint.clone(), granted));
    Ok((endpoint, pem.hex()))
}

async fn accept(endpoint: Endpoint, granted: Option<u32>) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            if let Some(streams) = granted {
                connection.set_max_concurrent_bi_streams(streams.into());
            }
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(answer(send, recv));
            }
        });
    }
}

async fn answer(mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> Option<()> {
    let request = recv.read_to_end(MAX_REQUEST_BYTES).await.ok()?;
    send.write_all(&request).await.ok()?;
    send.finish().ok()
}

pub type Stream = (quinn::SendStream, quinn::RecvStream);

pub struct Client {
    endpoint: Endpoint,
    server: SocketAddr,
    /// Whether the first stream's credit is the server's yes.
    waits: bool,
    /// How many of the server's names are asked for in turn; 0: the one that all have.
    names: usize,
    dialled: AtomicUsize,
}

impl Client {
    pub fn new(subject: Subject, server: SocketAddr, certificate: &str) -> Result<Self, String> {
        let provider = provider(subject);
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?;
        let x509 = subject.is_x509();
        let mut tls = if x509 {
            let der = data_encoding::HEXLOWER.decode(certificate.as_bytes());
            let mut roots = rustls::RootCertStore::empty();
            roots
                .add(CertificateDer::from(der.map_err(|error| error.to_string())?))
                .map_err(|error| error.to_string())?;
            builder.with_root_certificates(roots).with_no_client_auth()
        } else {
            let key = Arc::new(raw_key(&provider, [2; 32])?);
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyRawKey(provider)))
                .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)))
        };
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        if !x509 {
            let mut transport = our_transport();
            transport.keep_alive_interval(Some(Duration::from_secs(8)));
            config.transport_config(Arc::new(transport));
        }
        let endpoint = Endpoint::new(
            quinn::EndpointConfig::default(),
            None,
            socket()?,
            Arc::new(quinn::TokioRuntime),
        );
        let mut endpoint = endpoint.map_err(|error| error.to_string())?;
        endpoint.set_default_client_config(config);
        let waits = subject == Subject::QuinnTuned;
        Ok(Self { endpoint, server, waits, names: subject.names(), dialled: AtomicUsize::new(0) })
    }

    /// Also gives the stream, if any, whose opening was the server's yes: dropped, it would be sent.
    pub async fn connect(&self) -> Result<(quinn::Connection, Option<Stream>), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        // A stride that meets every name and no two neighbours.
        let dialled = self.dialled.fetch_add(STRIDE, Ordering::Relaxed);
        let name = match self.names {
            0 => NAME.to_owned(),
            names => nth_name(dialled % names),
        };
        let connecting = self.endpoint.connect(self.server, &name).map_err(|error| text(&error))?;
        let connection = connecting.await.map_err(|error| text(&error))?;
        let mut first = None;
        if self.waits {
            first = Some(connection.open_bi().await.map_err(|error| text(&error))?);
        }
        Ok((connection, first))
    }
}

pub async fn request(connection: &quinn::Connection, request: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| text(&error))?;
    send.write_all(request).await.map_err(|error| text(&error))?;
    send.finish().map_err(|error| text(&error))?;
    recv.read_to_end(MAX_REQUEST_BYTES).await.map_err(|error| text(&error))
}

/// quinn's order of suites, or ours: AES-128 with SHA-256 first.
fn provider(subject: Subject) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if !matches!(subject, Subject::QuinnDefault | Subject::EndpointX509) {
        let first = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.suite();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    }
    Arc::new(provider)
}

/// The transport parameters that the endpoint uses on loopback.
pub fn our_transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(8_u32.into())
        .max_concurrent_uni_streams(4_u32.into())
        .stream_receive_window((256_u32 * 1024).into())
        .receive_window((4_u32 * 1024 * 1024).into())
        .send_window(4 * 1024 * 1024)
        .max_idle_timeout(Some(VarInt::from_u32(30_000).into()))
        .crypto_buffer_size(16 * 1024)
        .datagram_receive_buffer_size(Some(64 * 1024))
        .datagram_send_buffer_size(64 * 1024)
        .initial_mtu(1452)
        .mtu_discovery_config(None);
    config
}

/// Every subject has the same kernel buffers, so that losses do not tell them apart.
pub fn socket() -> Result<std::net::UdpSocket, String> {
    let made = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        let _ = socket.set_recv_buffer_size(4 * 1024 * 1024);
        let _ = socket.set_send_buffer_size(4 * 1024 * 1024);
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        Ok::<_, std::io::Error>(socket.into())
    };
    made().map_err(|error| format!("no socket on loopback: {error}"))
}

/// What stands before the seed of an Ed25519 key in PKCS#8 (RFC 8410 §7).
const PKCS8_ED25519: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// An Ed25519 key as aws-lc holds it, shown as a raw public key.
fn raw_key(provider: &CryptoProvider, seed: [u8; 32]) -> Result<CertifiedKey, String> {
    let der = [PKCS8_ED25519, &seed].concat();
    let der = PrivateKeyDer::try_from(der)?;
    let key = provider.key_provider.load_private_key(der).map_err(|error| error.to_string())?;
    let spki = key.public_key().ok_or("the key has no public half")?;
    let spki = CertificateDer::from(spki.as_ref().to_vec());
    Ok(CertifiedKey::new(vec![spki], key))
}

/// Takes every raw key whose owner proves it: what is left when nothing is decided.
#[derive(Debug)]
struct AnyRawKey(Arc<CryptoProvider>);

impl AnyRawKey {
    fn proven(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signed,
            &self.0.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for AnyRawKey {
    fn verify_server_cert(
        &self,
        _key: &CertificateDer<'_>,
        _more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.proven(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyRawKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _key: &CertificateDer<'_>,
        _more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.proven(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
