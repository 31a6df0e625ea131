//! One port number for every kind of client: which profile and protocol each gets, and who is asked for
//! a key.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use endpoint_core::facts::{Carrier, KeyKind, Profile};
use endpoint_tests::{
    node::{self, Server},
    wire::{self, Client, Shown},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

const KEY: u8 = 2;
const NO_APPLICATION_PROTOCOL: u8 = 120;
const CARRIERS: [Carrier; 2] = [Carrier::Quic, Carrier::Tcp];

async fn server() -> Server {
    Server::start(&format!("scope=\"ops\" {}\n", node::identity(KEY).fingerprint())).await
}

/// What a client got: the protocol, and whether a request was answered.
#[derive(Debug, Eq, PartialEq)]
enum Got {
    Answer(String),
    Refusal,
    Alert(u8),
}

/// Whether an HTTP name means this carrier (RFC 9113 §3.2, RFC 9114 §3.1).
fn spoken(http: &[u8], carrier: Carrier) -> bool {
    (http == b"h3") == (carrier == Carrier::Quic)
}

fn answer(protocol: &[u8]) -> Got {
    Got::Answer(String::from_utf8_lossy(protocol).into_owned())
}

/// Keeps a connection open.
type Open = Box<dyn std::any::Any>;

async fn visit(client: &Client, carrier: Carrier, server: SocketAddr) -> Got {
    stay(client, carrier, server).await.0
}

async fn stay(client: &Client, carrier: Carrier, server: SocketAddr) -> (Got, Option<Open>) {
    let visit = async {
        match carrier {
            Carrier::Quic => visit_quic(client, server).await,
            Carrier::Tcp => visit_tcp(client, server).await,
        }
    };
    timeout(Duration::from_secs(15), visit).await.expect("an answer in time")
}

async fn visit_quic(client: &Client, server: SocketAddr) -> (Got, Option<Open>) {
    let socket = wire::socket();
    let connection = match client.dial(&socket, server, "localhost").await {
        Ok(connection) => connection,
        Err(error) => return (wire::alert(&error).map_or(Got::Refusal, Got::Alert), None),
    };
    let data = connection.handshake_data().expect("a handshake");
    let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().expect("rustls");
    let asked = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(b"hello").await.ok()?;
        send.finish().ok()?;
        recv.read_to_end(64).await.ok()
    };
    match asked.await {
        Some(bytes) if bytes == b"hello" => {
            let open: Open = Box::new((socket, connection));
            (answer(&data.protocol.unwrap_or_default()), Some(open))
        }
        _ => (Got::Refusal, None),
    }
}

async fn visit_tcp(client: &Client, server: SocketAddr) -> (Got, Option<Open>) {
    let mut stream = match client.dial_tcp("127.0.0.1", server, "localhost", b"").await {
        Ok(stream) => stream,
        Err(error) => {
            let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
            let got = match inner {
                Some(rustls::Error::AlertReceived(alert)) => Got::Alert(u8::from(*alert)),
                _ => Got::Refusal,
            };
            return (got, None);
        }
    };
    let mut bytes = [0; 5];
    let sent = stream.write_all(b"hello").await;
    match sent.and(stream.read_exact(&mut bytes).await) {
        Ok(_) => {
            let protocol = stream.get_ref().1.alpn_protocol().unwrap_or(b"http/1.1").to_vec();
            (answer(&protocol), Some(Box::new(stream)))
        }
        Err(_) => (Got::Refusal, None),
    }
}

/// A client, what it gets, whether it is asked for a key, and the profile.
type Row = (&'static str, Client, Got, bool, Option<Profile>);

fn profile(server: KeyKind, client: Option<KeyKind>) -> Option<Profile> {
    Some(Profile { server, client })
}

fn everybody(carrier: Carrier) -> Vec<Row> {
    use KeyKind::{Raw, X509};
    let http: &[u8] = if carrier == Carrier::Quic { b"h3" } else { b"h2" };
    let raw = |alpn| Client::new(&[alpn]).showing(Shown::raw(KEY));
    let x509 = |alpn| Client::new(&[alpn]).showing(Shown::x509(KEY));
    let (peer, public) = (node::PEER, node::PUBLIC);
    vec![
        ("raw key, raw server", raw(peer), answer(peer), true, profile(Raw, Some(Raw))),
        (
            "raw key, named server",
            raw(peer).wants_x509(),
            answer(peer),
            true,
            profile(X509, Some(Raw)),
        ),
        ("raw key, public", raw(public), answer(public), true, profile(Raw, Some(Raw))),
        ("raw key, browsing", raw(http), answer(http), true, profile(Raw, Some(Raw))),
        ("no key, raw server", Client::new(&[public]), answer(public), false, profile(Raw, None)),
        ("no key, raw server, peer's", Client::new(&[peer]), Got::Refusal, true, None),
        (
            "no key, raw server, browsing",
            Client::new(&[http]),
            answer(http),
            false,
            profile(Raw, None),
        ),
        ("certificate, raw server", x509(peer), answer(peer), true, profile(Raw, Some(X509))),
        ("certificate", x509(peer).wants_x509(), answer(peer), true, profile(X509, Some(X509))),
        (
            "certificate, public",
            x509(public).wants_x509(),
            answer(public),
            false,
            profile(X509, None),
        ),
        (
            "certificate, browsing",
            x509(http).wants_x509(),
            answer(http),
            false,
            profile(X509, None),
        ),
        ("browser", Client::new(&[http]).wants_x509(), answer(http), false, profile(X509, None)),
        ("browser, peer's", Client::new(&[peer]).wants_x509(), Got::Refusal, true, None),
    ]
}

async fn serves_everybody(carrier: Carrier) {
    let server = server().await;
    for (name, client, got, asked, profile) in everybody(carrier) {
        let (outcome, open) = stay(&client, carrier, server.addr()).await;
        assert_eq!(outcome, got, "{name} over {carrier}");
        assert_eq!(client.was_asked(), asked, "{name} over {carrier}: asked for a key");
        let newest = server.endpoint.connections().into_iter().max_by_key(|c| c.id);
        let seen = open.as_ref().and(newest).map(|connection| connection.profile);
        assert_eq!(seen, profile, "{name} over {carrier}");
    }
    assert_eq!(server.endpoint.local_addrs().len(), 1, "all that on one port");
}

#[tokio::test]
async fn raw_keyless_and_certified_clients_share_one_udp_port() {
    serves_everybody(Carrier::Quic).await;
}

#[tokio::test]
async fn raw_keyless_and_certified_clients_share_the_same_tcp_port() {
    serves_everybody(Carrier::Tcp).await;
}

#[tokio::test]
async fn a_client_with_a_certificate_that_offers_an_http_name_is_not_asked_for_it() {
    let server = server().await;
    for carrier in CARRIERS {
        for http in [&b"h3"[..], b"h2", b"http/1.1"] {
            for offer in
                [vec![http], vec![http, node::PEER], vec![node::PEER, http], vec![b"ping/1", http]]
            {
                for raw_server in [false, true] {
                    let mut client = Client::new(&offer).showing(Shown::x509(KEY));
                    client.server_raw = raw_server;
                    let got = visit(&client, carrier, server.addr()).await;
                    // Beside a name of HTTP nobody is asked, also where that name is not spoken.
                    let expected = match spoken(http, carrier) {
                        true => answer(http),
                        false => Got::Alert(NO_APPLICATION_PROTOCOL),
                    };
                    assert_eq!(got, expected, "{offer:?} over {carrier}");
                    assert!(!client.was_asked(), "{offer:?} over {carrier}");
                }
            }
        }
    }
    assert_eq!((server.peer.calls(), server.scoped.calls()), (0, 0));
}

#[tokio::test]
async fn unknown_protocols_and_none_end_with_alert_120() {
    let server = server().await;
    for carrier in CARRIERS {
        for shown in [None, Some(Shown::raw(KEY)), Some(Shown::x509(KEY))] {
            for server_raw in [false, true] {
                for protocols in [&[&b"nothing/1"[..]][..], &[b"PEER/1"], &[b"peer/1\0"], &[]] {
                    let mut client = Client::new(protocols);
                    (client.shown, client.server_raw) = (shown.clone(), server_raw);
                    let got = visit(&client, carrier, server.addr()).await;
                    let raw = shown.as_ref().is_some_and(|shown| shown.raw);
                    let old = carrier == Carrier::Tcp && protocols.is_empty();
                    let expected = match old && !server_raw && !raw {
                        // HTTP/1.1 of before RFC 7301, on the first profile alone.
                        true => answer(b"http/1.1"),
                        false => Got::Alert(NO_APPLICATION_PROTOCOL),
                    };
                    let text = format!("{shown:?} {server_raw} {protocols:?} over {carrier}");
                    assert_eq!(got, expected, "{text}");
                    assert!(!client.was_asked(), "{text}");
                }
            }
        }
    }
    assert_eq!(server.calls(), server.http.calls());
}

#[tokio::test]
async fn a_peers_protocol_is_never_negotiated_where_no_key_is_asked_for() {
    let server = server().await;
    for carrier in CARRIERS {
        for server_raw in [false, true] {
            for peers in [node::PEER, node::SCOPED, b"enroll/1", b"ping/1"] {
                // Beside a name of HTTP nobody is asked, so the peer's protocol is out of reach.
                let http: &[&[u8]] =
                    if carrier == Carrier::Quic { &[b"h3"] } else { &[b"h2", b"http/1.1"] };
                for offer in http.iter().map(|http| [peers, *http]) {
                    let mut client = Client::new(&offer);
                    client.server_raw = server_raw;
                    let got = visit(&client, carrier, server.addr()).await;
                    assert_eq!(got, answer(offer[1]), "{offer:?} over {carrier}");
                }
                // Alone it is negotiated where a certificate is asked for, and a client without one refused.
                let mut client = Client::new(&[peers]);
                client.server_raw = server_raw;
                assert_eq!(visit(&client, carrier, server.addr()).await, Got::Refusal);
                assert!(client.was_asked());
            }
        }
    }
    assert_eq!(server.calls(), server.http.calls());
}

#[tokio::test]
async fn tls_1_2_is_taken_over_tcp_from_clients_that_are_asked_for_nothing() {
    let server = server().await;
    let old = |alpns: &[&[u8]]| Client::new(alpns).wants_x509().tls12();
    let tcp = Carrier::Tcp;
    for (alpns, expected) in [
        (&[&b"h2"[..]][..], Some(&b"h2"[..])),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], Some(b"http/1.1")),
        (&[node::PUBLIC], Some(node::PUBLIC)),
        (&[node::PEER], None),
    ] {
        for shown in [None, Some(Shown::x509(KEY))] {
            let mut client = old(alpns);
            client.shown = shown;
            let got = visit(&client, tcp, server.addr()).await;
            match expected {
                Some(protocol) => assert_eq!(got, answer(protocol), "{alpns:?}"),
                None => assert!(!matches!(got, Got::Answer(_)), "{alpns:?}: {got:?}"),
            }
            assert!(!client.was_asked(), "{alpns:?}");
        }
    }
    assert_eq!(server.peer.calls(), 0);
    // A raw key of either side belongs to TLS 1.3 here.
    let mut raw = old(&[node::PUBLIC]);
    raw.server_raw = true;
    assert!(!matches!(visit(&raw, tcp, server.addr()).await, Got::Answer(_)));
    let raw = old(&[node::PUBLIC]).showing(Shown::raw(KEY));
    assert!(!matches!(visit(&raw, tcp, server.addr()).await, Got::Answer(_)));
}

/// Everything logged at `info` and above.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//= https://www.rfc-editor.org/rfc/rfc8737#section-4
//# The acme-tls/1 protocol does not carry application data.
#[tokio::test]
async fn the_challenge_protocol_reaches_no_handler_and_makes_no_noise() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    // One thread runs this test, its server and its clients.
    let _logging = tracing::subscriber::set_default(subscriber);
    let server = server().await;
    tracing::info!("the log works");
    for carrier in CARRIERS {
        for shown in [None, Some(Shown::raw(KEY)), Some(Shown::x509(KEY))] {
            let mut alone = Client::new(&[b"acme-tls/1"]).wants_x509();
            alone.shown = shown.clone();
            let got = visit(&alone, carrier, server.addr()).await;
            assert_eq!(got, Got::Alert(NO_APPLICATION_PROTOCOL), "{shown:?} over {carrier}");
            assert!(!alone.was_asked());
        }
    }
    assert_eq!(server.calls(), 0);
    for carrier in CARRIERS {
        for other in [&b"h2"[..], b"http/1.1", node::PUBLIC, node::PEER] {
            for offer in [vec![b"acme-tls/1", other], vec![other, b"acme-tls/1"]] {
                let mixed = Client::new(&offer).wants_x509();
                let got = visit(&mixed, carrier, server.addr()).await;
                // No authority offers more than the challenge (RFC 8737 §3).
                assert_eq!(got, Got::Alert(NO_APPLICATION_PROTOCOL), "{offer:?} over {carrier}");
            }
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("the log works"), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
