//! The program with an authority: its configuration, what it says about certificates, and what it shows.

use std::{net::SocketAddr, time::Duration};

use endpoint_tests::machine::{Machine, Running, Server};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::time::Instant;

/// Longest time until an authority has done what it is asked for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A machine with that configuration.
pub fn machine(config: &str) -> Machine {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    std::fs::write(machine.file("endpoint.toml"), config).unwrap();
    machine
}

/// `serve` with nothing but its configuration.
pub fn serve(machine: &Machine) -> Server {
    let mut running = Running::start(machine.command(&["serve", "--json", "-v"]));
    let line = running.line();
    let ready = line.as_deref().map(serde_json::from_str::<Value>);
    let Some(Ok(ready)) = ready else { panic!("not ready: {line:?}: {:?}", running.end()) };
    Server { running, ready }
}

/// What `cert list --json` says.
pub fn certificates(machine: &Machine) -> Vec<Value> {
    let said = machine.run(&["cert", "list", "--json"]);
    assert_eq!(said.code(), 0, "{said:?}");
    said.objects()
}

/// Waits until every certificate fits.
pub async fn until(machine: &Machine, what: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let ends = Instant::now() + PATIENCE;
    loop {
        let list = certificates(machine);
        if !list.is_empty() && list.iter().all(&fits) {
            return list;
        }
        assert!(Instant::now() < ends, "waited in vain: {what}: {list:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether what is served was issued by the authority.
pub fn issued(certificate: &Value) -> bool {
    certificate["source"] == "acme" && certificate["fallback"] == false
}

/// The chain that is shown over TCP under a name.
pub async fn shown(address: SocketAddr, name: &str) -> Vec<CertificateDer<'static>> {
    endpoint_tests::shown::over_tcp(address, name).await.chain
}
