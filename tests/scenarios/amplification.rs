//! How much does somebody get whose address is not known to be his? RFC 9000 §8.1: three bytes for one.
//!
//! quinn alone begins another datagram as long as a single byte of the three is left; the endpoint's socket does
//! not let it go.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path as Folder,
    time::{Duration, Instant},
};

use endpoint_core::{Limits, TlsIdentity};
use endpoint_tests::path::{Impairment, Path};

use crate::site::{Site, browser, dial, fetch};

/// The largest datagram that the server sends on loopback, in bytes.
const DATAGRAM: u64 = 1_452;

/// A certificate for `localhost` whose chain is at least `bytes` long.
pub fn chain(folder: &Folder, bytes: usize) -> TlsIdentity {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    // An extension that nobody knows and that is not critical fills it up.
    let filling = vec![0x41; bytes];
    params
        .custom_extensions
        .push(rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], filling));
    let certificate = params.self_signed(&key).unwrap();
    assert!(certificate.der().len() > bytes);
    let (cert_file, key_file) = (folder.join("chain.pem"), folder.join("chain.key"));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key_file, mode).unwrap();
    TlsIdentity::X509 { cert: cert_file, key: key_file }
}

/// Sends `datagrams` from an address of its own and never again; the bytes sent, and what came back in so long.
fn spoofed(to: SocketAddr, datagrams: &[Vec<u8>], waits: Duration) -> (usize, usize) {
    let socket = UdpSocket::bind("127.0.0.66:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for datagram in datagrams {
        socket.send_to(datagram, to).unwrap();
    }
    let (began, mut back) = (Instant::now(), 0);
    let mut buffer = [0; 64 * 1024];
    while began.elapsed() < waits {
        back += socket.recv(&mut buffer).unwrap_or(0);
    }
    (datagrams.iter().map(Vec::len).sum(), back)
}

/// The first flight of a browser: what it sends before it has an answer.
pub async fn first_flight() -> Vec<Vec<u8>> {
    // Kept from the server, which must not have seen its connection id before.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = Path::to(nobody.local_addr().unwrap(), 16, Impairment::default());
    let (client, addr) = (browser(), path.addr());
    let dialling = tokio::spawn(async move { dial(&client, addr).await.is_ok() });
    // A post-quantum hello takes two datagrams.
    endpoint_tests::until("the hello is sent", || path.captured().len() >= 2).await;
    // Before the dial is given up, whose last words end the connection.
    let flight = path.captured();
    dialling.abort();
    flight
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_than_three_bytes_for_one_before_he_is_proven() {
    for kib in [1, 2, 4, 8] {
        let folder = tempfile::tempdir().unwrap();
        let certificate = chain(folder.path(), kib * 1024);
        let site = Site::with(Limits::default(), "", certificate).await;
        // An honest client, counted by the path.
        let path = Path::to(site.addr(), 17, Impairment::default());
        let mut connection = dial(&browser(), path.addr()).await.unwrap();
        fetch(&mut connection, 100).await.unwrap();
        let honest = path.tally().amplified;
        assert_eq!(path.tally().beyond, 0, "{:?}", path.tally());
        // One whose address is forged: the server asks again and again and hears nothing.
        let flight = first_flight().await;
        let server = site.addr();
        let waits = Duration::from_secs(3);
        let spoofed = tokio::task::spawn_blocking(move || spoofed(server, &flight, waits));
        let (sent, back) = spoofed.await.unwrap();
        println!(
            "acceptance: chain of {kib} KiB: {:.2} bytes back for each to an honest client, {:.2} to a \
             forged address ({back} for {sent})",
            honest as f64 / 100.0,
            back as f64 / sent as f64
        );
        assert!(back > 0, "the forged first flight was not taken");
        assert!(back <= 3 * sent, "{back} bytes for {sent}");
    }
}

/// A server that believes in addresses: four bytes for one.
#[tokio::test(flavor = "multi_thread")]
async fn the_path_notices_a_server_that_amplifies() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let path = Path::to(server.local_addr().unwrap(), 18, Impairment::default());
    let twin = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = server.recv_from(&mut buffer).await {
            for _ in 0..4 {
                let _ = server.send_to(&buffer[..length], from).await;
            }
        }
    });
    let (client, addr) = (browser(), path.addr());
    let dialling = tokio::spawn(async move { dial(&client, addr).await.is_ok() });
    endpoint_tests::until("it is noticed", || path.tally().beyond > DATAGRAM).await;
    dialling.abort();
    twin.abort();
}
