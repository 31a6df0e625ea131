//! Does the store survive what disks, crashes and other processes do to it?
//!
//! A small program (`harness/store_program.rs`) does what the endpoint does; after each mishap the store
//! is opened and held against what must be in it.

mod faults;
mod kill;
mod race;

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use endpoint_core::{
    Vault,
    config::{StoreConfig, StoreSecret},
    store::{self, Kind, Store},
};
use endpoint_tests::faults::leaks;
use jiff::Timestamp;

const PROGRAM: &str = env!("CARGO_BIN_EXE_store-under-test");
const NOW: &str = "2026-11-22T12:00:00Z";
/// When a lock of one that was killed is over.
const LATER: &str = "2026-11-22T13:00:00Z";

/// Certificates and their keys as PEM files, outside of what is watched.
struct Material {
    folder: tempfile::TempDir,
    /// What must not stand in any file of the store.
    secrets: Vec<Vec<u8>>,
}

impl Material {
    /// `count` certificates for these names.
    fn new(names: &[&str], count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut secrets = Vec::new();
        for n in 0..count {
            let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2036, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = params.self_signed(&key).unwrap();
            fs::write(folder.path().join(format!("cert{n}")), cert.pem().replace('\r', ""))
                .unwrap();
            fs::write(folder.path().join(format!("key{n}")), key.serialize_pem()).unwrap();
            // The private number inside of the PKCS#8, raw, and a line of its PEM.
            secrets.push(key.serialize_der()[36..68].to_vec());
            secrets.push(key.serialize_pem().lines().nth(1).unwrap().as_bytes().to_vec());
        }
        Self { folder, secrets }
    }

    fn cert(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("cert{n}"))
    }

    fn key(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("key{n}"))
    }

    fn pem(&self, n: usize) -> String {
        fs::read_to_string(self.cert(n)).unwrap()
    }

    /// Whether a text shows a key.
    fn shown_in(&self, text: &[u8]) -> bool {
        self.secrets.iter().any(|secret| text.windows(secret.len()).any(|part| part == secret))
    }
}

/// A folder for its owner alone, which does not exist yet if `made` is false.
fn state(inside: &Path, made: bool) -> PathBuf {
    let state = inside.join("state");
    if made {
        fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
    }
    state
}

fn program(command: &str, state: &Path, now: &str, rest: &[&Path]) -> Command {
    let mut program = Command::new(PROGRAM);
    program.arg(command).arg(state).arg(now).args(rest);
    program
}

/// Runs it to its end, which must be a good one.
fn must(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn opened(state: &Path) -> Result<Arc<dyn Store>, String> {
    let config = StoreConfig::Sqlite {
        path: state.join("endpoint.db"),
        secret: StoreSecret::File(state.join("store.secret")),
    };
    store::open(&config).await.map_err(|error| error.to_string())
}

/// The chain that is served under a name, as PEM; every record must be whole.
async fn served(state: &Path, name: &str) -> Result<Option<String>, String> {
    let store = opened(state).await?;
    for kind in Kind::ALL {
        for (id, _) in store.list(kind).await.map_err(|error| error.to_string())? {
            store.read(kind, &id).await.map_err(|error| error.to_string())?;
        }
    }
    let vault = Vault::new(store);
    let now: Timestamp = NOW.parse().unwrap();
    let info = vault.info(name, now).await.map_err(|error| error.to_string())?;
    if let Some(fault) = info.and_then(|info| info.fault) {
        return Err(fault);
    }
    vault.export(name, now).await.map_err(|error| error.to_string())
}

/// What is wrong with the files of a store.
fn exposed(state: &Path, material: &Material) -> Vec<String> {
    leaks(state, &material.secrets)
}
