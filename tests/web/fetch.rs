//! `endpoint fetch`: what it asks, what it tells, how it ends.

use std::fs;

use endpoint_tests::machine::{Machine, Running, Said, Server, string};
use sha2::{Digest, Sha256};

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"))
}

/// A site with a public folder and a part of it for peers, and its server.
fn site(machine: &Machine, more: &str) -> Server {
    let folder = machine.state().parent().unwrap().to_path_buf();
    let www = folder.join("www");
    fs::create_dir_all(www.join("private")).unwrap();
    fs::write(www.join("open.txt"), "open\n").unwrap();
    fs::write(www.join("private/big"), big()).unwrap();
    let file = folder.join("site.toml");
    let text = format!(
        "[[site]]\nnames = [\"localhost\"]\nroot = {www:?}\n\
         [[site.route]]\npath = \"/private/\"\naccess = \"peer\"\n{more}"
    );
    fs::write(&file, text).unwrap();
    machine.serve_with(&["--config", file.to_str().unwrap()])
}

fn big() -> Vec<u8> {
    (0..3_000_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 7 == 0)]).collect()
}

const CARRIERS: [&[&str]; 3] = [&[], &["--tcp"], &["--http1"]];

fn fetch(client: &Machine, words: &[&str]) -> Said {
    client.run(&[&["fetch"], words].concat())
}

#[test]
fn gets_a_page_over_each_version_and_tells_who_answered() {
    let (server, client) = (machine(), machine());
    let served = site(&server, "");
    let page = format!("{}/open.txt", served.peer());
    for (carrier, alpn) in CARRIERS.into_iter().zip(["h3", "h2", "http/1.1"]) {
        let said = fetch(&client, &[&[page.as_str()], carrier].concat());
        assert_eq!((said.code(), said.out.as_str()), (0, "open\n"), "{said:?}");
        let said = fetch(&client, &[&[page.as_str(), "--json"], carrier].concat());
        let object = &said.objects()[0];
        assert_eq!(object["alpn"], alpn);
        assert_eq!(object["status"], 200);
        assert_eq!(object["body"], "open\n");
        assert_eq!(object["headers"]["content-type"][0], "text/plain");
        assert_eq!(object["fingerprint"], string(&served.ready, "fingerprint"));
    }
}

#[test]
fn is_let_in_by_its_key_and_leaves_with_5_before() {
    let (server, client) = (machine(), machine());
    let served = site(&server, "");
    let page = format!("{}/private/big", served.peer());
    let kept = client.file("kept");
    fs::write(&kept, "what was there").unwrap();
    let to_file = ["--output", kept.to_str().unwrap()];
    for carrier in CARRIERS {
        let said = fetch(&client, &[&[page.as_str()], &to_file[..], carrier].concat());
        assert_eq!(said.code(), 5, "{said:?}");
        assert!(said.hints().iter().any(|hint| hint.contains("trust add sha256:")), "{said:?}");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "what was there");
    }
    server.json(&["trust", "add", &client.fingerprint()]);
    for carrier in CARRIERS {
        let said = fetch(&client, &[&[page.as_str()], &to_file[..], carrier].concat());
        assert_eq!(said.code(), 0, "{said:?}");
        assert!(fs::read(&kept).unwrap() == big());
        fs::write(&kept, "").unwrap();
        let said = fetch(&client, &[&[page.as_str()], carrier].concat());
        assert!(said.out.len() > 1_000_000, "a body that is no text reaches a pipe too");
    }
    let names: Vec<_> =
        fs::read_dir(client.state()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains(".part-")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_text_files_and_stdin() {
    let upstream = axum::Router::new().fallback(|request: axum::extract::Request| async move {
        let (parts, body) = request.into_parts();
        let field = |name: &str| {
            let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("none").to_owned()
        };
        let (method, a, peer) = (&parts.method, field("x-a"), field("endpoint-peer"));
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        format!("{method} {a} {peer} {}", data_encoding::HEXLOWER.encode(&Sha256::digest(&body)))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, upstream).await });
    let work = move || {
        let (server, client) = (machine(), machine());
        let file = server.file("proxy.toml");
        let text = format!("[[site]]\nnames = [\"localhost\"]\nproxy = [{target:?}]\n");
        fs::write(&file, text).unwrap();
        let served = server.serve_with(&["--config", file.to_str().unwrap()]);
        server.json(&["trust", "add", &client.fingerprint()]);
        let page = format!("{}/x", served.peer());
        let upload = client.file("upload");
        fs::write(&upload, big()).unwrap();
        let at_file = format!("@{}", upload.display());
        let digest = |bytes: &[u8]| data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
        let own = client.fingerprint();
        for carrier in CARRIERS {
            let cases: [(&[&str], String); 3] = [
                (&["--data", "a=1", "-H", "x-a: 7"], format!("POST 7 {own} {}", digest(b"a=1"))),
                (&["-X", "PUT", "--data", &at_file], format!("PUT none {own} {}", digest(&big()))),
                (&[], format!("GET none {own} {}", digest(b""))),
            ];
            for (words, expected) in cases {
                let said = fetch(&client, &[&[page.as_str()], words, carrier].concat());
                assert_eq!((said.code(), said.out), (0, expected), "{words:?} {}", said.err);
            }
            let words = [&["fetch", &page, "--data", "@-"], carrier].concat();
            let mut command = client.command(&words);
            command.stdin(std::process::Stdio::piped());
            let mut running = Running::start(command);
            running.write(b"from stdin");
            running.end_input();
            let said = running.end();
            assert_eq!(said.out, format!("POST none {own} {}", digest(b"from stdin")), "{said:?}");
        }
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[test]
fn ends_with_the_exit_code_of_what_went_wrong() {
    let (server, client) = (machine(), machine());
    let served = site(&server, "");
    let (peer, address) = (served.peer(), served.address());
    let at = |path: &str| format!("{peer}{path}");
    let missing = client.file("missing").display().to_string();
    let no_data = format!("@{missing}");
    let other = format!("peer://{}@{address}/", "ab".repeat(32));
    let cases: [(Vec<&str>, i32, &str); 11] = [
        (vec![at("/nothing").leak()], 1, "404"),
        (vec![at("/open.txt").leak(), "-X", "BREW"], 1, "405"),
        (vec![at("/open.txt").leak(), "--host", "other.test"], 1, "--host"),
        (vec![at("/open.txt").leak(), "-H", "no colon"], 2, "header field"),
        (vec![at("/open.txt").leak(), "-H", "Host: x"], 2, "--host"),
        (vec![at("/open.txt").leak(), "-X", "a b"], 2, "method"),
        (vec![at("/a b").leak()], 2, "%20"),
        (vec![at("/open.txt").leak(), "--data", no_data.leak()], 1, "missing"),
        (vec![format!("{address}/open.txt").leak()], 3, "--accept-new"),
        (vec![other.leak()], 4, "identity"),
        (vec!["peer://zz/", "--json"], 2, "endpoint"),
    ];
    for (words, code, text) in cases {
        let said = fetch(&client, &words);
        assert_eq!(said.code(), code, "{words:?} {said:?}");
        assert!(said.err.contains("error: ") && said.err.contains(text), "{words:?} {said:?}");
        assert!(!said.hints().is_empty() || said.err.contains("hint: "), "{said:?}");
    }
    drop(served);
    let said = fetch(&client, &[&format!("{peer}/"), "--timeout", "1s"]);
    assert_eq!(said.code(), 6, "{said:?}");
}

#[test]
fn a_name_that_is_not_known_is_told_as_such() {
    for words in [&["fetch", "foo/bar"][..], &["ping", "foo", "--accept-new"]] {
        let said = machine().run(words);
        assert_eq!(said.code(), 3, "{said:?}");
        assert!(said.err.contains("no known endpoint has the name `foo`"), "{said:?}");
        let hints =
            ["see the names: endpoint known ls", "or name host and port: endpoint ping foo:4433"];
        assert_eq!(said.hints(), hints);
    }
}
