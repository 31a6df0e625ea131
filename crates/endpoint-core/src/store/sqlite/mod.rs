//! How are records kept in an SQLite file?
//!
//! `setup` makes and opens the file, `rows` says what a row is worth, `rekey` changes the secret, `faults`
//! explains errors, `reading` opens a store whose disk is full or read-only, `aside` keeps what cannot be
//! trusted.
//!
//! Always true: what stands in the file is sealed; a write is one transaction that is on the disk when it
//! returns; a record is given only if its head vouches for it, and never an older one than this process saw.

mod aside;
mod faults;
mod reading;
mod rekey;
mod rows;
mod setup;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{Connection, Row, Sqlite, SqliteConnection, Transaction, pool::PoolConnection};

pub(super) use self::rekey::rekey;
use self::{
    faults::told,
    rows::{Found, put, take},
};
use super::{
    Aside, Change, Kind, Lease, Pending, Record, Store, StoreError,
    seal::{Label, Sealer},
};
use crate::config::StoreSecret;

/// Opens the store in that file, which is made if there is none.
pub(super) async fn open(path: &Path, secret: &StoreSecret) -> Result<Arc<dyn Store>, StoreError> {
    let (sealer, pool) = reading::open_any(path, secret).await?;
    let (writing, seen) = (tokio::sync::Mutex::default(), Mutex::default());
    let (path, secret) = (path.to_owned(), secret.clone());
    Ok(Arc::new(SqliteStore { path, secret, pool: Mutex::new(pool), sealer, writing, seen }))
}

/// Records in an SQLite file.
struct SqliteStore {
    path: PathBuf,
    secret: StoreSecret,
    pool: Mutex<reading::Pool>,
    sealer: Sealer,
    /// Our own writers wait here, not for each other's locks.
    writing: tokio::sync::Mutex<()>,
    /// The newest generation that was seen of each record. Challenges are forgotten: they are brief, and their
    /// ids never come again.
    seen: Mutex<HashMap<(Kind, String), i64>>,
}

impl SqliteStore {
    async fn connection(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.connection_that(false).await
    }

    async fn connection_that(&self, writes: bool) -> Result<PoolConnection<Sqlite>, StoreError> {
        match self.pool(writes).await.acquire().await.map_err(|error| self.told(error)) {
            // What cannot be opened for writing any more can perhaps be read.
            Err(error @ StoreError::Unwritable { .. }) => match self.only_read().await {
                Some(pool) => pool.acquire().await.map_err(|error| self.told(error)),
                None => Err(error),
            },
            acquired => acquired,
        }
    }

    fn told(&self, error: sqlx::Error) -> StoreError {
        told(&self.path, error)
    }

    /// Gives a connection up whose database failed: SQLite may have ended its transaction by itself, or opened
    /// its files read-only for as long as it lives. The next use makes a new one.
    fn done<T>(
        connection: &mut PoolConnection<Sqlite>,
        done: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if matches!(done, Err(StoreError::Unusable { .. } | StoreError::Unwritable { .. })) {
            connection.close_on_drop();
        }
        done
    }

    fn damaged(&self, kind: Kind, id: &str, why: &str) -> StoreError {
        let what_to_do = match kind {
            Kind::Certificate | Kind::Previous => {
                "put the store back from a backup, or have it issued anew with `endpoint cert renew`"
            }
            _ => "put the store back from a backup",
        };
        StoreError::Damaged {
            kind,
            id: id.to_owned(),
            place: self.place(),
            why: format!("{why}; {what_to_do}"),
        }
    }

    /// The generation that this id has reached, as far as this process knows.
    fn least(&self, kind: Kind, id: &str) -> i64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(kind, id.to_owned())).copied().unwrap_or(0)
    }

    fn saw(&self, kind: Kind, id: &str, generation: i64) {
        if kind != Kind::Challenge {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = seen.entry((kind, id.to_owned())).or_default();
            *newest = generation.max(*newest);
        }
    }

    /// A running process keeps its keys; a store that was sealed anew in the meantime is not theirs.
    fn check_key(&self, key_id: &[u8]) -> Result<(), StoreError> {
        if key_id == self.sealer.key_id() {
            return Ok(());
        }
        Err(StoreError::Secret(format!(
            "the store `{}` was sealed with another secret while this program ran; start it again",
            self.path.display()
        )))
    }

    async fn read_one(&self, kind: Kind, id: &str) -> Result<Option<Record>, StoreError> {
        // Taken before the read: a write that ends during it may or may not be in it.
        let least = self.least(kind, id);
        let mut connection = self.connection().await?;
        let found = Found::read(&mut connection, kind, id).await.map_err(|error| self.told(error));
        let found = Self::done(&mut connection, found)?;
        self.check_key(&found.store_key)?;
        let record =
            found.open(&self.sealer, kind, id, least).map_err(|why| self.damaged(kind, id, why))?;
        if let Some(record) = &record {
            self.saw(kind, id, i64::try_from(record.generation).unwrap_or(i64::MAX));
        }
        Ok(record)
    }

    async fn list_all(&self, kind: Kind) -> Result<Vec<(String, u64)>, StoreError> {
        let seen: Vec<(String, i64)> = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.iter()
                .filter(|((of, _), _)| *of == kind)
                .map(|((_, id), n)| (id.clone(), *n))
                .collect()
        };
        let mut connection = self.connection().await?;
        let ids = self.list_in(&mut connection, kind, seen).await;
        let mut ids = Self::done(&mut connection, ids)?;
        ids.sort();
        Ok(ids.into_iter().map(|(id, n)| (id, u64::try_from(n).unwrap_or(0))).collect())
    }

    async fn list_in(
        &self,
        connection: &mut SqliteConnection,
        kind: Kind,
        seen: Vec<(String, i64)>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let mut transaction = connection.begin().await.map_err(|error| self.told(error))?;
        let (_, key_id) = setup::named(&mut transaction).await.map_err(|error| self.told(error))?;
        self.check_key(&key_id.unwrap_or_default())?;
        let mut ids = rows::list(&mut transaction, &self.sealer, kind)
            .await
            .map_err(|error| self.told(error))?;
        // What was seen and has no row at all was taken away: reading it says so.
        for (id, generation) in seen {
            let found =
                Found::read(&mut transaction, kind, &id).await.map_err(|error| self.told(error))?;
            if found.highest() == 0 {
                ids.push((id, generation));
            }
        }
        Ok(ids)
    }

    /// Begins a transaction that nobody else writes in.
    async fn begin<'a>(
        &self,
        connection: &'a mut SqliteConnection,
    ) -> Result<Transaction<'a, Sqlite>, StoreError> {
        connection.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.told(error))
    }

    async fn write_all(&self, changes: Vec<Change>, now: Timestamp) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        let mut connection = self.connection_that(true).await?;
        let written = self.write_in(&mut connection, changes, now).await;
        let (written, number) = Self::done(&mut connection, written)?;
        for (kind, id) in written {
            self.saw(kind, &id, number);
        }
        Ok(())
    }

    /// Makes the changes in one transaction; gives what was written, and its generation.
    async fn write_in(
        &self,
        connection: &mut SqliteConnection,
        changes: Vec<Change>,
        now: Timestamp,
    ) -> Result<(Vec<(Kind, String)>, i64), StoreError> {
        let mut transaction = self.begin(connection).await?;
        let mut written = Vec::with_capacity(changes.len());
        let number = self.next_number(&mut transaction, &changes).await?;
        for change in changes {
            let (kind, id) = self.apply(&mut transaction, change, number, now).await?;
            written.push((kind, id));
        }
        self.forget_challenges(&mut transaction, now).await.map_err(|error| self.told(error))?;
        transaction.commit().await.map_err(|error| self.told(error))?;
        Ok((written, number))
    }

    /// The number of this write: above every one that the store or this process knows for its ids.
    async fn next_number(
        &self,
        connection: &mut SqliteConnection,
        changes: &[Change],
    ) -> Result<i64, StoreError> {
        let counted = sqlx::query("SELECT number FROM counter").fetch_one(&mut *connection).await;
        let mut number: i64 =
            counted.and_then(|row| row.try_get(0)).map_err(|error| self.told(error))?;
        for change in changes {
            let (kind, id) = change.about();
            let found =
                Found::read(connection, kind, id).await.map_err(|error| self.told(error))?;
            self.check_key(&found.store_key)?;
            number = number.max(found.highest()).max(self.least(kind, id));
        }
        number = number.checked_add(1).ok_or_else(|| {
            faults::unusable(&self.path, "its counter was altered; put it back from a backup")
        })?;
        sqlx::query("UPDATE counter SET number = ?1")
            .bind(number)
            .execute(connection)
            .await
            .map_err(|error| self.told(error))?;
        Ok(number)
    }

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        change: Change,
        number: i64,
        now: Timestamp,
    ) -> Result<(Kind, String), StoreError> {
        let (kind, id, body) = match change {
            Change::Create(kind, id, body) => {
                if self.standing(connection, kind, &id).await?.is_some() {
                    return Err(StoreError::Conflict { kind, id });
                }
                (kind, id, Some(body))
            }
            Change::Replace(kind, id, Some(generation), body) => {
                if self.standing(connection, kind, &id).await? != i64::try_from(generation).ok() {
                    return Err(StoreError::Conflict { kind, id });
                }
                (kind, id, Some(body))
            }
            // Whatever is there, also if it cannot be trusted: so it is mended.
            Change::Replace(kind, id, None, body) => {
                self.save_doubtful(connection, kind, &id, now).await?;
                (kind, id, Some(body))
            }
            Change::Delete(kind, id) => {
                self.save_doubtful(connection, kind, &id, now).await?;
                (kind, id, None)
            }
            Change::SetAside(kind, id, generation, why) => {
                self.set_aside(connection, (kind, &id), generation, &why, now).await?;
                (kind, id, None)
            }
        };
        let written = now.as_millisecond();
        let label = Label { kind: kind.as_str(), id: &id, generation: number, written };
        let done = match body {
            Some(body) => put(connection, &self.sealer, label, &body).await,
            None => take(connection, &self.sealer, label).await,
        };
        done.map_err(|error| self.told(error))?;
        Ok((kind, id))
    }

    /// The generation of a record that is there.
    async fn standing(
        &self,
        connection: &mut SqliteConnection,
        kind: Kind,
        id: &str,
    ) -> Result<Option<i64>, StoreError> {
        let found = Found::read(connection, kind, id).await.map_err(|error| self.told(error))?;
        // Nobody else writes now, so what this process saw is a lower bound.
        let record = found
            .open(&self.sealer, kind, id, self.least(kind, id))
            .map_err(|why| self.damaged(kind, id, why))?;
        Ok(record.and_then(|record| i64::try_from(record.generation).ok()))
    }

    /// Heads of challenges that are long over, whose tokens never come again.
    async fn forget_challenges(
        &self,
        connection: &mut SqliteConnection,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM heads WHERE kind = ?1 AND present = 0 AND changed < ?2")
            .bind(Kind::Challenge.as_str())
            .bind(now.as_millisecond().saturating_sub(WEEK))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn take_lock(
        &self,
        name: &str,
        now: Timestamp,
        time: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let until = now.as_millisecond().saturating_add(time);
        let until = Timestamp::from_millisecond(until).unwrap_or(Timestamp::MAX);
        let owner = super::owner().map_err(|why| faults::unusable(&self.path, why))?;
        let _turn = self.writing.lock().await;
        let mut connection = self.connection_that(true).await?;
        // One statement: takes it if it is free or over, else changes nothing.
        let taken = sqlx::query(
            "INSERT INTO locks (name, owner, until) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
             WHERE until <= ?4 OR until > ?5",
        )
        .bind(name)
        .bind(&owner)
        .bind(until.as_millisecond())
        .bind(now.as_millisecond())
        // Nobody may have taken it for so long: the clock was set back.
        .bind(until.as_millisecond().saturating_add(time))
        .execute(&mut *connection)
        .await
        .map_err(|error| self.told(error));
        let taken = Self::done(&mut connection, taken)?;
        Ok((taken.rows_affected() > 0).then(|| Lease { name: name.to_owned(), owner, until }))
    }
}

impl Store for SqliteStore {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn read<'a>(&'a self, kind: Kind, id: &'a str) -> Pending<'a, Option<Record>> {
        Box::pin(self.read_one(kind, id))
    }

    fn list(&self, kind: Kind) -> Pending<'_, Vec<(String, u64)>> {
        Box::pin(self.list_all(kind))
    }

    fn write<'a>(&'a self, changes: Vec<Change>, now: Timestamp) -> Pending<'a, ()> {
        Box::pin(self.write_all(changes, now))
    }

    fn asides(&self) -> Pending<'_, Vec<Aside>> {
        Box::pin(self.all_asides())
    }

    fn version(&self) -> Pending<'_, u64> {
        Box::pin(async {
            let mut connection = self.connection().await?;
            let row = sqlx::query("SELECT number FROM counter").fetch_one(&mut *connection).await;
            let number = row.and_then(|row| row.try_get(0)).map_err(|error| self.told(error));
            let number: i64 = Self::done(&mut connection, number)?;
            Ok(u64::try_from(number).unwrap_or(0))
        })
    }

    fn lock<'a>(
        &'a self,
        name: &'a str,
        now: Timestamp,
        time: Duration,
    ) -> Pending<'a, Option<Lease>> {
        Box::pin(self.take_lock(name, now, time))
    }

    fn unlock(&self, lease: Lease) -> Pending<'_, ()> {
        Box::pin(async move {
            let _turn = self.writing.lock().await;
            let mut connection = self.connection_that(true).await?;
            let freed = sqlx::query("DELETE FROM locks WHERE name = ?1 AND owner = ?2")
                .bind(&lease.name)
                .bind(&lease.owner)
                .execute(&mut *connection)
                .await
                .map_err(|error| self.told(error));
            Self::done(&mut connection, freed).map(|_| ())
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

const WEEK: i64 = 7 * 24 * 3600 * 1000;
