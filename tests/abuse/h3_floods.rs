//! HTTP/3 clients that open, break off, dribble and inflate.

use std::time::Duration;

use endpoint_core::Limits;
use endpoint_tests::{count, until, within};
use futures_util::future::join_all;
use http::Version;
use quinn::{ReadError, ReadToEndError};

use crate::{
    raw::{Raw, declared, frame, get, headers, prefixed, section},
    yard::{Honest, Yard},
};

const EXCESSIVE_LOAD: u64 = 0x107;
const CANCELLED: u32 = 0x10c;
/// The default of `Limits::requests_per_connection`.
const REQUESTS: usize = 100;

fn request(method: &str, path: &str) -> Vec<u8> {
    headers(&[
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
    ])
}

/// How a client gives a request up.
#[derive(Clone, Copy, Debug)]
enum GivesUp {
    /// Its own half at once, so that the server may see nothing else of it.
    AtOnce,
    /// Both halves, once the handler runs.
    Both,
    /// The answer only, once the handler runs.
    Answer,
}

/// CVE-2023-44487 over HTTP/3.
#[tokio::test(flavor = "multi_thread")]
async fn requests_given_up_in_bulk_end_their_connection() {
    let yard = Yard::start(Limits::default()).await;
    let honest = Honest::start(Version::HTTP_3, yard.addr()).await;
    let total = count(2_000, 10_000);
    let (mut opened, mut ended) = (0, 0);
    for how in [GivesUp::AtOnce, GivesUp::Both, GivesUp::Answer] {
        let goal = opened + total / 3 + 1;
        while opened < goal {
            let raw = Raw::connect(yard.addr()).await;
            opened += reset_until_closed(&raw, &yard, how).await;
            assert_eq!(raw.closed().await, EXCESSIVE_LOAD, "{how:?}");
            ended += 1;
            until("the handlers end with their connection", || yard.hanging.now() == 0).await;
        }
    }
    let most = yard.hanging.most();
    assert!(most <= REQUESTS, "{most} handlers at one time");
    let served = honest.stop().await;
    println!(
        "acceptance: {opened} HTTP/3 requests given up on {ended} connections, each ended with \
         H3_EXCESSIVE_LOAD; at most {most} handlers at one time; {} honest answers meanwhile, the \
         slowest in {:?}",
        served.answers, served.slowest
    );
}

/// Opens and gives up until the server closes; gives how many there were.
async fn reset_until_closed(raw: &Raw, yard: &Yard, how: GivesUp) -> usize {
    let request = request("GET", "/hangs");
    let mut opened = 0;
    while opened < 5_000 {
        let calls = yard.hanging.calls();
        let mut burst = Vec::new();
        // quinn gives credit back an eighth at a time, so the second burst cannot have all of it.
        let many = if opened == 0 { REQUESTS } else { REQUESTS / 2 };
        while burst.len() < if matches!(how, GivesUp::AtOnce) { 1 } else { many } {
            let opening = within(10, "credit for a stream", raw.quinn.open_bi()).await;
            let Ok((mut send, recv)) = opening else { return opened };
            let _ = send.write_all(&request).await;
            burst.push((send, recv));
            opened += 1;
        }
        if !matches!(how, GivesUp::AtOnce) {
            let ended = || raw.quinn.close_reason().is_some();
            let all = || yard.hanging.calls() >= calls + burst.len();
            until("the handlers run", || all() || ended()).await;
        }
        for (mut send, mut recv) in burst {
            match how {
                GivesUp::AtOnce | GivesUp::Both => {
                    let _ = send.reset(CANCELLED.into());
                }
                GivesUp::Answer => {
                    let _ = send.finish();
                }
            }
            let _ = recv.stop(CANCELLED.into());
        }
    }
    panic!("5000 requests given up on one connection");
}

/// A byte, or a byte now and then, and never a whole header.
#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_end_at_their_deadline() {
    let limits = Limits::default().request_header_deadline(Duration::from_millis(400));
    let yard = Yard::start(limits).await;
    let honest = Honest::start(Version::HTTP_3, yard.addr()).await;
    let total = count(1_000, 10_000);
    let mut streams = 0;
    while streams < total {
        let attacks = (0..10).map(|n| slow_connection(&yard, n == 0));
        streams += join_all(attacks).await.into_iter().sum::<usize>();
    }
    assert_eq!(yard.hanging.calls(), 0);
    let served = honest.stop().await;
    println!(
        "acceptance: {streams} slow HTTP/3 streams, each reset at its header deadline; {} honest \
         answers meanwhile, the slowest in {:?}",
        served.answers, served.slowest
    );
}

/// One connection with as many slow streams as it may have; gives how many were reset.
async fn slow_connection(yard: &Yard, dribbles: bool) -> usize {
    let raw = Raw::connect(yard.addr()).await;
    let head = request("GET", "/hangs");
    let mut streams = Vec::new();
    for _ in 0..REQUESTS {
        let (mut send, recv) = within(20, "a stream", raw.quinn.open_bi()).await.unwrap();
        send.write_all(&head[..1]).await.unwrap();
        streams.push((send, recv));
    }
    let ends = streams.into_iter().map(|(mut send, mut recv)| {
        let rest = head[1..head.len() - 1].to_vec();
        async move {
            let dribble = async {
                for byte in rest.iter().filter(|_| dribbles) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if send.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let end = async { recv.read_to_end(100).await };
            let end = tokio::select! {
                () = dribble => unreachable!("it waits for ever"),
                end = within(20, "the end of a slow stream", end) => end,
            };
            assert!(matches!(end, Err(ReadToEndError::Read(ReadError::Reset(_)))), "{end:?}");
        }
    });
    join_all(ends).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_bodies_are_given_up() {
    let limits = Limits::default().request_body_idle(Duration::from_millis(300));
    let yard = Yard::start(limits).await;
    let honest = Honest::start(Version::HTTP_3, yard.addr()).await;
    let head = [request("POST", "/echo"), declared(0, 10), b"1".to_vec()].concat();
    let connections = (0..count(5, 20)).map(|_| async {
        let raw = Raw::connect(yard.addr()).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            let (mut send, recv) = within(10, "a stream", raw.quinn.open_bi()).await.unwrap();
            send.write_all(&head).await.unwrap();
            streams.push((send, recv));
        }
        let ends = streams.into_iter().map(|(send, recv)| async move {
            let stopped = within(20, "the server's patience", send.stopped()).await;
            assert_eq!(stopped.ok().flatten().map(quinn::VarInt::into_inner), Some(0x100));
            drop(recv);
        });
        join_all(ends).await.len()
    });
    let streams: usize = join_all(connections).await.into_iter().sum();
    let served = honest.stop().await;
    println!(
        "acceptance: {streams} silent HTTP/3 bodies, each answered and stopped with H3_NO_ERROR; {} \
         honest answers meanwhile",
        served.answers
    );
}

/// Where a bomb goes.
#[derive(Clone, Copy, Debug)]
enum On {
    Request,
    Uni,
}

/// Declared lengths that no memory holds, with as much behind them as the server takes.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_of_frames_end_their_connection() {
    use On::{Request, Uni};
    let yard = Yard::start(Limits::default()).await;
    let honest = Honest::start(Version::HTTP_3, yard.addr()).await;
    let huge = 1 << 40;
    let control = |rest: Vec<u8>| [vec![0], frame(4, &[]), rest].concat();
    let many = |count: usize, one: Vec<u8>| one.repeat(count);
    let literal = |name: u64| {
        let mut bytes = vec![2];
        // Insert with literal name: 01HNNNNN and a length of 2^40 in five bits and more.
        prefixed(&mut bytes, 0x40, 5, usize::try_from(name).unwrap());
        bytes
    };
    let rows: Vec<(&str, On, Vec<u8>, u64)> = vec![
        ("HEADERS", Request, declared(1, huge), EXCESSIVE_LOAD),
        ("HEADERS of 64 KiB and a byte", Request, declared(1, (64 << 10) + 1), EXCESSIVE_LOAD),
        ("trailers", Request, [get(), declared(1, huge)].concat(), EXCESSIVE_LOAD),
        ("unknown frame", Request, declared(0x21, huge), EXCESSIVE_LOAD),
        (
            "unknown after DATA",
            Request,
            [get(), frame(0, b"x"), declared(0x21, huge)].concat(),
            EXCESSIVE_LOAD,
        ),
        ("PUSH_PROMISE", Request, declared(5, huge), 0x105),
        ("SETTINGS on a request", Request, declared(4, huge), 0x105),
        (
            "empty DATA",
            Request,
            [request("POST", "/echo"), many(200, frame(0, &[]))].concat(),
            EXCESSIVE_LOAD,
        ),
        ("empty unknown frames", Request, many(100, frame(0x21, &[])), EXCESSIVE_LOAD),
        ("SETTINGS", Uni, [vec![0], declared(4, huge)].concat(), EXCESSIVE_LOAD),
        ("unknown on control", Uni, control(declared(0x21, huge)), EXCESSIVE_LOAD),
        ("PRIORITY_UPDATE", Uni, control(declared(0xf_0700, huge)), EXCESSIVE_LOAD),
        ("GOAWAY", Uni, control(declared(7, huge)), 0x106),
        ("MAX_PUSH_ID", Uni, control(declared(13, huge)), 0x106),
        ("DATA on control", Uni, control(declared(0, huge)), 0x105),
        ("many frames on control", Uni, control(many(400, frame(0x21, &[]))), EXCESSIVE_LOAD),
        ("many MAX_PUSH_ID", Uni, control(many(400, frame(13, &[9]))), EXCESSIVE_LOAD),
        ("QPACK name", Uni, literal(huge), 0x201),
        ("QPACK capacity", Uni, [vec![2], vec![0x3f], vec![0xff; 20]].concat(), 0x201),
        (
            "QPACK capacity of 0 again and again",
            Uni,
            [vec![2], vec![0x20; 100]].concat(),
            EXCESSIVE_LOAD,
        ),
        ("QPACK number without end", Uni, [vec![3, 0x7f], vec![0xff; 20]].concat(), 0x202),
    ];
    let mut wrong = Vec::new();
    for (what, on, bytes, expected) in &rows {
        let raw = Raw::connect(yard.addr()).await;
        let opens_control = matches!(on, Uni) && bytes[0] == 0;
        let _control = match opens_control {
            true => None,
            false => Some(raw.uni(&[vec![0], frame(4, &[])].concat()).await),
        };
        let mut send = match on {
            Request => raw.quinn.open_bi().await.unwrap().0,
            Uni => raw.quinn.open_uni().await.unwrap(),
        };
        let filling = async {
            let _ = send.write_all(bytes).await;
            while send.write_all(&[0xff; 4096]).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let code = tokio::select! {
            () = filling => unreachable!("it waits for ever"),
            code = raw.closed() => code,
        };
        if code != *expected {
            wrong.push(format!("{what}: {code:#x}, not {expected:#x}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let served = honest.stop().await;
    println!(
        "acceptance: {} bombs of HTTP/3 frames, each connection ended with its code; {} honest \
         answers meanwhile",
        rows.len(),
        served.answers
    );
}

/// Short on the wire, long when decoded: refused before a handler sees it, and the connection lives.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_of_fields_end_their_request() {
    let yard = Yard::start(Limits::default()).await;
    let raw = Raw::connect(yard.addr()).await;
    let _control = raw.uni(&[vec![0], frame(4, &[])].concat()).await;
    let indexed = |count: usize| [vec![0, 0], vec![0xc0 | 31; count]].concat();
    let plain = |path: &str| {
        section(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
        ])
    };
    let large = "x".repeat(60_000);
    let many: Vec<String> = (0..2_000).map(|n| format!("x-{n}")).collect();
    let with = |path: &str, more: Vec<u8>| frame(1, &[plain(path), more].concat());
    let fields = |fields: &[(&str, &str)]| section(fields)[2..].to_vec();
    let trailers = |payload: Vec<u8>| {
        [frame(1, &plain("/trailers")), frame(0, b"x"), frame(1, &payload)].concat()
    };
    // What; bytes; whether it is taken.
    let rows: Vec<(&str, Vec<u8>, bool)> = vec![
        ("60 KB of indexed lines", with("/hangs", indexed(60_000)[2..].to_vec()), false),
        (
            "2000 short fields",
            with("/hangs", fields(&many.iter().map(|n| (n.as_str(), "")).collect::<Vec<_>>())),
            false,
        ),
        (
            "two values of 60 KB",
            with("/hangs", fields(&[("a", &large[..30_000]), ("b", &large[..35_400])])),
            false,
        ),
        ("a value of 60 KB", with("/trailers", fields(&[("a", &large)])), true),
        ("trailers of 60 KB of indexed lines", trailers(indexed(60_000)), false),
        (
            "trailers of 2000 short fields",
            trailers(section(&many.iter().map(|n| (n.as_str(), "")).collect::<Vec<_>>())),
            false,
        ),
        ("trailers of 60 KB", trailers(section(&[("a", &large)])), true),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, taken) in &rows {
        let (mut send, mut recv) = raw.quinn.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        let read = within(10, what, recv.read_to_end(1 << 16)).await;
        let text = read.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let was_taken = text.as_ref().is_ok_and(|text| text.contains(" trailers"));
        if was_taken != *taken {
            wrong.push(format!("{what}: {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(yard.hanging.calls(), 0, "no handler saw a bomb");
    // The connection lives.
    let (mut send, mut recv) = raw.request(&get()).await;
    send.finish().unwrap();
    let answer = within(10, "an answer", recv.read_to_end(1 << 16)).await.unwrap();
    assert!(answer.ends_with(b"ok"), "{answer:?}");
    println!(
        "acceptance: {} bombs of header and trailer fields, none decoded beyond 64 KiB",
        rows.len() - 2
    );
}

/// Many header sections that never end share one bound.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_headers_of_all_streams_share_a_bound() {
    let yard = Yard::start(Limits::default()).await;
    let raw = Raw::connect(yard.addr()).await;
    let mut held = Vec::new();
    for _ in 0..9 {
        let Ok((mut send, recv)) = within(10, "a stream", raw.quinn.open_bi()).await else { break };
        let _ = send.write_all(&[declared(1, 64 << 10), vec![0; 10_000]].concat()).await;
        held.push((send, recv));
    }
    assert_eq!(raw.closed().await, EXCESSIVE_LOAD);
}
