//! Request smuggling: what the program passes on is one request, the one that the client sent.

mod fields;
mod rows;

use endpoint_tests::{
    machine::{Machine, Server},
    wire::Client,
};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::rows::{Read, Row};
use crate::upstream::Upstream;

/// `serve` in front of an upstream that tells what it was sent.
pub struct Front {
    pub upstream: Upstream,
    pub server: Server,
    _machine: Machine,
}

impl Front {
    pub fn start() -> Self {
        let upstream = Upstream::start();
        let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
        let server = machine.serve_with(&["--proxy", &format!("http://{}", upstream.address)]);
        Self { upstream, server, _machine: machine }
    }

    pub fn addr(&self) -> std::net::SocketAddr {
        self.server.address().parse().unwrap()
    }
}

/// The row's own path, and that of the request that nobody sent.
fn paths(number: usize) -> (String, String) {
    (format!("/row/{number}"), format!("/smuggled/{number}"))
}

/// Sends the bytes of a row; gives the statuses of the answers.
async fn send(front: &Front, number: usize, row: &Row) -> Vec<u16> {
    let (path, hidden) = paths(number);
    let hidden = format!("GET {hidden} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let bytes = row
        .1
        .replace("{p}", &path)
        .replace("{len5}", &(hidden.len() + 5).to_string())
        .replace("{len}", &hidden.len().to_string())
        .replace("{hex}", &format!("{:x}", hidden.len()))
        .replace("{e}", &hidden);
    let client = Client::new(&[b"http/1.1"]).wants_x509();
    let mut stream = client.dial_tcp("127.0.0.1", front.addr(), "localhost", b"").await.unwrap();
    let (bytes, ends) = match bytes.strip_suffix("{fin}") {
        Some(bytes) => (bytes, true),
        None => (bytes.as_str(), false),
    };
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.flush().await;
    if ends {
        let _ = stream.shutdown().await;
    }
    // The server ends the connection at the header deadline, whatever it thinks of the bytes.
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(READING, stream.read_to_end(&mut answer));
    let _ = reading.await.unwrap_or_else(|_| panic!("{}: never ended", row.0));
    statuses(&String::from_utf8_lossy(&answer))
}

/// More than the header deadline and the pause of the program's own.
const READING: std::time::Duration = std::time::Duration::from_secs(50);

fn statuses(answers: &str) -> Vec<u16> {
    let codes = answers.match_indices("HTTP/1.1 ").chain(answers.match_indices("HTTP/1.0 "));
    codes.filter_map(|(at, _)| answers.get(at + 9..at + 12)?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_stays_one_request() {
    let front = Front::start();
    let rows = [rows::both_lengths(), rows::lengths(), rows::chunks(), rows::lines()].concat();
    let sent = rows.iter().enumerate().map(|(number, row)| send(&front, number, row));
    let answers = join_all(sent).await;
    let mut wrong = Vec::new();
    let mut passed = 0;
    for (number, ((what, _, read), statuses)) in rows.iter().zip(&answers).enumerate() {
        let (path, hidden) = paths(number);
        let received = front.upstream.received(&path);
        let bodies: Vec<_> =
            received.iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
        passed += received.len();
        let refused = received.is_empty()
            && statuses.iter().all(|code| matches!(code, 100 | 400..=499 | 501 | 505));
        let good = match read {
            Read::Refused => refused,
            Read::AtMost(body) => {
                let request = format!("GET {hidden} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                refused || bodies == [body.replace("{e}", &request)]
            }
            Read::One(body) => bodies == [*body] && statuses.first() == Some(&200),
            Read::Plain(count) => received.len() == *count,
        };
        if !good {
            wrong.push(format!("{what} ({read:?}): {statuses:?}, received {bodies:?}"));
        }
        if !front.upstream.received(&hidden).is_empty() {
            wrong.push(format!("{what}: SMUGGLED"));
        }
    }
    // Nothing but the rows' own requests came, and each was one that every parser reads alike.
    let others = front.upstream.all().len() - passed;
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert_eq!((front.upstream.faults(), others), (Vec::new(), 0));
    println!(
        "acceptance: {} HTTP/1.1 requests that two parsers could read in two ways: {passed} requests \
         reached the upstream, each once and with its own body, 0 smuggled",
        rows.len()
    );
}
