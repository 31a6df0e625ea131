//! Do the other sources of certificates hold: signed bundles, tailscaled, and what OCSP responders say?
//!
//! Through the library and through the real program. The daemon and the responder are stand-ins; the
//! responder's answers are made by OpenSSL.

mod bundle;
mod bundle_program;
mod held_store;
mod ocsp;
mod ocsp_program;
mod odd_files;
mod responder;
mod tailscale;

use std::{fs, path::Path};

use axum::{Router, routing::get};
use endpoint_core::{
    Access, Clock, Endpoint,
    endpoint::{Builder, CertificateInfo},
};
use endpoint_tests::{
    machine::{Machine, Running, Server},
    node::identity,
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

/// A machine with that configuration.
fn machine(config: &str) -> Machine {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    fs::write(machine.file("endpoint.toml"), config).unwrap();
    machine
}

/// `serve` with nothing but its configuration.
fn serve(machine: &Machine) -> Server {
    let mut running = Running::start(machine.command(&["serve", "--json", "-v"]));
    let line = running.line();
    let ready = line.as_deref().map(serde_json::from_str::<Value>);
    let Some(Ok(ready)) = ready else { panic!("not ready: {line:?}: {:?}", running.end()) };
    Server { running, ready }
}

/// A site on a free port of 127.0.0.1, with that clock; the certificate is still missing.
fn site(clock: &Clock) -> Builder {
    Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .clock(clock.clone())
        .http(Access::Public, Router::new().route("/", get(|| async { "hello" })))
}

/// What an operator sees of the one certificate.
fn info(endpoint: &Endpoint) -> CertificateInfo {
    endpoint.certificates().remove(0)
}

/// A chain of one certificate, and its key.
struct Issued {
    chain: String,
    key: String,
    leaf: CertificateDer<'static>,
}

/// A certificate for these names from the beginning of one year to that of another.
fn issued(names: &[&str], from: i32, until: i32) -> Issued {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    Issued { chain: made.pem(), key: key.serialize_pem(), leaf: made.der().clone() }
}

/// The names of the files in a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The PEM lines of a key that no output may hold.
fn secrets(key: &str) -> Vec<&str> {
    key.lines().filter(|line| !line.starts_with("-----") && line.len() > 20).collect()
}
