//! A program that does to a store what the endpoint does, and nothing else: for faults, kills and races.
//!
//! `store-under-test COMMAND STATE NOW …`, where the store is `STATE/endpoint.db` and its secret beside it.

use std::{io::Write as _, path::Path, process::ExitCode, sync::Arc, time::Duration};

use endpoint_core::{
    Vault,
    config::{StoreConfig, StoreSecret},
    store::{self, Change, Kind, Store},
};
use jiff::Timestamp;

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: &[&str]) -> Done {
    let [command, state, now, rest @ ..] = args else {
        return Err("usage: store-under-test COMMAND STATE NOW …".into());
    };
    let (state, now) = (Path::new(state), now.parse::<Timestamp>()?);
    let config = StoreConfig::Sqlite {
        path: state.join("endpoint.db"),
        secret: StoreSecret::File(state.join("store.secret")),
    };
    if *command == "rekey" {
        let secret = StoreSecret::File(state.join("store.secret"));
        return Ok(store::rekey(&state.join("endpoint.db"), &secret, &secret).await?);
    }
    if let ("issue-twice", [name, cert, key]) = (*command, rest) {
        return issue_twice(&config, name, cert, key, now).await;
    }
    let store = store::open(&config).await?;
    match (*command, rest) {
        ("account", [key]) => account(&store, key, now).await,
        ("import", [cert, key]) => import(&store, cert, key, now).await,
        ("issue", [name, cert, key]) => issue(&store, name, cert, key, now).await,
        ("renew-for-ever", [name, pairs @ ..]) => loop {
            for pair in pairs.chunks(2) {
                let [cert, key] = pair else { return Err("a key for each certificate".into()) };
                // A lock of one that was killed is waited out.
                let now = now.checked_add(jiff::SignedDuration::from_secs(turn()))?;
                issue(&store, name, cert, key, now).await?;
                println!("renewed");
            }
        },
        ("order", [log, cert, key, names @ ..]) => {
            for name in names {
                order(&store, log, name, cert, key, now).await?;
            }
            Ok(())
        }
        _ => Err("unknown command".into()),
    }
}

/// Counts minutes: each call is two later than the one before.
fn turn() -> i64 {
    static TURN: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    120 * TURN.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn body(text: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(text.to_vec())
}

/// One account, whoever is first.
async fn account(store: &Arc<dyn Store>, key: &str, now: Timestamp) -> Done {
    if store.read(Kind::Account, DIRECTORY).await?.is_none() {
        let key = body(&std::fs::read(key)?);
        store.write(vec![Change::Create(Kind::Account, DIRECTORY.into(), key)], now).await?;
    }
    Ok(())
}

async fn import(store: &Arc<dyn Store>, cert: &str, key: &str, now: Timestamp) -> Done {
    let (cert, key) = (std::fs::read(cert)?, std::fs::read(key)?);
    Vault::new(Arc::clone(store)).import(&cert, &key, now).await?;
    Ok(())
}

/// Everything that an order writes.
async fn issue(store: &Arc<dyn Store>, name: &str, cert: &str, key: &str, now: Timestamp) -> Done {
    let lease =
        store.lock(name, now, Duration::from_secs(60)).await?.ok_or("somebody else orders")?;
    account(store, key, now).await?;
    let history = |text: &[u8]| Change::Replace(Kind::History, name.into(), None, body(text));
    let challenge = Change::Replace(Kind::Challenge, name.into(), None, body(b"answer"));
    store.write(vec![history(b"begun"), challenge], now).await?;
    import(store, cert, key, now).await?;
    let over = Change::Delete(Kind::Challenge, name.into());
    store.write(vec![history(b"issued"), over], now).await?;
    store.unlock(lease).await?;
    Ok(())
}

/// Goes on after a failure, as a server does, and tries once more.
async fn issue_twice(
    config: &StoreConfig,
    name: &str,
    cert: &str,
    key: &str,
    now: Timestamp,
) -> Done {
    let store = match store::open(config).await {
        Ok(store) => store,
        Err(_) => store::open(config).await?,
    };
    if issue(&store, name, cert, key, now).await.is_ok() {
        return Ok(());
    }
    // The lock of the one that failed is over.
    let later = now.checked_add(jiff::SignedDuration::from_secs(120))?;
    issue(&store, name, cert, key, later).await
}

/// Orders a certificate for a name unless another process does: then waits for theirs.
async fn order(
    store: &Arc<dyn Store>,
    log: &str,
    name: &str,
    cert: &str,
    key: &str,
    now: Timestamp,
) -> Done {
    loop {
        let Some(lease) = store.lock(name, now, Duration::from_secs(600)).await? else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        // Looked at again under the lock: whoever had it before may have ordered.
        if store.read(Kind::History, name).await?.is_none() {
            let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log)?;
            log.write_all(format!("{name}\n").as_bytes())?;
            tokio::task::yield_now().await;
            account(store, key, now).await.or_else(|error| {
                let conflict = error.downcast_ref::<store::StoreError>();
                match conflict {
                    Some(store::StoreError::Conflict { .. }) => Ok(()),
                    _ => Err(error),
                }
            })?;
            import(store, cert, key, now).await?;
            let done = Change::Create(Kind::History, name.into(), body(b"issued"));
            store.write(vec![done], now).await?;
        }
        store.unlock(lease).await?;
        return Ok(());
    }
}

const DIRECTORY: &str = "https://ca.example/directory";
