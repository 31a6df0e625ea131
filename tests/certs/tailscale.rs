//! tailscaled's certificates through the real program: a stand-in socket that answers well, and in every
//! other way.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use endpoint_tests::machine::{Machine, Server};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::{Issued, issued, machine, secrets, serve};
use endpoint_tests::shown;

const NAME: &str = "node.tail1.ts.net";

/// What the stand-in does when it is asked for the certificate.
#[derive(Clone, Debug)]
enum Does {
    /// Gives these bytes.
    Says(Vec<u8>),
    /// Gives the first half, and hangs up.
    Breaks(Vec<u8>),
    /// Gives nothing until it is told to do something else.
    Waits,
}

/// A daemon that speaks the documented local API, as far as certificates go.
struct Daemon {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    does: Arc<(Mutex<Does>, Condvar)>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn said(status: u16, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn pair(made: &Issued) -> Does {
    Does::Says(said(200, "content-type: text/plain\r\n", &(made.key.clone() + &made.chain)))
}

impl Daemon {
    fn start(does: Does) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("tailscaled.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let does = Arc::new((Mutex::new(does), Condvar::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (shared, end) = (Arc::clone(&does), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut answering = Vec::new();
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, end) = (Arc::clone(&shared), Arc::clone(&end));
                let stream = stream.unwrap();
                answering.push(std::thread::spawn(move || answer(stream, &shared, &end)));
            }
            answering.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Self { _folder: folder, socket, does, ended, thread: Some(thread) }
    }

    fn now(&self, does: Does) {
        *self.does.0.lock().unwrap() = does;
        self.does.1.notify_all();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.does.1.notify_all();
        let _woken = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: UnixStream, does: &(Mutex<Does>, Condvar), ended: &AtomicBool) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    if request.starts_with("GET /localapi/v0/status?peers=false HTTP/1.1\r\n") {
        let status = format!("{{\"BackendState\":\"Running\",\"CertDomains\":[\"{NAME}\"]}}");
        let _ = stream.write_all(&said(200, "", &status));
        return;
    }
    assert!(request.starts_with(&format!("GET /localapi/v0/cert/{NAME}?type=pair")), "{request}");
    let mut now = does.0.lock().unwrap();
    while matches!(*now, Does::Waits) && !ended.load(Ordering::SeqCst) {
        now = does.1.wait(now).unwrap();
    }
    let now = now.clone();
    let _ = match now {
        Does::Says(bytes) => stream.write_all(&bytes),
        Does::Breaks(bytes) => stream.write_all(&bytes[..bytes.len() / 2]),
        Does::Waits => Ok(()),
    };
}

fn scene(does: Does) -> (Daemon, Machine) {
    let daemon = Daemon::start(does);
    let socket = daemon.socket.display();
    let config = format!(
        "listen = [\"127.0.0.1:0\"]\nloopback_http = \"127.0.0.1:0\"\n[[site]]\nnames = [\"{NAME}\"]\n\
         certificate = {{ tailscale = \"{socket}\" }}\n"
    );
    (daemon, machine(&config))
}

async fn leaf(server: &Server) -> CertificateDer<'static> {
    let address: SocketAddr = server.address().parse().unwrap();
    shown::everywhere(address, NAME).await.leaf().clone()
}

fn told(machine: &Machine) -> Value {
    machine.json(&["cert", "info", NAME])
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_what_tailscaled_has_and_keeps_it_whatever_the_daemon_says_later() {
    let first = issued(&[NAME], 2024, 2099);
    let (daemon, machine) = scene(pair(&first));
    assert_eq!(machine.run(&["config", "check"]).code(), 0);
    let server = serve(&machine);
    server.running.until("certificate deployed");
    assert_eq!(leaf(&server).await, first.leaf);
    let info = told(&machine);
    assert_eq!(
        (&info["source"], &info["fallback"]),
        (&"tailscale".into(), &false.into()),
        "{info}"
    );
    assert_eq!(info["next_action"], "ask tailscaled");

    let second = issued(&[NAME], 2024, 2099);
    let other = issued(&["other.ts.net"], 2024, 2099);
    let ended = issued(&[NAME], 2020, 2021);
    let full = |key: &str, chain: &str| Does::Says(said(200, "", &format!("{key}{chain}")));
    let whole = said(200, "", &(second.key.clone() + &second.chain));
    let cases = [
        (Does::Says(said(403, "", "access denied")), "set TS_PERMIT_CERT_UID"),
        (Does::Says(said(429, "retry-after: 60\r\n", "slow down")), "is asked too often"),
        (Does::Says(said(500, "", "broken")), "answered with status 500: broken"),
        (Does::Says(said(200, "", "garbage")), "is no key with its certificate"),
        (Does::Says(b"\x16\x03\x01 no http at all".to_vec()), "gave no answer"),
        (Does::Breaks(whole), "gave no answer"),
        (full(&first.key, &second.chain), "the key does not belong to the certificate"),
        (full(&other.key, &other.chain), "the certificate is for another name"),
        (full(&ended.key, &ended.chain), "it ended on 2021-01-01"),
    ];
    for (does, says) in cases {
        daemon.now(does);
        let renewed = machine.run(&["cert", "renew", NAME]);
        assert_eq!(renewed.code(), 1, "{says}: {renewed:?}");
        assert!(renewed.err.contains(says), "{says}: {renewed:?}");
        let info = told(&machine);
        assert!(info["last_error"].as_str().unwrap().contains(says), "{says}: {info}");
        assert_eq!(info["fallback"], false, "{says}");
        assert_eq!(leaf(&server).await, first.leaf, "{says}");
    }

    // A daemon that takes its time holds up no handshake, and what it gives at last is taken.
    daemon.now(Does::Waits);
    let mut command = machine.command(&["cert", "renew", NAME]);
    command.arg("--json");
    let mut renewing = endpoint_tests::machine::Running::start(command);
    for _ in 0..3 {
        assert_eq!(leaf(&server).await, first.leaf);
    }
    assert!(renewing.runs(), "{renewing:?}");
    daemon.now(pair(&second));
    let renewed = renewing.end();
    assert_eq!(renewed.code(), 0, "{renewed:?}");
    assert_eq!(leaf(&server).await, second.leaf);
    assert_eq!(told(&machine)["last_error"], Value::Null);

    let logs = server.running.out() + &server.running.err();
    for made in [&first, &second, &other, &ended] {
        assert!(secrets(&made.key).iter().all(|line| !logs.contains(line)), "a key in the log");
    }
    // Tailscaled keeps it; here nothing is.
    for file in crate::files(&machine.state()) {
        let bytes = fs::read(machine.file(&file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(secrets(&first.key).iter().all(|line| !text.contains(line)), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_daemon_a_certificate_of_its_own_is_served_and_says_so() {
    let (daemon, machine) = scene(Does::Waits);
    let socket = daemon.socket.clone();
    drop(daemon);
    fs::remove_file(&socket).unwrap_or_default();
    let server = serve(&machine);
    server.running.until("certificate not renewed");
    let info = told(&machine);
    assert_eq!(info["fallback"], true, "{info}");
    assert!(info["last_error"].as_str().unwrap().contains("is tailscaled running?"), "{info}");
    assert!(!leaf(&server).await.is_empty());
}
