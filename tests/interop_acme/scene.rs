//! A program with a certificate authority of its own, behind a proxy that errs as it is told.

use std::{net::SocketAddr, path::Path, time::Duration};

use endpoint_tests::{
    faulty_ca::FaultyCa,
    machine::{Machine, Said, Server, string},
    pebble::{Pebble, Settings},
    wire::{self, Client},
};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::time::Instant;

use crate::site;

/// Both clients of authorities, as `engine` names them.
pub const ENGINES: [&str; 2] = ["rustls-acme", "instant-acme"];

/// Longest time until something has come about that needs an authority's deadline and a pause.
const PATIENCE: Duration = Duration::from_secs(120);

/// The authority, the proxy before it, and a machine whose configuration leads there.
pub struct Scene {
    pub pebble: Pebble,
    pub ca: FaultyCa,
    pub machine: Machine,
}

impl Scene {
    /// One for these names; `acme`: more lines of `[acme]`.
    pub async fn new(settings: Settings, names: &[&str], acme: &str) -> Self {
        let pebble = Pebble::start(settings.clone()).await;
        let ca = FaultyCa::before(&pebble).await;
        let text = config(&settings, &pebble.server_root(), &ca.directory(), names, acme);
        Self { pebble, ca, machine: site::machine(&text) }
    }

    /// One for these names, by that client.
    pub async fn by(engine: &str, names: &[&str]) -> Self {
        Self::new(Settings::default(), names, &format!("engine = \"{engine}\"\n")).await
    }

    pub fn serve(&self) -> Server {
        site::serve(&self.machine)
    }

    /// `cert info` as an object.
    pub fn info(&self, name: &str) -> Value {
        self.machine.json(&["cert", "info", name])
    }

    /// `cert info` as people read it.
    pub fn words(&self, name: &str) -> String {
        let said = self.machine.run(&["cert", "info", name]);
        assert_eq!(said.code(), 0, "{said:?}");
        said.out
    }

    pub fn renew(&self, name: &str) -> Said {
        self.machine.run(&["cert", "renew", name])
    }

    /// Waits until what `cert info` says fits.
    pub async fn until(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let ends = Instant::now() + PATIENCE;
        loop {
            let info = self.info(name);
            if fits(&info) {
                return info;
            }
            assert!(Instant::now() < ends, "waited in vain: {what}: {info:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until that name has a certificate of the authority.
    pub async fn issued(&self, name: &str) -> Value {
        self.until(name, "a certificate", site::issued).await
    }
}

/// A case that is yet to run.
pub type Case = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs cases at once, each with a runtime of its own: they mostly wait, some of them for processes.
pub fn together(cases: impl IntoIterator<Item = Case>) {
    let run = |case: Case| move || tokio::runtime::Runtime::new().unwrap().block_on(case);
    let threads: Vec<_> = cases.into_iter().map(|case| std::thread::spawn(run(case))).collect();
    for thread in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Runs a case with both clients at once.
pub fn with_both<F: Future<Output = ()> + Send + 'static>(case: impl Fn(&'static str) -> F) {
    together(ENGINES.map(|engine| Box::pin(case(engine)) as Case));
}

/// The configuration of a program that obtains these names there.
pub fn config(
    settings: &Settings,
    root: &Path,
    directory: &str,
    names: &[&str],
    acme: &str,
) -> String {
    let site = |name: &&str| format!("[[site]]\nnames = [\"{name}\"]\ncertificate = \"auto\"\n");
    format!(
        "listen = [\"127.0.0.1:{}\"]\nloopback_http = \"127.0.0.1:0\"\n\
         [acme]\ndirectory = \"{directory}\"\nca_root = \"{}\"\n{acme}{}",
        settings.tls_port,
        root.display(),
        names.iter().map(site).collect::<String>()
    )
}

/// The leaf that is shown under a name, over QUIC and TCP alike.
pub async fn leaf(server: &Server, name: &str) -> CertificateDer<'static> {
    let address: SocketAddr = server.address().parse().unwrap();
    let tcp = site::shown(address, name).await.swap_remove(0);
    let socket = wire::socket();
    let connection = Client::new(&[b"h3"]).wants_x509().dial(&socket, address, name).await.unwrap();
    let quic = connection.peer_identity().unwrap();
    let quic = quic.downcast::<Vec<CertificateDer<'static>>>().unwrap().swap_remove(0);
    assert_eq!(tcp, quic, "{name} over TCP and QUIC");
    tcp
}

/// What went wrong last, or nothing.
pub fn fault(info: &Value) -> &str {
    info["last_error"].as_str().unwrap_or_default()
}

/// A certificate of our own stands in, the fault is told, and when it goes on.
pub fn stands_in(info: &Value) -> bool {
    info["fallback"] == true && !fault(info).is_empty() && info["next_at"].is_string()
}

/// Whether the text that people read names these.
pub fn names_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// The time, as the program sees it.
pub fn now() -> jiff::Timestamp {
    endpoint_core::Clock::system().now()
}

/// A time in an object.
pub fn time(object: &Value, field: &str) -> jiff::Timestamp {
    string(object, field).parse().unwrap()
}

/// Ends a server, and gives what it wrote.
pub fn ended(server: Server) -> Said {
    server.running.signal(rustix::process::Signal::TERM);
    let mut running = server.running;
    running.until_end();
    running.end()
}
