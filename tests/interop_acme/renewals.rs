//! Short-lived certificates, renewed while connections come without a pause.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use endpoint_tests::{
    count,
    http::{Connection, get, over_quic, over_tcp},
    pebble::{Pebble, Settings},
    wire,
};
use http::{StatusCode, Version};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::site::{self, issued, until};

const NAME: &str = "one.example";

/// A client that believes the authority and nobody else, and looks at names and dates.
fn trusting(root: &str, alpn: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config
}

async fn quic(
    socket: &quinn::Endpoint,
    server: SocketAddr,
    root: &str,
) -> Result<quinn::Connection, String> {
    let config = QuicClientConfig::try_from(trusting(root, b"h3")).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let connecting = socket.connect_with(config, server, NAME).map_err(|e| e.to_string())?;
    connecting.await.map_err(|error| error.to_string())
}

async fn tcp(server: SocketAddr, root: &str) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(server).await.map_err(|error| error.to_string())?;
    let config = trusting(root, b"http/1.1");
    let name = ServerName::try_from(NAME).unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| error.to_string())
}

/// The leaf that a new connection is shown, after its handshake.
async fn leaf(number: usize, server: SocketAddr, root: &str) -> Result<Vec<u8>, String> {
    let none = || "no certificate".to_owned();
    if number.is_multiple_of(2) {
        let socket = wire::socket();
        let connection = quic(&socket, server, root).await?;
        let shown = connection.peer_identity().ok_or_else(none)?;
        let shown = shown.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| none())?;
        Ok(shown.first().ok_or_else(none)?.to_vec())
    } else {
        let stream = tcp(server, root).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(shown.first().ok_or_else(none)?.to_vec())
    }
}

#[derive(Default)]
struct Seen {
    /// Leaves over QUIC and over TCP.
    leaves: [BTreeSet<Vec<u8>>; 2],
    failures: Vec<String>,
    handshakes: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_under_load_fail_no_handshake_and_end_no_connection() {
    let renewals = count(3, 20);
    let validity = 30;
    let settings = Settings { validity, ..Settings::default() };
    let pebble = Pebble::start(settings.clone()).await;
    let machine = site::machine(&format!(
        "listen = [\"127.0.0.1:{}\"]\nloopback_http = \"off\"\n\
         [acme]\ndirectory = \"{}\"\nca_root = \"{}\"\n\
         [[site]]\nnames = [\"{NAME}\"]\ncertificate = \"auto\"\n",
        settings.tls_port,
        pebble.directory(),
        pebble.server_root().display(),
    ));
    let server = site::serve(&machine);
    let address: SocketAddr = server.address().parse().unwrap();
    until(&machine, "a certificate", issued).await;
    let root: Arc<str> = pebble.issuing_root().await.into();

    let socket = wire::socket();
    let first = quic(&socket, address, &root).await.unwrap();
    let mut live = [
        over_quic(socket, first).await.unwrap(),
        over_tcp(Version::HTTP_11, tcp(address, &root).await.unwrap()).await.unwrap(),
    ];
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut clients = JoinSet::new();
    // Fifty a second.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let ends = Instant::now()
        + Duration::from_secs(u64::from(validity)) * u32::try_from(renewals + 2).unwrap();
    let mut number = 0_usize;
    let renewed = |seen: &Seen| seen.leaves.iter().all(|leaves| leaves.len() > renewals);
    while !renewed(&seen.lock().unwrap()) {
        assert!(Instant::now() < ends, "too few renewals: {:?}", site::certificates(&machine));
        ticks.tick().await;
        number += 1;
        let (seen, root) = (Arc::clone(&seen), Arc::clone(&root));
        clients.spawn(async move {
            let shown = leaf(number, address, &root).await;
            let mut seen = seen.lock().unwrap();
            seen.handshakes += 1;
            match shown {
                Ok(leaf) => drop(seen.leaves[number % 2].insert(leaf)),
                Err(failure) => seen.failures.push(failure),
            }
        });
        while clients.try_join_next().is_some() {}
        if number.is_multiple_of(50) {
            asked(&mut live).await;
        }
    }
    clients.join_all().await;
    asked(&mut live).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.failures, Vec::<String>::new(), "of {} handshakes", seen.handshakes);
    println!(
        "acceptance: {renewals} renewals of {validity}-second certificates under {} new connections, \
         0 failed, 2 live ones stayed",
        seen.handshakes
    );
}

/// The connections that were there before the first renewal still answer.
async fn asked(live: &mut [Connection; 2]) {
    for connection in live {
        let answer = connection.send(get(NAME, "/")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
}
