//! Scenarios on a path that does no harm.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use endpoint_core::{Limits, TlsIdentity};
use endpoint_tests::{
    count,
    path::{Impairment, Path},
    wire::{provider, socket},
};
use futures_util::future::try_join_all;

use crate::site::{Site, browser, dial, echo, fetch, peer, post_echo, quinn_of};

#[tokio::test(flavor = "multi_thread")]
async fn handshake_and_http3() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 1, Impairment::default());
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, 13).await.unwrap();
    assert_eq!(post_echo(&mut connection, vec![7; 5_000]).await.unwrap(), vec![7; 5_000]);
    for count in [0, 1, 70_000, 500_000] {
        fetch(&mut connection, count).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 2, Impairment::default());
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, count(4 << 20, 64 << 20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chacha20() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 3, Impairment::default());
    let mut config = browser().config();
    let mut only = (*provider()).clone();
    let wanted = rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    let initial = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    only.cipher_suites.retain(|suite| suite.suite() == wanted);
    // Initial packets are protected with AES whatever is negotiated (RFC 9001 §5.2).
    let for_initial = provider().cipher_suites.iter().find(|s| s.suite() == initial).copied();
    let verifier = endpoint_tests::wire::any_server();
    config = rustls::ClientConfig::builder_with_provider(Arc::new(only))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
        .clone_alpn(config.alpn_protocols);
    let initial = for_initial.and_then(|suite| suite.tls13()?.quic_suite()).unwrap();
    let crypto =
        quinn::crypto::rustls::QuicClientConfig::with_initial(Arc::new(config), initial).unwrap();
    let quinn = socket()
        .connect_with(quinn::ClientConfig::new(Arc::new(crypto)), path.addr(), "localhost")
        .unwrap()
        .await
        .unwrap();
    let mut connection = endpoint_tests::http::over_quic(socket(), quinn).await.unwrap();
    fetch(&mut connection, 100_000).await.unwrap();
}

/// A configuration with these protocols.
trait CloneAlpn {
    fn clone_alpn(self, protocols: Vec<Vec<u8>>) -> Self;
}

impl CloneAlpn for rustls::ClientConfig {
    fn clone_alpn(mut self, protocols: Vec<Vec<u8>>) -> Self {
        self.alpn_protocols = protocols;
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn multiplexing() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 4, Impairment::default());
    let line = format!("{}\n", endpoint_tests::node::identity(2).fingerprint());
    let peers = Site::with(Limits::default(), &line, TlsIdentity::SelfSigned).await;
    let through = Path::to(peers.addr(), 4, Impairment::default());
    let mut browsers = dial(&browser(), path.addr()).await.unwrap();
    for _ in 0..count(50, 2_000) {
        fetch(&mut browsers, 32).await.unwrap();
    }
    let connection = peer().dial(&socket(), through.addr(), "localhost").await.unwrap();
    let streams = count(500, 5_000);
    let sent = (0..streams).map(|n| {
        let connection = connection.clone();
        async move {
            let message = n.to_string();
            let back = echo(&connection, message.as_bytes()).await?;
            if back == message.as_bytes() { Ok(()) } else { Err("another answer".to_owned()) }
        }
    });
    try_join_all(sent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn retry() {
    let limits = Limits::default().unvalidated_in_flight(0);
    let site = Site::with(limits, "", TlsIdentity::SelfSigned).await;
    let path = Path::to(site.addr(), 5, Impairment::default());
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, 1_000).await.unwrap();
    assert!(path.tally().retries >= 1, "{:?}", path.tally());
}

#[tokio::test(flavor = "multi_thread")]
async fn resumption_for_browsers_and_never_for_peers() {
    let line = format!("{}\n", endpoint_tests::node::identity(2).fingerprint());
    let site = Site::with(Limits::default(), &line, TlsIdentity::SelfSigned).await;
    let path = Path::to(site.addr(), 6, Impairment::default());
    let client = browser().resuming();
    let mut first = dial(&client, path.addr()).await.unwrap();
    fetch(&mut first, 10).await.unwrap();
    assert!(client.was_full());
    let mut second = dial(&client, path.addr()).await.unwrap();
    fetch(&mut second, 10).await.unwrap();
    assert!(!client.was_full(), "{:?}", client.tickets);
    let client = peer().resuming();
    for _ in 0..2 {
        let connection = client.dial(&socket(), path.addr(), "localhost").await.unwrap();
        assert_eq!(echo(&connection, b"peer").await.unwrap(), b"peer");
        assert!(client.was_full());
    }
    assert_eq!(client.tickets.received(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn zerortt_is_refused_and_the_request_is_answered_after_the_handshake() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 7, Impairment::default());
    let client = browser().resuming();
    let mut first = dial(&client, path.addr()).await.unwrap();
    fetch(&mut first, 10).await.unwrap();
    assert!(client.tickets.received() > 0);
    let early = client.begin(&socket(), path.addr(), "localhost").into_0rtt();
    // Tickets of this server do not let early data be sent (RFC 8446 §4.2.10).
    let connecting = early.map(|_| ()).expect_err("a ticket let early data be sent");
    let quinn = connecting.await.unwrap();
    let mut connection = endpoint_tests::http::over_quic(socket(), quinn).await.unwrap();
    fetch(&mut connection, 10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keyupdate() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 8, Impairment::default());
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, 100_000).await.unwrap();
    for _ in 0..3 {
        quinn_of(&connection).force_key_update();
        fetch(&mut connection, 100_000).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ecn() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 9, Impairment::default());
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, 200_000).await.unwrap();
    let marked = path.tally().ecn_of_server;
    assert!(marked > 0, "the server marks nothing: {:?}", path.tally());
    let before = quinn_of(&connection).stats().path.congestion_events;
    path.treat(Impairment { congested: true, ..Impairment::default() });
    post_echo(&mut connection, vec![1; 300_000]).await.unwrap();
    let after = quinn_of(&connection).stats().path.congestion_events;
    assert!(after > before, "the server reports no congestion");
}

#[tokio::test(flavor = "multi_thread")]
async fn longrtt() {
    let site = Site::start().await;
    let delay = Duration::from_millis(375);
    let path = Path::to(site.addr(), 10, Impairment { delay, ..Impairment::default() });
    let began = Instant::now();
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, 10_000).await.unwrap();
    let took = began.elapsed();
    assert!(took >= 4 * delay && took < 20 * delay, "{took:?}");
}
