//! Are stored names found after a miss, and do scanners cost little?

use std::sync::Mutex;

use tokio::time::advance;

use super::*;
use crate::certs::validity::Validity;

const NOW: &str = "2026-11-22T12:00:00Z";

/// A store of one certificate under many names, which counts its reads.
#[derive(Debug, Default)]
struct Fake {
    generations: Mutex<HashMap<String, u64>>,
    version: AtomicU64,
    reads: AtomicUsize,
    certificate: Mutex<Option<Arc<CertifiedKey>>>,
}

impl Fake {
    fn put(&self, name: &str, generation: u64) {
        self.generations.lock().unwrap().insert(name.to_owned(), generation);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, name: &str) {
        self.generations.lock().unwrap().remove(name);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn loaded(&self) -> Loaded {
        let certified = Arc::clone(self.certificate.lock().unwrap().get_or_insert_with(made));
        let day = "2026-11-23T12:00:00Z".parse().unwrap();
        Loaded { certified, validity: Validity { from: NOW.parse().unwrap(), until: day } }
    }
}

fn made() -> Arc<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Arc::new(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap())
}

impl Shelf for Fake {
    fn load<'a>(&'a self, name: &'a str, _: Timestamp) -> Fetching<'a, Option<(Loaded, u64)>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let generation = self.generations.lock().unwrap().get(name).copied();
        let found = generation.map(|generation| (self.loaded(), generation));
        Box::pin(async { Ok(found) })
    }

    fn generations(&self) -> Fetching<'_, HashMap<String, u64>> {
        let all = self.generations.lock().unwrap().clone();
        Box::pin(async { Ok(all) })
    }

    fn version(&self) -> Fetching<'_, u64> {
        let version = self.version.load(Ordering::Relaxed);
        Box::pin(async move { Ok(version) })
    }
}

/// Lets the task of the background run for `time` of the paused clock.
async fn pass(time: Duration) {
    let steps = time.as_millis() / 20;
    for _ in 0..steps {
        advance(Duration::from_millis(20)).await;
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
}

fn running() -> (Arc<Stored>, Arc<Fake>, Clock) {
    let (stored, wanted) = Stored::new();
    let fake = Arc::new(Fake::default());
    let clock = Clock::manual(NOW.parse().unwrap());
    tokio::spawn(stored.clone().fill(wanted, fake.clone(), clock.clone()));
    (stored, fake, clock)
}

#[tokio::test(start_paused = true)]
async fn loads_a_name_after_its_first_miss_and_follows_the_store() {
    let (stored, fake, clock) = running();
    fake.put("a.example", 1);
    fake.put("*.b.example", 1);
    assert!(stored.find("a.example").is_none());
    assert!(stored.find("x.b.example").is_none());
    pass(Duration::from_secs(1)).await;
    assert!(stored.find("a.example").is_some());
    assert!(stored.find("x.b.example").is_some() && stored.find("y.b.example").is_some());
    assert_eq!(stored.count(), 2);
    let reads = fake.reads();
    fake.put("a.example", 2);
    pass(Duration::from_secs(2)).await;
    assert_eq!(fake.reads(), reads + 1, "what changed is read again, and nothing else");
    fake.take("a.example");
    pass(Duration::from_secs(2)).await;
    assert!(stored.find("a.example").is_none());
    clock.advance(2 * 86_400);
    pass(Duration::from_secs(2)).await;
    assert_eq!(stored.count(), 0, "what has ended is not served");
}

#[tokio::test(start_paused = true)]
async fn finds_a_name_that_was_missed_and_then_imported() {
    let (stored, fake, _) = running();
    assert!(stored.find("late.example").is_none());
    pass(Duration::from_secs(2)).await;
    fake.put("late.example", 1);
    pass(Duration::from_secs(2)).await;
    assert!(stored.find("late.example").is_none());
    pass(Duration::from_millis(200)).await;
    assert!(stored.find("late.example").is_some());
}

#[tokio::test(start_paused = true)]
async fn scanners_cost_few_reads_whatever_they_ask_for() {
    let (stored, fake, _) = running();
    pass(Duration::from_secs(1)).await;
    for _ in 0..1000 {
        assert!(stored.find("same.example").is_none());
    }
    pass(Duration::from_secs(10)).await;
    assert!(fake.reads() <= 2, "one name: {} reads", fake.reads());
    let before = fake.reads();
    for second in 0..10 {
        for i in 0..5000 {
            assert!(stored.find(&format!("scan-{second}-{i}.example")).is_none());
        }
        pass(Duration::from_secs(1)).await;
    }
    // Two reads a name, 50 names a second.
    let reads = fake.reads() - before;
    assert!(reads <= 10 * 50 * 2 + 100, "{reads} reads for 50,000 names");
    assert_eq!(stored.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn finds_one_of_a_hundred_thousand_names_as_fast_as_one_of_ten() {
    let entry = Entry::new(Fake::default().loaded(), 1);
    let filled = |count: usize| {
        let (stored, wanted) = Stored::new();
        for i in 0..count {
            stored.set(&format!("host-{i}.example"), Some(entry.clone()));
        }
        assert_eq!(stored.count(), count);
        (stored, wanted)
    };
    let time = |stored: &Stored| {
        let start = std::time::Instant::now();
        for i in 0..20_000 {
            assert!(stored.find(&format!("host-{}.example", i % 10)).is_some());
        }
        start.elapsed()
    };
    let (few, many) = (filled(10), filled(100_000));
    let best = |stored: &Stored| (0..5).map(|_| time(stored)).min().unwrap();
    let (few, many) = (best(&few.0), best(&many.0));
    assert!(many < few * 20, "{few:?} for 10 names, {many:?} for 100 000");
}

#[tokio::test(start_paused = true)]
async fn scanners_do_not_keep_a_name_of_the_store_from_being_found() {
    let (stored, fake, _) = running();
    fake.put("a.example", 1);
    fake.put("*.b.example", 1);
    pass(Duration::from_secs(2)).await;
    for second in 0..3 {
        for i in 0..5000 {
            assert!(stored.find(&format!("scan-{second}-{i}.example")).is_none());
        }
        // Whoever comes in the middle of it finds no room in the queue.
        let _ = (stored.find("a.example"), stored.find("x.b.example"));
        pass(Duration::from_millis(200)).await;
    }
    assert!(stored.find("a.example").is_some() && stored.find("x.b.example").is_some());
    assert!(fake.reads() <= 6, "{} reads", fake.reads());
}
