//! When is a responder asked, and what is shown in between?

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use zeroize::Zeroizing;

use super::*;
use crate::store::{Change, Kind, Lease, Pending, Record, Store};

/// A store that keeps records and does nothing else.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<String, Zeroizing<Vec<u8>>>>);

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Store for Shelf {
    fn place(&self) -> String {
        "shelf".into()
    }

    fn read<'a>(&'a self, _: Kind, id: &'a str) -> Pending<'a, Option<Record>> {
        let body = self.0.lock().unwrap().get(id).cloned();
        let record = body.map(|body| Record { generation: 1, written: now(), body });
        Box::pin(async { Ok(record) })
    }

    fn list(&self, _: Kind) -> Pending<'_, Vec<(String, u64)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn write<'a>(&'a self, changes: Vec<Change>, _: Timestamp) -> Pending<'a, ()> {
        for change in changes {
            let mut shelf = self.0.lock().unwrap();
            match change {
                Change::Create(_, id, body) | Change::Replace(_, id, _, body) => {
                    shelf.insert(id, body);
                }
                Change::Delete(_, id) | Change::SetAside(_, id, ..) => {
                    shelf.remove(&id);
                }
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn asides(&self) -> Pending<'_, Vec<crate::store::Aside>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn version(&self) -> Pending<'_, u64> {
        Box::pin(async { Ok(0) })
    }

    fn lock<'a>(&'a self, _: &'a str, _: Timestamp, _: Duration) -> Pending<'a, Option<Lease>> {
        Box::pin(async { Ok(None) })
    }

    fn unlock(&self, _: Lease) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A responder on a free port of the loopback: HTTP is ours, the answers are OpenSSL's.
struct Responder {
    ca: Arc<Ca>,
    url: String,
    asked: Arc<Mutex<usize>>,
    up: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Responder {
    async fn start() -> Self {
        let ca = Arc::new(Ca::new("ca"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (asked, up) = (Arc::new(Mutex::new(0)), Arc::new(AtomicBool::new(true)));
        let (count, works, responder) = (Arc::clone(&asked), Arc::clone(&up), Arc::clone(&ca));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
                assert!(head.starts_with("post / http/1.1\r\n"), "{head}");
                assert!(head.contains("content-type: application/ocsp-request\r\n"), "{head}");
                let length = head.split("content-length: ").nth(1).unwrap();
                let length = length.split("\r\n").next().unwrap().parse().unwrap();
                let mut request = vec![0; length];
                stream.read_exact(&mut request).await.unwrap();
                let (status, body) = if works.load(Ordering::Relaxed) {
                    (200, responder.answer(&request, "ca", HOUR))
                } else {
                    (503, Vec::new())
                };
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            }
        });
        Self { ca, url, asked, up, task }
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn stapler(store: Option<Arc<Shelf>>) -> Stapler {
    let store = store.map(|store| store as Arc<dyn Store>);
    Stapler::new(store, Arc::new(default_provider())).unwrap()
}

#[tokio::test]
async fn asks_once_in_half_a_life_also_across_restarts() {
    let responder = Responder::start().await;
    let leaf = responder.ca.issue(5, Some(&responder.url), GOOD);
    let shelf = Arc::new(Shelf::default());
    let first = stapler(Some(Arc::clone(&shelf)));
    let got = first.look(&leaf, now()).await;
    let staple = got.staple.clone().unwrap();
    assert_eq!((got.again, got.fault, got.revoked), (Some(staple.refresh), None, false));
    assert_eq!(first.look(&leaf, now()).await.staple, Some(staple.clone()));
    let second = stapler(Some(Arc::clone(&shelf)));
    assert_eq!(second.look(&leaf, now()).await.staple, Some(staple.clone()));
    assert_eq!(responder.asked(), 1);
    let newer = second.look(&leaf, later(1900)).await;
    assert!(newer.staple.is_some() && newer.fault.is_none(), "{newer:?}");
    assert_eq!(responder.asked(), 2);
    // Another leaf has an answer of its own.
    let other = responder.ca.issue(6, Some(&responder.url), GOOD);
    assert_ne!(second.look(&other, now()).await.staple, Some(staple));
    assert_eq!(responder.asked(), 3);
}

#[tokio::test]
async fn shows_the_old_answer_until_its_end_while_the_responder_is_down() {
    let responder = Responder::start().await;
    let leaf = responder.ca.issue(5, Some(&responder.url), GOOD);
    let stapler = stapler(None);
    let staple = stapler.look(&leaf, now()).await.staple.unwrap();
    responder.up.store(false, Ordering::Relaxed);
    let old = stapler.look(&leaf, later(1900)).await;
    assert_eq!(old.staple, Some(staple.clone()));
    assert!(old.fault.unwrap().contains("status 503"));
    let late = stapler.look(&leaf, staple.until).await;
    assert!(late.staple.is_none() && late.fault.is_some() && !late.revoked);
    let pause = late.again.unwrap().duration_since(staple.until).as_secs();
    assert!((15..=17).contains(&pause), "{pause}");
}

#[tokio::test]
async fn keeps_certificates_apart() {
    let responder = Responder::start().await;
    let leaves = [5, 6].map(|serial| responder.ca.issue(serial, Some(&responder.url), GOOD));
    let stapler = stapler(None);
    let first = stapler.look(&leaves[0], now()).await.staple.unwrap();
    let second = stapler.look(&leaves[1], now()).await.staple.unwrap();
    responder.up.store(false, Ordering::Relaxed);
    let at = later(1900);
    for _ in 0..4 {
        assert_eq!(stapler.look(&leaves[0], at).await.staple.as_ref(), Some(&first));
    }
    let other = stapler.look(&leaves[1], at).await;
    assert_eq!(other.staple, Some(second));
    assert!(other.again.unwrap().duration_since(at).as_secs() <= 6, "its first failure");
    // What nobody looks at any more is forgotten.
    stapler.look(&leaves[1], later(20_000)).await;
    assert_eq!(stapler.count(), 1);
}

#[tokio::test]
async fn takes_a_revoked_certificate_s_answer_away_at_once_and_says_so() {
    let responder = Responder::start().await;
    let leaf = responder.ca.issue(5, Some(&responder.url), GOOD);
    let shelf = Arc::new(Shelf::default());
    let stapler = stapler(Some(Arc::clone(&shelf)));
    assert!(stapler.look(&leaf, now()).await.staple.is_some());
    let index = responder.ca.path().join("index.txt");
    fs::write(index, format!("{REVOKED}\t0501\tunknown\t/CN=leaf\n")).unwrap();
    let gone = stapler.look(&leaf, later(1900)).await;
    assert!(gone.revoked && gone.staple.is_none() && gone.again.is_some());
    assert!(gone.fault.unwrap().contains("revoked the certificate"));
    assert!(shelf.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn believes_a_stored_answer_no_more_than_a_sent_one() {
    let responder = Responder::start().await;
    let leaf = responder.ca.issue(5, Some(&responder.url), GOOD);
    let shelf = Arc::new(Shelf::default());
    let good = stapler(Some(Arc::clone(&shelf))).look(&leaf, now()).await.staple.unwrap();
    for record in shelf.0.lock().unwrap().values_mut() {
        // Within what is signed; the certificates at the end may be anything.
        record[80] ^= 1;
    }
    let again = stapler(Some(Arc::clone(&shelf))).look(&leaf, now()).await.staple.unwrap();
    assert_eq!(responder.asked(), 2);
    assert!(again.until >= good.until);
}

#[tokio::test]
async fn makes_no_fuss_where_no_responder_is_named() {
    let ca = Ca::new("ca");
    let leaf = ca.issue(5, None, GOOD);
    assert_eq!(stapler(None).look(&leaf, now()).await, Stapled::default());
}
