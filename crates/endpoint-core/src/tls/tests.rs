//! Whole handshakes over loopback. Here: a server, and a client that may do what the product never
//! does.

mod accept;
mod challenge;
mod dial;
pub(super) mod hello;
mod reach;
mod resume;
mod session;
mod steal;
#[cfg(feature = "tcp")]
mod tcp;

use std::{net::SocketAddr, sync::Arc};

use quinn_proto::crypto::rustls::QuicClientConfig;
use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    pki_types::PrivateKeyDer,
    sign::CertifiedKey,
    version::TLS13,
};

use super::{
    raw_key::certified,
    server_pin::{Rule, ServerKey},
    *,
};
use crate::{
    certs::{CertTable, Names, Served},
    facts::{KeyKind, Reach},
    identity::{Fingerprint, Identity},
    transport::RetirementRate,
};

pub(super) const SERVER: [u8; 32] = [1; 32];
pub(super) const CLIENT: [u8; 32] = [2; 32];
const THIEF: [u8; 32] = [3; 32];

pub(super) fn identity(seed: [u8; 32]) -> Identity {
    Identity::from_seed(&seed)
}

pub(super) fn alpn(name: &str) -> Alpn {
    name.parse().unwrap()
}

/// A self-signed P-256 certificate.
pub(super) fn p256(names: &[&str]) -> Arc<CertifiedKey> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Arc::new(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider()).unwrap())
}

pub(super) fn spki_of(key: &CertifiedKey) -> Fingerprint {
    Fingerprint::of_spki(key.key.public_key().unwrap().as_ref())
}

pub(super) fn offers() -> Vec<Offer> {
    let offer = |name: &str, class, tcp| Offer { alpn: alpn(name), class, tcp };
    vec![
        offer("echo/1", AlpnClass::Peer, true),
        offer("files/1", AlpnClass::Peer, false),
        offer("discover/1", AlpnClass::Public, true),
        offer("h3", AlpnClass::Http, false),
        offer("h2", AlpnClass::Http, true),
        offer("http/1.1", AlpnClass::Http, true),
    ]
}

pub(super) fn server_with(names: Names, minimum: TcpMinimum) -> Arc<TlsServer> {
    let table = Arc::new(CertTable::new(names));
    TlsServer::new(&identity(SERVER), table, Arc::default(), minimum, &offers()).unwrap()
}

pub(super) fn default_names() -> Names {
    let mut names = Names::default();
    names.insert(["localhost"], Served::X509(p256(&["localhost"]))).unwrap();
    names.insert(["a.example", "*.b.example"], Served::X509(p256(&["a.example"]))).unwrap();
    names.insert(["peers.example"], Served::RawKey).unwrap();
    names
}

pub(super) fn server() -> Arc<TlsServer> {
    server_with(default_names(), TcpMinimum::Tls12)
}

/// A client that the product does not ship: any key it likes, any certificate types.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) server: KeyKind,
    pub(super) key: Option<(KeyKind, Arc<CertifiedKey>)>,
    pub(super) alpns: Vec<&'static str>,
    pub(super) sni: Option<&'static str>,
}

impl Client {
    pub(super) fn new(server: KeyKind, alpns: &[&'static str]) -> Self {
        Self { server, key: None, alpns: alpns.to_vec(), sni: Some("localhost") }
    }

    pub(super) fn raw(mut self, seed: [u8; 32]) -> Self {
        self.key = Some((KeyKind::Raw, certified(&identity(seed))));
        self
    }

    pub(super) fn showing(mut self, kind: KeyKind, key: Arc<CertifiedKey>) -> Self {
        self.key = Some((kind, key));
        self
    }

    pub(super) fn sni(mut self, name: Option<&'static str>) -> Self {
        self.sni = name;
        self
    }

    pub(super) fn config(&self) -> (ClientConfig, Arc<Verdict>) {
        self.config_of(provider())
    }

    fn config_of(&self, provider: Arc<CryptoProvider>) -> (ClientConfig, Arc<Verdict>) {
        let verdict = Arc::new(Verdict::default());
        let rule = match self.server {
            KeyKind::Raw => Rule::RawLearn,
            KeyKind::X509 => Rule::X509Learn,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerKey::new(rule, verdict.clone())))
            .with_client_cert_resolver(Arc::new(Shows(self.key.clone(), verdict.clone())));
        config.alpn_protocols = self.alpns.iter().map(|a| a.as_bytes().to_vec()).collect();
        config.enable_sni = self.sni.is_some();
        config.resumption = Resumption::disabled();
        (config, verdict)
    }

    pub(super) fn name(&self) -> &'static str {
        self.sni.unwrap_or("nobody.invalid")
    }
}

#[derive(Debug)]
struct Shows(Option<(KeyKind, Arc<CertifiedKey>)>, Arc<Verdict>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.1.note_asked();
        self.0.as_ref().map(|(_, key)| key.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        matches!(self.0, Some((KeyKind::Raw, _)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Both ends of a finished QUIC handshake.
struct Link {
    server: quinn::Connection,
    client: quinn::Connection,
    _endpoints: (quinn::Endpoint, quinn::Endpoint),
}

impl Link {
    fn handshake(&self) -> Handshake {
        self.server.handshake_data().unwrap().downcast::<QuicHandshake>().unwrap().handshake
    }

    fn peer(&self) -> PeerKey {
        peer_key(self.handshake().profile, self.server.peer_identity()).unwrap()
    }
}

fn quic_server(crypto: Arc<dyn quinn_proto::crypto::ServerConfig>) -> quinn::Endpoint {
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(8_u32.into());
    config.transport_config(Arc::new(transport));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

fn quic_client(config: ClientConfig) -> quinn::Endpoint {
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let config = QuicClientConfig::with_initial(Arc::new(config), initial_suite().unwrap());
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config.unwrap())));
    endpoint
}

/// What the two ends of a failed handshake saw.
#[derive(Debug)]
struct Broken {
    server: Option<quinn::ConnectionError>,
    client: Option<quinn::ConnectionError>,
}

impl Broken {
    /// The alert that the client got, after a look at the text beside it: there is none.
    fn alert(&self) -> u8 {
        match self.client.as_ref().expect("the client saw an error") {
            quinn::ConnectionError::ConnectionClosed(close) => {
                assert!(close.reason.is_empty(), "a peer is told no reason: {close}");
                let code = u64::from(close.error_code);
                assert!((0x100..0x200).contains(&code), "{close}");
                code as u8
            }
            other => panic!("the client saw {other}"),
        }
    }
}

async fn shake(
    crypto: Arc<dyn quinn_proto::crypto::ServerConfig>,
    config: ClientConfig,
    name: &str,
) -> Result<Link, Broken> {
    let server = quic_server(crypto);
    let client = quic_client(config);
    let dial = client.connect(server.local_addr().unwrap(), name).unwrap();
    let accept = async { server.accept().await.unwrap().await };
    let (accepted, dialled) = tokio::join!(accept, dial);
    match (accepted, dialled) {
        (Ok(accepted), Ok(dialled)) => {
            Ok(Link { server: accepted, client: dialled, _endpoints: (server, client) })
        }
        // A TLS 1.3 client is done before the server has judged its key.
        (Err(error), Ok(dialled)) => {
            Err(Broken { server: Some(error), client: Some(dialled.closed().await) })
        }
        (accepted, dialled) => Err(Broken { server: accepted.err(), client: dialled.err() }),
    }
}

async fn with(server: &Arc<TlsServer>, client: &Client) -> Result<(Link, Arc<Verdict>), Broken> {
    let (config, verdict) = client.config();
    Ok((
        shake(
            server.quic(Reach::Everywhere, RetirementRate::per_minute(16)),
            config,
            client.name(),
        )
        .await?,
        verdict,
    ))
}
