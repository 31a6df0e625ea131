//! A site whose certificate file has ended, is yet to begin or does not fit its key keeps no other from being
//! served, through the real program.

use std::fs;

use endpoint_tests::{
    machine::{Machine, Server},
    shown,
};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::{Issued, issued, machine, serve};

const ODD: &str = "b.localhost";

/// A machine with two sites; what the files of the second hold is given.
fn scene(cert: &str, key: &str) -> Machine {
    let machine = machine(
        "listen = [\"127.0.0.1:0\"]\nloopback_http = \"127.0.0.1:0\"\n[[site]]\nnames = [\"a.localhost\"]\n\
         [[site]]\nnames = [\"b.localhost\"]\ncertificate = { cert = \"c.pem\", key = \"k.pem\" }\n",
    );
    fs::write(machine.file("c.pem"), cert).unwrap();
    fs::write(machine.file("k.pem"), key).unwrap();
    machine
}

async fn leaf(server: &Server, name: &str) -> CertificateDer<'static> {
    let address = server.address().parse().unwrap();
    shown::everywhere(address, name).await.leaf().clone()
}

fn told(machine: &Machine) -> Value {
    machine.json(&["cert", "info", ODD])
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_certificate_file_keeps_no_other_site_and_no_peer_from_being_served() {
    let (ended, early) = (issued(&[ODD], 2019, 2020), issued(&[ODD], 2098, 2099));
    let (whole, other) = (issued(&[ODD], 2024, 2099), issued(&[ODD], 2024, 2099));
    let elsewhere = issued(&["c.localhost"], 2024, 2099);
    let cut = &whole.chain[..whole.chain.len() / 2];
    // Served itself, or a self-signed one in its place.
    let cases: [(&str, &str, &str, &str, Option<&Issued>); 5] = [
        (&ended.chain, &ended.key, "ended on 2020", "out-of-date", Some(&ended)),
        (&early.chain, &early.key, "begins on 2098", "out-of-date", Some(&early)),
        (&whole.chain, &other.key, "does not belong", "damaged", None),
        (cut, &whole.key, "c.pem", "damaged", None),
        (&elsewhere.chain, &elsewhere.key, "not valid for `b.localhost`", "damaged", None),
    ];
    for (cert, key, says, condition, itself) in cases {
        let machine = scene(cert, key);
        // A check warns and passes: what starts is no fault.
        let said = machine.run(&["config", "check"]);
        assert!(said.code() == 0 && said.err.contains(says), "{said:?}");
        let server = serve(&machine);
        leaf(&server, "a.localhost").await;
        let shown = leaf(&server, ODD).await;
        assert_eq!(itself.is_some_and(|of| of.leaf == shown), itself.is_some(), "{says}");
        let info = told(&machine);
        assert_eq!(
            (&info["condition"], &info["fallback"]),
            (&condition.into(), &itself.is_none().into())
        );
        assert!(info["last_error"].as_str().unwrap().contains(says), "{info:#}");
        // Put right, it is served without a restart.
        fs::write(machine.file("k.pem"), &whole.key).unwrap();
        fs::write(machine.file("c.pem"), &whole.chain).unwrap();
        for _ in 0..100 {
            if told(&machine)["condition"] == "whole" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(
            (&told(&machine)["condition"], leaf(&server, ODD).await),
            (&"whole".into(), whole.leaf.clone())
        );
    }
    // A path that leads nowhere is a fault of the configuration.
    let machine = scene(&whole.chain, &whole.key);
    fs::remove_file(machine.file("k.pem")).unwrap();
    for words in [&["serve"][..], &["config", "check"]] {
        let said = machine.run(words);
        assert!(said.code() == 2 && said.err.contains("k.pem cannot be read"), "{said:?}");
    }
    println!(
        "acceptance: certificate files that have ended, begin later, were cut or fit neither key nor name: 5 of 5 \
         start, the other site is served, the fault is told, and put right without a restart"
    );
}
