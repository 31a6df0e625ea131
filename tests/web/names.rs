//! Certificates for many names, and certificates that change while connections come and go.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use endpoint_core::{Access, Endpoint, TlsIdentity};
use endpoint_tests::{
    count,
    node::identity,
    wire::{self, Client},
    within,
};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

/// The leaf that is shown to who asks for `name` over QUIC.
async fn leaf(server: SocketAddr, name: &str) -> Vec<u8> {
    let socket = wire::socket();
    let client = browser().offering(&[b"h3"]);
    let connection = within(30, name, client.dial(&socket, server, name)).await.expect(name);
    let chain = connection.peer_identity().expect("a chain");
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().expect("a chain");
    chain[0].to_vec()
}

/// The same over TCP.
async fn leaf_tcp(server: SocketAddr, name: &str) -> Vec<u8> {
    let client = browser().offering(&[b"http/1.1"]);
    let stream = client.dial_tcp("127.0.0.1", server, name, b"").await.expect(name);
    stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec()
}

/// Whether the certificate says the name: DNS names stand in it as they are (RFC 5280 §4.2.1.6).
fn says(leaf: &[u8], name: &str) -> bool {
    leaf.windows(name.len()).any(|window| window == name.as_bytes())
}

fn nothing() -> axum::Router {
    axum::Router::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_names_each_show_their_own_certificate() {
    let groups = count(100, 1_000);
    const NAMES: usize = 100;
    let name = |group: usize, n: usize| format!("n{n}.g{group}.example");
    let mut builder = Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("default.example", TlsIdentity::SelfSigned)
        .server_name("*.wild.example", TlsIdentity::SelfSigned)
        .http(Access::Public, nothing());
    for group in 0..groups {
        let names = (0..NAMES).map(|n| name(group, n));
        builder = builder.server_names(names, TlsIdentity::SelfSigned);
    }
    let endpoint = builder.bind().await.unwrap();
    let server = endpoint.local_addrs()[0];
    let mut random = 0x9e37_79b9_usize;
    for _ in 0..count(40, 200) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let (group, n) = ((random >> 33) % groups, (random >> 13) % NAMES);
        let asked = name(group, n);
        for leaf in [leaf(server, &asked).await, leaf_tcp(server, &asked).await] {
            assert!(says(&leaf, &asked), "{asked}");
            assert!(says(&leaf, &name(group, (n + 1) % NAMES)), "{asked}");
            assert!(!says(&leaf, &name((group + 1) % groups, n)), "{asked}");
        }
    }
    let table = [
        ("N7.G3.EXAMPLE", "n7.g3.example"),
        ("a.wild.example", "*.wild.example"),
        // A wildcard stands for one label (RFC 9525 §6.3).
        ("a.b.wild.example", "default.example"),
        ("wild.example", "default.example"),
        ("other.example", "default.example"),
    ];
    for (asked, expected) in table {
        assert!(says(&leaf(server, asked).await, expected), "{asked}");
        assert!(says(&leaf_tcp(server, asked).await, expected), "{asked}");
    }
    println!("acceptance: {} names, each with its certificate, over QUIC and TCP", groups * NAMES);
    endpoint.close_now();
}

/// A certificate with this serial in its name.
fn certificate(serial: usize) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), format!("serial-{serial}.example")];
    let certificate = rcgen::CertificateParams::new(names).expect("names").self_signed(&key);
    (certificate.expect("a certificate").pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_swapped_while_connections_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let write = |serial: usize| {
        let (chain, secret) = certificate(serial);
        // As a careful operator does: both beside, then both moved.
        for (path, text) in [(&cert, chain), (&key, secret)] {
            fs::write(path.with_extension("new"), text).unwrap();
        }
        for path in [&cert, &key] {
            fs::rename(path.with_extension("new"), path).unwrap();
        }
    };
    write(0);
    let endpoint = Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("localhost", TlsIdentity::X509 { cert: cert.clone(), key: key.clone() })
        .http(Access::Public, nothing())
        .bind()
        .await
        .unwrap();
    let server = endpoint.local_addrs()[0];
    let (ended, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for n in 0..8 {
        let (ended, handshakes) = (Arc::clone(&ended), Arc::clone(&handshakes));
        clients.spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                let shown = match n % 2 {
                    0 => leaf(server, "localhost").await,
                    _ => leaf_tcp(server, "localhost").await,
                };
                assert!(says(&shown, "localhost"));
                handshakes.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    // One that stays over all swaps.
    let socket = wire::socket();
    let kept = browser().offering(&[b"h3"]);
    let kept = kept.dial(&socket, server, "localhost").await.unwrap();
    for serial in 1..=count(3, 20) {
        write(serial);
        endpoint.reload().await;
        let expected = format!("serial-{serial}.example");
        for shown in [leaf(server, "localhost").await, leaf_tcp(server, "localhost").await] {
            assert!(says(&shown, &expected), "{expected} is not shown after the reload");
        }
    }
    // Rubbish never takes the place of what is good.
    fs::write(&cert, "rubbish").unwrap();
    endpoint.reload().await;
    assert!(says(&leaf(server, "localhost").await, "serial-"));
    ended.store(true, Ordering::SeqCst);
    while let Some(client) = within(30, "the clients", clients.join_next()).await {
        client.expect("every handshake succeeds");
    }
    let unharmed = tokio::time::timeout(Duration::from_millis(1), kept.closed()).await.is_err();
    assert!(unharmed, "the connection that was there stays");
    let handshakes = handshakes.load(Ordering::SeqCst);
    assert!(handshakes > 0);
    println!("acceptance: certificates swapped under {handshakes} handshakes, none failed");
}
