//! How is a store used whose disk is full or read-only?
//!
//! Read: what stands in it is served all the same. A store that was opened so is tried again for writing every
//! [`AGAIN`]. A disk that cannot be written may not even take the small files that SQLite shares between
//! readers; then the file alone is read, which is safe only if no log stands beside it.
//!
//! Always true: the secret is held against the store as in any other start.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    super::{StoreError, private, seal::Sealer},
    SqliteStore,
    faults::told,
    setup,
};
use crate::{apart::apart, config::StoreSecret};

/// How often a store that could only be read is tried for writing.
const AGAIN: Duration = Duration::from_secs(5);
/// Connections of a pool.
const CONNECTIONS: u32 = 4;
/// The longest that a connection is waited for.
const ACQUIRE: Duration = Duration::from_secs(30);

/// Connections, and whether they only read.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    connections: SqlitePool,
    /// When writing was last tried in vain; `None`: they write.
    only_reads_since: Option<Instant>,
}

/// Opens the store for writing, else for reading.
pub(super) async fn open_any(
    path: &Path,
    secret: &StoreSecret,
) -> Result<(Sealer, Pool), StoreError> {
    match open_writing(path, secret).await {
        Err(error @ StoreError::Unwritable { .. }) => match open_reading(path, secret).await {
            Ok(opened) => {
                warn!(reason = %error, "the store can only be read; what is new stands in memory");
                Ok(opened)
            }
            // The secret is told as in any other start; else why it could not be opened as usual.
            Err(wrong @ StoreError::Secret(_)) => Err(wrong),
            Err(_) => Err(error),
        },
        opened => opened,
    }
}

async fn open_writing(path: &Path, secret: &StoreSecret) -> Result<(Sealer, Pool), StoreError> {
    let sealer = setup::prepare(path, secret).await?;
    let connections = pool(setup::options(path)).await.map_err(|error| told(path, error))?;
    Ok((sealer, Pool { connections, only_reads_since: None }))
}

async fn open_reading(path: &Path, secret: &StoreSecret) -> Result<(Sealer, Pool), StoreError> {
    let reading = setup::options(path).read_only(true);
    let mut opened = open_with(path, secret, reading.clone()).await;
    if opened.is_err() && log_is_empty(path).await {
        opened = open_with(path, secret, reading.immutable(true)).await;
    }
    opened
}

/// Whether nothing waits in the log beside the database, which a disk that cannot be written keeps from being
/// opened.
async fn log_is_empty(path: &Path) -> bool {
    let log = private::beside(path, "-wal");
    #[allow(clippy::disallowed_methods, reason = "apart")]
    let length = apart(move || std::fs::metadata(log).map(|log| log.len())).await;
    length.map_or(true, |length| length == 0)
}

async fn open_with(
    path: &Path,
    secret: &StoreSecret,
    options: SqliteConnectOptions,
) -> Result<(Sealer, Pool), StoreError> {
    let sealer = setup::keys_of(path, secret, &options).await?;
    let connections = pool(options).await.map_err(|error| told(path, error))?;
    Ok((sealer, Pool { connections, only_reads_since: Some(Instant::now()) }))
}

async fn pool(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .connect_with(options)
        .await
}

impl SqliteStore {
    /// The connections; those that only read are given up as soon as writing is possible again. `writes`: that is
    /// tried now, however lately it failed.
    pub(super) async fn pool(&self, writes: bool) -> SqlitePool {
        let due = {
            let mut pool = self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let due = pool.only_reads_since.is_some_and(|since| writes || since.elapsed() >= AGAIN);
            if due {
                // Others go on with what there is meanwhile.
                pool.only_reads_since = Some(Instant::now());
            }
            due
        };
        if due
            && let Ok((sealer, opened)) = open_writing(&self.path, &self.secret).await
            && sealer.key_id() == self.sealer.key_id()
        {
            info!(store = %self.path.display(), "the store can be written again");
            self.take(opened);
        }
        self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner).connections.clone()
    }

    /// Connections that only read, where none can be had that write.
    pub(super) async fn only_read(&self) -> Option<SqlitePool> {
        let (sealer, opened) = open_reading(&self.path, &self.secret).await.ok()?;
        if sealer.key_id() != self.sealer.key_id() {
            return None;
        }
        let connections = opened.connections.clone();
        self.take(opened);
        Some(connections)
    }

    fn take(&self, opened: Pool) {
        *self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = opened;
    }
}
