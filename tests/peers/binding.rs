//! Where an endpoint listens, what it shows there, and what a dialler with the wrong key in hand tells it.

use std::{fs, path::Path, time::Duration};

use endpoint_core::{
    Access, ConnectError, Endpoint, Fingerprint, Target, TlsIdentity, endpoint::DialOptions,
    handler::Echo,
};
use endpoint_tests::node::{self, Server, alpn, dialler, echo};

/// Writes a new self-signed certificate and its key, the key first, as a renewing program would; gives
/// the name of the key.
fn renew(folder: &Path) -> Fingerprint {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    Fingerprint::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&key))
}

#[tokio::test]
async fn a_certificate_that_changes_on_disk_is_served_next_over_quic_and_tcp_and_live_links_stay() {
    let folder = tempfile::tempdir().unwrap();
    let old = renew(folder.path());
    let files = TlsIdentity::X509 {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    let server = Endpoint::builder(node::identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("localhost", files)
        .handle(alpn(node::PUBLIC), Access::Public, Echo)
        .bind()
        .await
        .unwrap();
    let port = server.local_addrs()[0].port();
    let by = |pin| -> Target { format!("https://localhost:{port}#{pin}").parse().unwrap() };
    let client = dialler(2).await;
    let both = [DialOptions::default(), DialOptions::default().tcp()];
    let mut live = Vec::new();
    for options in &both {
        live.push(client.connect_with(&by(old), node::PUBLIC, options.clone()).await.unwrap());
    }

    // A key without its certificate never replaces a pair that works.
    let new_key = rcgen::KeyPair::generate().unwrap();
    fs::write(folder.path().join("key.pem"), new_key.serialize_pem()).unwrap();
    server.reload().await;
    for options in &both {
        client.connect_with(&by(old), node::PUBLIC, options.clone()).await.unwrap();
    }

    let new = renew(folder.path());
    server.reload().await;
    for options in &both {
        client.connect_with(&by(new), node::PUBLIC, options.clone()).await.unwrap();
        let changed = client.connect_with(&by(old), node::PUBLIC, options.clone()).await;
        let Err(ConnectError::PeerChanged { expected, got, .. }) = changed else {
            panic!("{changed:?}")
        };
        assert_eq!((expected, got), (old, new));
    }
    for connection in &live {
        assert_eq!(echo(connection, b"still here").await.unwrap(), b"still here");
    }
}

#[tokio::test]
async fn a_free_port_is_told_on_both_families() {
    let server = Endpoint::builder(node::identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .listen("[::1]:0".parse().unwrap())
        .handle(alpn(node::PUBLIC), Access::Public, Echo)
        .bind()
        .await
        .unwrap();
    let client = dialler(2).await;
    assert_eq!(server.local_addrs().len(), 2);
    for address in server.local_addrs() {
        assert_ne!(address.port(), 0);
        let target = format!("peer://{}@{address}", server.fingerprint().hex()).parse().unwrap();
        for options in [DialOptions::default(), DialOptions::default().tcp()] {
            let connection = client.connect_with(&target, node::PUBLIC, options).await.unwrap();
            assert_eq!(echo(&connection, b"here").await.unwrap(), b"here", "{address}");
        }
    }
}

#[tokio::test]
async fn a_server_of_another_key_than_the_pinned_one_gets_no_byte_of_the_application() {
    let server = Server::start("").await;
    let client = dialler(2).await;
    let wrong = node::identity(9).fingerprint();
    let target: Target = format!("peer://{}@{}", wrong.hex(), server.addr()).parse().unwrap();
    for options in [DialOptions::default(), DialOptions::default().tcp()] {
        let refused = client.connect_with(&target, node::PUBLIC, options).await;
        assert!(matches!(refused, Err(ConnectError::PeerChanged { .. })), "{refused:?}");
    }
    // Both handshakes have failed on the server too: no byte of an application can have come.
    endpoint_tests::until("the server gave both up", || {
        server.endpoint.counters().handshake_failures == 2
    })
    .await;
    assert_eq!(server.endpoint.counters().handshakes, 0);
    assert_eq!(server.calls(), 0);
    server.endpoint.shutdown_within(Duration::from_secs(1)).await;
}
