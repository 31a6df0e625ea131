//! Is this file a store of ours, and which keys is it sealed with?
//!
//! Makes it on first use: first the secret, then the file, then in one transaction its schema and what
//! names its keys. So a store that holds anything has had a secret.

#![allow(
    clippy::disallowed_methods,
    reason = "called apart, and while a store is opened, before the endpoint listens"
)]

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, Row, SqlSafeStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

use super::{
    super::{StoreError, private, seal::Sealer, secret::Secret},
    faults::{migration, told, unusable},
};
use crate::{apart::apart, config::StoreSecret};

/// Makes the store if there is none, brings its schema up to date and gives its keys.
pub(super) async fn prepare(path: &Path, secret: &StoreSecret) -> Result<Sealer, StoreError> {
    let (file, secret) = (path.to_owned(), secret.clone());
    // A store that could not be written is prepared again while the endpoint runs.
    let at_hand = move || {
        private::folder(&file).map_err(|why| unusable(&file, why))?;
        let sealed = examine(&file)?.then_some(file.as_path());
        let secrets = Secrets::load(&secret, sealed)?;
        make(&file)?;
        Ok::<_, StoreError>(secrets)
    };
    let secrets = apart(move || Ok::<_, String>(at_hand())).await;
    let secrets = secrets.map_err(|why| unusable(path, why))??;
    let mut connection = connect(path).await?;
    let sealer = match write_ahead(&mut connection).await {
        Ok(()) => sealer(&mut connection, path, &secrets).await,
        Err(error) => Err(told(path, error)),
    };
    // Whatever was written is written.
    let _ = connection.close().await;
    sealer
}

/// How every connection is made.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(PATIENCE)
        .synchronous(SqliteSynchronous::Full)
        // Nothing on the disk that is not in the store; what was replaced is overwritten.
        .pragma("temp_store", "MEMORY")
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

pub(super) async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    options(path).connect().await.map_err(|error| told(path, error))
}

/// The secret, and a new one beside it that a rekeying cut off may have left.
pub(super) struct Secrets {
    configured: Secret,
    next: Option<Secret>,
    place: StoreSecret,
}

impl Secrets {
    pub(super) fn load(from: &StoreSecret, sealed: Option<&Path>) -> Result<Self, StoreError> {
        let next = match from {
            StoreSecret::File(path) => Secret::existing(&private::beside(path, NEXT))?,
            _ => None,
        };
        Ok(Self { configured: Secret::load(from, sealed)?, next, place: from.clone() })
    }

    /// The keys that are named so.
    fn fitting(&self, path: &Path, store: &[u8], key_id: &[u8]) -> Result<Sealer, StoreError> {
        for secret in [Some(&self.configured), self.next.as_ref()].into_iter().flatten() {
            let sealer = keys(path, secret, store)?;
            if sealer.key_id() != key_id {
                continue;
            }
            if let (true, StoreSecret::File(file)) = (*secret != self.configured, &self.place) {
                // The store has the new secret already: finish what was cut off.
                let next = private::beside(file, NEXT);
                private::replace(&next, file).map_err(StoreError::Secret)?;
            }
            return Ok(sealer);
        }
        let place = match &self.place {
            StoreSecret::File(file) => format!("`{}`", file.display()),
            StoreSecret::Environment(name) => format!("the environment variable {name}"),
            StoreSecret::Credential(name) => format!("the credential `{name}`"),
        };
        Err(StoreError::Secret(format!(
            "the secret in {place} is not the one that the store `{}` is sealed with; put the right one back from a \
             backup, or move the store away to begin anew",
            path.display()
        )))
    }
}

/// The keys for the store of that number.
pub(super) fn keys(path: &Path, secret: &Secret, store: &[u8]) -> Result<Sealer, StoreError> {
    Sealer::new(secret, store).map_err(|_| unusable(path, "its keys cannot be derived"))
}

/// A number of a store, from which its keys are derived.
pub(super) fn new_number(path: &Path) -> Result<[u8; 16], StoreError> {
    let mut number = [0; 16];
    aws_lc_rs::rand::fill(&mut number)
        .map_err(|_| unusable(path, "the system gives no randomness"))?;
    Ok(number)
}

/// Whether there is a store that holds anything; refuses files that others may read or change.
fn examine(path: &Path) -> Result<bool, StoreError> {
    let mut holds = false;
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let length = private::examine(&private::beside(path, suffix))
            .map_err(|why| unusable(path, why))?
            .unwrap_or(0);
        holds |= suffix != "-shm" && length > 0;
    }
    Ok(holds)
}

/// Makes an empty file for the owner alone; SQLite gives the files beside it the same mode.
fn make(path: &Path) -> Result<(), StoreError> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let synced = match made {
        Ok(file) => file
            .set_permissions(fs::Permissions::from_mode(0o600))
            .and_then(|()| file.sync_all())
            .and_then(|()| match path.parent() {
                Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            }),
        Err(why) if why.kind() == ErrorKind::AlreadyExists => {
            return examine(path).map(|_| ());
        }
        Err(why) => Err(why),
    };
    synced.map_err(|why| unusable(path, private::told("make", path, &why)))
}

/// Turns write-ahead logging on. SQLite does not wait for others here, so this does.
async fn write_ahead(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut tries = 0;
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await {
            Err(sqlx::Error::Database(error)) if tries < 400 && busy(error.code().as_deref()) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            done => return done.map(|_| ()),
        }
    }
}

fn busy(code: Option<&str>) -> bool {
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The keys of a store that can only be read. Its schema stays as it is.
pub(super) async fn keys_of(
    path: &Path,
    secret: &StoreSecret,
    options: &SqliteConnectOptions,
) -> Result<Sealer, StoreError> {
    let secrets = Secrets::load(secret, Some(path))?;
    let mut connection = options.connect().await.map_err(|error| told(path, error))?;
    let named = named(&mut connection).await.map_err(|error| told(path, error));
    let newest = sqlx::query("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut connection)
        .await
        .and_then(|row| row.try_get::<i64, _>(0))
        .map_err(|error| told(path, error));
    let _ = connection.close().await;
    let (newest, known) = (newest?, migrations().last().map_or(0, |last| last.version));
    if newest > known {
        return Err(migration(path, sqlx::migrate::MigrateError::VersionMissing(newest)));
    }
    match named? {
        (Some(store), Some(key_id)) => secrets.fitting(path, &store, &key_id),
        _ => Err(unusable(path, "what names its keys is gone; put it back from a backup")),
    }
}

/// Brings the schema up to date and finds the keys, in one transaction.
async fn sealer(
    connection: &mut SqliteConnection,
    path: &Path,
    secrets: &Secrets,
) -> Result<Sealer, StoreError> {
    let mut transaction =
        connection.begin_with("BEGIN IMMEDIATE").await.map_err(|error| told(path, error))?;
    let strange: bool = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema) AND (SELECT application_id FROM pragma_application_id) <> ?1",
    )
    .bind(APPLICATION)
    .fetch_one(&mut *transaction)
    .await
    .and_then(|row| row.try_get(0))
    .map_err(|error| told(path, error))?;
    if strange {
        return Err(unusable(path, "it is a database of another program; check `store.url`"));
    }
    Migrator::with_migrations(migrations())
        .run_direct(None, &mut *transaction, false)
        .await
        .map_err(|error| migration(path, error))?;
    let sealer = match named(&mut transaction).await.map_err(|error| told(path, error))? {
        (Some(store), Some(key_id)) => secrets.fitting(path, &store, &key_id)?,
        (None, None) => {
            let store = new_number(path)?;
            let sealer = keys(path, &secrets.configured, &store)?;
            name(&mut transaction, &store, &sealer).await.map_err(|error| told(path, error))?;
            sealer
        }
        _ => return Err(unusable(path, "what names its keys is gone; put it back from a backup")),
    };
    transaction.commit().await.map_err(|error| told(path, error))?;
    Ok(sealer)
}

/// The store's number and the name of its keys.
pub(super) async fn named(
    connection: &mut SqliteConnection,
) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>), sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT value FROM meta WHERE name = 'store'), (SELECT value FROM meta WHERE name = 'key id')",
    )
    .fetch_one(connection)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Says which keys the store is sealed with from now on.
pub(super) async fn name(
    connection: &mut SqliteConnection,
    store: &[u8],
    sealer: &Sealer,
) -> Result<(), sqlx::Error> {
    for (name, value) in [("store", store), ("key id", sealer.key_id().as_slice())] {
        sqlx::query("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(name)
            .bind(value)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The schema's versions. What was released is never changed, only added to.
fn migrations() -> Vec<Migration> {
    let first = include_str!("../../../migrations/0001_records.sql").into_sql_str();
    let second = include_str!("../../../migrations/0002_aside.sql").into_sql_str();
    vec![
        Migration::new(1, "records".into(), MigrationType::Simple, first, false),
        Migration::new(2, "aside".into(), MigrationType::Simple, second, false),
    ]
}

/// `endp`, as the migration has it.
const APPLICATION: i64 = 0x656e_6470;

/// Added to the name of a secret's file while its successor is not in place yet.
pub(super) const NEXT: &str = ".next";

/// How long a lock of another process is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
