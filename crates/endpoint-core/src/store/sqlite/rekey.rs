//! How does a store get another secret?
//!
//! One transaction seals every record anew, so a crash leaves the old secret's store or the new one's. If
//! the secret stays in the same file, the new one waits beside it and is put in its place at the end; a
//! start after a crash in between finishes that.

use std::path::Path;

use sqlx::{Connection, Row, SqliteConnection};

use super::{
    super::{
        Kind, StoreError, private,
        seal::{Label, Sealer},
        secret::Secret,
    },
    faults::{told, unusable},
    rows::{Found, put, take},
    setup::{self, NEXT},
};
use crate::config::StoreSecret;

/// Seals a store that there is with another secret. `old` and `new` may be the same file: then a new secret
/// is made in it.
pub(in super::super) async fn rekey(
    path: &Path,
    old: &StoreSecret,
    new: &StoreSecret,
) -> Result<(), StoreError> {
    if private::examine(path).map_err(|why| unusable(path, why))?.is_none() {
        return Err(unusable(path, "it does not exist, so there is nothing to seal anew"));
    }
    // Also finishes a rekeying that was cut off.
    let current = setup::prepare(path, old).await?;
    let next = match new {
        StoreSecret::File(file) if old == new => Secret::obtain(&private::beside(file, NEXT))?,
        new => Secret::load(new, None)?,
    };
    let mut connection = setup::connect(path).await?;
    let done = seal_anew(&mut connection, path, &current, &next).await;
    if done.is_ok() {
        // Nothing of the old sealing stays in free pages or in the log. The store is right without it.
        let _ = sqlx::query("VACUUM").execute(&mut connection).await;
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
    }
    let _ = connection.close().await;
    done?;
    match new {
        StoreSecret::File(file) if old == new => {
            private::replace(&private::beside(file, NEXT), file).map_err(StoreError::Secret)
        }
        _ => Ok(()),
    }
}

async fn seal_anew(
    connection: &mut SqliteConnection,
    path: &Path,
    current: &Sealer,
    next: &Secret,
) -> Result<(), StoreError> {
    let told = |error| told(path, error);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(told)?;
    let (store, key_id) = setup::named(&mut transaction).await.map_err(told)?;
    if key_id.as_deref() != Some(current.key_id().as_slice()) {
        return Err(unusable(path, "somebody else seals it anew at this moment; try again"));
    }
    if setup::keys(path, next, &store.unwrap_or_default())?.key_id() == current.key_id() {
        return Err(StoreError::Secret(format!(
            "the new secret of the store `{}` is the old one; give another",
            path.display()
        )));
    }
    let number = setup::new_number(path)?;
    let sealer = setup::keys(path, next, &number)?;
    let ids = sqlx::query("SELECT kind, id, changed, generation FROM heads UNION SELECT kind, id, written, generation FROM records WHERE NOT EXISTS (SELECT 1 FROM heads h WHERE h.kind = records.kind AND h.id = records.id)")
        .fetch_all(&mut *transaction)
        .await
        .map_err(told)?;
    for row in ids {
        let (name, id): (String, String) =
            (row.try_get(0).map_err(told)?, row.try_get(1).map_err(told)?);
        let (changed, generation): (i64, i64) =
            (row.try_get(2).map_err(told)?, row.try_get(3).map_err(told)?);
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == name) else {
            return Err(unusable(
                path,
                format!("it holds a record of the unknown kind `{}`", name.escape_debug()),
            ));
        };
        let found = Found::read(&mut transaction, kind, &id).await.map_err(told)?;
        let record = found.open(current, kind, &id, 0).map_err(|why| StoreError::Damaged {
            kind,
            id: id.clone(),
            place: path.display().to_string(),
            why: format!("{why}; write it anew or delete it first"),
        })?;
        let label = Label { kind: kind.as_str(), id: &id, generation, written: changed };
        match record {
            Some(record) => put(&mut transaction, &sealer, label, &record.body).await,
            None => take(&mut transaction, &sealer, label).await,
        }
        .map_err(told)?;
    }
    setup::name(&mut transaction, &number, &sealer).await.map_err(told)?;
    transaction.commit().await.map_err(told)
}
