//! Where do the bytes of keys turn up?
//!
//! Every key of a running program is known here, for its store can be opened with its secret; then they are
//! looked for in whatever the program writes, in any form that a careless line could give them.

use std::{
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXUPPER};
use endpoint_core::{
    Vault,
    config::{
        Acme, AcmeDirectory, AcmeIssuer, ExternalAccount, StoreConfig, StoreSecret, TlsIdentity,
    },
    store::{self, Kind},
};
use endpoint_tests::{
    machine::{Machine, Running, Server},
    pebble::Settings,
};

use crate::{
    guard::page,
    scene::{self, Scene, leaf},
    site,
};

const NAMES: [&str; 2] = ["one.example", "two.example"];

/// Everything that gives a secret away.
struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    /// Raw, as hex, as base64 at any place of a longer text, and as a list of numbers.
    fn of(secrets: &[(String, Vec<u8>)]) -> Self {
        let mut all = Vec::new();
        for (name, secret) in secrets {
            assert!(secret.len() >= 32, "{name}");
            let mut add = |form: &str, bytes: Vec<u8>| all.push((format!("{name}, {form}"), bytes));
            add("raw", secret.clone());
            add("hex", HEXLOWER.encode(secret).into_bytes());
            add("HEX", HEXUPPER.encode(secret).into_bytes());
            for before in 0..3 {
                let whole: &[u8] = &secret[before..];
                let whole = &whole[..whole.len() / 3 * 3];
                let base64 = |encoding: &Encoding| encoding.encode(whole).into_bytes();
                add("base64", base64(&BASE64_NOPAD));
                add("base64url", base64(&BASE64URL_NOPAD));
            }
            let listed = format!("{:?}", &secret[..16]);
            add("list", listed.trim_matches(['[', ']']).as_bytes().to_vec());
        }
        Self(all)
    }

    /// What of them stands there.
    fn found(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let stands = |needle: &[u8]| {
            let first = needle[0];
            let mut at = 0;
            while let Some(next) = bytes[at..].iter().position(|byte| *byte == first) {
                at += next;
                if bytes[at..].starts_with(needle) {
                    return true;
                }
                at += 1;
            }
            false
        };
        let found = self.0.iter().filter(|(_, needle)| stands(needle));
        found.map(|(name, _)| format!("{place}: {name}")).collect()
    }
}

/// The scalars of the keys on P-256 in a record (RFC 5915 §3).
fn scalars(record: &[u8]) -> Vec<Vec<u8>> {
    let begins = [0x02, 0x01, 0x01, 0x04, 0x20];
    let places = record.windows(37).filter(|part| part.starts_with(&begins));
    places.map(|part| part[5..].to_vec()).collect()
}

fn sealed_in(machine: &Machine, secret: StoreSecret) -> StoreConfig {
    StoreConfig::Sqlite { path: machine.state().join("endpoint.db"), secret }
}

/// All keys that the store holds now, and what seals them.
async fn secrets(machine: &Machine, secret: &str, file: &Path) -> Vec<(String, Vec<u8>)> {
    let config = sealed_in(machine, StoreSecret::File(file.to_owned()));
    let store = store::open(&config).await.unwrap();
    let mut all = vec![
        ("the secret".to_owned(), HEXLOWER.decode(secret.as_bytes()).unwrap()),
        ("the secret's text".to_owned(), secret.as_bytes().to_vec()),
    ];
    for kind in [Kind::Account, Kind::Certificate, Kind::Previous] {
        let mut keys = 0;
        for (id, _) in store.list(kind).await.unwrap() {
            let record = store.read(kind, &id).await.unwrap().unwrap();
            assert!(!format!("{record:?}").contains("bytes"), "{record:?}");
            for scalar in scalars(&record.body) {
                keys += 1;
                all.push((format!("{kind} {id}"), scalar));
            }
        }
        assert!(keys > 0, "no key in any {kind}");
    }
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
    all
}

/// `serve` with the secret in its environment, every word in its log, and dumps allowed as far as it goes.
fn serve(machine: &Machine, secret: &str, folder: &Path) -> Server {
    let inner = machine.command(&["serve", "--json", "-vv"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env("ENDPOINT_SECRET", secret).current_dir(folder).process_group(0);
    command.stdin(std::process::Stdio::null());
    let mut running = Running::start(command);
    let line = running.line();
    let ready = line.as_deref().map(serde_json::from_str);
    let Some(Ok(ready)) = ready else { panic!("not ready: {line:?}: {:?}", running.end()) };
    Server { running, ready }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_key_is_found_anywhere() {
    let scene = Scene::new(Settings::default(), &NAMES, "").await;
    let outside = tempfile::tempdir().unwrap();
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let secret = HEXLOWER.encode(&random);
    let server = serve(&scene.machine, &secret, outside.path());
    let machine = &scene.machine;
    let ask = |words: &[&str]| {
        let said = machine.run(words);
        assert_eq!(said.code(), 0, "{words:?}: {said:?}");
        (words.join(" "), format!("{}{}", said.out, said.err).into_bytes())
    };
    site::until(machine, "certificates", site::issued).await;
    let mut texts = vec![ask(&["cert", "renew", NAMES[0], "--json", "-vv"])];
    leaf(&server, NAMES[0]).await;

    // A child sees everything else of the environment.
    let mut child = machine.command(&["run", "--", "env"]);
    child.env("ENDPOINT_SECRET", &secret).env("OTHER", "seen");
    let said = Running::start(child).end();
    assert_eq!(said.code(), 0, "{said:?}");
    assert!(said.out.contains("OTHER=seen") && !said.out.contains("ENDPOINT_SECRET"), "{said:?}");
    texts.push(("run -- env".to_owned(), said.out.into_bytes()));

    for words in [
        &["cert", "list", "--json"][..],
        &["cert", "list", "-vv"],
        &["cert", "info", NAMES[0], "--json"],
        &["cert", "info", NAMES[0]],
        &["cert", "export", NAMES[0], "--json"],
        &["cert", "export", NAMES[1]],
        &["status", "--json"],
    ] {
        texts.push(ask(words));
    }
    for path in ["/status.json", "/metrics", "/"] {
        texts.push((path.to_owned(), page(&server, path).into_bytes()));
    }
    // Read while it runs: what stands beside the database, too.
    let state = files(&machine.state());
    assert!(state.iter().any(|file| file.ends_with("endpoint.db")), "{state:?}");
    texts.extend(state.iter().map(|file| (file.display().to_string(), fs::read(file).unwrap())));

    // A crash.
    server.running.signal(rustix::process::Signal::ABORT);
    let mut running = server.running;
    running.until_end();
    let said = running.end();
    assert_eq!(said.status.signal(), Some(6), "{said:?}");
    assert!(!said.status.core_dumped(), "a crash leaves a dump with every key in it");
    assert_eq!(files(outside.path()), Vec::<PathBuf>::new(), "a crash leaves nothing");
    texts.push(("stdout".to_owned(), said.out.into_bytes()));
    assert!(said.err.contains("DEBUG") || said.err.contains("TRACE"), "{}", said.err);
    texts.push(("the log".to_owned(), said.err.into_bytes()));

    let file = outside.path().join("secret");
    fs::write(&file, &secret).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let secrets = secrets(machine, &secret, &file).await;
    let needles = Needles::of(&secrets);
    let config = sealed_in(machine, StoreSecret::File(file));
    texts.push(("Debug".to_owned(), debugged(&config, &secret).await.into_bytes()));
    // Whoever looks for needles in vain should have found one once.
    let planted = [b"ab", secrets[2].1.as_slice(), b"c"].concat();
    let planted = BASE64URL_NOPAD.encode(&planted);
    assert!(!needles.found("", planted.as_bytes()).is_empty());

    let size: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let found: Vec<String> =
        texts.iter().flat_map(|(place, text)| needles.found(place, text)).collect();
    assert_eq!(found, Vec::<String>::new());
    println!(
        "acceptance: {} forms of {} secrets in {} texts and files of {size} bytes, and in a crash: 0 found",
        needles.0.len(),
        secrets.len(),
        texts.len()
    );
}

/// What the public types say of themselves.
async fn debugged(config: &StoreConfig, secret: &str) -> String {
    let store = store::open(config).await.unwrap();
    let wrong = StoreConfig::Sqlite {
        path: match config {
            StoreConfig::Sqlite { path, .. } => path.clone(),
            _ => PathBuf::new(),
        },
        secret: StoreSecret::Environment("NO_SUCH_SECRET".to_owned()),
    };
    let refused = store::open(&wrong).await.unwrap_err();
    let vault = Vault::new(store.clone());
    let name = NAMES[0];
    let info = vault.info(name, scene::now()).await.unwrap();
    let record = store.read(Kind::Certificate, name).await.unwrap().unwrap();
    let change = store::Change::Replace(Kind::Account, "x".to_owned(), None, record.body.clone());
    let eab = ExternalAccount { kid: "kid".to_owned(), hmac_file: "file".into() };
    let issuer = AcmeIssuer { eab: Some(eab), ..AcmeIssuer::default() };
    let mut acme = Acme::new(NAMES).store(config.clone()).directory(AcmeDirectory::Staging);
    acme.issuers.push(issuer);
    let identity = TlsIdentity::Acme(acme);
    let text = format!(
        "{store:?} {vault:?} {info:?} {record:?} {change:?} {config:?} {identity:?} {refused:?} {refused}"
    );
    assert!(!text.contains(&secret[..16]), "{text}");
    text
}
