//! Scenarios on paths that lose and damage.

use std::time::{Duration, Instant};

use endpoint_tests::{
    count,
    path::{Impairment, Path},
};
use futures_util::{StreamExt as _, stream};

use crate::{
    amplification::chain,
    site::{Site, browser, dial, fetch},
};

/// Dials until it works, at most `tries` times; how often it took.
async fn served(path: &Path, tries: usize) -> Result<usize, String> {
    let mut last = String::new();
    for tried in 1..=tries {
        let result = match dial(&browser(), path.addr()).await {
            Ok(mut connection) => fetch(&mut connection, 1_024).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => return Ok(tried),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn handshakes(what: &str, impairment: Impairment) {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 12, impairment);
    let clients = count(50, 500);
    let served: Vec<_> =
        stream::iter(0..clients).map(|_| served(&path, 4)).buffer_unordered(25).collect().await;
    let mut tries = [0; 4];
    for client in &served {
        tries[client.as_ref().expect("every client is served") - 1] += 1;
    }
    let tally = path.tally();
    println!(
        "acceptance: {what}: {clients} clients served at try 1, 2, 3, 4: {tries:?}; {} lost, {} damaged \
         of {}",
        tally.lost,
        tally.damaged,
        tally.from_client + tally.from_server
    );
    // Half of what comes is enough to shake hands before the deadline of 5 s, nearly always.
    // A short run shares the machine.
    let tenths = count(5, 8);
    assert!(tries[0] * 10 >= clients * tenths, "{tries:?}");
    assert_eq!(tally.beyond, 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakeloss() {
    handshakes("handshakeloss", Impairment { loss: 300, burst: 3, ..slow() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakecorruption() {
    handshakes("handshakecorruption", Impairment { damage: 300, burst: 3, ..slow() }).await;
}

/// The path of the interop runner, as to time.
fn slow() -> Impairment {
    Impairment { delay: Duration::from_millis(15), ..Impairment::default() }
}

async fn transfer(impairment: Impairment) {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 13, impairment);
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, count(1 << 20, 10 << 20)).await.unwrap();
    let tally = path.tally();
    assert!(tally.lost + tally.damaged > 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transferloss() {
    transfer(Impairment { loss: 20, burst: 3, ..slow() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfercorruption() {
    transfer(Impairment { damage: 20, burst: 3, ..slow() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once() {
    let all = Impairment { loss: 20, damage: 20, twice: 50, overtaken: 100, ..slow() };
    transfer(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blackhole() {
    let site = Site::start().await;
    let hole = Some((Duration::from_secs(5), Duration::from_secs(2)));
    let path = Path::to(site.addr(), 14, Impairment { blackhole: hole, ..slow() });
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    // Once into the hole and out of it.
    while began.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        fetch(&mut connection, 20_000).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("acceptance: blackhole of 2 s: the slowest answer took {slowest:.1?}");
    assert!(slowest > Duration::from_secs(1), "no request met the hole");
}

#[tokio::test(flavor = "multi_thread")]
async fn amplificationlimit() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = chain(folder.path(), 8 * 1024);
    let site = Site::with(endpoint_core::Limits::default(), "", certificate).await;
    let path = Path::to(site.addr(), 15, Impairment { of_server: Some(2..=7), ..slow() });
    let tries = served(&path, 2).await.unwrap();
    let tally = path.tally();
    println!("acceptance: amplificationlimit: served at try {tries}, {:.2} bytes back for each", {
        tally.amplified as f64 / 100.0
    });
    assert_eq!(tally.beyond, 0, "{tally:?}");
}
