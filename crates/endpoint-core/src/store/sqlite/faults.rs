//! What does an error of SQLite mean to an operator?

use std::path::Path;

use sqlx::migrate::MigrateError;

use super::super::StoreError;

/// An error of the database, with what to do about it.
#[allow(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
pub(super) fn told(path: &Path, error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<i32>().ok());
    // The low byte is the kind of error, the rest says where it happened.
    let why = match code.map(|code| code & 0xff) {
        Some(5 | 6 | 15) => {
            "another process keeps it locked; end that process, or wait and try again".to_owned()
        }
        Some(8) => "it is read-only; check its mode, its owner and how its file system is mounted"
            .to_owned(),
        Some(10) => format!(
            "the disk fails or is full ({error}); look at its free space and into the system's log, then try again"
        ),
        Some(11) => format!(
            "its file is corrupt ({error}); put it back from a backup, or move it away to begin anew"
        ),
        Some(13) => "the disk is full; free some space, then try again".to_owned(),
        Some(14) => format!(
            "it cannot be opened ({error}); check that its folder exists and can be written"
        ),
        Some(26) => {
            "the file is not a database; check `store.url`, or move the file away".to_owned()
        }
        _ => match error {
            sqlx::Error::PoolTimedOut => "it is too busy; try again".to_owned(),
            error => error.to_string(),
        },
    };
    match code.map(|code| code & 0xff) {
        Some(8 | 10 | 13 | 14) => StoreError::Unwritable { place: path.display().to_string(), why },
        _ => unusable(path, why),
    }
}

/// An error of the migrations.
pub(super) fn migration(path: &Path, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            told(path, error)
        }
        MigrateError::VersionMissing(version) => unusable(
            path,
            format!(
                "its schema has version {version}, which a newer release of this program made; run that release, \
                 or put an older store back from a backup"
            ),
        ),
        MigrateError::VersionMismatch(version) => unusable(
            path,
            format!(
                "version {version} of its schema is not the one of this program; run the release that made it"
            ),
        ),
        error => unusable(path, error.to_string()),
    }
}

pub(super) fn unusable(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Unusable { place: path.display().to_string(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use sqlx::{ConnectOptions, Connection, SqliteConnection};

    use super::{super::setup, *};

    /// A database with one small table.
    async fn database(folder: &tempfile::TempDir) -> std::path::PathBuf {
        let path = folder.path().join("endpoint.db");
        fs::write(&path, "").unwrap();
        let mut connection = setup::connect(&path).await.unwrap();
        run(&mut connection, "CREATE TABLE t (x)").await.unwrap();
        connection.close().await.unwrap();
        path
    }

    async fn run(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(connection).await.map(|_| ())
    }

    fn text(path: &Path, failed: Result<(), sqlx::Error>) -> String {
        let text = told(path, failed.unwrap_err()).to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        text
    }

    #[tokio::test]
    async fn each_error_says_what_is_wrong_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(&folder).await;
        let mut one = setup::connect(&path).await.unwrap();
        let impatient = setup::options(&path).busy_timeout(Duration::ZERO);
        let mut other = impatient.connect().await.unwrap();
        run(&mut one, "BEGIN EXCLUSIVE").await.unwrap();
        let locked = text(&path, run(&mut other, "BEGIN IMMEDIATE").await);
        assert!(locked.contains("another process keeps it locked"), "{locked}");
        run(&mut one, "ROLLBACK").await.unwrap();

        let fill = "PRAGMA max_page_count = 3; INSERT INTO t VALUES (zeroblob(100000))";
        let full = text(&path, run(&mut one, fill).await);
        assert!(full.contains("the disk is full; free some space"), "{full}");

        let mut reader = setup::options(&path).read_only(true).connect().await.unwrap();
        let denied = text(&path, run(&mut reader, "INSERT INTO t VALUES (1)").await);
        assert!(denied.contains("read-only; check its mode"), "{denied}");

        let absent = folder.path().join("absent/endpoint.db");
        let absent_text = setup::connect(&absent).await.unwrap_err().to_string();
        assert!(absent_text.contains("check that its folder exists"), "{absent_text}");

        let strange = folder.path().join("strange.db");
        fs::write(&strange, "this is a text and no database\n".repeat(200)).unwrap();
        let none = setup::connect(&strange).await.unwrap_err().to_string();
        assert!(none.contains("the file is not a database"), "{none}");
    }
}
