//! Who retires each connection id as it comes, to collect ids and their reset tokens.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use endpoint_core::Limits;

use crate::{
    quic::{Hello, Quic, Space::Data},
    raw::{server, server_with, varint},
};

/// H3_EXCESSIVE_LOAD.
const EXCESSIVE_LOAD: (u64, bool) = (0x107, true);

fn retire(sequence: u64) -> Vec<u8> {
    [vec![0x19], varint(sequence)].concat()
}

/// A client that may hold as many ids as it likes.
pub fn greedy(server: SocketAddr) -> Quic {
    let mut hello = Hello::default();
    hello.parameters.push((0x0e, varint(1_000_000)));
    Quic::connect_with(server, &hello)
}

/// Retires ids as they come, for so long or until it is closed; `guess` also those that will come next.
pub fn harvest(quic: &mut Quic, patience: Duration, guess: bool) {
    let ends = Instant::now() + patience;
    let mut told = 0;
    while quic.closed.is_none() && Instant::now() < ends {
        let known = quic.given.len();
        let mut frames = Vec::new();
        for (sequence, _, _) in quic.given.iter().skip(told) {
            frames.extend(retire(*sequence));
        }
        let fresh = frames.len();
        if guess && fresh > 0 {
            let last = quic.given.iter().map(|given| given.0).max().unwrap_or_default();
            frames.extend(retire(last + 1));
        }
        if fresh > 0 {
            quic.send(Data, &frames);
        }
        told = known;
        quic.within(Duration::from_millis(100), |quic| quic.given.len() > known);
    }
}

fn distinct(quic: &Quic) -> usize {
    let ids: HashSet<_> = quic.given.iter().map(|(_, id, _)| id.clone()).collect();
    assert!(ids.iter().all(|id| id.len() == 20));
    ids.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_retires_each_id_as_it_comes_is_closed_before_the_64th() {
    let endpoint = server().await;
    let address = endpoint.local_addrs()[0];
    let harvested = tokio::task::spawn_blocking(move || {
        let mut most = 0;
        for round in 0..4 {
            let mut quic = greedy(address);
            harvest(&mut quic, Duration::from_secs(10), round == 3);
            if round < 3 {
                assert_eq!(quic.closed, Some(EXCESSIVE_LOAD), "round {round}");
            }
            most = most.max(distinct(&quic));
        }
        most
    });
    let most = harvested.await.unwrap();
    assert!((20..64).contains(&most), "{most}");
    println!("acceptance: a harvester of connection ids has {most} when it is closed");
    assert!(endpoint.counters().retirement_floods >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_harvest_goes_on_where_the_rate_allows_it() {
    // The weakened twin: no bound that anybody meets.
    let endpoint = server_with(Limits::default().retired_ids_per_minute(10_000_000)).await;
    let address = endpoint.local_addrs()[0];
    let harvested = tokio::task::spawn_blocking(move || {
        let mut quic = greedy(address);
        harvest(&mut quic, Duration::from_secs(2), false);
        (quic.closed, distinct(&quic))
    });
    let (closed, ids) = harvested.await.unwrap();
    assert_eq!(closed, None);
    // Twice of what ends a connection where the bound holds.
    assert!(ids > 128, "{ids}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_retires_a_few_or_says_it_again_and_again_is_served() {
    let endpoint = server().await;
    let address = endpoint.local_addrs()[0];
    let served = tokio::task::spawn_blocking(move || {
        let mut quic = greedy(address);
        assert!(quic.until(|quic| quic.given.len() == 7), "{:?}", quic.given.len());
        // A client that moved seven times at once, and whose packets come three hundred times.
        let all: Vec<u8> = (1..8).flat_map(retire).collect();
        for _ in 0..300 {
            quic.send(Data, &all);
            quic.within(Duration::from_millis(1), |_| false);
        }
        assert!(quic.until(|quic| quic.given.len() == 14), "{}", quic.given.len());
        assert!(quic.lives(), "{:?}", quic.closed);
        distinct(&quic)
    });
    assert_eq!(served.await.unwrap(), 14);
    assert_eq!(endpoint.counters().retirement_floods, 0);
}
