//! What does a sealed record cost, and how long does a start with many certificates take?
//!
//! In an SQLite file in the system's temporary folder. CPU time is of the whole process; wall time says what
//! the disk adds, and is of this machine alone.

use std::{path::Path, sync::Arc, time::Instant};

use endpoint_core::{
    Vault,
    config::{StoreConfig, StoreSecret},
    store::{self, Change, Kind, Store, StoreError},
};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::{
    report::{Figure, median},
    usage,
};

/// Writes and reads in a round.
const RECORDS: usize = 100;
/// Names in each certificate, so that many records are made quickly.
const NAMES: usize = 100;

/// Prints each figure that is wanted. `certificates`: how many a start loads.
pub fn run(
    rounds: usize,
    certificates: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    if wanted("store_write") || wanted("store_read") {
        eprintln!("measuring store_write, store_read");
        runtime.block_on(records(rounds))?;
    }
    if wanted("store_start") {
        eprintln!("measuring store_start with {certificates} certificates");
        runtime.block_on(start(rounds.min(5), certificates))?;
    }
    Ok(())
}

async fn records(rounds: usize) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let store = open(folder.path()).await.map_err(said)?;
    let body = Zeroizing::new(vec![7; 4096]);
    let ids: Vec<String> = (0..RECORDS).map(|n| format!("name{n}.example")).collect();
    let mut writes = Costs::default();
    let mut reads = Costs::default();
    for _ in 0..=rounds {
        let turn = Turn::begin();
        for id in &ids {
            let change = Change::Replace(Kind::Certificate, id.clone(), None, body.clone());
            store.write(vec![change], now()).await.map_err(said)?;
        }
        writes.add(&turn);
        let turn = Turn::begin();
        for id in &ids {
            store.read(Kind::Certificate, id).await.map_err(said)?.ok_or("a record is gone")?;
        }
        reads.add(&turn);
    }
    writes.print("store_write", RECORDS);
    reads.print("store_read", RECORDS);
    Ok(())
}

async fn start(rounds: usize, certificates: usize) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    fill(folder.path(), certificates).await?;
    let mut costs = Costs::default();
    for _ in 0..=rounds {
        let turn = Turn::begin();
        let vault = Vault::new(open(folder.path()).await.map_err(said)?);
        let names = vault.names().await.map_err(|error| error.to_string())?;
        for name in &names {
            vault.info(name, now()).await.map_err(|error| error.to_string())?;
        }
        costs.add(&turn);
        if names.len() != certificates {
            return Err(format!("{} names are kept, expected {certificates}", names.len()));
        }
    }
    costs.print("store_start", certificates);
    Ok(())
}

async fn fill(folder: &Path, certificates: usize) -> Result<(), String> {
    let vault = Vault::new(open(folder).await.map_err(said)?);
    for first in (0..certificates).step_by(NAMES) {
        let last = certificates.min(first + NAMES);
        let names: Vec<String> = (first..last).map(|n| format!("name{n}.example")).collect();
        let text = |error: rcgen::Error| error.to_string();
        let mut params = rcgen::CertificateParams::new(names).map_err(text)?;
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2036, 1, 1);
        let key = rcgen::KeyPair::generate().map_err(text)?;
        let cert = params.self_signed(&key).map_err(text)?.pem();
        let key = key.serialize_pem();
        vault
            .import(cert.as_bytes(), key.as_bytes(), now())
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn open(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let secret = StoreSecret::File(folder.join("store.secret"));
    store::open(&StoreConfig::Sqlite { path: folder.join("endpoint.db"), secret }).await
}

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap_or_default()
}

fn said(error: StoreError) -> String {
    error.to_string()
}

struct Turn {
    cpu: std::time::Duration,
    wall: Instant,
}

impl Turn {
    fn begin() -> Self {
        Self { cpu: usage::cpu(), wall: Instant::now() }
    }
}

/// CPU and wall time of each round, in microseconds.
#[derive(Default)]
struct Costs {
    cpu: Vec<f64>,
    wall: Vec<f64>,
}

impl Costs {
    fn add(&mut self, turn: &Turn) {
        self.cpu.push((usage::cpu() - turn.cpu).as_nanos() as f64 / 1000.0);
        self.wall.push(turn.wall.elapsed().as_nanos() as f64 / 1000.0);
    }

    /// The first round warms up and does not count.
    fn print(&self, figure: &str, runs: usize) {
        for (unit, values) in [("us_cpu", &self.cpu), ("us_wall", &self.wall)] {
            let values = values.get(1..).unwrap_or_default();
            let each: Vec<f64> = values.iter().map(|value| value / runs as f64).collect();
            Figure {
                figure: figure.to_owned(),
                subject: "endpoint",
                value: median(&each),
                unit,
                ratio_to: Vec::new(),
                rounds: each.len(),
                runs,
            }
            .print();
        }
    }
}
