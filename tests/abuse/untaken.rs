//! Answers that their clients do not take: what one costs, what all cost together, when they end.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use endpoint_core::Limits;
use endpoint_tests::{
    count,
    machine::{Machine, Server},
    until,
    wire::Client,
    within,
};
use http::Version;

use crate::{
    memory::settled,
    raw::{Raw, headers},
    raw2::{
        ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw2, SETTINGS,
        WINDOW_UPDATE, frame, request,
    },
    yard::{Honest, Yard},
};

const CANCEL: [u8; 4] = [0, 0, 0, 8];
const REQUESTS: u32 = 100;
/// What a request for a small file may cost while its client takes nothing.
const MOST_BYTES_A_REQUEST: u64 = 10 << 10;
/// What everything may cost beside the budget, for each connection.
const MOST_BYTES_BESIDE: u64 = 1 << 20;

/// A connection that asks `REQUESTS` times for `path` with this window, and has read the heads.
async fn asks(server: SocketAddr, path: &str, window: u32) -> Raw2 {
    let mut raw = Raw2::connect_with(server, &[(4, window)]).await;
    let head = request("GET", path);
    let open = |n| frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * n, &head);
    raw.send(&(0..REQUESTS).flat_map(open).collect::<Vec<u8>>()).await.unwrap();
    let mut begun = 0;
    while begun < REQUESTS {
        let frame = within(30, "the heads of the answers", raw.next()).await.expect("it lives");
        begun += u32::from(frame.kind == HEADERS);
    }
    raw
}

/// A program that serves `small` (13 bytes) and `large` (8 MiB) with these limits.
fn serve(machine: &Machine, limits: &str) -> Server {
    let root = machine.state().parent().unwrap().join("www");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("small"), "Hello, World!").unwrap();
    fs::write(root.join("large"), vec![7; 8 << 20]).unwrap();
    let config = machine.file("limits.toml");
    fs::write(&config, format!("[limits]\n{limits}\n")).unwrap();
    machine.serve_with(&["--config", config.to_str().unwrap(), "--root", root.to_str().unwrap()])
}

/// The growth of the program by `connections` that ask for `path` and take nothing.
async fn growth(server: &Server, path: &str, window: u32, connections: u64) -> u64 {
    let address: SocketAddr = server.address().parse().unwrap();
    drop(asks(address, path, window).await);
    let before = settled(server).await;
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(asks(address, path, window).await);
    }
    settled(server).await;
    let most = server.status_bytes("VmHWM").saturating_sub(before);
    let client = Client::new(&[]).wants_x509();
    for version in [Version::HTTP_2, Version::HTTP_3] {
        let request = endpoint_tests::http::get("localhost", "/large");
        let honest = endpoint_tests::http::fetch(version, address, "localhost", &client, request);
        let answer = within(30, "an honest client's answer", honest).await.unwrap();
        assert_eq!(answer.body.len(), 8 << 20, "{version:?}");
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_small_file_costs_a_few_kilobytes() {
    let connections = count(10, 100) as u64;
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let server = serve(&machine, "connections = 1000");
    let most = growth(&server, "/small", 0, connections).await;
    let each = most / (connections * u64::from(REQUESTS));
    assert!(each <= MOST_BYTES_A_REQUEST, "{each} bytes a request");
    println!(
        "acceptance: {connections} connections with {REQUESTS} requests each for a file of 13 bytes whose \
         windows are closed: {each} bytes a request, {} MiB in all",
        most >> 20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_have_a_sum() {
    let connections = count(20, 100) as u64;
    let mut grown = Vec::new();
    for budget in ["4MiB", "100GiB"] {
        let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
        let server = serve(&machine, &format!("connections = 1000\nanswer_bytes = \"{budget}\""));
        grown.push(growth(&server, "/large", 1, connections).await);
    }
    let beside = connections * MOST_BYTES_BESIDE;
    assert!(grown[0] <= (4 << 20) + beside, "{grown:?} with {beside} beside the budget");
    // Without one the same clients hold more.
    assert!(grown[1] > grown[0] + beside / 4, "{grown:?}");
    println!(
        "acceptance: {connections} connections with {REQUESTS} requests each for 8 MiB and a window of a byte: \
         {} MiB with a budget of 4 MiB, {} MiB without",
        grown[0] >> 20,
        grown[1] >> 20
    );
}

/// Answers pings, keeps its windows, and gives the streams that were reset with CANCEL until `enough` were,
/// or the connection has ended.
async fn resets(raw: &mut Raw2, enough: usize) -> BTreeSet<u32> {
    let mut reset = BTreeSet::new();
    while reset.len() < enough {
        let Some(next) = within(20, "an end of the answers", raw.next()).await else { break };
        match (next.kind, next.flags) {
            (PING, 0) => raw.send(&frame(PING, ACK, 0, &next.payload)).await.unwrap(),
            (SETTINGS, 0) => raw.send(&frame(SETTINGS, ACK, 0, &[])).await.unwrap(),
            (RST_STREAM, _) => {
                assert_eq!(next.payload, CANCEL);
                reset.insert(next.stream);
            }
            _ => {}
        }
    }
    reset
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_windows_end_their_answers_and_nothing_else() {
    let idle = Duration::from_millis(800);
    // Here the sum lets everybody hold all that he asks for.
    let limits = Limits::default().request_answer_idle(idle).answer_bytes(usize::MAX);
    let yard = Yard::start(limits).await;
    let honest = Honest::start(Version::HTTP_2, yard.addr()).await;
    for (path, window) in [("/", 0), ("/large", 0), ("/pieces", 1), ("/pieces", 40_000)] {
        let before = yard.answers.given_up();
        let began = Instant::now();
        let mut raw = asks(yard.addr(), path, window).await;
        let reset = resets(&mut raw, REQUESTS as usize).await;
        assert_eq!(reset.len(), REQUESTS as usize, "{path} {window}");
        assert!(began.elapsed() >= idle - Duration::from_millis(200), "{path} {window}");
        assert_eq!(yard.answers.given_up() - before, u64::from(REQUESTS));
        // The connection itself goes on.
        let stream = 1 + 2 * REQUESTS;
        raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])).await.unwrap();
        raw.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes())).await.unwrap();
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/"));
        raw.send(&open).await.unwrap();
        let answered = async {
            while let Some(frame) = raw.next().await {
                if (frame.kind, frame.stream) == (DATA, stream) {
                    return frame.payload == b"ok";
                }
            }
            false
        };
        assert!(within(20, "an answer", answered).await, "{path} {window}");
    }
    until("nothing is held", || yard.answers.held_bytes() == 0).await;
    honest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_answers_that_nobody_takes_end_with_their_connection() {
    let limits = Limits::default().request_answer_idle(Duration::from_millis(800));
    let yard = Yard::start(limits).await;
    // With a byte of window hyper hands the other byte over to h2, with the end.
    let mut raw = asks(yard.addr(), "/", 1).await;
    let _ = resets(&mut raw, usize::MAX).await;
    until("nothing is held", || yard.answers.held_bytes() == 0).await;
    assert!(yard.answers.given_up() > 0);
    until("it ends", || yard.endpoint.connections().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_deadline_keeps_its_answers() {
    let yard = Yard::start(Limits::default().request_answer_idle(Duration::from_secs(3600))).await;
    let mut raw = asks(yard.addr(), "/pieces", 1).await;
    let lives = tokio::time::timeout(Duration::from_secs(2), resets(&mut raw, 1)).await;
    assert!(lives.is_err(), "{lives:?}");
    assert!(yard.answers.held_bytes() > 0 && yard.answers.given_up() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_opens_now_and_then_is_no_silence() {
    let idle = Duration::from_millis(800);
    let yard = Yard::start(Limits::default().request_answer_idle(idle)).await;
    let mut raw = Raw2::connect_with(yard.addr(), &[(4, 1)]).await;
    let open = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/pieces"));
    raw.send(&open).await.unwrap();
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < 3 * idle {
        let next = within(20, "a frame", raw.next()).await.expect("it lives");
        assert_ne!(next.kind, RST_STREAM, "after {:?} and {bytes} bytes", began.elapsed());
        if next.kind == DATA {
            bytes += next.payload.len();
            // This is the slowness itself.
            tokio::time::sleep(idle / 4).await;
            raw.send(&frame(WINDOW_UPDATE, 0, 1, &100_u32.to_be_bytes())).await.unwrap();
        }
    }
    assert!(bytes > 300, "{bytes}");
    assert_eq!(yard.answers.given_up(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_budget_the_oldest_goes_first_whatever_its_version() {
    const BUDGET: usize = 100 << 10;
    let yard = Yard::start(Limits::default().answer_bytes(BUDGET)).await;
    let http3 = Raw::connect(yard.addr()).await;
    let _control = http3.uni(&[0x00, 0x04, 0x00]).await;
    let section = headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/large"),
    ]);
    // Its window is the client's whole buffer, so a large answer fills it and the budget.
    let (mut send, mut oldest) = http3.request(&section).await;
    send.finish().unwrap();
    // quinn's default window of a stream.
    until("the window is full", || http3.quinn.stats().udp_rx.bytes > 1_250_000).await;
    until("the oldest holds", || yard.answers.held_bytes() > 0).await;
    let mut younger = asks(yard.addr(), "/pieces", 1).await;
    let honest = Honest::start(Version::HTTP_2, yard.addr()).await;
    until("somebody goes", || yard.answers.evicted() > 0).await;
    let code = within(10, "the reset", oldest.received_reset()).await.unwrap();
    assert_eq!(code, Some(0x10c_u32.into()));
    // Of the younger as many hold something as fit; one after the other they go too.
    let reset = resets(&mut younger, 20).await;
    assert_eq!(reset.len(), 20);
    // Pieces of 8 KiB, one for each of two connections beyond the budget.
    let held = yard.answers.held_bytes();
    assert!(held <= BUDGET + (16 << 10), "{held}");
    assert_eq!(yard.answers.given_up(), 0);
    let served = honest.stop().await;
    println!(
        "acceptance: above the budget {} answers were given up, the oldest first; {} honest answers \
         meanwhile, the slowest in {:?}",
        yard.answers.evicted(),
        served.answers,
        served.slowest
    );
}
