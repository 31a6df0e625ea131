//! The contract, and everything that somebody may do to the file.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use super::{
    super::{
        contract::{self, body, now},
        open, rekey,
    },
    *,
};
use crate::config::StoreConfig;

#[path = "aside_tests.rs"]
mod aside;

/// A folder with a store.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("state/endpoint.db")
    }

    fn secret(&self) -> PathBuf {
        self.0.path().join("state/store.secret")
    }

    fn from(&self) -> StoreSecret {
        StoreSecret::File(self.secret())
    }

    async fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        open(&StoreConfig::Sqlite { path: self.file(), secret: self.from() }).await
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.unwrap()
    }

    async fn refusal(&self) -> String {
        self.try_open().await.unwrap_err().to_string()
    }

    /// What somebody else does to the file.
    async fn tamper(&self, sql: &'static str) {
        let mut connection = setup::connect(&self.file()).await.unwrap();
        let done = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        assert!(done.rows_affected() > 0 || sql.starts_with("CREATE"), "{sql}");
        connection.close().await.unwrap();
    }
}

fn certificate(id: &str, text: &str) -> Change {
    Change::Replace(Kind::Certificate, id.into(), None, body(text))
}

async fn put_one(store: &Arc<dyn Store>, id: &str, text: &str) {
    store.write(vec![certificate(id, text)], now()).await.unwrap();
}

/// The error of reading a record, which must name it.
async fn distrust(store: &Arc<dyn Store>, id: &str) -> String {
    match store.read(Kind::Certificate, id).await {
        Err(error @ StoreError::Damaged { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&format!("certificate `{id}`")), "{text}");
            assert!(text.contains("endpoint.db") && text.contains("backup"), "{text}");
            text
        }
        other => panic!("trusted: {other:?}"),
    }
}

async fn text(store: &Arc<dyn Store>, id: &str) -> Option<String> {
    let record = store.read(Kind::Certificate, id).await.unwrap()?;
    Some(String::from_utf8(record.body.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_with_one_handle_and_with_two() {
    let places = std::sync::Mutex::new(Vec::new());
    let fresh = || {
        let place = Place::new();
        let (path, secret) = (place.file(), place.from());
        places.lock().unwrap().push(place);
        StoreConfig::Sqlite { path, secret }
    };
    contract::holds(async || {
        let store = open(&fresh()).await.unwrap();
        (store.clone(), store)
    })
    .await;
    contract::holds(async || {
        let config = fresh();
        (open(&config).await.unwrap(), open(&config).await.unwrap())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_begin_at_once_make_one_store() {
    let place = Arc::new(Place::new());
    let mut all = tokio::task::JoinSet::new();
    for n in 0..8 {
        let place = place.clone();
        all.spawn(async move { put_one(&place.open().await, &format!("name {n}"), "x").await });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    assert_eq!(place.open().await.list(Kind::Certificate).await.unwrap().len(), 8);
}

#[tokio::test]
async fn outlives_its_handle_and_shows_nothing_on_the_disk() {
    let place = Place::new();
    let store = place.open().await;
    let private = "PRIVATE-KEY-BYTES-that-nobody-sees";
    put_one(&store, "a", private).await;
    for entry in fs::read_dir(place.file().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let facts = entry.metadata().unwrap();
        assert_eq!(facts.mode() & 0o7777, 0o600, "{:?}", entry.file_name());
        let bytes = fs::read(entry.path()).unwrap();
        let found = bytes.windows(private.len()).any(|part| part == private.as_bytes());
        assert!(!found, "{:?}", entry.file_name());
    }
    assert_eq!(fs::metadata(place.file().parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    drop(store);
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some(private));
}

#[tokio::test]
async fn an_altered_moved_or_removed_record_is_named_and_not_given() {
    for (attack, said) in [
        (
            "UPDATE records SET sealed = CAST(x'00' || substr(sealed, 2) AS BLOB) WHERE id = 'a'",
            "altered",
        ),
        (
            "UPDATE records SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE id = 'a'",
            "altered",
        ),
        ("UPDATE records SET sealed = x'' WHERE id = 'a'", "altered"),
        ("UPDATE records SET written = written + 1 WHERE id = 'a'", "altered"),
        ("UPDATE records SET generation = generation + 1 WHERE id = 'a'", "not the newest"),
        ("UPDATE records SET key_id = x'00' WHERE id = 'a'", "another secret"),
        ("DELETE FROM records WHERE id = 'a'", "taken away"),
        ("DELETE FROM heads WHERE id = 'a'", "nothing says"),
        ("UPDATE heads SET present = 0 WHERE id = 'a'", "altered"),
        (
            "UPDATE heads SET present = 0 WHERE id = 'a'; DELETE FROM records WHERE id = 'a'",
            "altered",
        ),
        ("UPDATE heads SET generation = generation + 1 WHERE id = 'a'", "altered"),
        ("UPDATE heads SET mac = zeroblob(32) WHERE id = 'a'", "altered"),
        (
            "UPDATE records SET sealed = (SELECT sealed FROM records WHERE id = 'b') WHERE id = 'a'",
            "altered",
        ),
        // Record and head of another id, and of another kind, as they stand.
        (
            "DELETE FROM records WHERE id = 'a'; DELETE FROM heads WHERE id = 'a';
          UPDATE records SET id = 'a' WHERE id = 'b' AND kind = 'certificate';
          UPDATE heads SET id = 'a' WHERE id = 'b' AND kind = 'certificate'",
            "altered",
        ),
        (
            "DELETE FROM records WHERE kind = 'certificate'; DELETE FROM heads WHERE kind = 'certificate';
          UPDATE records SET kind = 'certificate' WHERE kind = 'previous';
          UPDATE heads SET kind = 'certificate' WHERE kind = 'previous'",
            "altered",
        ),
    ] {
        let place = Place::new();
        let store = place.open().await;
        put_one(&store, "a", "one").await;
        put_one(&store, "b", "two").await;
        let previous = Change::Create(Kind::Previous, "a".into(), body("old"));
        store.write(vec![previous], now()).await.unwrap();
        drop(store);
        place.tamper(attack).await;
        let store = place.open().await;
        let error = distrust(&store, "a").await;
        assert!(error.contains(said), "{attack}: {error}");
        let ids = store.list(Kind::Certificate).await.unwrap();
        assert!(ids.iter().any(|(id, _)| id == "a"), "{attack}: must not look absent");
        let create = Change::Create(Kind::Certificate, "a".into(), body("new"));
        let refused = store.write(vec![create], now()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{attack}: {refused}");
        // An operator's order mends it.
        put_one(&store, "a", "mended").await;
        assert_eq!(text(&store, "a").await.as_deref(), Some("mended"));
    }
}

const KEEP: &str = "CREATE TABLE kept_records AS SELECT * FROM records; CREATE TABLE kept_heads AS SELECT * FROM heads";

#[tokio::test]
async fn an_older_record_that_was_put_back_is_an_error() {
    let place = Place::new();
    let store = place.open().await;
    put_one(&store, "a", "old").await;
    place.tamper(KEEP).await;
    put_one(&store, "a", "new").await;
    place.tamper("REPLACE INTO records SELECT * FROM kept_records").await;
    assert!(distrust(&store, "a").await.contains("older"));
    drop(store);
    assert!(distrust(&place.open().await, "a").await.contains("older"));
}

#[tokio::test]
async fn a_deleted_record_that_was_put_back_is_an_error() {
    let place = Place::new();
    let store = place.open().await;
    put_one(&store, "a", "old").await;
    place.tamper(KEEP).await;
    store.write(vec![Change::Delete(Kind::Certificate, "a".into())], now()).await.unwrap();
    place.tamper("REPLACE INTO records SELECT * FROM kept_records").await;
    assert!(distrust(&store, "a").await.contains("deleted"));
}

#[tokio::test]
async fn a_running_process_remembers_what_it_saw() {
    let place = Place::new();
    let store = place.open().await;
    put_one(&store, "a", "old").await;
    place.tamper(KEEP).await;
    put_one(&store, "a", "new").await;
    // Record and head together, both authentic.
    place
        .tamper("REPLACE INTO records SELECT * FROM kept_records; REPLACE INTO heads SELECT * FROM kept_heads")
        .await;
    assert!(distrust(&store, "a").await.contains("while this program ran"));
    // One that did not run takes it for the older state that it is.
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some("old"));
    place.tamper("DELETE FROM records; DELETE FROM heads").await;
    assert!(distrust(&store, "a").await.contains("vanished"));
    assert_eq!(store.list(Kind::Certificate).await.unwrap().len(), 1, "must not look absent");
    // What is written then is newer than anything that was there.
    put_one(&store, "a", "mended").await;
    assert_eq!(text(&store, "a").await.as_deref(), Some("mended"));
}

#[tokio::test]
async fn a_wrong_or_missing_secret_opens_nothing_and_makes_nothing() {
    let place = Place::new();
    put_one(&place.open().await, "a", "one").await;
    let right = fs::read(place.secret()).unwrap();
    fs::remove_file(place.secret()).unwrap();
    let error = place.refusal().await;
    assert!(error.contains("store.secret") && error.contains("does not exist"), "{error}");
    assert!(!place.secret().exists(), "a new secret would hide the loss");

    let other = Place::new();
    other.open().await;
    fs::copy(other.secret(), place.secret()).unwrap();
    let error = place.refusal().await;
    assert!(error.contains("store.secret") && error.contains("is not the one"), "{error}");
    let wrong = fs::read_to_string(place.secret()).unwrap();
    assert!(!error.contains(wrong.trim()), "{error}");

    fs::write(place.secret(), right).unwrap();
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some("one"));
}

#[tokio::test]
async fn files_of_others_or_for_others_are_refused() {
    let place = Place::new();
    put_one(&place.open().await, "a", "one").await;
    fs::set_permissions(place.file(), Permissions::from_mode(0o640)).unwrap();
    let error = place.refusal().await;
    assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(place.file(), Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(place.file(), Some(65_534), None).unwrap();
        assert!(place.refusal().await.contains("belongs to user 65534"));
        std::os::unix::fs::chown(place.file(), Some(0), None).unwrap();
    }
    let journal = private_beside(&place.file(), "-journal");
    symlink("/dev/null", &journal).unwrap();
    assert!(place.refusal().await.contains("is a link"));
    fs::remove_file(&journal).unwrap();
    let moved = place.file().with_extension("moved");
    fs::rename(place.file(), &moved).unwrap();
    symlink(&moved, place.file()).unwrap();
    assert!(place.refusal().await.contains("is a link"));
    fs::remove_file(place.file()).unwrap();
    fs::rename(&moved, place.file()).unwrap();
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some("one"));
}

#[tokio::test]
async fn a_file_that_is_no_store_of_ours_is_refused_with_a_sentence() {
    let place = Place::new();
    place.open().await;
    place.tamper("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0)").await;
    let error = place.refusal().await;
    assert!(error.contains("version 99") && error.contains("newer release"), "{error}");

    let place = Place::new();
    place.open().await;
    place.tamper("UPDATE _sqlx_migrations SET checksum = x'00'").await;
    assert!(place.refusal().await.contains("is not the one of this program"));

    let place = Place::new();
    place.open().await;
    let _ = fs::remove_file(place.file().with_file_name("endpoint.db-wal"));
    fs::write(place.file(), "no database, but a long text\n".repeat(400)).unwrap();
    assert!(place.refusal().await.contains("not a database"));

    let place = Place::new();
    drop(place.open().await);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(private_beside(&place.file(), suffix));
    }
    fs::OpenOptions::new().write(true).create_new(true).open(place.file()).unwrap();
    fs::set_permissions(place.file(), Permissions::from_mode(0o600)).unwrap();
    place.tamper("CREATE TABLE theirs (x)").await;
    assert!(place.refusal().await.contains("another program"));
}

fn private_beside(path: &Path, suffix: &str) -> PathBuf {
    super::super::private::beside(path, suffix)
}

#[tokio::test]
async fn another_secret_seals_everything_anew() {
    let place = Place::new();
    let store = place.open().await;
    put_one(&store, "a", "one").await;
    put_one(&store, "b", "two").await;
    store.write(vec![Change::Delete(Kind::Certificate, "b".into())], now()).await.unwrap();
    let generation = store.read(Kind::Certificate, "a").await.unwrap().unwrap().generation;
    let first = fs::read(place.secret()).unwrap();

    rekey(&place.file(), &place.from(), &place.from()).await.unwrap();
    assert_ne!(fs::read(place.secret()).unwrap(), first);
    assert!(!private_beside(&place.secret(), setup::NEXT).exists());
    for done in [
        store.read(Kind::Certificate, "a").await.map(|_| ()),
        store.list(Kind::Certificate).await.map(|_| ()),
        store.write(vec![certificate("a", "x")], now()).await,
    ] {
        let error = done.unwrap_err();
        assert!(
            matches!(error, StoreError::Secret(_)) && error.to_string().contains("start it again"),
            "{error}"
        );
    }
    let store = place.open().await;
    let record = store.read(Kind::Certificate, "a").await.unwrap().unwrap();
    assert_eq!((record.body.as_slice(), record.generation), (&b"one"[..], generation));
    assert_eq!(text(&store, "b").await, None);

    let elsewhere = StoreSecret::File(place.0.path().join("elsewhere/secret"));
    rekey(&place.file(), &place.from(), &elsewhere).await.unwrap();
    assert!(place.refusal().await.contains("is not the one"));
    let config = StoreConfig::Sqlite { path: place.file(), secret: elsewhere.clone() };
    assert_eq!(text(&open(&config).await.unwrap(), "a").await.as_deref(), Some("one"));
    let same = StoreSecret::File(place.0.path().join("elsewhere/copy"));
    fs::copy(place.0.path().join("elsewhere/secret"), place.0.path().join("elsewhere/copy"))
        .unwrap();
    let error = rekey(&place.file(), &elsewhere, &same).await.unwrap_err().to_string();
    assert!(error.contains("is the old one"), "{error}");
}

#[tokio::test]
async fn a_rekeying_that_was_cut_off_is_finished_at_the_next_start() {
    let place = Place::new();
    put_one(&place.open().await, "a", "one").await;
    let first = fs::read(place.secret()).unwrap();
    // Cut off before the transaction: the old secret fits, the next one waits.
    let next = private_beside(&place.secret(), setup::NEXT);
    super::super::secret::Secret::obtain(&next).unwrap();
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some("one"));
    rekey(&place.file(), &place.from(), &place.from()).await.unwrap();
    // Cut off after it: the new one waits, the old one stands in its place.
    fs::rename(place.secret(), &next).unwrap();
    fs::write(place.secret(), &first).unwrap();
    fs::set_permissions(place.secret(), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some("one"));
    assert!(!next.exists());
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some("one"));
}

#[tokio::test]
async fn a_rekeying_of_a_damaged_store_changes_nothing() {
    let place = Place::new();
    let store = place.open().await;
    put_one(&store, "a", "one").await;
    put_one(&store, "b", "two").await;
    place.tamper("UPDATE records SET sealed = x'00' WHERE id = 'b'").await;
    let error = rekey(&place.file(), &place.from(), &place.from()).await.unwrap_err().to_string();
    assert!(error.contains("certificate `b`"), "{error}");
    assert_eq!(text(&place.open().await, "a").await.as_deref(), Some("one"));
    let nothing = Place::new();
    let error = rekey(&nothing.file(), &nothing.from(), &nothing.from()).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(!nothing.secret().exists());
}

#[tokio::test]
async fn traces_of_challenges_are_forgotten_after_a_week() {
    let place = Place::new();
    let store = place.open().await;
    let later = |days: i64| now().checked_add(jiff::SignedDuration::from_hours(24 * days)).unwrap();
    let challenge = |id: &str| Change::Create(Kind::Challenge, id.into(), body("x"));
    store.write(vec![challenge("a"), challenge("b")], now()).await.unwrap();
    store.write(vec![Change::Delete(Kind::Challenge, "a".into())], now()).await.unwrap();
    put_one(&store, "c", "x").await;
    store.write(vec![certificate("c", "y")], later(8)).await.unwrap();
    let mut connection = setup::connect(&place.file()).await.unwrap();
    let rows =
        sqlx::query("SELECT id FROM heads ORDER BY id").fetch_all(&mut connection).await.unwrap();
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, ["b", "c"]);
    assert!(store.read(Kind::Challenge, "a").await.unwrap().is_none());
    assert!(store.read(Kind::Challenge, "b").await.unwrap().is_some());
}

#[tokio::test]
async fn a_spoiled_page_is_an_error_and_never_an_empty_store() {
    let place = Place::new();
    let store = place.open().await;
    let long = "x".repeat(2000);
    for n in 0..12 {
        put_one(&store, &format!("name{n}"), &long).await;
    }
    drop(store);
    let mut connection = setup::connect(&place.file()).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let good = fs::read(place.file()).unwrap();
    let (mut refused, mut named) = (0, 0);
    for page in 0..good.len() / 4096 {
        for spoil in [0x00, 0xff] {
            let other = Place::new();
            fs::create_dir(other.file().parent().unwrap()).unwrap();
            let mut bytes = good.clone();
            bytes[page * 4096..(page + 1) * 4096].fill(spoil);
            fs::write(other.file(), bytes).unwrap();
            fs::copy(place.secret(), other.secret()).unwrap();
            fs::set_permissions(other.file(), Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(other.file().parent().unwrap(), Permissions::from_mode(0o700))
                .unwrap();
            let Ok(store) = other.try_open().await else {
                refused += 1;
                continue;
            };
            for n in 0..12 {
                match store.read(Kind::Certificate, &format!("name{n}")).await {
                    Ok(Some(record)) => assert_eq!(record.body.as_slice(), long.as_bytes()),
                    Ok(None) => panic!("page {page} of {spoil:#x}: looks absent"),
                    Err(_) => named += 1,
                }
            }
        }
    }
    assert!(refused > 0 && named > 0, "{refused} {named}");
}

#[tokio::test]
async fn a_counter_that_was_driven_to_its_end_is_no_reason_to_number_writes_alike() {
    let place = Place::new();
    let store = place.open().await;
    put_one(&store, "a", "one").await;
    place.tamper("UPDATE counter SET number = 9223372036854775807").await;
    let refused = store.write(vec![certificate("a", "two")], now()).await.unwrap_err().to_string();
    assert!(refused.contains("its counter was altered"), "{refused}");
    let kept = store.read(Kind::Certificate, "a").await.unwrap().unwrap();
    assert_eq!(*kept.body, *body("one"));
}
