//! The same choice over TCP, and what only TCP has: TLS 1.2, and hellos without protocols.

use rustls::{
    DigitallySignedStruct, ProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{ServerName, UnixTime},
    version::TLS12,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::{
    identity::Fingerprint,
    tls::{
        client::{Expect, dial_config},
        tcp::{TcpTlsError, accept_tcp, connect_tcp},
    },
};

/// What a server reports of a finished handshake.
type Accepted = (Handshake, PeerKey);
/// The client's end, if its half of the handshake came to its end.
type Dialled = std::io::Result<client::TlsStream<DuplexStream>>;

/// Shakes hands, and sends a byte from the server, without which a TLS 1.3 client may not know that
/// its key was refused.
pub(super) async fn meet(
    server: &Arc<TlsServer>,
    config: ClientConfig,
    name: &'static str,
) -> (Result<Accepted, TcpTlsError>, Dialled) {
    let (near, far) = duplex(1024);
    let accept = async {
        let (mut stream, handshake, key) = accept_tcp(server, Reach::Everywhere, far).await?;
        stream.write_all(b"y").await?;
        stream.flush().await?;
        Ok((handshake, key))
    };
    let dial = async {
        let name = ServerName::try_from(name).unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    tokio::join!(accept, dial)
}

async fn with(server: &Arc<TlsServer>, client: &Client) -> Result<Accepted, TcpTlsError> {
    meet(server, client.config().0, client.name()).await.0
}

/// The alert that the client got.
pub(super) fn alert(dialled: Dialled) -> rustls::AlertDescription {
    let error = dialled.expect_err("the client is told");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn serves_every_kind_of_client() {
    use KeyKind::{Raw, X509};
    let server = server();
    let certificate = p256(&["client"]);
    let own = PeerKey::Proven(Raw, identity(CLIENT).fingerprint());
    let cert_own = PeerKey::Proven(X509, spki_of(&certificate));
    let client = Client::new;
    let rows: [(Client, KeyKind, Option<KeyKind>, &str, PeerKey); 9] = [
        (client(Raw, &["echo/1"]).raw(CLIENT), Raw, Some(Raw), "echo/1", own),
        (client(X509, &["echo/1"]).raw(CLIENT), X509, Some(Raw), "echo/1", own),
        (client(Raw, &["h2"]).raw(CLIENT), Raw, Some(Raw), "h2", own),
        (client(Raw, &["discover/1"]), Raw, None, "discover/1", PeerKey::None),
        (client(X509, &["h2", "http/1.1"]), X509, None, "h2", PeerKey::None),
        (
            client(X509, &["echo/1"]).showing(X509, certificate.clone()),
            X509,
            Some(X509),
            "echo/1",
            cert_own,
        ),
        (
            client(Raw, &["echo/1"]).showing(X509, certificate.clone()),
            Raw,
            Some(X509),
            "echo/1",
            cert_own,
        ),
        (
            client(X509, &["http/1.1", "echo/1"]).showing(X509, certificate.clone()),
            X509,
            None,
            "http/1.1",
            PeerKey::None,
        ),
        (client(X509, &[]), X509, None, "http/1.1", PeerKey::None),
    ];
    for (client, server_kind, client_kind, protocol, key) in rows {
        let row = format!("{:?} {:?}", client.server, client.alpns);
        let (config, verdict) = client.config();
        let (accepted, dialled) = meet(&server, config, client.name()).await;
        let (handshake, peer) = accepted.expect(&row);
        dialled.expect(&row);
        let profile = Profile { server: server_kind, client: client_kind };
        let name = Some("localhost".to_owned());
        assert_eq!(handshake, Handshake { profile, alpn: alpn(protocol), server_name: name });
        assert_eq!(peer, key, "{row}");
        assert_eq!(verdict.asked(), client_kind.is_some(), "{row}");
    }
}

#[tokio::test]
async fn refuses_with_the_right_alert() {
    use KeyKind::{Raw, X509};
    use rustls::AlertDescription::{NoApplicationProtocol, UnrecognisedName};
    let server = server();
    for (client, expected) in [
        // files/1 and h3 are not for TCP.
        (Client::new(Raw, &["files/1"]).raw(CLIENT), NoApplicationProtocol),
        (Client::new(X509, &["h3"]), NoApplicationProtocol),
        (Client::new(X509, &["acme-tls/1"]), NoApplicationProtocol),
        (Client::new(Raw, &[]), NoApplicationProtocol),
        (Client::new(X509, &[]).raw(CLIENT), NoApplicationProtocol),
        (Client::new(X509, &["h2"]).sni(Some("unknown.example")), UnrecognisedName),
        (Client::new(X509, &["h2"]).sni(Some("peers.example")), UnrecognisedName),
        (Client::new(X509, &["h2"]).sni(None), UnrecognisedName),
    ] {
        let (accepted, dialled) = meet(&server, client.config().0, client.name()).await;
        assert!(matches!(accepted, Err(TcpTlsError::Refused(_))), "{:?}", client.alpns);
        assert_eq!(alert(dialled), expected, "{:?} {:?}", client.alpns, client.sni);
    }
}

#[tokio::test]
async fn refuses_a_stolen_key() {
    let server = server();
    let thief = certified(&identity([3; 32])).key.clone();
    for kind in [KeyKind::Raw, KeyKind::X509] {
        let shown = match kind {
            KeyKind::Raw => certified(&identity(CLIENT)).cert.clone(),
            KeyKind::X509 => vec![crate::certs::self_signed::of_identity(&identity(CLIENT))],
        };
        let loot = Arc::new(CertifiedKey::new(shown, thief.clone()));
        let client = Client::new(KeyKind::Raw, &["echo/1"]).showing(kind, loot);
        let (accepted, dialled) = meet(&server, client.config().0, client.name()).await;
        assert!(matches!(accepted, Err(TcpTlsError::Handshake(_))), "{kind}");
        assert_eq!(alert(dialled), rustls::AlertDescription::DecryptError);
    }
}

pub(super) fn tls12(client: &Client) -> ClientConfig {
    // The product's own verifiers refuse TLS 1.2.
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.alpn_protocols = client.alpns.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

#[tokio::test]
async fn takes_tls_1_2_from_browsers_only_and_only_down_to_the_minimum() {
    let server = server();
    for (protocols, answer) in [
        (&["h2"][..], Some("h2")),
        (&["discover/1"], Some("discover/1")),
        (&[], Some("http/1.1")),
        (&["echo/1"], None),
    ] {
        let client = Client::new(KeyKind::X509, protocols);
        let (accepted, dialled) = meet(&server, tls12(&client), "localhost").await;
        match answer {
            Some(protocol) => {
                let (handshake, key) = accepted.unwrap();
                assert_eq!(handshake.alpn, alpn(protocol));
                assert_eq!(key, PeerKey::None);
                let stream = dialled.unwrap();
                assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
            }
            None => assert_eq!(alert(dialled), rustls::AlertDescription::ProtocolVersion),
        }
    }
    let strict = server_with(default_names(), TcpMinimum::Tls13);
    let client = Client::new(KeyKind::X509, &["h2"]);
    let (_, dialled) = meet(&strict, tls12(&client), "localhost").await;
    assert_eq!(alert(dialled), rustls::AlertDescription::ProtocolVersion);
    assert!(with(&strict, &client).await.is_ok());
}

#[tokio::test]
async fn dials_by_key_over_tcp() {
    let server = server();
    let own = identity(CLIENT);
    let dial_to =
        |pin: Fingerprint| dial_config(&Expect::Pin(pin), Some(&own), &[alpn("echo/1")]).unwrap();
    let dial = dial_to(identity(SERVER).fingerprint());
    let (near, far) = duplex(1024);
    let (accepted, dialled) =
        tokio::join!(accept_tcp(&server, Reach::Everywhere, far), connect_tcp(&dial, near));
    let (_stream, handshake, key) = accepted.unwrap();
    assert_eq!(key, PeerKey::Proven(KeyKind::Raw, own.fingerprint()));
    assert_eq!(handshake.server_name, None);
    assert_eq!(dialled.unwrap().1, alpn("echo/1"));

    let dial = dial_to(own.fingerprint());
    let (near, far) = duplex(1024);
    let (accepted, dialled) =
        tokio::join!(accept_tcp(&server, Reach::Everywhere, far), connect_tcp(&dial, near));
    assert!(accepted.is_err() && dialled.is_err());
    assert!(dial.verdict.mismatch().is_some());
}

#[tokio::test]
async fn takes_a_hello_in_small_pieces_and_refuses_what_is_none() {
    let server = server();
    let client = Client::new(KeyKind::Raw, &["echo/1"]).raw(CLIENT);
    let (near, far) = duplex(64);

    let dial = async {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(client.config().0)).connect(name, near).await
    };
    let (accepted, dialled) = tokio::join!(accept_tcp(&server, Reach::Everywhere, far), dial);
    assert_eq!(accepted.unwrap().2.fingerprint(), Some(identity(CLIENT).fingerprint()));
    assert!(dialled.is_ok());

    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0, 4, 2, 0, 0, 0], &[0; 64]] {
        let (mut near, far) = duplex(1024);
        near.write_all(garbage).await.unwrap();
        near.shutdown().await.unwrap();

        assert!(accept_tcp(&server, Reach::Everywhere, far).await.is_err());
    }
}

/// Believes everything, as a browser believes its authorities.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is wanted".into()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
