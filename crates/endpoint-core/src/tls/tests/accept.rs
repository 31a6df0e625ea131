//! One server, every kind of client on one UDP port.

use std::{sync::Arc, time::Duration};

use rustls::HandshakeKind;

use super::{resume::Ends, *};
use crate::facts::Carrier;

#[tokio::test]
async fn serves_every_kind_of_client_on_one_port() {
    use KeyKind::{Raw, X509};
    let server = server();
    let certificate = p256(&["client"]);
    let own = identity(CLIENT).fingerprint();
    let cert_own = spki_of(&certificate);
    let client = Client::new;
    type Row<'a> = (Client, KeyKind, Option<KeyKind>, &'a str, PeerKey);
    let rows: Vec<Row<'_>> = vec![
        // A peer with a raw key, dialled by key and by name.
        (client(Raw, &["echo/1"]).raw(CLIENT), Raw, Some(Raw), "echo/1", PeerKey::Proven(Raw, own)),
        (
            client(X509, &["echo/1"]).raw(CLIENT),
            X509,
            Some(Raw),
            "echo/1",
            PeerKey::Proven(Raw, own),
        ),
        // Identity over HTTP.
        (client(Raw, &["h3"]).raw(CLIENT), Raw, Some(Raw), "h3", PeerKey::Proven(Raw, own)),
        (client(X509, &["h3"]).raw(CLIENT), X509, Some(Raw), "h3", PeerKey::Proven(Raw, own)),
        // Keyless clients.
        (client(Raw, &["discover/1"]), Raw, None, "discover/1", PeerKey::None),
        (client(X509, &["discover/1"]), X509, None, "discover/1", PeerKey::None),
        (client(X509, &["h3"]), X509, None, "h3", PeerKey::None),
        (client(Raw, &["h3"]), Raw, None, "h3", PeerKey::None),
        // Peers with certificates; without one they are anonymous.
        (
            client(X509, &["echo/1"]).showing(X509, certificate.clone()),
            X509,
            Some(X509),
            "echo/1",
            PeerKey::Proven(X509, cert_own),
        ),
        (
            client(Raw, &["echo/1"]).showing(X509, certificate.clone()),
            Raw,
            Some(X509),
            "echo/1",
            PeerKey::Proven(X509, cert_own),
        ),
        (client(X509, &["echo/1"]), X509, Some(X509), "echo/1", PeerKey::None),
        // The server's order decides, and the class on the profile.
        (client(X509, &["discover/1", "echo/1"]), X509, Some(X509), "echo/1", PeerKey::None),
        // A browser that holds a certificate.
        (
            client(X509, &["h3", "echo/1"]).showing(X509, certificate.clone()),
            X509,
            None,
            "h3",
            PeerKey::None,
        ),
    ];
    for (client, server_kind, client_kind, protocol, key) in rows {
        let row = format!("{:?} {:?} {:?}", client.server, client.key.is_some(), client.alpns);
        let (link, verdict) = with(&server, &client).await.expect(&row);
        let profile = Profile { server: server_kind, client: client_kind };
        assert_eq!(link.handshake().profile, profile, "{row}");
        assert_eq!(link.handshake().alpn, alpn(protocol), "{row}");
        assert_eq!(link.handshake().server_name.as_deref(), Some("localhost"), "{row}");
        assert_eq!(link.peer(), key, "{row}");
        assert_eq!(verdict.asked(), client_kind.is_some(), "{row}");
        assert_eq!(verdict.proven().unwrap().0, server_kind, "{row}");
        if server_kind == Raw {
            assert_eq!(verdict.proven().unwrap().1, identity(SERVER).fingerprint(), "{row}");
        }
    }
}

#[tokio::test]
async fn refuses_with_the_right_alert_and_no_text() {
    use KeyKind::{Raw, X509};
    let server = server();
    let refused = [
        // No protocol in common, or none that the profile allows.
        (Client::new(Raw, &["nothing/1"]), 120),
        (Client::new(Raw, &[]), 120),
        (Client::new(X509, &[]).raw(CLIENT), 120),
        (Client::new(X509, &["echo/1"]).sni(Some("no.example")), 112),
        // A challenge is nobody's protocol.
        (Client::new(X509, &["acme-tls/1"]), 120),
        // No certificate under the name, and no default.
        (Client::new(X509, &["h3"]).sni(Some("unknown.example")), 112),
        (Client::new(X509, &["h3"]).sni(Some("x.y.b.example")), 112),
        (Client::new(X509, &["h3"]).sni(None), 112),
        (Client::new(X509, &["h3"]).sni(Some("peers.example")), 112),
    ];
    for (client, alert) in refused {
        let broken = with(&server, &client).await.err().unwrap();
        assert_eq!(broken.alert(), alert, "{:?} {:?}", client.alpns, client.sni);
        assert!(broken.server.is_some());
    }
    // A raw key needs no name; a wildcard covers one label.
    for (kind, name) in [(Raw, "unknown.example"), (Raw, "peers.example"), (X509, "x.b.example")] {
        let client = Client::new(kind, &["h3"]).sni(Some(name));
        assert!(with(&server, &client).await.is_ok(), "{kind} {name}");
    }
}

#[tokio::test]
async fn gives_an_asked_client_no_streams_until_the_permit_raises_the_limit() {
    let server = server();
    let peer = Client::new(KeyKind::Raw, &["echo/1"]).raw(CLIENT);
    let (link, _) = with(&server, &peer).await.unwrap();
    let mut opening = Box::pin(link.client.open_bi());
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut opening).await;
    assert!(waited.is_err(), "no credit before the permit");
    link.server.set_max_concurrent_bi_streams(16_u32.into());
    let (mut send, _recv) = opening.await.unwrap();
    send.write_all(b"hello").await.unwrap();
    let (_send, mut recv) = link.server.accept_bi().await.unwrap();
    let mut five = [0; 5];
    recv.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"hello");

    // A refusal reaches the waiting client as the close code.
    let (link, _) = with(&server, &peer).await.unwrap();
    let opening = link.client.open_bi();
    link.server.close(7_u32.into(), b"");
    match opening.await {
        Err(quinn::ConnectionError::ApplicationClosed(close)) => {
            assert_eq!(u64::from(close.error_code), 7);
        }
        other => panic!("{:?}", other.map(drop)),
    }

    // Others have their credit from the start.
    let (link, _) = with(&server, &Client::new(KeyKind::X509, &["h3"])).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), link.client.open_bi()).await.unwrap().unwrap();
}

/// A client whose first key share the server does not know is asked for another (RFC 8446 §4.1.4):
/// a second hello comes after the choice.
#[tokio::test]
async fn goes_on_after_a_hello_retry_request() {
    let mut unusual = CryptoProvider::clone(&provider());
    unusual.kx_groups = vec![aws_lc_rs::kx_group::MLKEM768, aws_lc_rs::kx_group::X25519];
    let unusual = Arc::new(unusual);
    let server = server();
    let peer = Client::new(KeyKind::Raw, &["echo/1"]).raw(CLIENT);
    let browser = Client::new(KeyKind::X509, &["h3"]).sni(Some("a.example"));
    for (client, key) in [(peer, Some(identity(CLIENT).fingerprint())), (browser, None)] {
        let (config, _) = client.config_of(unusual.clone());
        let link = shake(
            server.quic(Reach::Everywhere, RetirementRate::per_minute(16)),
            config.clone(),
            client.name(),
        )
        .await
        .unwrap();
        assert_eq!(link.handshake().alpn.to_string(), client.alpns[0]);
        assert_eq!(link.handshake().server_name.as_deref(), client.sni);
        assert_eq!(link.peer().fingerprint(), key);
        // Without quinn between, rustls tells that it was so.
        let ends = Ends::shake(&server, &Arc::new(config), &client, Carrier::Quic).unwrap();
        let kind = ends.client.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
    }
}

#[tokio::test]
async fn serves_a_new_certificate_on_the_next_handshake_and_keeps_live_links() {
    let (old, new) = (p256(&["localhost"]), p256(&["localhost"]));
    let mut names = Names::default();
    names.insert(["localhost"], Served::X509(old.clone())).unwrap();
    let table = Arc::new(CertTable::new(names));
    let server = TlsServer::new(
        &identity(SERVER),
        table.clone(),
        Arc::default(),
        TcpMinimum::Tls12,
        &offers(),
    )
    .unwrap();
    let client = Client::new(KeyKind::X509, &["h3"]);
    let (live, before) = with(&server, &client).await.unwrap();
    assert!(table.swap(Some("localhost"), Served::X509(new.clone())));
    let (_link, after) = with(&server, &client).await.unwrap();
    assert_eq!(before.proven(), Some((KeyKind::X509, spki_of(&old))));
    assert_eq!(after.proven(), Some((KeyKind::X509, spki_of(&new))));
    assert!(live.client.close_reason().is_none());
    live.client.open_bi().await.unwrap();
}

#[tokio::test]
async fn offers_and_withdraws_protocols_while_running() {
    let server = server();
    let client = Client::new(KeyKind::Raw, &["late/1"]).raw(CLIENT);
    assert_eq!(with(&server, &client).await.err().unwrap().alert(), 120);
    let mut more = offers();
    more.push(Offer { alpn: alpn("late/1"), class: AlpnClass::Peer, tcp: false });
    server.set_offers(&more).unwrap();
    let (live, _) = with(&server, &client).await.unwrap();
    server.set_offers(&offers()).unwrap();
    assert_eq!(with(&server, &client).await.err().unwrap().alert(), 120);
    assert!(live.client.close_reason().is_none());

    more.push(Offer { alpn: alpn("late/1"), class: AlpnClass::Public, tcp: false });
    assert!(matches!(server.set_offers(&more), Err(TlsSetupError::Twice(_))));
    let challenge = Offer { alpn: Alpn::ACME_TLS_1, class: AlpnClass::Public, tcp: true };
    assert!(matches!(server.set_offers(&[challenge]), Err(TlsSetupError::NotOffered(_))));
}
