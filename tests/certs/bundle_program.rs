//! A bundle through the real program: `bundle sign`, `config check`, `serve`, `cert info`.

use std::{fs, net::SocketAddr};

use endpoint_tests::{
    http::{VERSIONS, fetch, get},
    machine::{Machine, Said, Server},
    wire::Client,
};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::{Issued, files, issued, machine, secrets, serve};
use endpoint_tests::shown;

const NAME: &str = "shared.example";

/// Signs a new bundle in the machine's folder; gives the certificate in it.
fn sign(machine: &Machine) -> Issued {
    let made = issued(&[NAME], 2024, 2099);
    fs::write(machine.file("cert.pem"), &made.chain).unwrap();
    fs::write(machine.file("key.pem"), &made.key).unwrap();
    let path = |name: &str| machine.file(name).to_str().unwrap().to_owned();
    let (cert, key, signer) = (path("cert.pem"), path("key.pem"), path("signer/identity.key"));
    let words = ["bundle", "sign", "--cert", &cert, "--key", &key, "--signer", &signer];
    let said = machine.run(&[&words[..], &["--out", &path("site.bundle")]].concat());
    assert_eq!(said.code(), 0, "{said:?}");
    made
}

/// A machine with a signer; its site is served from a bundle.
fn scene(listen: &str) -> (Machine, Issued) {
    let machine = machine("");
    let signer = machine.file("signer");
    let mut command = machine.command(&["key", "new", "--json"]);
    command.env("ENDPOINT_STATE", &signer);
    // The last `--state` holds; the machine's own stands first.
    command.args(["--state", signer.to_str().unwrap()]);
    let made = endpoint_tests::machine::Running::start(command).end();
    let public = match made.status.success() {
        true => made.objects()[0]["ed25519"].as_str().unwrap().to_owned(),
        false => panic!("{made:?}"),
    };
    let config = format!(
        "listen = [\"{listen}\"]\nloopback_http = \"127.0.0.1:0\"\n[[site]]\nnames = [\"{NAME}\"]\n\
         certificate = {{ bundle = \"site.bundle\", signer = \"{public}\" }}\n"
    );
    fs::write(machine.file("endpoint.toml"), config).unwrap();
    let made = sign(&machine);
    (machine, made)
}

fn address(server: &Server) -> SocketAddr {
    server.address().parse().unwrap()
}

async fn leaf(server: &Server) -> CertificateDer<'static> {
    shown::everywhere(address(server), NAME).await.leaf().clone()
}

fn told(machine: &Machine) -> Value {
    machine.json(&["cert", "info", NAME])
}

fn refused(said: &Said, code: i32, says: &str) {
    assert_eq!(said.code(), code, "{said:?}");
    assert!(said.err.contains("error: ") && said.err.contains(says), "{says}: {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_served_and_replaced_and_what_is_refused_is_told() {
    let (machine, first) = scene("127.0.0.1:0");
    assert_eq!(machine.run(&["config", "check"]).code(), 0);
    let server = serve(&machine);
    assert_eq!(leaf(&server).await, first.leaf);
    let client = Client::new(&[]).wants_x509();
    for version in VERSIONS {
        let answer = fetch(version, address(&server), NAME, &client, get(NAME, "/")).await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{version:?}");
    }
    let info = told(&machine);
    assert_eq!((&info["source"], &info["fallback"]), (&"bundle".into(), &false.into()), "{info}");
    assert!(info["issuer"].as_str().unwrap().starts_with("ed25519:"), "{info}");

    // Touched: the old one stays, and the operator is told by both commands.
    let second = sign(&machine);
    let file = machine.file("site.bundle");
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&file, &bad).unwrap();
    refused(&machine.run(&["cert", "renew", NAME]), 1, "the signature does not hold");
    let info = told(&machine);
    assert!(info["last_error"].as_str().unwrap().contains("the signature does not hold"), "{info}");
    let text = machine.run(&["cert", "info", NAME]).out;
    assert!(text.contains("last error") && text.contains("does not hold"), "{text}");
    assert_eq!(leaf(&server).await, first.leaf);

    fs::write(&file, &good).unwrap();
    server.running.until("certificate deployed");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while leaf(&server).await != second.leaf {
        assert!(std::time::Instant::now() < deadline, "{:?}", server.running);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(told(&machine)["last_error"], Value::Null);

    // Put back: known from before.
    sign(&machine);
    let _ = machine.run(&["cert", "renew", NAME]);
    let newest = leaf(&server).await;
    fs::write(&file, &good).unwrap();
    let said = machine.run(&["cert", "renew", NAME]);
    assert_eq!(said.code(), 1, "{said:?}");
    assert_eq!(leaf(&server).await, newest);

    let logs = server.running.out() + &server.running.err();
    for key in [&first.key, &second.key] {
        for line in secrets(key) {
            assert!(!logs.contains(line) && !text.contains(line), "a key in the log");
        }
    }
    server.running.signal(rustix::process::Signal::TERM);
    let said = server.running.end();
    assert_eq!(said.code(), 0, "{said:?}");
    let left = files(&machine.state());
    assert!(left.iter().all(|name| !name.contains("tmp") && !name.contains('~')), "{left:?}");
}

#[test]
fn beyond_loopback_it_is_a_fault_of_the_configuration_and_of_the_command_line() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let (machine, _) = scene(listen);
        for words in [&["config", "check"][..], &["serve"]] {
            let said = machine.run(words);
            refused(&said, 2, "may be served on loopback only");
            assert!(said.err.contains("endpoint.toml:5:"), "{said:?}");
        }
    }
    let (machine, _) = scene("127.0.0.1:0");
    let said = machine.run(&["serve", "--listen", "0.0.0.0:0"]);
    refused(&said, 2, "may be served on loopback only");
    assert!(said.err.contains(NAME), "{said:?}");
}
