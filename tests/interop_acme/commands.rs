//! `endpoint cert …` beside a running endpoint.

use endpoint_tests::{
    faulty_ca::{Fault, FaultyCa, Route},
    machine::string,
    pebble::{Pebble, Settings},
};
use serde_json::Value;

use crate::site::{self, issued, until};

fn config(pebble: &Pebble, ca: &FaultyCa, settings: &Settings) -> String {
    format!(
        "listen = [\"127.0.0.1:{}\"]\nloopback_http = \"127.0.0.1:0\"\n\
         [acme]\ndirectory = \"{}\"\nca_root = \"{}\"\n\
         [[site]]\nnames = [\"one.example\"]\ncertificate = \"auto\"\n\
         [[site]]\nnames = [\"localhost\"]\n",
        settings.tls_port,
        ca.directory(),
        pebble.server_root().display(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_listed_told_renewed_and_exported() {
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    let ca = FaultyCa::before(&pebble).await;
    let machine = site::machine(&config(&pebble, &ca, &settings));
    let server = site::serve(&machine);
    let one = |certificate: &Value| certificate["name"] != "one.example" || issued(certificate);
    let list = until(&machine, "a certificate", one).await;
    let names: Vec<String> = list.iter().map(|item| string(item, "name")).collect();
    assert_eq!(names, ["one.example", "localhost"]);
    assert_eq!(list[1]["source"], "self-signed");

    let info = machine.json(&["cert", "info", "One.Example."]);
    assert_eq!(string(&info, "issuer"), ca.directory());
    assert_eq!(string(&info, "engine"), "instant-acme");
    assert!(info["engine_reason"].is_string() && info["next_action"].is_string(), "{info:#}");
    let words = machine.run(&["cert", "info", "one.example"]);
    assert!(words.out.contains("instant-acme: "), "{words:?}");
    let unknown = machine.run(&["cert", "info", "four.example"]);
    assert_eq!(unknown.code(), 1);
    assert!(unknown.err.contains("one.example"), "{unknown:?}");

    let chain = machine.run(&["cert", "export", "one.example"]);
    assert_eq!(chain.code(), 0, "{chain:?}");
    assert!(chain.out.starts_with("-----BEGIN CERTIFICATE-----"), "{chain:?}");
    assert!(!chain.out.contains("PRIVATE KEY"), "{chain:?}");
    let own = machine.run(&["cert", "export", "localhost"]);
    assert!(own.out.starts_with("-----BEGIN CERTIFICATE-----"), "{own:?}");

    // Renewed on request, and served at once.
    let address = server.address().parse().unwrap();
    let before = site::shown(address, "one.example").await;
    let renewed = machine.run(&["cert", "renew", "one.example", "--json"]);
    assert_eq!(renewed.code(), 0, "{renewed:?}");
    assert_ne!(site::shown(address, "one.example").await, before);
    let own = machine.run(&["cert", "renew", "localhost"]);
    assert_eq!(own.code(), 1, "{own:?}");
    let unknown = machine.run(&["cert", "renew", "four.example"]);
    assert_eq!(unknown.code(), 1, "{unknown:?}");
    assert!(unknown.err.contains("one.example"), "{unknown:?}");

    // What no site names stands in the list too.
    let key = rcgen::KeyPair::generate().unwrap();
    let made =
        rcgen::CertificateParams::new(["more.example", "too.example"].map(str::to_owned)).unwrap();
    let (cert_file, key_file) = (machine.file("more.pem"), machine.file("more.key"));
    std::fs::write(&cert_file, made.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let (cert, key) = (cert_file.to_str().unwrap(), key_file.to_str().unwrap());
    let kept = machine.run(&["cert", "import", "--cert", cert, "--key", key]);
    assert_eq!(kept.code(), 0, "{kept:?}");
    let more = machine.json(&["cert", "info", "more.example"]);
    assert_eq!(
        (string(&more, "source"), string(&more, "served")),
        ("import".into(), "on-request".into())
    );
    assert_eq!(string(&machine.json(&["cert", "info", "one.example"]), "served"), "yes");
    let listed = machine.run(&["cert", "list"]);
    assert_eq!(listed.out.matches("more.example too.example").count(), 1, "{listed:?}");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_ends_renew_with_the_time_of_the_next_try() {
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    let ca = FaultyCa::before(&pebble).await;
    let machine = site::machine(&config(&pebble, &ca, &settings));
    let server = site::serve(&machine);
    let one = |certificate: &Value| certificate["name"] != "one.example" || issued(certificate);
    until(&machine, "a certificate", one).await;
    ca.fail(Route::Finalize, Fault::Problem(403, "rejectedIdentifier"), None);
    let mut last = None;
    for _ in 0..6 {
        let said = machine.run(&["cert", "renew", "one.example"]);
        assert_eq!(said.code(), 1, "{said:?}");
        last = Some(said);
    }
    let last = last.unwrap();
    // RFC 3339, as `cert info` gives it.
    assert!(
        last.err.contains("budget") && last.err.contains("T") && last.err.contains("Z"),
        "{last:?}"
    );
    assert!(ca.calls(Route::Finalize) <= 1 + 4, "{}", ca.calls(Route::Finalize));
    // The certificate before is served all the while.
    assert!(issued(&machine.json(&["cert", "info", "one.example"])));
    drop(server);
}
