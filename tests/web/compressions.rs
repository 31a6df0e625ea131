//! What is compressed on its way out, and what that may cost others.

use std::{
    fs::{self, File},
    net::SocketAddr,
    time::{Duration, Instant},
};

use endpoint_tests::{
    http::{Answer, VERSIONS, connect, get},
    machine::{Machine, Server},
    wire::Client,
    within,
};
use http::{Method, Request, Version};

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

/// The program with a folder of a `small` file, `zeros` of 4 MiB, `large` ones of 11 MiB, and these limits.
fn serve(machine: &Machine, more: &[&str], limits: &str) -> Server {
    let root = machine.state().parent().unwrap().join("www");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("small.txt"), "Hello, World!").unwrap();
    for (name, length) in [("zeros.txt", 4 << 20), ("large.txt", 11 << 20)] {
        File::create(root.join(name)).unwrap().set_len(length).unwrap();
    }
    let config = machine.file("limits.toml");
    fs::write(&config, format!("[limits]\n{limits}\n")).unwrap();
    let site = if more.is_empty() { vec!["--root", root.to_str().unwrap()] } else { more.to_vec() };
    machine.serve_with(&[&["--config", config.to_str().unwrap()], &site[..]].concat())
}

fn asking(method: Method, path: &str, coding: &str) -> Request<bytes::Bytes> {
    let mut request = get("localhost", path);
    *request.method_mut() = method;
    request.headers_mut().insert("accept-encoding", coding.parse().unwrap());
    request
}

async fn ask(version: Version, server: &Server, request: Request<bytes::Bytes>) -> Answer {
    let address: SocketAddr = server.address().parse().unwrap();
    let mut connection = connect(version, address, "localhost", &browser()).await.unwrap();
    within(60, "an answer", connection.send(request)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_ranges_and_large_files_fit_together() {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let server = serve(&machine, &[], "");
    for version in VERSIONS {
        for coding in ["gzip", "br", "zstd"] {
            let whole = ask(version, &server, asking(Method::GET, "/zeros.txt", coding)).await;
            assert_eq!(whole.field("content-encoding"), coding, "{version:?}");
            assert!(whole.body.len() < 1 << 20, "{version:?} {coding}");
            let head = ask(version, &server, asking(Method::HEAD, "/zeros.txt", coding)).await;
            assert_eq!(head.field("content-encoding"), coding, "{version:?}");
            assert_eq!((head.field("content-length"), head.body.len()), ("", 0), "{version:?}");
            let mut part = asking(Method::GET, "/zeros.txt", coding);
            part.headers_mut().insert("range", "bytes=1000000-2999999".parse().unwrap());
            let part = ask(version, &server, part).await;
            assert_eq!((part.status.as_u16(), part.field("content-encoding")), (206, ""));
            assert_eq!(part.body.len(), 2_000_000, "{version:?} {coding}");
            for method in [Method::GET, Method::HEAD] {
                let large = ask(version, &server, asking(method, "/large.txt", coding)).await;
                assert_eq!(large.field("content-encoding"), "", "{version:?} {coding}");
                assert_eq!(large.field("content-length"), (11 << 20).to_string());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_upstreams_are_not_compressed() {
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let router = axum::Router::new().fallback(|| async { "text ".repeat(1_000) });
    tokio::spawn(async move { axum::serve(upstream, router).await });
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let server = serve(&machine, &["--proxy", &format!("http://{address}")], "");
    for coding in ["gzip", "br", "zstd"] {
        let answer = ask(Version::HTTP_2, &server, asking(Method::GET, "/", coding)).await;
        assert_eq!((answer.field("content-encoding"), answer.body.len()), ("", 5_000));
    }
}

/// Many large files at once keep no worker thread from a small one.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_answer_is_quick_while_large_ones_are_compressed() {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let server = serve(&machine, &[], "compress_up_to = \"1GiB\"");
    let root = machine.state().parent().unwrap().join("www");
    File::create(root.join("huge.txt")).unwrap().set_len(1 << 30).unwrap();
    let address: SocketAddr = server.address().parse().unwrap();
    let mut at_work = tokio::task::JoinSet::new();
    for number in 0..8 {
        let coding = ["gzip", "br", "zstd"][number % 3];
        let request = asking(Method::GET, "/huge.txt", coding);
        at_work.spawn(async move {
            let client = browser();
            let mut connection =
                connect(Version::HTTP_2, address, "localhost", &client).await.unwrap();
            connection.send(request).await.map(|answer| answer.body.len())
        });
    }
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let answer = ask(Version::HTTP_2, &server, asking(Method::GET, "/small.txt", "gzip")).await;
        assert_eq!(answer.text(), "Hello, World!");
        times.push(began.elapsed());
    }
    at_work.abort_all();
    times.sort();
    let median = times[times.len() / 2];
    // With a whole file as the work of one poll it is seconds.
    let (most, slowest) = if endpoint_tests::long() { (900, 5_000) } else { (9_000, 50_000) };
    assert!(median < Duration::from_millis(most), "{times:?}");
    assert!(times[times.len() - 1] < Duration::from_millis(slowest), "{times:?}");
    println!(
        "acceptance: a small answer on a new connection while 8 files of 1 GiB are compressed: \
         median {median:?}, slowest {:?}",
        times.last().unwrap()
    );
}
