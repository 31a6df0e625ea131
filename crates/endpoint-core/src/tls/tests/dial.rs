//! Dialling: the server must be the one that was meant.

use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;

use super::*;
use crate::tls::{
    raw_key::{IdentityKey, RawKeyResolver},
    server_pin::Mismatch,
};

async fn dialled(server: &Arc<TlsServer>, dial: &Dial) -> Result<Link, Broken> {
    shake(
        server.quic(Reach::Everywhere, RetirementRate::per_minute(16)),
        dial.config.clone(),
        &dial.server_name,
    )
    .await
}

#[tokio::test]
async fn dials_by_key_and_refuses_another() {
    let server = server();
    let own = identity(CLIENT);
    let right = identity(SERVER).fingerprint();
    let dial = dial_config(&Expect::Pin(right), Some(&own), &[alpn("echo/1")]).unwrap();
    let link = dialled(&server, &dial).await.unwrap();
    assert_eq!(link.peer(), PeerKey::Proven(KeyKind::Raw, own.fingerprint()));
    assert_eq!(link.handshake().server_name, None, "a raw-key dial sends no name");
    assert_eq!(dial.verdict.proven(), Some((KeyKind::Raw, right)));
    assert!(dial.verdict.asked());

    let wrong = identity(THIEF).fingerprint();
    let dial = dial_config(&Expect::Pin(wrong), Some(&own), &[alpn("echo/1")]).unwrap();
    let broken = dialled(&server, &dial).await.err().expect("another key is refused");
    assert!(broken.server.is_some());
    assert_eq!(dial.verdict.mismatch(), Some(Mismatch { expected: wrong, shown: right }));
    assert_eq!(dial.verdict.proven(), None);

    let dial = dial_config(&Expect::Learn, None, &[alpn("discover/1")]).unwrap();
    dialled(&server, &dial).await.unwrap();
    assert_eq!(dial.verdict.proven(), Some((KeyKind::Raw, right)));
    assert!(!dial.verdict.asked());
}

#[tokio::test]
async fn dials_by_name_with_roots_and_pins() {
    let certificate = p256(&["localhost", "127.0.0.1"]);
    let mut names = Names::default();
    names.set_default(Served::X509(certificate.clone()));
    let server = server_with(names, TcpMinimum::Tls12);
    let pin = spki_of(&certificate);
    let pem = |key: &CertifiedKey| {
        let text = data_encoding::BASE64.encode(&key.cert[0]);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let given = |key| Roots::Given(GivenRoots::from_pem(pem(key).as_bytes()).unwrap());
    let other = p256(&["localhost"]);
    let named = |name: &str, roots: &Roots, pin| Expect::Name {
        name: name.into(),
        roots: roots.clone(),
        pin,
    };
    let right = given(&certificate);
    let own = identity(CLIENT);

    for expect in [
        named("localhost", &right, None),
        named("127.0.0.1", &right, None),
        named("localhost", &right, Some(pin)),
        named("localhost", &Roots::Platform, Some(pin)),
        Expect::LearnX509 { name: "localhost".into() },
    ] {
        let dial = dial_config(&expect, Some(&own), &[alpn("echo/1")]).unwrap();
        let link = dialled(&server, &dial).await.unwrap();
        assert_eq!(link.peer(), PeerKey::Proven(KeyKind::Raw, own.fingerprint()), "{expect:?}");
        assert_eq!(dial.verdict.proven(), Some((KeyKind::X509, pin)));
        // Our key stays at home where HTTP is offered.
        let dial = dial_config(&expect, Some(&own), &[alpn("h3")]).unwrap();
        assert_eq!(dialled(&server, &dial).await.unwrap().peer(), PeerKey::None, "{expect:?}");
        assert!(!dial.verdict.asked());
    }

    let wrong_pin = own.fingerprint();
    for (expect, mismatch) in [
        (named("localhost", &given(&other), None), false),
        (named("other.example", &right, None), false),
        (named("other.example", &Roots::Platform, Some(pin)), false),
        (named("other.example", &right, Some(pin)), false),
        (named("localhost", &given(&other), Some(pin)), false),
        (named("localhost", &right, Some(wrong_pin)), true),
        (named("localhost", &Roots::Platform, Some(wrong_pin)), true),
    ] {
        let dial = dial_config(&expect, Some(&own), &[alpn("echo/1")]).unwrap();
        assert!(dialled(&server, &dial).await.is_err(), "{expect:?}");
        assert_eq!(dial.verdict.mismatch().is_some(), mismatch, "{expect:?}");
        assert_eq!(dial.verdict.chain_error().is_some(), !mismatch, "{expect:?}");
        assert_eq!(dial.verdict.proven(), None);
    }
}

/// A man in the middle holds the public half of the server's key and any private one.
#[tokio::test]
async fn a_dial_refuses_a_server_that_only_shows_the_pinned_key() {
    let loot = CertifiedKey::new(
        certified(&identity(SERVER)).cert.clone(),
        Arc::new(IdentityKey(identity(THIEF))),
    );
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(RawKeyResolver(Arc::new(loot))));
    config.alpn_protocols = vec![b"echo/1".to_vec()];
    let config = QuicServerConfig::with_initial(Arc::new(config), initial_suite().unwrap());
    let pin = identity(SERVER).fingerprint();
    let dial = dial_config(&Expect::Pin(pin), None, &[alpn("echo/1")]).unwrap();
    let shaken = shake(Arc::new(config.unwrap()), dial.config.clone(), &dial.server_name).await;
    assert!(shaken.is_err());
    assert_eq!(dial.verdict.proven(), None, "a shown key is not a proven one");
    assert_eq!(dial.verdict.mismatch(), None);
}
