//! SIGTERM while clients ask over every version: what was accepted is answered, whole.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::Path, routing::get};
use endpoint_tests::{
    count,
    http::{VERSIONS, connect, get as asks},
    machine::Machine,
    until,
    wire::Client,
    within,
};
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::sync::watch;

/// An answer's length: it is under way for a while.
const ANSWER_BYTES: usize = 300_000;

/// What the upstream was asked, by the number in the path; what it holds until it is let go.
#[derive(Clone)]
struct Upstream {
    asked: Arc<Mutex<BTreeSet<usize>>>,
    held: Arc<AtomicUsize>,
    go: watch::Receiver<bool>,
}

impl Upstream {
    async fn start(self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Bytes::from(vec![7; ANSWER_BYTES]);
        let (load, held) = (self.clone(), self);
        let whole = answer.clone();
        let router = Router::new()
            .route(
                "/load/{number}",
                get(async move |Path(number): Path<usize>| {
                    load.asked.lock().unwrap().insert(number);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    answer
                }),
            )
            .route(
                "/held",
                get(async move || {
                    held.held.fetch_add(1, Ordering::SeqCst);
                    let _ = held.go.clone().wait_for(|go| *go).await;
                    whole
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_answers_all_that_was_accepted() {
    let (let_go, go) = watch::channel(false);
    let upstream = Upstream { asked: Arc::default(), held: Arc::default(), go };
    let url = format!("http://{}", upstream.clone().start().await);
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let server = machine.serve_with(&["--proxy", &url]);
    let address: SocketAddr = server.address().parse().unwrap();
    let client = Client::new(&[]).wants_x509();
    let connections = count(6, 30);
    let numbers = Arc::new(AtomicUsize::new(0));
    let (mut loads, mut holds) = (Vec::new(), Vec::new());
    for version in VERSIONS {
        for _ in 0..connections {
            let mut connection = connect(version, address, "localhost", &client).await.unwrap();
            let numbers = Arc::clone(&numbers);
            // Asks until it is no longer let.
            loads.push(tokio::spawn(async move {
                let mut answered = Vec::new();
                loop {
                    let number = numbers.fetch_add(1, Ordering::SeqCst);
                    let path = format!("/load/{number}");
                    match connection.send(asks("localhost", &path)).await {
                        Ok(answer) if answer.body.len() == ANSWER_BYTES => answered.push(number),
                        Ok(answer) if answer.status == 200 => panic!("half an answer: {answer:?}"),
                        _ => return answered,
                    }
                }
            }));
            let mut connection = connect(version, address, "localhost", &client).await.unwrap();
            holds.push(tokio::spawn(async move {
                let answer = connection.send(asks("localhost", "/held")).await;
                answer
                    .map(|answer| answer.body.len())
                    .map_err(|error| format!("{version:?}: {error}"))
            }));
        }
    }
    let all = holds.len();
    until("every held request is under way", || upstream.held.load(Ordering::SeqCst) == all).await;
    until("the load is under way", || numbers.load(Ordering::SeqCst) > 20 * all).await;
    server.running.signal(Signal::TERM);
    tokio::task::block_in_place(|| server.running.until("draining"));
    let_go.send(true).unwrap();
    let held = within(20, "the held answers", join_all(holds)).await;
    let held: Vec<_> = held.into_iter().map(Result::unwrap).collect();
    assert!(held.iter().all(|length| *length == Ok(ANSWER_BYTES)), "{held:?}");
    let answered = within(20, "the load ends", join_all(loads)).await;
    let answered: BTreeSet<usize> = answered.into_iter().flat_map(Result::unwrap).collect();
    let asked = upstream.asked.lock().unwrap().clone();
    let lost: Vec<_> = asked.difference(&answered).collect();
    assert!(lost.is_empty(), "accepted and not answered: {lost:?}");
    let ended = tokio::task::block_in_place(|| server.running.end());
    assert_eq!(ended.code(), 0, "{ended:?}");
    println!(
        "acceptance: drain under load over h3, h2 and h1: {all} requests held across SIGTERM and {} \
         more, 0 accepted ones failed",
        answered.len()
    );
}
