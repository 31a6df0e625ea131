//! HTTP/1.1 requests that two programs could read in two ways.
//!
//! In the bytes `{p}` is the path of the row's own request, `{e}` a second request that no client plainly
//! sent, `{len}` and `{hex}` its length; at `{fin}` the client ends its half of the connection.
//!
//! A request with both lengths may be read by its transfer coding alone if the connection ends after it
//! (RFC 9112 §6.1): the program reads it so and passes on one length.

/// What may reach the upstream, if anything does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Read {
    /// Nothing: the request is refused.
    Refused,
    /// Refused, or one request with this body.
    AtMost(&'static str),
    /// One request with this body: every reader agrees.
    One(&'static str),
    /// So many requests: the client plainly sent them.
    Plain(usize),
}

use Read::{AtMost, One, Plain, Refused};

/// A row: what it is, its bytes, how it may be read.
pub type Row = (&'static str, String, Read);

fn post(fields: &str, body: &str) -> String {
    format!("POST {{p}} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n{body}")
}

/// Two ways to say where the body ends.
pub fn both_lengths() -> Vec<Row> {
    let te = "Transfer-Encoding: chunked";
    let hidden = "0\r\n\r\n{e}";
    let long = "Content-Length: {len5}";
    let row = |what, fields: &str, body: &str, read| (what, post(fields, body), read);
    let with = |what, fields: &str| row(what, &format!("{long}\r\n{fields}"), hidden, Refused);
    vec![
        row("CL then TE", &format!("{long}\r\n{te}"), hidden, AtMost("")),
        row("TE then CL", &format!("{te}\r\n{long}"), hidden, AtMost("")),
        row("TE and a short CL", &format!("Content-Length: 4\r\n{te}"), "{hex}\r\n{e}\r\n0\r\n\r\n", AtMost("{e}")),
        row("TE and CL of 0", &format!("Content-Length: 0\r\n{te}"), "0\r\n\r\n{e}", AtMost("")),
        row("TE in upper case", &format!("{long}\r\nTRANSFER-ENCODING: CHUNKED"), hidden, AtMost("")),
        with("TE xchunked", "Transfer-Encoding: xchunked"),
        with("TE identity", "Transfer-Encoding: identity"),
        with("TE chunked, identity", "Transfer-Encoding: chunked, identity"),
        with("TE identity, chunked", "Transfer-Encoding: identity, chunked"),
        with("TE gzip, chunked", "Transfer-Encoding: gzip, chunked"),
        with("TE chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        with("TE chunked, then another", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        with("TE another, then chunked", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
        with("TE with a parameter", "Transfer-Encoding: chunked;q=1"),
        with("TE in quotes", "Transfer-Encoding: \"chunked\""),
        with("TE with a comma", "Transfer-Encoding: ,chunked"),
        with("TE that is empty", "Transfer-Encoding:"),
        with("space before the colon of TE", "Transfer-Encoding : chunked"),
        with("tab before the colon of TE", "Transfer-Encoding\t: chunked"),
        with("vertical tab before chunked", "Transfer-Encoding:\x0bchunked"),
        with("form feed after chunked", "Transfer-Encoding: chunked\x0c"),
        with("NUL after chunked", "Transfer-Encoding: chunked\0"),
        row("TE after a tab", &format!("{long}\r\nTransfer-Encoding:\tchunked"), hidden, AtMost("")),
        with("TE folded", "Transfer-Encoding:\r\n chunked"),
        with("TE as the fold of another", "X: y\r\n Transfer-Encoding: chunked"),
        with("TE after a bare CR", "X: y\rTransfer-Encoding: chunked"),
        row("TE after a bare LF", &format!("{long}\r\nX: y\nTransfer-Encoding: chunked"), hidden, AtMost("")),
        row("TE named by connection", &format!("{long}\r\n{te}\r\nConnection: transfer-encoding"), hidden, AtMost("")),
        row("TE spelt with _", "Content-Length: 5\r\nTransfer_Encoding: chunked", "hello", AtMost("hello")),
        row("TE xchunked alone", "Transfer-Encoding: xchunked", hidden, Refused),
        row("TE chunked, identity alone", "Transfer-Encoding: chunked, identity", hidden, Refused),
        row("TE alone after a tab", "Transfer-Encoding:\tchunked", "5\r\nhello\r\n0\r\n\r\n", AtMost("hello")),
        ("TE in HTTP/1.0", "POST {p} HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{e}".into(), Refused),
        ("TE and CL in HTTP/1.0", "POST {p} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{e}".into(), Refused),
    ]
}

/// Lengths that are none, or several.
pub fn lengths() -> Vec<Row> {
    let row = |what, value: &str, read| {
        (what, post(&format!("Content-Length:{value}"), "hello{e}"), read)
    };
    let fields = |what, fields: &str, body: &str, read| (what, post(fields, body), read);
    vec![
        fields("a plain length", "Content-Length: 5", "hello", One("hello")),
        fields("spaces around", "Content-Length: \t 5 \t", "hello", One("hello")),
        fields("zeros before", "Content-Length: 0005", "hello", AtMost("hello")),
        fields("no length", "X: y", "", One("")),
        fields("two lengths", "Content-Length: 5\r\nContent-Length: {len}", "hello{e}", Refused),
        fields(
            "two lengths, the other way",
            "Content-Length: {len}\r\nContent-Length: 5",
            "hello{e}",
            Refused,
        ),
        fields(
            "one length twice",
            "Content-Length: 5\r\nContent-Length: 5",
            "hello",
            AtMost("hello"),
        ),
        row("a list of one length", " 5, 5", Refused),
        row("a list of two", " 5, 6", Refused),
        row("a plus", " +5", Refused),
        row("a minus", " -5", Refused),
        row("minus nothing", " -0", Refused),
        row("hexadecimal", " 0x5", Refused),
        row("letters", " 5a", Refused),
        row("two words", " 5 5", Refused),
        row("a fraction", " 5.0", Refused),
        row("an exponent", " 5e0", Refused),
        row("nothing", "", Refused),
        row("beyond 64 bits", " 18446744073709551621", Refused),
        row("a NUL", " 5\0", Refused),
        row("full-width digits", " \u{ff15}", Refused),
        row("quotes", " \"5\"", Refused),
        row("folded", "\r\n 5", Refused),
        row("folded away", " 0\r\n 5", Refused),
        row("a vertical tab", "\x0b5", Refused),
        fields("a space before the colon", "Content-Length : 5", "hello{e}", Refused),
        fields("a tab before the colon", "Content-Length\t: 5", "hello{e}", Refused),
        fields("a space before the name", " Content-Length: 5", "hello{e}", Refused),
        fields(
            "named by connection",
            "Content-Length: 5\r\nConnection: content-length",
            "hello",
            AtMost("hello"),
        ),
        fields("spelt with _", "Content-Length: 5\r\nContent_Length: 50", "hello", AtMost("hello")),
    ]
}

/// Chunks that end elsewhere for somebody else.
pub fn chunks() -> Vec<Row> {
    let row = |what, body: &str, read| (what, post("Transfer-Encoding: chunked", body), read);
    vec![
        row("plain chunks", "5\r\nhello\r\n0\r\n\r\n", One("hello")),
        row("zeros before", "0005\r\nhello\r\n000\r\n\r\n", One("hello")),
        row("an extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n", AtMost("hello")),
        row("an extension in quotes", "5;a=\"\r\nhello\r\n0\r\n\r\n", AtMost("hello")),
        row("LF in an extension", "5;a\nhello\r\n0\r\n\r\n{e}", Refused),
        row("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", Refused),
        row("a request in an extension", "0;\n\r\n{e}", Refused),
        row("LF after the size", "5\nhello\r\n0\r\n\r\n{e}", Refused),
        row("CR after the size", "5\rhello\r\n0\r\n\r\n{e}", Refused),
        row("a size of 0x5", "0x5\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("a plus", "+5\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("a minus", "-5\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("a space before", " 5\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("an underscore", "0_5\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("a space after", "5 \r\nhello\r\n0\r\n\r\n", AtMost("hello")),
        row("no size", "\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("a size of 17 digits", "fffffffffffffffff\r\n{e}", Refused),
        row("a size that wraps", "10000000000000005\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("more than its size", "5\r\nhelloX\r\n0\r\n\r\n{e}", Refused),
        row("less than its size", "6\r\nhello\r\n0\r\n\r\n{e}", Refused),
        row("no CRLF after data", "5\r\nhello0\r\n\r\n{e}", Refused),
        row("LF after data", "5\r\nhello\n0\r\n\r\n{e}", Refused),
        row("LF at the end", "5\r\nhello\r\n0\n\n{e}", Refused),
        row("no end", "5\r\nhello\r\n{fin}", Refused),
        row("a trailer", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", AtMost("hello")),
        row(
            "a length in a trailer",
            "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n",
            AtMost("hello"),
        ),
        row(
            "TE in a trailer",
            "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
            AtMost("hello"),
        ),
        row("a host in a trailer", "5\r\nhello\r\n0\r\nHost: evil\r\n\r\n", AtMost("hello")),
        row(
            "a trailer with a bare LF",
            "5\r\nhello\r\n0\r\nX: y\nHost: evil\r\n\r\n",
            AtMost("hello"),
        ),
    ]
}

/// Lines, targets, hosts and what follows a request.
pub fn lines() -> Vec<Row> {
    let get = |what, fields: &str, read| {
        (what, format!("GET {{p}} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n"), read)
    };
    let first = |what, line: &str, read| (what, format!("{line}\r\nHost: localhost\r\n\r\n"), read);
    let host =
        |what, fields: &str, read| (what, format!("GET {{p}} HTTP/1.1\r\n{fields}\r\n"), read);
    vec![
        get("a plain request", "X: y", One("")),
        get("CR in a value", "X: a\rb", Refused),
        get("NUL in a value", "X: a\0b", Refused),
        get("escape in a value", "X: a\x1bb", Refused),
        get("a fold", "X: a\r\n b", Refused),
        get("NUL in a name", "X\0: a", Refused),
        get("a space in a name", "X Y: a", Refused),
        get("a space before a name", " X: a", Refused),
        get("no name", ": a", Refused),
        get("no colon", "X", Refused),
        ("a length of what does not come", post("Content-Length: 5", "hell{fin}"), Refused),
        get("length named by connection", "Content-Length: 0\r\nConnection: content-length, host", AtMost("")),
        get("CR before LF twice", "X: y\r\r\nY: z", Refused),
        first("two spaces", "GET  {p} HTTP/1.1", AtMost("")),
        first("a tab", "GET\t{p} HTTP/1.1", Refused),
        first("a space in the target", "GET {p} x HTTP/1.1", Refused),
        first("CR in the target", "GET {p}\rx HTTP/1.1", Refused),
        first("NUL in the target", "GET {p}\0 HTTP/1.1", Refused),
        first("a line of its own in the target", "GET {p}%0d%0aX:%20y HTTP/1.1", Refused),
        first("no version", "GET {p}", Refused),
        first("version 1.2", "GET {p} HTTP/1.2", Refused),
        first("version 2", "GET {p} HTTP/2.0", Refused),
        first("a space after the version", "GET {p} HTTP/1.1 ", Refused),
        first("a method with a colon", "GE:T {p} HTTP/1.1", Refused),
        first("a target without a slash", "GET x{p} HTTP/1.1", Refused),
        first("CONNECT", "CONNECT localhost:443 HTTP/1.1", Refused),
        first("another host in the target", "GET http://evil.test{p} HTTP/1.1", Refused),
        first("a user in the target", "GET http://localhost@evil.test{p} HTTP/1.1", Refused),
        first("the same host in the target", "GET https://localhost{p} HTTP/1.1", AtMost("")),
        first("a host that only differs in its port", "GET https://localhost:1{p} HTTP/1.1", Refused),
        host("no host", "X: y\r\n", Refused),
        host("two hosts", "Host: localhost\r\nHost: evil.test\r\n", Refused),
        host("one host twice", "Host: localhost\r\nHost: localhost\r\n", Refused),
        host("a list of hosts", "Host: localhost, evil.test\r\n", Refused),
        host("an empty host", "Host:\r\n", Refused),
        host("a user in the host", "Host: a@localhost\r\n", Refused),
        host("a path in the host", "Host: localhost/x\r\n", Refused),
        host("a space before the colon of host", "Host : localhost\r\n", Refused),
        host("a host folded", "Host:\r\n localhost\r\n", Refused),
        host("another host", "Host: evil.test\r\n", Refused),
        ("bare LF everywhere", "GET {p} HTTP/1.1\nHost: localhost\n\n".into(), AtMost("")),
        ("an empty line first", "\r\nGET {p} HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), AtMost("")),
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{e}".into(), Refused),
        ("a request after an error", "GET {p} HTTP/1.1\r\nHost: a b\r\n\r\n{e}".into(), Refused),
        ("a request after a bad name", "GET {p} HTTP/1.1\r\nHost: localhost\r\nX Y: z\r\n\r\n{e}".into(), Refused),
        ("a request after close", "GET {p} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{e}".into(), One("")),
        ("a request after HTTP/1.0", "GET {p} HTTP/1.0\r\nHost: localhost\r\n\r\n{e}".into(), One("")),
        ("two requests", "GET {p} HTTP/1.1\r\nHost: localhost\r\n\r\nGET {p} HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), Plain(2)),
        ("three with bodies", format!("{0}{0}{0}", post("Content-Length: 5", "hello")), Plain(3)),
        ("an upgrade to h2c", "GET {p} HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".into(), AtMost("")),
        ("a body after an expectation", post("Expect: 100-continue\r\nContent-Length: 5", "hello"), AtMost("hello")),
        ("an unknown expectation", post("Expect: x\r\nContent-Length: 5", "hello"), AtMost("hello")),
    ]
}
