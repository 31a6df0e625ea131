//! A shutdown waits for what is under way, and for nobody who is silent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use endpoint_core::{Endpoint, Limits};
use endpoint_tests::{machine::Machine, until, within};
use futures_util::future::join_all;
use rustix::process::Signal;

use crate::{
    ALONE,
    kinds::{Held, Kind, Stage},
    silence::server,
    tolerance,
};

/// What silence may not add to a shutdown, as long as nothing bounds the goodbye.
const LONG: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_of_any_kind_does_not_hold_a_shutdown() {
    let _alone = ALONE.lock().await;
    let shutdowns = Kind::ALL.map(|(kind, stage)| {
        Box::pin(async move {
            let endpoint = server(Limits::default()).await;
            let address = endpoint.local_addrs()[0];
            // Whoever holds a grant is no exception here.
            let key = (kind == Kind::EchoSilentStream).then_some(2);
            let held = within(20, &format!("{kind:?}"), kind.open(address, key)).await;
            there(&endpoint, stage).await;
            let began = Instant::now();
            endpoint.shutdown().await;
            let took = began.elapsed();
            drop(held);
            (kind, took)
        })
    });
    let took = join_all(shutdowns).await;
    let slow: Vec<_> = took.iter().filter(|(_, took)| *took > tolerance()).collect();
    assert!(slow.is_empty(), "{slow:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_end_of_the_goodbye_silence_holds_a_shutdown() {
    let _alone = ALONE.lock().await;
    let kinds = [Kind::H2NoPreface, Kind::H2Settings, Kind::H1TrickledHead];
    let kinds = Kind::ALL.into_iter().filter(|(kind, _)| kinds.contains(kind));
    let shutdowns = kinds.map(|(kind, _)| {
        Box::pin(async move {
            let hour = Duration::from_secs(3600);
            let endpoint = server(Limits::default().goodbye(hour)).await;
            let held = kind.open(endpoint.local_addrs()[0], None).await;
            // hyper speaks first, so from then on it has the stream.
            let speaks =
                || endpoint.connections().iter().any(|c| c.bytes_sent + c.bytes_received > 0);
            until("it is served", speaks).await;
            let began = Instant::now();
            endpoint.shutdown_within(LONG + Duration::from_secs(1)).await;
            let took = began.elapsed();
            drop(held);
            assert!(took > LONG, "{kind:?}: {took:?}");
        })
    });
    join_all(shutdowns).await;
}

/// Waits until the server has come as far as the client.
async fn there(endpoint: &Endpoint, stage: Stage) {
    until("the client is there", || match stage {
        Stage::Byte | Stage::Handshake => endpoint.counters().arrivals > 0,
        Stage::Request | Stage::Idle => endpoint.counters().permitted > 0,
    })
    .await;
}

/// How long the program needs to end with these silent clients.
async fn sigterm(kinds: &[Kind]) -> Duration {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let server = tokio::task::block_in_place(|| machine.serve());
    let address: SocketAddr = server.address().parse().unwrap();
    let opened = kinds.iter().map(|kind| kind.open(address, None));
    let held: Vec<Held> = within(20, "the clients", join_all(opened)).await;
    let began = Instant::now();
    server.running.signal(Signal::TERM);
    let ended = tokio::task::block_in_place(|| server.running.end());
    let took = began.elapsed();
    assert_eq!(ended.code(), 0, "{ended:?}");
    drop(held);
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_all_silent_clients_takes_less_than_a_second_more() {
    let _alone = ALONE.lock().await;
    // What the program serves to strangers without being told.
    let kinds: Vec<_> = Kind::ALL
        .into_iter()
        .map(|(kind, _)| kind)
        .filter(|kind| !format!("{kind:?}").starts_with("Echo") && *kind != Kind::PingSilentStream)
        .collect();
    let alone = sigterm(&[]).await;
    let with = sigterm(&kinds).await;
    assert!(with < alone + tolerance(), "{with:?} instead of {alone:?}");
    println!(
        "acceptance: SIGTERM with {} silent clients ends the program in {with:?}, with none in \
         {alone:?}",
        kinds.len()
    );
}
