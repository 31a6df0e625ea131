//! What becomes of a record that cannot be trusted or used?
//!
//! It is moved to a table of its own with both of its rows, as they were found, in the transaction that takes
//! it out of the way. So nothing that may hold the only copy of a key is ever written over.

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::{
    super::{Aside, Kind, StoreError},
    SqliteStore,
    rows::Found,
};

impl SqliteStore {
    /// Keeps both rows of that record aside; the caller takes it away.
    pub(super) async fn set_aside(
        &self,
        connection: &mut SqliteConnection,
        (kind, id): (Kind, &str),
        generation: Option<u64>,
        why: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let found = Found::read(connection, kind, id).await.map_err(|error| self.told(error))?;
        let standing = found.open(&self.sealer, kind, id, self.least(kind, id));
        let fits = match (&standing, generation) {
            (Err(_), None) => true,
            (Ok(Some(record)), Some(generation)) => record.generation == generation,
            _ => false,
        };
        if !fits {
            return Err(StoreError::Conflict { kind, id: id.to_owned() });
        }
        self.keep_rows(connection, kind, id, why, now).await
    }

    /// Keeps a record aside that is about to be written over, if it cannot be trusted.
    pub(super) async fn save_doubtful(
        &self,
        connection: &mut SqliteConnection,
        kind: Kind,
        id: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        // These hold nothing that could be missed, and strangers can have many of them made.
        if matches!(kind, Kind::Challenge | Kind::Staple) {
            return Ok(());
        }
        let found = Found::read(connection, kind, id).await.map_err(|error| self.told(error))?;
        match found.open(&self.sealer, kind, id, self.least(kind, id)) {
            Err(why) => self.keep_rows(connection, kind, id, why, now).await,
            Ok(_) => Ok(()),
        }
    }

    async fn keep_rows(
        &self,
        connection: &mut SqliteConnection,
        kind: Kind,
        id: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(KEEP)
            .bind(kind.as_str())
            .bind(id)
            .bind(now.as_millisecond())
            .bind(why)
            .execute(connection)
            .await
            .map(|_| ())
            .map_err(|error| self.told(error))
    }

    /// What was set aside, oldest first.
    pub(super) async fn all_asides(&self) -> Result<Vec<Aside>, StoreError> {
        let mut connection = self.connection().await?;
        let rows = sqlx::query(LIST).fetch_all(&mut *connection).await;
        let told = |error| self.told(error);
        let rows = match rows {
            // A store of the release before, on a disk that cannot be written: nothing was set aside yet.
            Err(error) if error.to_string().contains("no such table") => return Ok(Vec::new()),
            rows => Self::done(&mut connection, rows.map_err(told))?,
        };
        let mut asides = Vec::with_capacity(rows.len());
        for row in rows {
            let number: i64 = row.try_get(0).map_err(told)?;
            let at: i64 = row.try_get(3).map_err(told)?;
            asides.push(Aside {
                number: u64::try_from(number).unwrap_or(0),
                kind: row.try_get(1).map_err(told)?,
                id: row.try_get(2).map_err(told)?,
                at: Timestamp::from_millisecond(at).unwrap_or_default(),
                why: row.try_get(4).map_err(told)?,
            });
        }
        Ok(asides)
    }
}

const KEEP: &str = "
INSERT INTO aside (kind, id, at, why, generation, written, key_id, sealed, head_generation, present, digest, mac)
SELECT ?1, ?2, ?3, ?4, r.generation, r.written, r.key_id, r.sealed, h.generation, h.present, h.digest, h.mac
FROM (SELECT ?1 AS kind, ?2 AS id) q
LEFT JOIN heads h ON h.kind = q.kind AND h.id = q.id
LEFT JOIN records r ON r.kind = q.kind AND r.id = q.id";

const LIST: &str = "SELECT number, kind, id, at, why FROM aside ORDER BY number";
