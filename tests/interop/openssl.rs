//! `openssl s_client` on the TCP port: an ordinary X.509 client.

use endpoint_tests::machine::{Running, Server};

use crate::{machine, start};

fn s_client(server: &Server, more: &[&str]) -> Running {
    let address = server.address();
    let words = ["s_client", "-connect", &address, "-servername", "localhost"];
    start("openssl", &[&words, more].concat())
}

#[test]
fn reads_the_answer_of_a_public_handler_and_is_asked_for_no_certificate() {
    let server = machine();
    let served = server.serve();
    for version in ["-tls1_3", "-tls1_2"] {
        let client = s_client(&served, &["-alpn", "discover/1", version]);
        client.until("\"fingerprint\":\"sha256:");
        let said = client.end();
        assert!(said.out.contains("ALPN protocol: discover/1"), "{said:?}");
        assert!(said.out.contains("No client certificate CA names sent"), "{said:?}");
        assert!(!said.out.contains("Acceptable client certificate"), "{said:?}");
        let own = served.ready["fingerprint"].as_str().unwrap();
        assert!(said.out.contains(own), "{said:?}");
    }
}

#[test]
fn is_told_that_there_is_no_common_protocol() {
    let server = machine();
    let served = server.serve();
    for words in [&["-alpn", "nothing/9"][..], &["-alpn", "h3"]] {
        let said = s_client(&served, words).end();
        assert_ne!(said.code(), 0, "{words:?}: {said:?}");
        assert!(said.err.contains("no application protocol"), "{words:?}: {said:?}");
    }
}

#[test]
fn without_a_certificate_gets_no_byte_of_a_handler_for_peers() {
    let server = machine();
    let served = server.serve();
    let mut client = s_client(&served, &["-alpn", "echo/1", "-quiet"]);
    client.try_write(b"hello\n");
    client.until_end();
    let said = client.end();
    assert_eq!(said.out, "", "{said:?}");
    let counters = server.json(&["status"])["counters"].clone();
    assert_eq!(counters["denied"], 1, "{counters}");
}

#[test]
fn checks_the_self_signed_certificate_when_it_is_given_as_root() {
    let server = machine();
    let served = server.serve();
    let client = s_client(&served, &["-alpn", "discover/1", "-showcerts"]);
    client.until("-----END CERTIFICATE-----");
    let shown = client.end();
    let (_, rest) = shown.out.split_once("-----BEGIN CERTIFICATE-----").unwrap();
    let (body, _) = rest.split_once("-----END CERTIFICATE-----").unwrap();
    let pem = format!("-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----\n");
    let root = server.file("shown.pem");
    std::fs::write(&root, pem).unwrap();
    let root = root.to_str().unwrap();
    let words = ["-alpn", "discover/1", "-CAfile", root, "-verify_hostname", "localhost"];
    let client = s_client(&served, &[&words[..], &["-verify_return_error"]].concat());
    client.until("Verify return code: 0 (ok)");
    client.until("\"fingerprint\"");
    drop(client);
}
