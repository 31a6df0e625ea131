//! HTTP/3 and HTTP/2 requests whose fields would be something else in HTTP/1.1 (RFC 9114 §10.3).

use endpoint_tests::within;

use super::Front;
use crate::{
    raw::{self, Raw},
    raw2::{self, END_HEADERS, END_STREAM, Raw2},
};

/// Fields of a request, its body and its trailers; whether it may arrive.
struct Row {
    what: &'static str,
    fields: Vec<(&'static str, String)>,
    body: &'static str,
    trailers: Vec<(&'static str, &'static str)>,
    /// The body that the upstream may be given; `None` if nothing may arrive.
    arrives: Option<&'static str>,
}

/// `{p}` stands for the row's own path.
fn base(method: &str) -> Vec<(&'static str, String)> {
    vec![
        (":method", method.to_owned()),
        (":scheme", "https".to_owned()),
        (":authority", "localhost".to_owned()),
        (":path", "{p}".to_owned()),
    ]
}

const HIDDEN: &str = "GET {s} HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[allow(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what, fields, body, trailers: &[(&'static str, &'static str)], arrives| {
        rows.push(Row { what, fields, body, trailers: trailers.to_vec(), arrives });
    };
    let with = |method: &str, more: &[(&'static str, &str)]| {
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        base(method).into_iter().chain(more).collect::<Vec<_>>()
    };
    let pseudo = |name: &str, value: &str| {
        let mut fields = base("GET");
        for field in fields.iter_mut().filter(|(n, _)| *n == name) {
            value.clone_into(&mut field.1);
        }
        fields
    };
    add("a plain request", base("GET"), "", &[], Some(""));
    add("a plain body", with("POST", &[("content-length", "5")]), "hello", &[], Some("hello"));
    add("a body without a length", base("POST"), "hello", &[], Some("hello"));
    // What would end a line.
    let injected = format!("x\r\n\r\n{HIDDEN}");
    add("CRLF in a value", with("GET", &[("x-a", &injected)]), "", &[], None);
    add("LF in a value", with("GET", &[("x-a", "x\nhost: evil")]), "", &[], None);
    add("CR in a value", with("GET", &[("x-a", "x\rhost: evil")]), "", &[], None);
    add("NUL in a value", with("GET", &[("x-a", "x\0y")]), "", &[], None);
    add("escape in a value", with("GET", &[("x-a", "x\x1by")]), "", &[], None);
    add("CRLF in a name", with("GET", &[("x-a: b\r\nx", "c")]), "", &[], None);
    add("LF in a name", with("GET", &[("x\ny", "c")]), "", &[], None);
    add("NUL in a name", with("GET", &[("x\0y", "c")]), "", &[], None);
    add(
        "a colon in a name",
        with("GET", &[("transfer-encoding: chunked\r\nx", "c")]),
        "",
        &[],
        None,
    );
    add("a space in a name", with("GET", &[("x y", "c")]), "", &[], None);
    add("a space after a name", with("GET", &[("transfer-encoding ", "chunked")]), "", &[], None);
    add("no name", with("GET", &[("", "c")]), "", &[], None);
    add("upper case", with("GET", &[("X-A", "c")]), "", &[], None);
    // What speaks of a connection.
    for (what, name, value) in [
        ("transfer-encoding", "transfer-encoding", "chunked"),
        ("transfer-encoding identity", "transfer-encoding", "identity"),
        ("connection", "connection", "close"),
        ("connection names a field", "connection", "x-forwarded-for"),
        ("keep-alive", "keep-alive", "1"),
        ("proxy-connection", "proxy-connection", "close"),
        ("upgrade", "upgrade", "websocket"),
        ("te", "te", "chunked"),
        ("te with more", "te", "trailers, chunked"),
        ("another host", "host", "evil.test"),
    ] {
        add(
            what,
            with("POST", &[(name, value)]),
            "0\r\n\r\nGET {s} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &[],
            None,
        );
    }
    add("te trailers", with("GET", &[("te", "trailers")]), "", &[], Some(""));
    add("the same host", with("GET", &[("host", "localhost")]), "", &[], Some(""));
    // Lengths.
    add("more than its length", with("POST", &[("content-length", "3")]), "hello", &[], None);
    add("less than its length", with("POST", &[("content-length", "9")]), "hello", &[], None);
    add("a length of 0 and a body", with("POST", &[("content-length", "0")]), HIDDEN, &[], None);
    add("a length of 0 and none", with("POST", &[("content-length", "0")]), "", &[], Some(""));
    for (what, length) in [
        ("a plus", "+5"),
        ("hexadecimal", "0x5"),
        ("a list", "5, 5"),
        ("nothing", ""),
        ("a space", "5 5"),
        ("beyond 64 bits", "18446744073709551621"),
    ] {
        add(what, with("POST", &[("content-length", length)]), "hello", &[], None);
    }
    add(
        "two lengths",
        with("POST", &[("content-length", "5"), ("content-length", "6")]),
        "hello",
        &[],
        None,
    );
    add(
        "one length twice",
        with("POST", &[("content-length", "5"), ("content-length", "5")]),
        "hello",
        &[],
        None,
    );
    // The request line.
    add("a method of two words", pseudo(":method", "GET /x HTTP/1.1\r\nx:"), "", &[], None);
    add("a space in the method", pseudo(":method", "GET x"), "", &[], None);
    add("an empty method", pseudo(":method", ""), "", &[], None);
    add("CRLF in the path", pseudo(":path", "{p} HTTP/1.1\r\nx: y\r\n\r\nGET {s}"), "", &[], None);
    add("LF in the path", pseudo(":path", "{p}\nx"), "", &[], None);
    add("a space in the path", pseudo(":path", "{p} HTTP/1.1"), "", &[], None);
    add("NUL in the path", pseudo(":path", "{p}\0"), "", &[], None);
    add("an empty path", pseudo(":path", ""), "", &[], None);
    add("a path without a slash", pseudo(":path", "x{p}"), "", &[], None);
    add("another origin as the path", pseudo(":path", "http://evil.test{p}"), "", &[], None);
    add("CRLF in the authority", pseudo(":authority", "localhost\r\nx: y"), "", &[], None);
    add("a user in the authority", pseudo(":authority", "a@localhost"), "", &[], None);
    add("a path in the authority", pseudo(":authority", "localhost/x"), "", &[], None);
    add("two authorities", pseudo(":authority", "localhost, evil.test"), "", &[], None);
    add("an empty authority", pseudo(":authority", ""), "", &[], None);
    add("another authority", pseudo(":authority", "evil.test"), "", &[], None);
    add("CRLF in the scheme", pseudo(":scheme", "https\r\nx: y"), "", &[], None);
    // Trailers.
    let forbidden = [
        ("transfer-encoding in a trailer", ("transfer-encoding", "chunked")),
        ("content-length in a trailer", ("content-length", "50")),
        ("host in a trailer", ("host", "evil.test")),
        ("CRLF in a trailer", ("x", "y\r\nhost: evil.test")),
        ("a pseudo-header in a trailer", (":path", "/evil")),
    ];
    for (what, trailer) in forbidden {
        add(what, base("POST"), "hello", &[trailer], Some("hello"));
    }
    rows
}

fn filled(row: &Row, path: &str, hidden: &str) -> (Vec<(&'static str, String)>, String) {
    let fill = |text: &str| text.replace("{p}", path).replace("{s}", hidden);
    let fields = row.fields.iter().map(|(name, value)| (*name, fill(value))).collect();
    (fields, fill(row.body))
}

fn refs<'a>(fields: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    fields.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

async fn over_h3(front: &Front, fields: &[(&str, &str)], body: &str, row: &Row) {
    let raw = Raw::connect(front.addr()).await;
    let _control = raw.uni(&[vec![0], raw::frame(4, &[])].concat()).await;
    let mut bytes = raw::headers(fields);
    if !body.is_empty() {
        bytes.extend(raw::frame(0, body.as_bytes()));
    }
    if !row.trailers.is_empty() {
        bytes.extend(raw::headers(&row.trailers));
    }
    let (mut send, mut recv) = raw.request(&bytes).await;
    let _ = send.finish();
    let _ = within(20, row.what, recv.read_to_end(1 << 20)).await;
}

async fn over_h2(front: &Front, fields: &[(&str, &str)], body: &str, row: &Row) {
    let mut raw = Raw2::connect(front.addr()).await;
    let ends = |last: bool| if last { END_STREAM } else { 0 };
    let last = body.is_empty() && row.trailers.is_empty();
    let section = raw2::fields(fields);
    let mut bytes = raw2::frame(raw2::HEADERS, END_HEADERS | ends(last), 1, &section);
    if !body.is_empty() {
        let last = row.trailers.is_empty();
        bytes.extend(raw2::frame(raw2::DATA, ends(last), 1, body.as_bytes()));
    }
    if !row.trailers.is_empty() {
        let section = raw2::fields(&row.trailers);
        bytes.extend(raw2::frame(raw2::HEADERS, END_HEADERS | END_STREAM, 1, &section));
    }
    let _ = raw.send(&bytes).await;
    // Until the stream or the connection has ended.
    let ended = async {
        while let Some(frame) = raw.next().await {
            let of_the_stream = frame.stream == 1;
            let last =
                frame.flags & END_STREAM != 0 && matches!(frame.kind, raw2::DATA | raw2::HEADERS);
            if of_the_stream && (frame.kind == raw2::RST_STREAM || last) {
                break;
            }
        }
    };
    within(20, row.what, ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_stay_fields() {
    let front = Front::start();
    let rows = rows();
    let (mut wrong, mut passed, mut number) = (Vec::new(), 0, 0);
    for row in &rows {
        for version in ["h3", "h2"] {
            number += 1;
            let (path, hidden) = (format!("/field/{number}"), format!("/hidden/{number}"));
            let (fields, body) = filled(row, &path, &hidden);
            match version {
                "h3" => over_h3(&front, &refs(&fields), &body, row).await,
                _ => over_h2(&front, &refs(&fields), &body, row).await,
            }
            let received = front.upstream.received(&path);
            let bodies: Vec<_> = received.iter().map(|r| r.body.clone()).collect();
            passed += received.len();
            let good = match row.arrives {
                None => received.is_empty(),
                // Refusing the whole is right too where a trailer is at fault.
                Some(body) if row.trailers.is_empty() => bodies == [body.as_bytes()],
                Some(body) => bodies.iter().all(|b| b == body.as_bytes()) && bodies.len() <= 1,
            };
            if !good {
                wrong.push(format!("{} over {version}: {received:?}", row.what));
            }
            if !front.upstream.received(&hidden).is_empty() {
                wrong.push(format!("{} over {version}: SMUGGLED", row.what));
            }
        }
    }
    let others = front.upstream.all().len() - passed;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((front.upstream.faults(), others), (Vec::new(), 0));
    println!(
        "acceptance: {number} HTTP/3 and HTTP/2 requests with fields that are more in HTTP/1.1: \
         {passed} reached the upstream, each as it was meant, 0 smuggled"
    );
}
