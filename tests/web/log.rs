//! What strangers make the program say: with the defaults, nothing a line each, whichever library would.

use std::{net::SocketAddr, time::Duration};

use endpoint_tests::{machine::Machine, machine::Server, wire::Client, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ANSWERS: usize = 5000;

/// Sends PING answers that nobody asked for (RFC 9113 §6.7) over HTTP/2.
async fn unasked_answers(server: &Server, count: usize) {
    let address: SocketAddr = server.address().parse().unwrap();
    let client = Client::new(&[b"h2"]).wants_x509();
    let mut stream = client.dial_tcp("127.0.0.1", address, "localhost", b"").await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    for number in 0..count as u64 {
        bytes.extend([0, 0, 8, 6, 1, 0, 0, 0, 0]);
        bytes.extend(number.to_be_bytes());
    }
    stream.write_all(&bytes).await.unwrap();
    // The server read them all when it has answered what comes behind.
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"the last"].concat();
    stream.write_all(&ping).await.unwrap();
    let mut read = Vec::new();
    while !read.windows(8).any(|part| part == b"the last") {
        let mut chunk = [0; 4096];
        let count = within(20, "an answer", stream.read(&mut chunk)).await.unwrap();
        assert!(count > 0, "closed: {read:?}");
        read.extend_from_slice(&chunk[..count]);
    }
}

fn warnings(machine: &Machine) -> u64 {
    machine.json(&["status"])["log"]["library_warnings"].as_u64().unwrap()
}

fn served(words: &[&str]) -> (Machine, Server) {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let root = machine.state().parent().unwrap().join("www");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("index.html"), b"hi").unwrap();
    let server = machine.serve_with(&[&["--root", root.to_str().unwrap()], words].concat());
    (machine, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_makes_a_library_warn_of_is_counted_and_not_said() {
    let (machine, server) = served(&[]);
    server.running.until("next  ");
    let before = server.running.err().len();
    unasked_answers(&server, ANSWERS).await;
    assert!(warnings(&machine) >= ANSWERS as u64, "{}", warnings(&machine));
    let said = server.running.err().split_off(before);
    assert!(said.lines().count() < 5, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_v_the_same_is_a_line_each() {
    // The weakened twin, and what -v is for.
    let (machine, server) = served(&["-v"]);
    unasked_answers(&server, ANSWERS).await;
    assert!(warnings(&machine) >= ANSWERS as u64);
    let ends = std::time::Instant::now() + Duration::from_secs(60);
    let lines = || {
        server
            .running
            .err()
            .lines()
            .filter(|line| line.contains("WARN") && line.contains("h2::"))
            .count()
    };
    // On a busy machine the queue may overflow: what is lost then is counted.
    let lost = || {
        let log = &machine.json(&["status"])["log"];
        usize::try_from(log["lines_lost"].as_u64().unwrap()).unwrap()
    };
    while lines() + lost() < ANSWERS {
        assert!(std::time::Instant::now() < ends, "{} and {} lost", lines(), lost());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(lines() > 5, "{}", lines());
}
