//! Which bundles does a source take, from files and from web servers that may be anybody's?

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    super::tests::{at, signed, signer},
    *,
};
use crate::certs::{
    ask::Web,
    private_file::{self, Secrecy},
};

const NOW: &str = "2026-11-22T12:00:00Z";

/// A folder with a bundle, and the state beside it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn bundle(&self) -> PathBuf {
        self.0.path().join("a.bundle")
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn put(&self, bundle: &SignedBundle) {
        private_file::write(&self.bundle(), bundle.document(), Secrecy::Private).unwrap();
        let signature = super::super::signature_path(&self.bundle());
        private_file::write(&signature, bundle.signature().as_bytes(), Secrecy::Public).unwrap();
    }

    /// A process that has just begun.
    fn source(&self) -> BundleSource {
        let location = crate::config::BundleLocation::File(self.bundle());
        let bundle = Bundle { location, signer: signer().public_key() };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let names = ["a.example".to_owned()];
        BundleSource::new(&bundle, &names, Some(&self.state()), provider).unwrap()
    }

    fn seen(&self) -> PathBuf {
        let mut found = fs::read_dir(self.state()).unwrap();
        let path = found.next().unwrap().unwrap().path();
        assert!(found.next().is_none(), "nothing is left beside it");
        path
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// The fault of a look that must find nothing.
fn fault(looked: &Looked) -> &str {
    assert!(looked.fresh.is_none());
    looked.fault.as_deref().unwrap()
}

#[tokio::test]
async fn gives_a_bundle_once_and_then_only_a_newer_one() {
    let folder = Folder::new();
    folder.put(&signed(5, &["a.example"]));
    let source = folder.source();
    assert!(source.changed());
    let first = source.kept(at(NOW)).await;
    assert!(first.fresh.is_some() && first.fault.is_none());
    let again = first.again.unwrap();
    assert!(again >= at("2026-11-22T13:00:00Z") && again <= at("2026-11-22T13:06:00Z"));
    assert!(!source.changed());
    assert!(source.look(at(NOW), true).await.fresh.is_none());
    folder.put(&signed(6, &["a.example"]));
    assert!(source.changed());
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    let standing = source.standing();
    assert_eq!(standing.issuer, Some(signer().public_key().to_string()));
    assert!(standing.last_error.is_none() && standing.next.is_some());
    // Another process serves it too: what it has seen does not stand in its way.
    assert!(folder.source().kept(at(NOW)).await.fresh.is_some());
}

#[tokio::test]
async fn refuses_an_older_one_and_another_of_the_same_number_also_after_a_restart() {
    let folder = Folder::new();
    let (old, other) = (signed(5, &["a.example"]), signed(6, &["a.example"]));
    folder.put(&signed(6, &["a.example"]));
    let source = folder.source();
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    for (bundle, text) in [(&old, "lower than 6"), (&other, "another content")] {
        folder.put(bundle);
        let looked = source.look(at(NOW), true).await;
        assert!(fault(&looked).contains(text), "{looked:?}");
        let looked = folder.source().kept(at(NOW)).await;
        assert!(fault(&looked).contains(text), "{looked:?}");
    }
    assert!(source.standing().last_error.is_some());
    assert_eq!(folder.seen().metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn remembers_what_it_saw_when_the_record_is_taken_away_while_it_runs() {
    let folder = Folder::new();
    folder.put(&signed(6, &["a.example"]));
    let source = folder.source();
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    fs::remove_file(folder.seen()).unwrap();
    folder.put(&signed(5, &["a.example"]));
    assert!(fault(&source.look(at(NOW), false).await).contains("lower than 6"));
}

#[tokio::test]
async fn remembers_what_it_saw_when_an_older_record_is_put_back_while_it_runs() {
    let folder = Folder::new();
    folder.put(&signed(4, &["a.example"]));
    let source = folder.source();
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    let old = fs::read(folder.seen()).unwrap();
    let newest = signed(6, &["a.example"]);
    folder.put(&newest);
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    fs::write(folder.seen(), old).unwrap();
    folder.put(&signed(5, &["a.example"]));
    assert!(fault(&source.look(at(NOW), true).await).contains("lower than 6"));
    // The next look at the newest one mends the record, so that a restart knows it too.
    folder.put(&newest);
    assert_eq!(source.look(at(NOW), true).await.fault, None);
    folder.put(&signed(5, &["a.example"]));
    assert!(fault(&folder.source().kept(at(NOW)).await).contains("lower than 6"));
}

#[tokio::test]
async fn goes_on_with_no_bundle_when_the_record_cannot_be_trusted() {
    let folder = Folder::new();
    folder.put(&signed(6, &["a.example"]));
    assert!(folder.source().look(at(NOW), false).await.fresh.is_some());
    let path = folder.seen();
    let good = fs::read_to_string(&path).unwrap();
    let damaged =
        ["", "v1 6", "v2 6 00\n", &good[1..], &good.replace(" 6 ", " 06 "), &good.repeat(2)];
    for content in damaged {
        fs::write(&path, content).unwrap();
        let looked = folder.source().look(at(NOW), false).await;
        assert!(fault(&looked).contains("is damaged"), "{content:?}: {looked:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    fs::write(&path, &good).unwrap();
    mode(&path, 0o644);
    assert!(fault(&folder.source().look(at(NOW), false).await).contains("has mode 0644"));
    mode(&path, 0o600);
    let away = folder.0.path().join("away");
    fs::rename(&path, &away).unwrap();
    symlink(&away, &path).unwrap();
    assert!(fault(&folder.source().look(at(NOW), false).await).contains("is a link"));
}

#[tokio::test]
async fn serves_nothing_that_it_cannot_remember() {
    let folder = Folder::new();
    folder.put(&signed(6, &["a.example"]));
    fs::write(folder.state(), "a file where the folder should be").unwrap();
    let looked = folder.source().look(at(NOW), false).await;
    assert!(looked.fresh.is_none() && looked.fault.is_some(), "{looked:?}");
}

#[tokio::test]
async fn refuses_links_loose_modes_and_long_files() {
    let folder = Folder::new();
    folder.put(&signed(6, &["a.example"]));
    let source = folder.source();
    let path = folder.bundle();
    for loose in [0o640, 0o604, 0o644, 0o660] {
        mode(&path, loose);
        assert!(fault(&source.look(at(NOW), false).await).contains("chmod 600"));
    }
    mode(&path, 0o600);
    let away = folder.0.path().join("away");
    fs::rename(&path, &away).unwrap();
    assert!(fault(&source.look(at(NOW), false).await).contains("does not exist"));
    symlink(&away, &path).unwrap();
    assert!(fault(&source.look(at(NOW), false).await).contains("is a link"));
    fs::remove_file(&path).unwrap();
    private_file::write(&path, &vec![b'a'; 1024 * 1024 + 1], Secrecy::Private).unwrap();
    assert!(fault(&source.look(at(NOW), false).await).contains("at most 1048576"));
    let signature = super::super::signature_path(&path);
    fs::remove_file(&signature).unwrap();
    symlink(&away, &signature).unwrap();
    assert!(fault(&source.look(at(NOW), false).await).contains("is a link"));
}

#[tokio::test]
async fn says_which_name_is_not_covered_and_that_it_ended() {
    let folder = Folder::new();
    folder.put(&signed(6, &["b.example"]));
    let source = folder.source();
    let looked = source.look(at(NOW), false).await;
    assert!(fault(&looked).contains("not good for `a.example`; it has b.example"), "{looked:?}");
    // What was refused was not remembered.
    folder.put(&signed(5, &["a.example"]));
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    folder.put(&signed(7, &["a.example"]));
    let looked = source.look(at("2027-01-01T00:00:01Z"), false).await;
    assert!(fault(&looked).contains("ended on 2027-01-01T00:00:00Z"), "{looked:?}");
}

#[tokio::test]
async fn waits_longer_from_one_failure_to_the_next_and_not_after_a_success() {
    let folder = Folder::new();
    let source = folder.source();
    let now = at(NOW);
    let mut before = 0;
    for least in [5, 15, 60, 300, 900, 3600, 3600] {
        let again = source.look(now, false).await.again.unwrap();
        let pause = again.duration_since(now).as_secs();
        assert!(pause >= least && pause <= least + least / 10 + 1, "{pause}");
        assert!(pause >= before * 9 / 10);
        before = pause;
    }
    folder.put(&signed(6, &["a.example"]));
    assert!(source.look(now, false).await.fresh.is_some());
    fs::remove_file(folder.bundle()).unwrap();
    let again = source.look(now, false).await.again.unwrap();
    assert!(again.duration_since(now).as_secs() <= 6);
}

/// A web server that gives these answers in turn, each whole, and then closes.
struct Server {
    url: String,
    web: Web,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut answers: VecDeque<Vec<u8>> = answers.into_iter().collect();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/a.bundle", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    request.push(byte);
                }
                let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
                heard.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
                let answer = answers.pop_front().unwrap_or_default();
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        let web = Web::new(Some(made.cert.pem().as_bytes()), provider, 1024 * 1024).unwrap();
        Self { url, web, asked, task }
    }

    fn source(&self, folder: &Folder) -> BundleSource {
        let place = Place::web(&self.url, self.web.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let names = ["a.example".to_owned()];
        BundleSource::of(place, signer().public_key(), &names, Some(&folder.state()), provider)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn takes_a_bundle_over_https() {
    let bundle = signed(6, &["a.example"]);
    let signature = ok(bundle.signature().as_bytes());
    let server = Server::start([signature.clone(), ok(bundle.document()), signature]).await;
    let folder = Folder::new();
    let source = server.source(&folder);
    let kept = source.kept(at(NOW)).await;
    assert!(kept.fresh.is_none() && kept.fault.is_none() && kept.again == Some(at(NOW)));
    let looked = source.look(at(NOW), false).await;
    assert!(looked.fresh.is_some(), "{looked:?}");
    let (bundle, signature) = ("GET /a.bundle HTTP/1.1", "GET /a.bundle.sig HTTP/1.1");
    assert_eq!(server.asked(), [signature, bundle, signature]);
    assert!(!source.changed());
}

#[tokio::test]
async fn never_mixes_a_bundle_with_the_signature_of_another() {
    let (old, new) = (signed(6, &["a.example"]), signed(7, &["a.example"]));
    let [old_sig, new_sig] = [&old, &new].map(|bundle| ok(bundle.signature().as_bytes()));
    let [old_doc, new_doc] = [&old, &new].map(|bundle| ok(bundle.document()));
    let rounds = [
        // Replaced between the first read and the last; then only the bundle is there, not yet its
        // signature; then both.
        [old_sig.clone(), new_doc.clone(), new_sig.clone()],
        [old_sig.clone(), new_doc.clone(), old_sig.clone()],
        [new_sig.clone(), new_doc, new_sig],
    ];
    let folder = Folder::new();
    let server = Server::start(rounds.into_iter().flatten()).await;
    let source = server.source(&folder);
    let looked = source.look(at(NOW), false).await;
    assert!(looked.fresh.is_some(), "{looked:?}");
    assert_eq!(server.asked().len(), 9);
    assert!(fs::read_to_string(folder.seen()).unwrap().starts_with("v1 7 "));

    // Never at rest: nothing is taken, and it ends.
    let folder = Folder::new();
    let torn = [old_sig, old_doc, ok(new.signature().as_bytes())];
    let server = Server::start(torn.iter().cycle().take(12).cloned()).await;
    let looked = server.source(&folder).look(at(NOW), false).await;
    assert!(fault(&looked).contains("again and again"), "{looked:?}");
    assert!(!folder.state().exists());
}

#[tokio::test]
async fn refuses_what_a_bad_web_server_says() {
    let bundle = signed(6, &["a.example"]);
    let signature = ok(bundle.signature().as_bytes());
    let split = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
    let lying = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 9\r\n\r\nabcdefghi";
    let cases: [(&str, Vec<Vec<u8>>); 7] = [
        ("status 404", vec![b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_vec()]),
        (
            "status 302",
            vec![b"HTTP/1.1 302 Go\r\nlocation: https://x/\r\ncontent-length: 0\r\n\r\n".to_vec()],
        ),
        ("a signature 158", vec![ok(&[b'a'; 4096])]),
        ("longer than", vec![signature.clone(), ok(&vec![b'a'; 1024 * 1024 + 1])]),
        ("no whole answer", vec![lying.to_vec()]),
        ("no whole answer", vec![b"garbage\r\n\r\n".to_vec()]),
        ("signature", (0..12).map(|_| split.to_vec()).collect()),
    ];
    for (text, answers) in cases {
        let folder = Folder::new();
        let server = Server::start(answers).await;
        let looked = server.source(&folder).look(at(NOW), false).await;
        assert!(fault(&looked).contains(text), "{text}: {looked:?}");
    }
}

#[tokio::test]
async fn takes_no_url_but_https() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let web = || Web::new(Some(rcgen_root().as_bytes()), Arc::clone(&provider), 9).unwrap();
    for url in [
        "http://a.example/b",
        "ftp://a.example/b",
        "https://",
        "https:///b",
        "https://a.example/b\r\nx: y",
        "https://a.example/b c",
        "https://a.example/b#c",
    ] {
        let error = Place::web(url, web()).unwrap_err();
        assert!(!error.contains('\r'), "{error}");
    }
    let Ok(Place::Url { signature, .. }) = Place::web("https://a.example/b?v=1", web()) else {
        panic!("a good URL")
    };
    assert_eq!(signature, "https://a.example/b.sig?v=1");
}

fn rcgen_root() -> String {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem()
}
