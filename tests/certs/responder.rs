//! An authority with an OCSP responder on loopback. The answers are OpenSSL's; only the HTTP is ours.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    SerialNumber,
};

/// What the responder knows of the leaf.
pub const GOOD: &str = "V\t991231235959Z\t";
/// It was taken back.
pub const REVOKED: &str = "R\t991231235959Z\t260102030405Z,keyCompromise";

/// The authority. Its responder lives as long as it.
pub struct Authority {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    asked: AtomicUsize,
    silent: AtomicBool,
    ended: AtomicBool,
    /// OpenSSL's files have one name each.
    one: Mutex<()>,
}

impl Authority {
    /// A responder that knows the leaf in `state`.
    pub fn start(state: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            folder: folder.path().to_owned(),
            asked: AtomicUsize::new(0),
            silent: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            one: Mutex::new(()),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::SeqCst) {
                    break;
                }
                serving.answer(&stream);
            }
        });
        let authority = Self { folder, shared, address, thread: Some(thread) };
        authority.is(state);
        authority
    }

    /// From now on it says that of the leaf.
    pub fn is(&self, state: &str) {
        let line = format!("{state}\t0701\tunknown\t/CN=leaf\n");
        fs::write(self.folder.path().join("index.txt"), line).unwrap();
    }

    /// From now on it hangs up on everybody.
    pub fn silence(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Issues a leaf for `name` that names this responder, or none; writes chain and key into `folder`.
    pub fn issue(&self, name: &str, names_responder: bool, folder: &Path) -> (PathBuf, PathBuf) {
        let mut ca = named("Authority", &[]);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let own = self.folder.path();
        fs::write(own.join("ca.pem"), ca_cert.pem()).unwrap();
        fs::write(own.join("ca.key"), ca_key.serialize_pem()).unwrap();
        let mut leaf = named("leaf", &[name.to_owned()]);
        leaf.serial_number = Some(SerialNumber::from(vec![7, 1]));
        if names_responder {
            leaf.custom_extensions = vec![access(&format!("http://{}/", self.address))];
        }
        let key = KeyPair::generate().unwrap();
        let made = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        let (chain, secret) = (folder.join("chain.pem"), folder.join("chain.key"));
        fs::write(&chain, made.pem() + &ca_cert.pem()).unwrap();
        fs::write(&secret, key.serialize_pem()).unwrap();
        (chain, secret)
    }

    /// The authority's own certificate.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn answer(&self, stream: &TcpStream) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.silent.load(Ordering::SeqCst) {
            return;
        }
        let Some(request) = request(stream) else { return };
        let _one = self.one.lock().unwrap();
        fs::write(self.folder.join("request.der"), request).unwrap();
        let made = Command::new("openssl")
            .args(["ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem"])
            .args(["-rkey", "ca.key", "-reqin", "request.der", "-respout", "answer.der"])
            .args(["-nmin", "60"])
            .current_dir(&self.folder)
            .output()
            .unwrap();
        let body = fs::read(self.folder.join("answer.der"));
        let body = body.unwrap_or_else(|_| panic!("openssl: {}", made.stderr.escape_ascii()));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/ocsp-response\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        let _ = stream.write_all(&[head.as_bytes(), &body].concat());
    }
}

/// The body of a request.
fn request(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(number) = line.strip_prefix("content-length:") {
            length = number.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn named(common: &str, names: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(names.to_vec()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common);
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params
}

/// The access description of an OCSP responder (RFC 5280 §4.2.2.1) in DER.
fn access(url: &str) -> CustomExtension {
    let wrap = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()], body].concat();
    let oid = wrap(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let entry = wrap(0x30, &[oid, wrap(0x86, url.as_bytes())].concat());
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], wrap(0x30, &entry))
}
