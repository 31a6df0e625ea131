//! `acme-tls/1` at the running program: who gets an answer, and what is left of everybody else's tries?

use std::{io::Read as _, net::SocketAddr, time::Duration};

use endpoint_core::CloseCode;
use endpoint_tests::{
    faulty_ca::{Fault, Route},
    machine::{Running, Server},
    wire::{self, Client, alert},
};
use rustls::{AlertDescription, Error};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use crate::{
    scene::{Scene, ended, leaf, with_both},
    site::shown,
};

const PENDING: &str = "pending.example";
const OTHER: &str = "other.example";
/// id-pe-acmeIdentifier (RFC 8737 §6.1).
const ACME_IDENTIFIER: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f];
/// RFC 7301 §3.2.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Lists that speak of a challenge and are none.
const MIXED: [&[&[u8]]; 7] = [
    &[b"acme-tls/1", b"h2"],
    &[b"h2", b"acme-tls/1"],
    &[b"acme-tls/1", b"h3"],
    &[b"h3", b"acme-tls/1"],
    &[b"acme-tls/1", b"echo/1"],
    &[b"echo/1", b"acme-tls/1"],
    &[b"http/1.1", b"h2", b"acme-tls/1"],
];
const ALONE: &[&[u8]] = &[b"acme-tls/1"];

/// Refused on both carriers with the same alert.
async fn refused(server: SocketAddr, name: &str, list: &[&[u8]]) {
    let case = format!("{name} {:?}", list.iter().map(|one| one.escape_ascii().to_string()));
    let client = Client::new(list).wants_x509();
    let tcp = client.dial_tcp("127.0.0.1", server, name, b"").await;
    let told = tcp.err().unwrap_or_else(|| panic!("{case}: answered over TCP"));
    let told = told.get_ref().and_then(|error| error.downcast_ref::<Error>());
    let expected = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert_eq!(told, Some(&expected), "{case}");
    let quic = client.dial(&wire::socket(), server, name).await;
    let told = quic.err().unwrap_or_else(|| panic!("{case}: answered over QUIC"));
    assert_eq!(alert(&told), Some(NO_APPLICATION_PROTOCOL), "{case}: {told}");
}

/// Everything that is no challenge. An address is sent as no name at all (RFC 6066 §3).
async fn strangers(server: SocketAddr, pending: bool) {
    for name in [PENDING, OTHER, "nobody.example", "localhost", "127.0.0.1"] {
        if !(pending && name == PENDING) {
            refused(server, name, ALONE).await;
        }
        for list in MIXED {
            refused(server, name, list).await;
        }
    }
}

/// The certificate that answers the challenge, as both carriers show it, and nothing else.
async fn answered(server: SocketAddr, real: &CertificateDer<'_>) {
    let client = Client::new(ALONE).wants_x509();
    let mut stream = client.dial_tcp("127.0.0.1", server, PENDING, b"").await.unwrap();
    let tcp = stream.get_ref().1.peer_certificates().unwrap().to_vec();
    let _gone = stream.write_all(b"GET / HTTP/1.1\r\nHost: pending.example\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ended = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{}", rest.escape_ascii());

    let socket = wire::socket();
    let connection = client.dial(&socket, server, PENDING).await.unwrap();
    let quic = connection.peer_identity().unwrap();
    let quic = quic.downcast::<Vec<CertificateDer<'static>>>().unwrap();
    let closed = connection.closed().await;
    let done = u64::from(CloseCode::ChallengeDone.number());
    assert_eq!(wire::close_code(&closed), Some(done), "{closed}");
    assert_eq!((tcp.len(), &tcp), (1, &*quic));
    assert_ne!(tcp[0], *real);
    assert!(tcp[0].windows(10).any(|part| part == ACME_IDENTIFIER));
    assert!(tcp[0].windows(PENDING.len()).any(|part| part == PENDING.as_bytes()));
    assert!(!tcp[0].windows(OTHER.len()).any(|part| part == OTHER.as_bytes()));
}

/// A page of the listener for plain HTTP on loopback.
pub fn page(server: &Server, path: &str) -> String {
    let urls = server.ready["urls"].as_array().unwrap().iter().filter_map(|url| url.as_str());
    let plain = urls.filter_map(|url| url.strip_prefix("http://")).next_back().unwrap();
    let plain = plain.trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(plain).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {plain}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// How often a handler was given something, or ended with an error.
fn handled(server: &Server) -> Vec<String> {
    let text = page(server, "/metrics");
    let names = ["endpoint_permitted", "endpoint_denied", "endpoint_handler_"];
    let told: Vec<String> = text
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect();
    assert!(told.len() >= 4, "{text}");
    told
}

#[test]
fn only_the_name_of_a_pending_challenge_is_answered_and_nobody_hears_of_it() {
    with_both(guarded);
    println!(
        "acceptance: acme-tls/1: 39 lists and names refused on QUIC and TCP, one answered, no handler, no warning"
    );
}

async fn guarded(engine: &'static str) {
    let scene = Scene::by(engine, &[PENDING, OTHER]).await;
    let path = scene.machine.file("endpoint.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let logged = "certificate = \"auto\"\naccess_log = true";
    std::fs::write(&path, text.replace("certificate = \"auto\"", logged)).unwrap();
    let server = scene.serve();
    for name in [PENDING, OTHER] {
        scene.issued(name).await;
    }
    let address: SocketAddr = server.address().parse().unwrap();
    let real = leaf(&server, PENDING).await;
    // Both carriers were dialled; a handler is given its connection a moment after the handshake.
    let ends = Instant::now() + Duration::from_secs(20);
    while !handled(&server).contains(&"endpoint_permitted_total 2".to_owned()) {
        assert!(Instant::now() < ends, "{engine}: {:?}", handled(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (before, written) = (handled(&server), server.running.err().len());
    strangers(address, false).await;
    assert_eq!(handled(&server), before, "{engine}");

    // The answer is published, and the authority never says that it heard the announcement.
    scene.ca.fail(Route::Challenge, Fault::Silence, None);
    let renewing = Running::start(scene.machine.command(&["cert", "renew", PENDING]));
    let ends = Instant::now() + Duration::from_secs(20);
    let client = Client::new(ALONE).wants_x509();
    while client.dial_tcp("127.0.0.1", address, PENDING, b"").await.is_err() {
        assert!(Instant::now() < ends, "{engine}: no challenge is pending: {:?}", server.running);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answered(address, &real).await;
    // In other letters, too (RFC 8737 §3: as DNS compares).
    assert!(client.dial_tcp("127.0.0.1", address, "Pending.Example", b"").await.is_ok());
    strangers(address, true).await;
    assert_eq!(handled(&server), before, "{engine}");
    assert_eq!(shown(address, PENDING).await[0], real, "visitors see the real one meanwhile");
    let err = server.running.err();
    let loud: Vec<&str> = err[written..]
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("GET"))
        .collect();
    assert!(loud.is_empty(), "{engine}: {loud:#?}");
    drop(renewing);
    ended(server);
}
