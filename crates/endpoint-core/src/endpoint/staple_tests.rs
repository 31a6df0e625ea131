//! What follows from a revocation? The authority and its responder are OpenSSL's.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair, SerialNumber,
};
use rustls::sign::CertifiedKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    Clock, Endpoint, Identity,
    certs::{
        files::Loaded,
        source::{Looked, Looking, Source, Standing},
        validity::Validity,
    },
};

/// An authority that takes back whatever it issues, and a source that obtains from it.
#[derive(Debug)]
struct TakesBack {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
    responder: Mutex<String>,
    forced: AtomicUsize,
}

impl TakesBack {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = dated(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", &root.pem());
        write("ca.key", &key.serialize_pem());
        let revoked = "R\t991231235959Z\t260102030405Z,keyCompromise\t0701\tunknown\t/CN=leaf\n";
        write("index.txt", revoked);
        let issuer = Issuer::new(params, key);
        Self { folder, issuer, root, responder: Mutex::default(), forced: AtomicUsize::new(0) }
    }

    fn issue(&self) -> Loaded {
        let mut params = dated(&["a.example"]);
        params.serial_number = Some(SerialNumber::from(vec![7, 1]));
        params.custom_extensions = vec![access(&self.responder.lock().unwrap())];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone(), self.root.der().clone()];
        let key = key.serialize_der().try_into().unwrap();
        let certified = CertifiedKey::from_der(chain, key, &crate::tls::provider()).unwrap();
        let validity = Validity::of(leaf.der()).unwrap();
        Loaded { certified: Arc::new(certified), validity }
    }
}

impl Source for TakesBack {
    fn name(&self) -> &'static str {
        "acme"
    }

    fn kept<'a>(&'a self, _now: Timestamp) -> Looking<'a> {
        let fresh = Some(self.issue());
        Box::pin(async move { Looked { fresh, again: None, fault: None } })
    }

    fn look<'a>(&'a self, _now: Timestamp, forced: bool) -> Looking<'a> {
        self.forced.fetch_add(usize::from(forced), Ordering::SeqCst);
        let fresh = forced.then(|| self.issue());
        Box::pin(async move { Looked { fresh, again: None, fault: None } })
    }

    fn standing(&self) -> Standing {
        Standing::default()
    }
}

fn dated(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
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

/// Answers every question from what stands in the folder; `asked` counts them.
async fn respond(listener: TcpListener, folder: &Path, asked: &AtomicUsize) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = vec![0; 4096];
        let mut length = 0;
        let body = loop {
            let Ok(count @ 1..) = stream.read(&mut request[length..]).await else { break None };
            length += count;
            let text = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
            let head = request[..length].windows(4).position(|four| four == b"\r\n\r\n");
            let told = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            if let (Some(head), Some(told)) = (head, told.and_then(|n| n.parse::<usize>().ok()))
                && length == head + 4 + told
            {
                break Some(request[head + 4..length].to_vec());
            }
        };
        let Some(body) = body else { continue };
        fs::write(folder.join("request.der"), body).unwrap();
        let made = Command::new("openssl")
            .args(["ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem"])
            .args(["-rkey", "ca.key", "-reqin", "request.der", "-respout", "answer.der"])
            .args(["-nmin", "600"])
            .current_dir(folder)
            .output()
            .unwrap();
        let answer = fs::read(folder.join("answer.der"));
        let answer = answer.unwrap_or_else(|_| panic!("openssl: {}", made.stderr.escape_ascii()));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        asked.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(&[head.as_bytes(), &answer].concat()).await;
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_replaced_but_not_in_a_circle() {
    let source = Arc::new(TakesBack::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    *source.responder.lock().unwrap() = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (folder, count) = (source.folder.path().to_owned(), Arc::clone(&asked));
    let responder = tokio::spawn(async move { respond(listener, &folder, &count).await });
    let clock = Clock::manual(Clock::system().now());
    let orders = || source.forced.load(Ordering::SeqCst);
    let questions = || asked.load(Ordering::SeqCst);
    let given: Arc<dyn Source> = source.clone();
    let endpoint = Endpoint::builder(Identity::from_seed(&[1; 32]))
        .listen("127.0.0.1:0".parse().unwrap())
        .clock(clock.clone())
        .source("a.example", given)
        .bind()
        .await
        .unwrap();
    // The first is revoked and replaced; the second is revoked too, and stays.
    until("two questions", || questions() == 2).await;
    assert_eq!(orders(), 1);
    let told = || endpoint.certificates().remove(0).last_error;
    until("the reason", || told().is_some_and(|why| why.contains("revoked"))).await;
    // Asked again and again, for most of an hour.
    for minutes in [1, 5, 20] {
        let before = questions();
        clock.advance(minutes * 60);
        until("another question", || questions() > before).await;
    }
    assert_eq!(orders(), 1);
    clock.advance(59 * 60);
    until("another order", || orders() == 2).await;
    endpoint.shutdown().await;
    responder.abort();
}
