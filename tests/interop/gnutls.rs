//! `gnutls-cli` on the TCP port: raw keys both ways, one way, and ordinary certificates.

use std::path::PathBuf;

use endpoint_tests::machine::{Machine, Running, Said, Server};
use serde_json::Value;

use crate::{fingerprint_by_openssl, machine, run, start};

const RAW_BOTH: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CTYPE-ALL:+CTYPE-RAWPK";
const RAW_SERVER: &str =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CTYPE-ALL:+CTYPE-SRV-RAWPK:+CTYPE-CLI-X509";

/// A key pair as `gnutls-cli` wants it.
struct Pair {
    _folder: tempfile::TempDir,
    key: PathBuf,
    public: PathBuf,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = (folder.path().join("c.key"), folder.path().join("c.pub"));
        let (key_name, public_name) = (key.to_str().unwrap(), public.to_str().unwrap());
        run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", key_name]);
        run("openssl", &["pkey", "-in", key_name, "-pubout", "-out", public_name]);
        Self { _folder: folder, key, public }
    }

    fn fingerprint(&self) -> String {
        fingerprint_by_openssl(self.key.to_str().unwrap())
    }

    fn dial(&self, server: &Server, alpn: &str) -> Running {
        let (key, public) = (self.key.to_str().unwrap(), self.public.to_str().unwrap());
        gnutls(
            server,
            alpn,
            &["--priority", RAW_BOTH, "--rawpkkeyfile", key, "--rawpkfile", public],
        )
    }
}

fn gnutls(server: &Server, alpn: &str, more: &[&str]) -> Running {
    let port = server.port();
    let words = ["--port", &port, "--alpn", alpn, "--insecure"];
    start("gnutls-cli", &[&words, more, &["127.0.0.1"]].concat())
}

/// What `gnutls-cli` printed after its own words: the bytes of the peer.
fn received(out: &str) -> &str {
    let (_, bytes) = out.split_once("- Simple Client Mode:\n\n").expect("a whole handshake");
    bytes
}

/// The server closed, and nothing but the words of `gnutls-cli` itself stands there.
fn assert_no_byte(said: &Said) {
    let bytes = received(&said.out);
    assert_eq!(bytes.lines().find(|line| !line.starts_with("- ")), None, "{said:?}");
}

/// The answer of `discover/1` in what a client printed.
fn answer(out: &str) -> Value {
    let start = out.find('{').unwrap_or_else(|| panic!("no answer in {out}"));
    let mut values = serde_json::Deserializer::from_str(&out[start..]).into_iter();
    values.next().unwrap().unwrap()
}

fn last_refused(server: &Machine) -> Option<String> {
    let status = server.json(&["status"]);
    let refused = status["refused"].as_array().unwrap();
    refused.last().map(|key| key["fingerprint"].as_str().unwrap().to_owned())
}

#[test]
fn an_unauthorised_raw_key_gets_a_handshake_and_not_one_byte() {
    let (server, pair) = (machine(), Pair::new());
    let served = server.serve();
    let mut client = pair.dial(&served, "echo/1");
    client.until("Handshake was completed");
    // The server may have closed already.
    client.try_write(b"hello\n");
    let said = client.end();
    assert!(said.out.contains("- Application protocol: echo/1"), "{said:?}");
    assert_no_byte(&said);
    assert_eq!(last_refused(&server), Some(pair.fingerprint()));
}

#[test]
fn an_authorised_raw_key_is_echoed_under_the_fingerprint_that_openssl_computes() {
    let (server, pair) = (machine(), Pair::new());
    let served = server.serve();
    let key = pair.fingerprint();
    server.json(&["trust", "add", &key]);
    let mut client = pair.dial(&served, "echo/1");
    client.until("Simple Client Mode");
    client.write(b"hello from gnutls\n");
    client.until("hello from gnutls");
    let connection = server.json(&["conns"]);
    assert_eq!(connection["peer"], key.as_str());
    assert_eq!(connection["certificate_type"], "raw");
    assert_eq!(connection["carrier"], "tcp");
    let said = client.end();
    assert_eq!(said.code(), 0, "{said:?}");
    for line in [
        "- Server has requested a certificate.",
        "- Certificate type: Raw Public Key",
        " - PK algo: EdDSA (Ed25519)",
        "- Description: (TLS1.3-Raw Public Key)",
    ] {
        assert!(said.out.contains(line), "{line}: {said:?}");
    }
}

#[test]
fn removing_the_key_ends_the_connection_of_a_foreign_client() {
    let (server, pair) = (machine(), Pair::new());
    let served = server.serve();
    let key = pair.fingerprint();
    server.json(&["trust", "add", &key]);
    let mut client = pair.dial(&served, "echo/1");
    client.until("Simple Client Mode");
    client.write(b"hello\n");
    client.until("hello");
    let removed = server.json(&["trust", "rm", &key]);
    assert_eq!(removed, serde_json::json!({"removed": 1, "closed": 1}));
    client.until_end();
    let again = pair.dial(&served, "echo/1").end();
    assert!(!again.out.contains("hello"), "{again:?}");
}

#[test]
fn a_client_without_a_key_reads_public_handlers_of_a_raw_key_server() {
    let server = machine();
    let served = server.serve();
    let client = gnutls(&served, "discover/1", &["--priority", RAW_SERVER]);
    client.until("Peer has closed");
    let said = client.end();
    assert_eq!(said.code(), 0, "{said:?}");
    assert!(said.out.contains("TLS1.3-X.509-Raw Public Key"), "{said:?}");
    assert!(!said.out.contains("requested a certificate"), "{said:?}");
    let answer = answer(&said.out);
    assert_eq!(answer["fingerprint"], served.ready["fingerprint"]);
    assert_eq!(answer["alpns"], serde_json::json!(["discover/1", "h3", "h2", "http/1.1"]));
}

#[test]
fn an_ordinary_client_and_a_quic_peer_share_the_port_number() {
    let (server, peer) = (machine(), machine());
    let served = server.serve();
    server.json(&["trust", "add", &peer.fingerprint()]);
    let client = gnutls(&served, "discover/1", &["--sni-hostname", "localhost"]);
    client.until("Peer has closed");
    let ping = peer.json(&["ping", &served.peer(), "-c", "2"]);
    assert_eq!(ping["carrier"], "quic");
    let said = client.end();
    assert_eq!(said.code(), 0, "{said:?}");
    assert!(said.out.contains("- Certificate type: X.509"), "{said:?}");
    assert!(!said.out.contains("requested a certificate"), "{said:?}");
    assert_eq!(answer(&said.out)["fingerprint"], served.ready["fingerprint"]);
}

#[test]
fn a_client_without_a_key_gets_no_byte_of_a_handler_for_peers() {
    let server = machine();
    let served = server.serve();
    for more in [&["--priority", RAW_SERVER][..], &["--sni-hostname", "localhost"]] {
        let mut client = gnutls(&served, "echo/1", more);
        client.until("Handshake was completed");
        client.try_write(b"hello\n");
        let said = client.end();
        assert_no_byte(&said);
    }
}
