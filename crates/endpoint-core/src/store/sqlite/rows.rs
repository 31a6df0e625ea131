//! Is this row the newest write of its id?
//!
//! Two rows belong to an id: the record and its head, which says which write is the newest and what it
//! holds. Only both together, and both authentic, are a record.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use zeroize::Zeroizing;

use super::super::{
    Kind, Record,
    seal::{Head, Label, Sealer},
};

/// Both rows of an id, as they were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Names the key that the whole store is sealed with.
    pub(super) store_key: Vec<u8>,
    head: Option<HeadRow>,
    record: Option<RecordRow>,
}

#[derive(Debug)]
struct HeadRow {
    generation: i64,
    present: bool,
    digest: Vec<u8>,
    mac: Vec<u8>,
}

#[derive(Debug)]
struct RecordRow {
    generation: i64,
    written: i64,
    key_id: Vec<u8>,
    sealed: Vec<u8>,
}

/// What rows that are in order say.
#[derive(Debug)]
enum Judged<'a> {
    /// Never written, or taken away.
    Absent,
    /// There; its sealed bytes are those that were written last.
    Present { generation: i64, written: i64, sealed: &'a [u8] },
}

impl Found {
    /// Reads both rows in one statement, so that they are of one moment.
    pub(super) async fn read(
        connection: &mut SqliteConnection,
        kind: Kind,
        id: &str,
    ) -> Result<Self, sqlx::Error> {
        let row = sqlx::query(READ).bind(kind.as_str()).bind(id).fetch_one(connection).await?;
        Self::of(&row)
    }

    fn of(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let head = match row.try_get::<Option<i64>, _>(1)? {
            Some(generation) => Some(HeadRow {
                generation,
                present: row.try_get::<i64, _>(2)? != 0,
                digest: row.try_get(3)?,
                mac: row.try_get(4)?,
            }),
            None => None,
        };
        let record = match row.try_get::<Option<i64>, _>(5)? {
            Some(generation) => Some(RecordRow {
                generation,
                written: row.try_get(6)?,
                key_id: row.try_get(7)?,
                sealed: row.try_get(8)?,
            }),
            None => None,
        };
        let store_key = row.try_get::<Option<Vec<u8>>, _>(0)?.unwrap_or_default();
        Ok(Self { store_key, head, record })
    }

    /// The highest generation that stands here, trusted or not.
    pub(super) fn highest(&self) -> i64 {
        let head = self.head.as_ref().map_or(0, |head| head.generation);
        head.max(self.record.as_ref().map_or(0, |record| record.generation))
    }

    /// Holds the rows against each other. `least`: a generation of this id that was seen before.
    fn judge(
        &self,
        sealer: &Sealer,
        kind: Kind,
        id: &str,
        least: i64,
    ) -> Result<Judged<'_>, &'static str> {
        let Some(head) = &self.head else {
            return match (&self.record, least) {
                (Some(_), _) => {
                    Err("nothing says that it is the newest; it was put there by somebody else")
                }
                (None, 1..) => Err("it was there while this program ran and has vanished"),
                (None, _) => Ok(Judged::Absent),
            };
        };
        let claim = Head {
            kind: kind.as_str(),
            id,
            generation: head.generation,
            present: head.present,
            digest: &head.digest,
        };
        if !sealer.holds(claim, &head.mac) {
            return Err(
                "what says which write is the newest was altered, or sealed with another secret",
            );
        }
        if head.generation < least {
            return Err("an older one was put back while this program ran");
        }
        let record = match (&self.record, head.present) {
            (None, false) => return Ok(Judged::Absent),
            (Some(_), false) => return Err("it was deleted, and an older one was put back"),
            (None, true) => return Err("its row was taken away"),
            (Some(record), true) => record,
        };
        if record.key_id != sealer.key_id() {
            return Err("it was sealed with another secret");
        }
        if record.generation != head.generation {
            return Err("it is not the newest write: an older one was put back, or it was altered");
        }
        if Sha256::digest(&record.sealed).as_slice() != head.digest {
            return Err("its bytes were altered");
        }
        let RecordRow { generation, written, sealed, .. } = record;
        Ok(Judged::Present { generation: *generation, written: *written, sealed })
    }

    /// The record, opened.
    pub(super) fn open(
        &self,
        sealer: &Sealer,
        kind: Kind,
        id: &str,
        least: i64,
    ) -> Result<Option<Record>, &'static str> {
        let Judged::Present { generation, written, sealed } =
            self.judge(sealer, kind, id, least)?
        else {
            return Ok(None);
        };
        let label = Label { kind: kind.as_str(), id, generation, written };
        let body = sealer.open(label, sealed).map_err(|_| "its bytes were altered")?;
        let written =
            Timestamp::from_millisecond(written).map_err(|_| "its time is out of range")?;
        let generation = u64::try_from(generation).map_err(|_| "its generation is negative")?;
        Ok(Some(Record { generation, written, body }))
    }
}

/// Writes a record and its head.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    sealer: &Sealer,
    label: Label<'_>,
    body: &Zeroizing<Vec<u8>>,
) -> Result<(), sqlx::Error> {
    let sealed = sealer.seal(label, body).map_err(|_| no_randomness())?;
    let digest = Sha256::digest(&sealed);
    sqlx::query(PUT_RECORD)
        .bind(label.kind)
        .bind(label.id)
        .bind(label.generation)
        .bind(label.written)
        .bind(sealer.key_id().as_slice())
        .bind(&sealed)
        .execute(&mut *connection)
        .await?;
    put_head(connection, sealer, label, true, &digest).await
}

/// Takes a record away and leaves a head that says so.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    sealer: &Sealer,
    label: Label<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM records WHERE kind = ?1 AND id = ?2")
        .bind(label.kind)
        .bind(label.id)
        .execute(&mut *connection)
        .await?;
    put_head(connection, sealer, label, false, &[]).await
}

async fn put_head(
    connection: &mut SqliteConnection,
    sealer: &Sealer,
    Label { kind, id, generation, written }: Label<'_>,
    present: bool,
    digest: &[u8],
) -> Result<(), sqlx::Error> {
    let mac = sealer.mac(Head { kind, id, generation, present, digest });
    sqlx::query(PUT_HEAD)
        .bind(kind)
        .bind(id)
        .bind(generation)
        .bind(i64::from(present))
        .bind(written)
        .bind(digest)
        .bind(mac)
        .execute(connection)
        .await?;
    Ok(())
}

/// Every id of a kind whose head does not say, authentically, that it is gone; with its generation.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    sealer: &Sealer,
    kind: Kind,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows = sqlx::query(LIST).bind(kind.as_str()).fetch_all(connection).await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        let id: String = row.try_get(0)?;
        let present = row.try_get::<i64, _>(2)? != 0;
        let generation = row.try_get(1)?;
        // What is doubtful stays in the list, so that reading it says what is wrong.
        if !present && row.try_get::<i64, _>(3)? == 0 {
            let (digest, mac): (Vec<u8>, Vec<u8>) = (row.try_get(4)?, row.try_get(5)?);
            let kind = kind.as_str();
            if sealer.holds(Head { kind, id: &id, generation, present, digest: &digest }, &mac) {
                continue;
            }
        }
        ids.push((id, generation));
    }
    Ok(ids)
}

fn no_randomness() -> sqlx::Error {
    sqlx::Error::Protocol("the system gives no randomness".into())
}

const READ: &str = "
SELECT (SELECT value FROM meta WHERE name = 'key id'),
       h.generation, h.present, h.digest, h.mac,
       r.generation, r.written, r.key_id, r.sealed
FROM (SELECT ?1 AS kind, ?2 AS id) q
LEFT JOIN heads h ON h.kind = q.kind AND h.id = q.id
LEFT JOIN records r ON r.kind = q.kind AND r.id = q.id";

const LIST: &str = "
SELECT id, generation, present, EXISTS (SELECT 1 FROM records r WHERE r.kind = h.kind AND r.id = h.id), digest, mac
FROM heads h WHERE kind = ?1
UNION ALL
SELECT id, generation, 1, 1, x'', x'' FROM records r
WHERE kind = ?1 AND NOT EXISTS (SELECT 1 FROM heads h WHERE h.kind = r.kind AND h.id = r.id)
ORDER BY id";

const PUT_RECORD: &str = "
INSERT INTO records (kind, id, generation, written, key_id, sealed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (kind, id) DO UPDATE SET
    generation = excluded.generation, written = excluded.written,
    key_id = excluded.key_id, sealed = excluded.sealed";

const PUT_HEAD: &str = "
INSERT INTO heads (kind, id, generation, present, changed, digest, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (kind, id) DO UPDATE SET
    generation = excluded.generation, present = excluded.present, changed = excluded.changed,
    digest = excluded.digest, mac = excluded.mac";
