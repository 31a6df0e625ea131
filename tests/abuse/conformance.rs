//! The MUSTs of RFC 9114 and RFC 9204 that end a connection or a stream, each with its code.

use endpoint_tests::within;

use crate::raw::{Raw, declared, frame, get, headers, section, server};

/// Where the bytes go. A control stream with SETTINGS is opened first unless it is the matter.
enum On {
    /// A request stream, kept open.
    Request,
    /// A request stream that ends after them.
    Ended,
    /// The control stream, SETTINGS included or not as the row says; no other is opened.
    Control,
    /// The control stream, which then ends.
    ClosedControl,
    /// A further unidirectional stream.
    Uni,
    /// A further unidirectional stream, which then ends.
    ClosedUni,
}

use On::{ClosedControl, ClosedUni, Control, Ended, Request, Uni};

const STREAM_CREATION: u64 = 0x103;
const CLOSED_CRITICAL: u64 = 0x104;
const UNEXPECTED: u64 = 0x105;
const FRAME: u64 = 0x106;
const LOAD: u64 = 0x107;
const ID: u64 = 0x108;
const SETTINGS: u64 = 0x109;
const MISSING_SETTINGS: u64 = 0x10a;
const DECOMPRESSION: u64 = 0x200;
const ENCODER: u64 = 0x201;
const DECODER: u64 = 0x202;

fn settings() -> Vec<u8> {
    frame(4, &[])
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn connection_errors() -> Vec<(&'static str, On, Vec<u8>, u64)> {
    let control = |frames: &[Vec<u8>]| [vec![0], settings(), frames.concat()].concat();
    let request = |frames: &[Vec<u8>]| frames.concat();
    let trailers = || headers(&[("x-sum", "1")]);
    vec![
        ("9114 4.1 DATA before HEADERS", Request, frame(0, b"x"), UNEXPECTED),
        (
            "9114 4.1 HEADERS after trailers",
            Request,
            request(&[get(), trailers(), trailers()]),
            UNEXPECTED,
        ),
        (
            "9114 4.1 DATA after trailers",
            Request,
            request(&[get(), trailers(), frame(0, b"x")]),
            UNEXPECTED,
        ),
        ("9114 7.2.3 CANCEL_PUSH on a request", Request, frame(3, &[0]), UNEXPECTED),
        ("9114 7.2.4 SETTINGS on a request", Request, settings(), UNEXPECTED),
        ("9114 7.2.5 PUSH_PROMISE of a client", Request, frame(5, &[0]), UNEXPECTED),
        ("9114 7.2.6 GOAWAY on a request", Request, frame(7, &[0]), UNEXPECTED),
        ("9114 7.2.7 MAX_PUSH_ID on a request", Request, frame(13, &[0]), UNEXPECTED),
        ("9114 7.2.8 HTTP/2 PRIORITY", Request, request(&[get(), frame(2, &[])]), UNEXPECTED),
        ("9114 7.2.8 HTTP/2 PING", Request, frame(6, &[]), UNEXPECTED),
        ("9114 7.2.8 HTTP/2 WINDOW_UPDATE", Request, frame(8, &[]), UNEXPECTED),
        ("9114 7.2.8 HTTP/2 CONTINUATION", Request, frame(9, &[]), UNEXPECTED),
        ("9114 7.1 cut HEADERS", Ended, declared(1, 9), FRAME),
        ("9114 7.1 cut DATA", Ended, request(&[get(), declared(0, 9)]), FRAME),
        (
            "9114 6.2.1 no SETTINGS first",
            Control,
            [vec![0], frame(13, &[0])].concat(),
            MISSING_SETTINGS,
        ),
        ("9114 6.2.1 DATA first", Control, [vec![0], frame(0, b"x")].concat(), MISSING_SETTINGS),
        (
            "9114 6.2.1 unknown frame first",
            Control,
            [vec![0], frame(0x21, &[])].concat(),
            MISSING_SETTINGS,
        ),
        ("9114 6.2.1 second control stream", Uni, vec![0], STREAM_CREATION),
        ("9114 6.2.1 control stream closed", ClosedControl, control(&[]), CLOSED_CRITICAL),
        ("9114 6.2.2 push stream of a client", Uni, vec![1, 0], STREAM_CREATION),
        ("9114 7.2.4 second SETTINGS", Control, control(&[settings()]), UNEXPECTED),
        ("9114 7.2.1 DATA on control", Control, control(&[frame(0, b"x")]), UNEXPECTED),
        ("9114 7.2.2 HEADERS on control", Control, control(&[get()]), UNEXPECTED),
        ("9114 7.2.5 PUSH_PROMISE on control", Control, control(&[frame(5, &[0])]), UNEXPECTED),
        ("9114 7.2.8 HTTP/2 PING on control", Control, control(&[frame(6, &[])]), UNEXPECTED),
        (
            "9114 7.2.4.1 HTTP/2 ENABLE_PUSH",
            Control,
            [vec![0], frame(4, &[2, 0])].concat(),
            SETTINGS,
        ),
        (
            "9114 7.2.4.1 HTTP/2 MAX_CONCURRENT",
            Control,
            [vec![0], frame(4, &[3, 1])].concat(),
            SETTINGS,
        ),
        (
            "9114 7.2.4.1 HTTP/2 INITIAL_WINDOW",
            Control,
            [vec![0], frame(4, &[4, 1])].concat(),
            SETTINGS,
        ),
        (
            "9114 7.2.4.1 HTTP/2 MAX_FRAME_SIZE",
            Control,
            [vec![0], frame(4, &[5, 1])].concat(),
            SETTINGS,
        ),
        (
            "9114 7.2.4 a setting twice",
            Control,
            [vec![0], frame(4, &[6, 1, 6, 1])].concat(),
            SETTINGS,
        ),
        ("9114 7.1 cut setting", Control, [vec![0], frame(4, &[6])].concat(), FRAME),
        (
            "9114 7.2.7 MAX_PUSH_ID goes down",
            Control,
            control(&[frame(13, &[4]), frame(13, &[3])]),
            ID,
        ),
        ("9114 7.2.3 CANCEL_PUSH of nothing", Control, control(&[frame(3, &[0])]), ID),
        ("9114 5.2 GOAWAY goes up", Control, control(&[frame(7, &[4]), frame(7, &[8])]), ID),
        ("9114 7.1 GOAWAY without a number", Control, control(&[frame(7, &[])]), FRAME),
        ("9114 7.1 GOAWAY with too much", Control, control(&[frame(7, &[0, 0])]), FRAME),
        ("9114 10.5 HEADERS of a terabyte", Request, declared(1, 1 << 40), LOAD),
        ("9114 10.5 unknown frame of a terabyte", Request, declared(0x21, 1 << 40), LOAD),
        (
            "9114 10.5 SETTINGS of a terabyte",
            Control,
            [vec![0], declared(4, 1 << 40)].concat(),
            LOAD,
        ),
        (
            "9204 2.2 index outside of the static table",
            Request,
            frame(1, &[0, 0, 0xff, 0x24]),
            DECOMPRESSION,
        ),
        ("9204 2.2 reference to a dynamic table", Request, frame(1, &[2, 0, 0x80]), DECOMPRESSION),
        (
            "9204 4.5.1 base beyond measure",
            Request,
            frame(1, &[0, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 255]),
            DECOMPRESSION,
        ),
        ("9204 4.1.2 cut string", Request, frame(1, &[0, 0, 0x27, 0xff]), DECOMPRESSION),
        ("9204 4.3.1 capacity over ours", Uni, vec![2, 0x3f, 0xe1, 0x1f], ENCODER),
        ("9204 4.3.2 insert with a name of the table", Uni, vec![2, 0xc0, 1, b'a'], ENCODER),
        ("9204 4.3.4 duplicate", Uni, vec![2, 0], ENCODER),
        ("9204 4.2 encoder stream closed", ClosedUni, vec![2], CLOSED_CRITICAL),
        ("9204 4.2 decoder stream closed", ClosedUni, vec![3], CLOSED_CRITICAL),
        ("9204 4.4.1 acknowledgement of nothing", Uni, vec![3, 0x80], DECODER),
        ("9204 4.4.3 increment of 0", Uni, vec![3, 0], DECODER),
        ("9204 4.4.3 increment of what was not sent", Uni, vec![3, 5], DECODER),
    ]
}

#[tokio::test]
async fn breaches_close_the_connection_with_their_code() {
    let endpoint = server().await;
    let rows = connection_errors();
    let mut wrong = Vec::new();
    for (what, on, bytes, expected) in &rows {
        let raw = Raw::connect(endpoint.local_addrs()[0]).await;
        let own_control = matches!(on, Control | ClosedControl);
        let _settings = match own_control {
            true => None,
            false => Some(raw.uni(&[vec![0], settings()].concat()).await),
        };
        let closed = async {
            match on {
                Request | Ended => {
                    let (mut send, _recv) = raw.request(bytes).await;
                    if matches!(on, Ended) {
                        let _ = send.finish();
                    }
                    raw.closed().await
                }
                Control | Uni | ClosedControl | ClosedUni => {
                    let mut send = raw.uni(bytes).await;
                    if matches!(on, ClosedControl | ClosedUni) {
                        let _ = send.finish();
                    }
                    raw.closed().await
                }
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(3), closed).await {
            Ok(code) if code == *expected => {}
            Ok(code) => wrong.push(format!("{what}: {code:#x}, not {expected:#x}")),
            Err(_) => wrong.push(format!("{what}: not closed, not {expected:#x}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    println!("acceptance: {} breaches of RFC 9114 and RFC 9204, each with its code", rows.len());
}

/// RFC 9114 §4.1.2: malformed requests end their stream, reach no handler, and spare the connection.
#[tokio::test]
async fn malformed_requests_end_their_stream() {
    let endpoint = server().await;
    let base =
        [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    let without = |name: &str| base.iter().filter(|(n, _)| *n != name).copied().collect::<Vec<_>>();
    let rows: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no :method", without(":method")),
        ("no :path", without(":path")),
        ("no :scheme", without(":scheme")),
        (":method twice", with(&[(":method", "GET")])),
        ("unknown pseudo-header", with(&[(":x", "y")])),
        (":path twice", with(&[(":path", "/other")])),
        (":authority twice", with(&[(":authority", "localhost")])),
        (":scheme twice", with(&[(":scheme", "https")])),
        (":status in a request", with(&[(":status", "200")])),
        (":protocol without leave", with(&[(":protocol", "websocket")])),
        ("pseudo-header between fields", [&[("a", "b")][..], &base[..], &[("c", "d")]].concat()),
        ("pseudo-header after a field", [&[("a", "b")][..], &base[..]].concat()),
        ("upper case", with(&[("X-Upper", "y")])),
        ("connection", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("te", with(&[("te", "gzip")])),
        ("host of another", with(&[("host", "other")])),
        ("line feed in a value", with(&[("a", "b\nc")])),
        ("carriage return in a value", with(&[("a", "b\rc: d")])),
        ("NUL in a value", with(&[("a", "b\0c")])),
        ("two lengths", with(&[("content-length", "1"), ("content-length", "2")])),
        ("length that is none", with(&[("content-length", "0x1")])),
    ];
    let raw = Raw::connect(endpoint.local_addrs()[0]).await;
    let _control = raw.uni(&[vec![0], settings()].concat()).await;
    let mut wrong = Vec::new();
    for (what, fields) in &rows {
        let (mut send, mut recv) = raw.request(&frame(1, &section(fields))).await;
        let _ = send.finish();
        let read = within(10, what, recv.read_to_end(1 << 16)).await;
        let refused = match &read {
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                code.into_inner() == 0x10e
            }
            _ => false,
        };
        if !refused {
            wrong.push(format!("{what}: {read:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The connection lives.
    let (mut send, mut recv) = raw.request(&get()).await;
    send.finish().unwrap();
    let answer = within(10, "an answer", recv.read_to_end(1 << 16)).await.unwrap();
    assert!(answer.ends_with(b"ok"), "{answer:?}");
    println!("acceptance: {} malformed requests, each ended with H3_MESSAGE_ERROR", rows.len());
}

/// A body that is not as long as it says is a malformed request too.
#[tokio::test]
async fn a_body_of_another_length_is_malformed() {
    let endpoint = server().await;
    let raw = Raw::connect(endpoint.local_addrs()[0]).await;
    let _control = raw.uni(&[vec![0], settings()].concat()).await;
    for body in ["12", "1234"] {
        let head = headers(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", "/"),
            ("content-length", "3"),
        ]);
        let (mut send, mut recv) = raw.request(&[head, frame(0, body.as_bytes())].concat()).await;
        let _ = send.finish();
        let read = within(10, "a refusal", recv.read_to_end(1 << 16)).await;
        let answered = read.is_ok_and(|answer| answer.ends_with(body.as_bytes()));
        assert!(!answered, "a body of {} bytes passed for 3", body.len());
    }
}
