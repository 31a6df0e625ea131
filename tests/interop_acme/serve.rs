//! `endpoint serve` with names in `auto`.

use std::path::Path;

use endpoint_tests::{
    faulty_ca::{FaultyCa, Route},
    machine::{Machine, Server, string},
    pebble::{Pebble, Settings},
};

use crate::site::{self, issued, until};

const NAMES: [&str; 3] = ["one.example", "two.example", "three.example"];

/// Three names, each by that proof.
fn config(pebble: &Pebble, ca: &FaultyCa, settings: &Settings, proof: &str) -> String {
    let sites =
        NAMES.map(|name| format!("[[site]]\nnames = [\"{name}\"]\ncertificate = \"auto\"\n"));
    format!(
        "listen = [\"127.0.0.1:{}\"]\nplain_listen = [\"127.0.0.1:{}\"]\nloopback_http = \"off\"\n\
         [acme]\ndirectory = \"{}\"\nca_root = \"{}\"\ncontact = [\"mailto:admin@one.example\"]\n\
         challenges = [\"{proof}\"]\n{}",
        settings.tls_port,
        settings.http_port,
        ca.directory(),
        pebble.server_root().display(),
        sites.concat()
    )
}

/// The whole life: three certificates while a raw-key peer pings, one account, and a second start in silence.
async fn three_names(proof: &str) {
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    let ca = FaultyCa::before(&pebble).await;
    let machine = site::machine(&config(&pebble, &ca, &settings, proof));
    let peer = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let added = machine.run(&["trust", "add", &peer.fingerprint()]);
    assert_eq!(added.code(), 0, "{added:?}");

    let server = site::serve(&machine);
    pings(&peer, &server);
    until(&machine, "three certificates", issued).await;
    pings(&peer, &server);
    assert_eq!(ca.calls(Route::NewOrder), 3);
    assert_eq!(ca.calls(Route::NewAccount), 1, "one account for all names");
    assert_eq!(ca.failed_validations(), 0);
    let root = machine.file("root.pem");
    std::fs::write(&root, pebble.issuing_root().await).unwrap();
    checked_by_openssl(&server, &root);
    let before = shown(&server).await;

    // A second start asks nobody anything and shows the same.
    let ended = ended(server);
    let loud = ended.err.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    let others: Vec<&str> =
        loud.filter(|line| !line.contains("self-signed certificate served until")).collect();
    assert!(others.is_empty(), "challenges make no noise: {others:#?}");
    let asked = ca.total();
    let server = site::serve(&machine);
    let list = site::certificates(&machine);
    assert!(list.len() == 3 && list.iter().all(issued), "{list:#?}");
    assert_eq!(shown(&server).await, before);
    pings(&peer, &server);
    ended_well(server);
    assert_eq!(ca.total(), asked, "a start with fresh certificates asks nobody");
    println!("acceptance: three names by {proof}, one account, a second start made no call");
}

fn pings(peer: &Machine, server: &Server) {
    let said = peer.run(&["ping", &server.peer(), "-c", "2", "-i", "1ms"]);
    assert_eq!(said.code(), 0, "{said:?}");
}

fn ended(server: Server) -> endpoint_tests::machine::Said {
    server.running.signal(rustix::process::Signal::TERM);
    let mut running = server.running;
    running.until_end();
    running.end()
}

fn ended_well(server: Server) {
    let said = ended(server);
    assert_eq!(said.code(), 0, "{said:?}");
}

async fn shown(server: &Server) -> Vec<Vec<u8>> {
    let address = server.address().parse().unwrap();
    let mut leaves = Vec::new();
    for name in NAMES {
        leaves.push(site::shown(address, name).await[0].to_vec());
    }
    leaves
}

/// A foreign client finds nothing to object to, on TCP.
fn checked_by_openssl(server: &Server, root: &Path) {
    for name in NAMES {
        let words = format!(
            "openssl s_client -connect {} -servername {name} -verify_hostname {name} -CAfile {} \
             -verify_return_error -alpn http/1.1 </dev/null",
            server.address(),
            root.display()
        );
        let said = std::process::Command::new("sh").args(["-c", &words]).output().unwrap();
        let out = String::from_utf8_lossy(&said.stdout);
        assert!(out.contains("Verify return code: 0 (ok)"), "{name}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_names_get_certificates_by_tls_alpn_01_on_the_port_of_peers() {
    three_names("tls-alpn-01").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_names_get_certificates_by_http_01() {
    three_names("http-01").await;
}

/// Also in `ready`: nobody has to know the number of the port.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_issued_is_served_with_a_certificate_of_our_own() {
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    pebble.hide("two.example").await;
    let ca = FaultyCa::before(&pebble).await;
    let machine = site::machine(&config(&pebble, &ca, &settings, "tls-alpn-01"));
    let server = site::serve(&machine);
    let settled = |certificate: &serde_json::Value| match string(certificate, "name").as_str() {
        "two.example" => {
            certificate["fallback"] == true
                && certificate["last_error"]
                    .as_str()
                    .is_some_and(|text| text.contains("two.example"))
                && certificate["next_at"].is_string()
        }
        _ => issued(certificate),
    };
    until(&machine, "two certificates and a reason", settled).await;
    let leaf = site::shown(server.address().parse().unwrap(), "two.example").await;
    assert_eq!(leaf.len(), 1, "self-signed");
    ended_well(server);
}
