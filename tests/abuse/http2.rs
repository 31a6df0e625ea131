//! HTTP/2 clients that flood, over TCP and TLS.

use std::time::Duration;

use endpoint_core::Limits;
use endpoint_tests::{count, until, within};
use http::Version;

use crate::{
    raw2::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw2,
        SETTINGS, WINDOW_UPDATE, fields, frame, request,
    },
    yard::{Honest, Yard},
};

/// Requests that hyper lets a connection have at one time here.
const REQUESTS: usize = 100;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// How a request is ended before its answer.
#[derive(Clone, Copy, Debug)]
enum Breaks {
    /// CVE-2023-44487: the client resets it.
    Resets,
    /// The same, once the handler runs.
    ResetsLate,
    /// CVE-2025-8671: an increment of 0 makes the server reset it (RFC 9113 §6.9).
    Window,
    /// The same by DATA after the end of the stream (RFC 9113 §5.1).
    HalfClosed,
    /// The same by a window that overflows (RFC 9113 §6.9.1).
    Overflow,
    /// The same by a header section after the end of the stream.
    Section,
}

fn broken(how: Breaks, stream: u32) -> Vec<u8> {
    match how {
        Breaks::Resets | Breaks::ResetsLate => frame(RST_STREAM, 0, stream, &CANCEL),
        Breaks::Window => frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
        Breaks::HalfClosed => frame(DATA, 0, stream, b"x"),
        Breaks::Overflow => frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()),
        Breaks::Section => {
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/hangs"))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_broken_off_in_bulk_end_their_connection() {
    let yard = Yard::start(Limits::default()).await;
    let honest = Honest::start(Version::HTTP_2, yard.addr()).await;
    let rows = [
        Breaks::Resets,
        Breaks::ResetsLate,
        Breaks::Window,
        Breaks::HalfClosed,
        Breaks::Overflow,
        Breaks::Section,
    ];
    let total = count(1_200, 10_000);
    let (mut sent, mut ended) = (0, 0);
    for how in rows {
        let goal = sent + total / rows.len();
        while sent < goal {
            sent += break_until_closed(&yard, how).await;
            ended += 1;
            until("the handlers end with their connection", || yard.hanging.now() == 0).await;
        }
    }
    let most = yard.hanging.most();
    assert!(most <= REQUESTS, "{most} handlers at one time");
    let served = honest.stop().await;
    println!(
        "acceptance: {sent} HTTP/2 requests broken off in {} ways on {ended} connections, each ended \
         by the server; at most {most} handlers at one time; {} honest answers meanwhile, the slowest \
         in {:?}",
        rows.len(),
        served.answers,
        served.slowest
    );
}

/// Opens and breaks off until the server ends the connection; gives how many requests there were.
async fn break_until_closed(yard: &Yard, how: Breaks) -> usize {
    let mut raw = Raw2::connect(yard.addr()).await;
    let head = request("GET", "/hangs");
    let late = !matches!(how, Breaks::Resets);
    let burst = if late { REQUESTS } else { 1 };
    for opened in (burst..5_000).step_by(burst) {
        let calls = yard.hanging.calls();
        let numbers = u32::try_from(opened - burst).unwrap()..u32::try_from(opened).unwrap();
        let streams = numbers.map(|number| 1 + 2 * number);
        let open = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        let opens: Vec<u8> = streams.clone().flat_map(open).collect();
        let breaks: Vec<u8> = streams.flat_map(|stream| broken(how, stream)).collect();
        let sent = match late {
            false => raw.send(&[opens, breaks.clone()].concat()).await,
            true => raw.send(&opens).await,
        };
        if sent.is_err() {
            return opened;
        }
        if late {
            let ended =
                within(20, "the handlers run", run_all(&mut raw, yard, calls + burst)).await;
            if ended || raw.send(&breaks).await.is_err() {
                return opened;
            }
        }
    }
    panic!("{how:?}: 5000 requests on one connection")
}

/// Waits until handlers were called so often, less the requests that the server refused; `true` if the
/// connection ended.
async fn run_all(raw: &mut Raw2, yard: &Yard, calls: usize) -> bool {
    let mut refused = 0;
    while yard.hanging.calls() + refused < calls {
        tokio::select! {
            frame = raw.next() => match frame {
                Some(frame) => refused += usize::from(frame.kind == RST_STREAM),
                None => return true,
            },
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_as_many_requests_as_the_limits_say() {
    let yard = Yard::start(Limits::default().requests_per_connection(20)).await;
    let mut raw = Raw2::connect(yard.addr()).await;
    let head = request("GET", "/hangs");
    let opens = (0..30).flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * n, &head));
    raw.send(&opens.collect::<Vec<u8>>()).await.unwrap();
    assert!(!within(20, "30 requests", run_all(&mut raw, &yard, 30)).await);
    assert_eq!((yard.hanging.calls(), yard.hanging.most()), (20, 20));
}

/// What is sent again and again, and how many times it may be at most.
struct Flood {
    what: &'static str,
    first: Vec<u8>,
    again: Vec<u8>,
    /// Whether the connection ends; otherwise the server only must not suffer.
    ends: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_or_cost_nothing() {
    let yard = Yard::start(Limits::default()).await;
    let honest = Honest::start(Version::HTTP_2, yard.addr()).await;
    let open = |path: &str, end: u8| frame(HEADERS, END_HEADERS | end, 1, &request("POST", path));
    let begun = frame(HEADERS, 0, 1, &request("GET", "/hangs"));
    let many: Vec<String> = (0..3_000).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "v")).collect();
    let floods = [
        Flood {
            what: "CONTINUATION without end (CVE-2024-27983)",
            first: begun.clone(),
            again: frame(CONTINUATION, 0, 1, &fields(&[("x", "y")])),
            ends: true,
        },
        Flood {
            what: "empty CONTINUATION",
            first: begun.clone(),
            again: frame(CONTINUATION, 0, 1, &[]),
            ends: true,
        },
        Flood {
            what: "CONTINUATION of 16 KB each",
            first: begun,
            again: frame(CONTINUATION, 0, 1, &fields(&[("x", &"y".repeat(16_000))])),
            ends: true,
        },
        Flood {
            what: "empty DATA (CVE-2019-9518)",
            first: open("/echo", 0),
            again: frame(DATA, 0, 1, &[]),
            ends: true,
        },
        Flood {
            what: "SETTINGS (CVE-2019-9515)",
            first: Vec::new(),
            again: frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            ends: false,
        },
        Flood {
            what: "PING (CVE-2019-9512)",
            first: Vec::new(),
            again: frame(PING, 0, 0, &[7; 8]),
            ends: false,
        },
        Flood {
            what: "PING acknowledgements",
            first: Vec::new(),
            again: frame(PING, ACK, 0, &[7; 8]),
            ends: false,
        },
        Flood {
            what: "WINDOW_UPDATE of the connection",
            first: Vec::new(),
            again: frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            ends: false,
        },
        Flood {
            what: "PRIORITY (CVE-2019-9513)",
            first: Vec::new(),
            again: frame(2, 0, 1, &[0, 0, 0, 0, 1]),
            ends: false,
        },
        Flood {
            what: "unknown frames",
            first: Vec::new(),
            again: frame(0x42, 0, 0, &[7; 1_000]),
            ends: false,
        },
        Flood {
            what: "RST_STREAM of no stream",
            first: Vec::new(),
            again: frame(RST_STREAM, 0, 1, &CANCEL),
            ends: true,
        },
        Flood {
            what: "header list too large, again and again",
            first: Vec::new(),
            again: Vec::new(),
            ends: false,
        },
    ];
    let mut report = Vec::new();
    for Flood { what, first, again, ends } in &floods {
        let mut raw = Raw2::connect(yard.addr()).await;
        let _ = raw.send(first).await;
        let times = count(20_000, 200_000);
        let mut stopped = None;
        for batch in 0..times / 100 {
            let bytes = match again.is_empty() {
                false => again.repeat(100),
                true if batch < 40 => large_list(u32::try_from(batch).unwrap(), &many),
                true => break,
            };
            // The acknowledgements are never read: the server must not gather them.
            let sent = tokio::time::timeout(Duration::from_secs(5), raw.send(&bytes)).await;
            if !matches!(sent, Ok(Ok(()))) {
                stopped = Some(batch * 100);
                break;
            }
        }
        if stopped.is_none() && *ends {
            within(20, what, raw.ended()).await;
            stopped = Some(times);
        }
        report
            .push(stopped.map_or_else(|| what.to_string(), |at| format!("{what} (ended by {at})")));
    }
    assert_eq!(yard.hanging.calls(), 0);
    let served = honest.stop().await;
    println!(
        "acceptance: {} floods of HTTP/2 frames: {}; {} honest answers meanwhile, the slowest in {:?}",
        report.len(),
        report.join(", "),
        served.answers,
        served.slowest
    );
}

/// A request whose fields are more than the server takes, in CONTINUATION frames that it takes.
fn large_list(number: u32, many: &[(&str, &str)]) -> Vec<u8> {
    let stream = 1 + 2 * number;
    let section = [request("GET", "/hangs"), fields(many)].concat();
    let mut pieces = section.chunks(16_000).peekable();
    let mut bytes = frame(HEADERS, END_STREAM, stream, pieces.next().unwrap_or_default());
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(CONTINUATION, flags, stream, piece));
    }
    bytes
}

/// A client that asks for much and takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn closed_windows_hold_nobody_else() {
    let yard = Yard::start(Limits::default()).await;
    let honest = Honest::start(Version::HTTP_2, yard.addr()).await;
    let mut held = Vec::new();
    for _ in 0..count(5, 50) {
        let mut raw = Raw2::connect_with(yard.addr(), &[(4, 0)]).await;
        let head = request("GET", "/large");
        for number in 0..u32::try_from(REQUESTS).unwrap() {
            let open = frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, &head);
            raw.send(&open).await.unwrap();
        }
        // Every answer has begun, none goes on.
        let mut begun = 0;
        while begun < REQUESTS {
            let frame = within(20, "the heads of the answers", raw.next()).await.unwrap();
            assert_ne!(frame.kind, DATA, "no window was given");
            begun += usize::from(frame.kind == HEADERS);
        }
        held.push(raw);
    }
    honest.more(20).await;
    let served = honest.stop().await;
    println!(
        "acceptance: {} answers stalled by closed HTTP/2 windows; {} honest answers meanwhile, the \
         slowest in {:?}",
        held.len() * REQUESTS,
        served.answers,
        served.slowest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_bodies_and_headers_are_given_up() {
    let limits = Limits::default()
        .request_body_idle(Duration::from_millis(300))
        .request_header_deadline(Duration::from_millis(300));
    let yard = Yard::start(limits).await;
    let mut raw = Raw2::connect(yard.addr()).await;
    let open = frame(HEADERS, END_HEADERS, 1, &request("POST", "/echo"));
    raw.send(&[open, frame(DATA, 0, 1, b"x")].concat()).await.unwrap();
    let answered = async {
        while let Some(frame) = raw.next().await {
            if frame.stream == 1 {
                return;
            }
        }
    };
    within(10, "an end of the silent body", answered).await;
    // The same over HTTP/1.1, and a header that never ends.
    for bytes in [
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: loc",
    ] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let client = endpoint_tests::wire::Client::new(&[b"http/1.1"]).wants_x509();
        let mut stream = client.dial_tcp("127.0.0.1", yard.addr(), "localhost", b"").await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        let _ = within(10, "an end of the connection", stream.read_to_end(&mut answer)).await;
    }
    println!(
        "acceptance: silent bodies and headers over HTTP/2 and HTTP/1.1 end at their deadlines"
    );
}
