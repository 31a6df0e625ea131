//! Does a store keep what [`Store`] demands of it? Holds any backend against every MUST.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Change, Kind, Store, StoreError};

/// Two handles of one empty store; they may be the same.
pub(crate) type Handles = (Arc<dyn Store>, Arc<dyn Store>);

/// Every demand; `open` gives two handles of a fresh store.
pub(crate) async fn holds<F: Future<Output = Handles>>(open: impl Fn() -> F) {
    reads_what_was_written(open().await).await;
    writes_all_or_nothing(open().await).await;
    refuses_conflicts(open().await).await;
    never_uses_a_generation_again(open().await).await;
    keeps_kinds_apart_and_lists_in_order(open().await).await;
    tells_of_every_change(open().await).await;
    gives_a_lock_to_one(open().await).await;
    lets_one_of_many_racers_win(open().await).await;
    keeps_aside_what_is_set_aside(open().await).await;
    shows_no_body(open().await).await;
}

pub(crate) fn body(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

pub(crate) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn create(id: &str, text: &str) -> Change {
    Change::Create(Kind::Certificate, id.into(), body(text))
}

fn replace(id: &str, generation: Option<u64>, text: &str) -> Change {
    Change::Replace(Kind::Certificate, id.into(), generation, body(text))
}

fn delete(id: &str) -> Change {
    Change::Delete(Kind::Certificate, id.into())
}

async fn text(store: &Arc<dyn Store>, id: &str) -> Option<String> {
    let record = store.read(Kind::Certificate, id).await.unwrap()?;
    Some(String::from_utf8(record.body.to_vec()).unwrap())
}

async fn generation(store: &Arc<dyn Store>, id: &str) -> u64 {
    store.read(Kind::Certificate, id).await.unwrap().unwrap().generation
}

async fn reads_what_was_written((a, b): Handles) {
    assert!(b.read(Kind::Certificate, "a").await.unwrap().is_none());
    a.write(vec![create("a", "one")], now()).await.unwrap();
    let record = b.read(Kind::Certificate, "a").await.unwrap().unwrap();
    assert_eq!((record.body.as_slice(), record.written), (&b"one"[..], now()));
    b.write(vec![replace("a", Some(record.generation), "two")], now()).await.unwrap();
    assert_eq!(text(&a, "a").await.as_deref(), Some("two"));
    assert!(generation(&a, "a").await > record.generation);
    a.write(vec![replace("a", None, ""), replace("b", None, "new")], now()).await.unwrap();
    assert_eq!(text(&b, "a").await.as_deref(), Some(""));
    assert_eq!(text(&b, "b").await.as_deref(), Some("new"));
    a.write(vec![delete("a"), delete("never")], now()).await.unwrap();
    assert_eq!(text(&b, "a").await, None);
    let long = "x".repeat(300_000);
    let odd = "Ünïcode /..\\ \u{1b} ' \" ; --";
    a.write(vec![create(odd, &long)], now()).await.unwrap();
    assert_eq!(text(&b, odd).await, Some(long));
}

async fn writes_all_or_nothing((a, b): Handles) {
    a.write(vec![create("a", "one")], now()).await.unwrap();
    let changes = vec![
        create("b", "x"),
        replace("a", None, "x"),
        delete("a"),
        create("a", "y"),
        create("b", "z"),
    ];
    let error = b.write(changes, now()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { ref id, .. } if id == "b"), "{error}");
    assert_eq!(text(&a, "a").await.as_deref(), Some("one"));
    assert_eq!(text(&a, "b").await, None);
    let good = vec![delete("a"), create("a", "two"), create("b", "x")];
    b.write(good, now()).await.unwrap();
    assert_eq!(text(&a, "a").await.as_deref(), Some("two"));
}

async fn refuses_conflicts((a, b): Handles) {
    a.write(vec![create("a", "one")], now()).await.unwrap();
    let first = generation(&b, "a").await;
    let conflict =
        |error: StoreError| assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    conflict(b.write(vec![create("a", "x")], now()).await.unwrap_err());
    conflict(b.write(vec![replace("a", Some(first + 1), "x")], now()).await.unwrap_err());
    conflict(b.write(vec![replace("b", Some(1), "x")], now()).await.unwrap_err());
    a.write(vec![replace("a", Some(first), "two")], now()).await.unwrap();
    conflict(b.write(vec![replace("a", Some(first), "x")], now()).await.unwrap_err());
    assert_eq!(text(&b, "a").await.as_deref(), Some("two"));
}

async fn never_uses_a_generation_again((a, b): Handles) {
    let mut last = 0;
    for turn in 0..5 {
        a.write(vec![create("a", "x")], now()).await.unwrap();
        let new = generation(&b, "a").await;
        assert!(new > last, "turn {turn}");
        last = new;
        b.write(vec![delete("a")], now()).await.unwrap();
    }
}

async fn keeps_kinds_apart_and_lists_in_order((a, b): Handles) {
    for kind in Kind::ALL {
        a.write(vec![Change::Create(kind, "same".into(), body(kind.as_str()))], now())
            .await
            .unwrap();
    }
    for kind in Kind::ALL {
        let record = b.read(kind, "same").await.unwrap().unwrap();
        assert_eq!(record.body.as_slice(), kind.as_str().as_bytes());
        assert_eq!(b.list(kind).await.unwrap(), [("same".to_owned(), record.generation)]);
    }
    a.write(vec![create("z", ""), create("b", ""), delete("same")], now()).await.unwrap();
    let ids: Vec<_> =
        b.list(Kind::Certificate).await.unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["b", "z"]);
}

async fn tells_of_every_change((a, b): Handles) {
    let mut last = b.version().await.unwrap();
    for change in [create("a", ""), replace("a", None, ""), delete("a"), create("a", "")] {
        a.write(vec![change], now()).await.unwrap();
        let version = b.version().await.unwrap();
        assert_ne!(version, last);
        last = version;
    }
    assert_eq!(b.version().await.unwrap(), last);
}

async fn gives_a_lock_to_one((a, b): Handles) {
    let minute = Duration::from_secs(60);
    let later = |seconds: i64| now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    let first = a.lock("order a", now(), minute).await.unwrap().unwrap();
    assert_eq!(first.until, later(60));
    assert!(b.lock("order a", now(), minute).await.unwrap().is_none());
    assert!(a.lock("order a", later(59), minute).await.unwrap().is_none(), "not its holder either");
    let other = b.lock("order b", now(), minute).await.unwrap().unwrap();
    assert_ne!(other.owner, first.owner);
    let second = b.lock("order a", later(60), minute).await.unwrap().unwrap();
    a.unlock(first).await.unwrap();
    assert!(a.lock("order a", later(61), minute).await.unwrap().is_none(), "still theirs");
    b.unlock(second.clone()).await.unwrap();
    b.unlock(second).await.unwrap();
    assert!(a.lock("order a", later(61), minute).await.unwrap().is_some());
    // The clock was set back: a little changes nothing, years do not lock everybody out.
    assert!(b.lock("order a", later(1), minute).await.unwrap().is_none());
    assert!(b.lock("order a", later(0), minute).await.unwrap().is_some(), "121 s are no minute");
    let far = later(10 * 365 * 86_400);
    assert!(a.lock("order far", far, minute).await.unwrap().is_some());
    assert!(b.lock("order far", now(), minute).await.unwrap().is_some());
}

async fn lets_one_of_many_racers_win((a, b): Handles) {
    a.write(vec![create("a", "0")], now()).await.unwrap();
    let start = generation(&a, "a").await;
    let mut racers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let store = if n % 2 == 0 { a.clone() } else { b.clone() };
        racers.spawn(async move {
            let lock = store.lock("race", now(), Duration::from_secs(60)).await.unwrap();
            let won = store.write(vec![replace("a", Some(start), &n.to_string())], now()).await;
            assert!(matches!(won, Ok(()) | Err(StoreError::Conflict { .. })));
            // Readers that race with writers see whole records.
            assert!(text(&store, "a").await.is_some());
            (usize::from(lock.is_some()), usize::from(won.is_ok()))
        });
    }
    let (mut locks, mut wins) = (0, 0);
    while let Some(racer) = racers.join_next().await {
        let (lock, won) = racer.unwrap();
        (locks, wins) = (locks + lock, wins + won);
    }
    assert_eq!((locks, wins), (1, 1));
}

async fn keeps_aside_what_is_set_aside((a, b): Handles) {
    a.write(vec![create("a", "one")], now()).await.unwrap();
    let first = generation(&b, "a").await;
    let aside = |id: &str, of| Change::SetAside(Kind::Certificate, id.into(), of, "why".into());
    for refused in [aside("a", None), aside("a", Some(first + 1)), aside("b", None)] {
        let error = b.write(vec![refused, create("c", "x")], now()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
    assert!(a.asides().await.unwrap().is_empty());
    b.write(vec![aside("a", Some(first)), create("a", "two")], now()).await.unwrap();
    assert_eq!(text(&a, "a").await.as_deref(), Some("two"));
    assert!(generation(&a, "a").await > first);
    let asides = a.asides().await.unwrap();
    let [one] = asides.as_slice() else { panic!("{asides:?}") };
    assert_eq!((one.kind.as_str(), one.id.as_str(), one.why.as_str()), ("certificate", "a", "why"));
    assert_eq!((one.at, one.to_string()), (now(), format!("certificate `a` #{}", one.number)));
    let gone = generation(&a, "a").await;
    a.write(vec![aside("a", Some(gone))], now()).await.unwrap();
    assert_eq!(text(&b, "a").await, None);
    assert!(b.list(Kind::Certificate).await.unwrap().is_empty());
}

async fn shows_no_body((a, b): Handles) {
    a.write(vec![create("a", "PRIVATE")], now()).await.unwrap();
    let record = b.read(Kind::Certificate, "a").await.unwrap().unwrap();
    let conflict = b.write(vec![create("a", "PRIVATE")], now()).await.unwrap_err();
    let shown = format!("{a:?} {record:?} {:?} {conflict:?} {conflict}", create("a", "PRIVATE"));
    assert!(!shown.contains("PRIVATE") && !shown.contains("80, 82, 73"), "{shown}");
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    holds(|| async {
        let store: Arc<dyn Store> = Arc::new(super::Memory::new());
        (store.clone(), store)
    })
    .await;
}
