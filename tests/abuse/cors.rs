//! Which page may read which answer: the CORS of `[[site.route]]`, whatever an upstream says.

use std::{fs, net::SocketAddr};

use axum::{Router, routing::any};
use endpoint_tests::{
    http::{VERSIONS, fetch, get},
    machine::Machine,
    node::identity,
    wire::{Client, Shown},
};
use http::Method;

const PAGE: &str = "https://page.example";

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"))
}

/// A server that lets everybody read everything, with credentials.
async fn careless() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = || async {
        let fields = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("x-upstream", "yes"),
        ];
        (fields, "answer")
    };
    let router = Router::new().fallback(any(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Path; origin of the page; the origin that is allowed; whether with credentials.
type Row = (&'static str, &'static str, Option<&'static str>, bool);

#[tokio::test(flavor = "multi_thread")]
async fn pages_read_what_their_origin_may_and_never_everything_with_credentials() {
    let upstream = careless().await;
    let machine = machine();
    let key = identity(5).fingerprint().to_string();
    assert_eq!(machine.run(&["trust", "add", &key]).code(), 0);
    let file = machine.file("cors.toml");
    let routes = format!(
        "[[site]]\nnames = [\"localhost\"]\nproxy = [\"http://{upstream}\"]\n\
         [[site.route]]\npath = \"/any\"\ncors = [\"*\"]\n\
         [[site.route]]\npath = \"/any-too\"\ncors = [\"{PAGE}\", \"*\"]\n\
         [[site.route]]\npath = \"/named\"\ncors = [\"{PAGE}\"]\n\
         [[site.route]]\npath = \"/peer\"\naccess = \"peer\"\ncors = [\"{PAGE}\"]\n\
         [[site.route]]\npath = \"/local\"\naccess = \"loopback\"\ncors = [\"{PAGE}\"]\n"
    );
    fs::write(&file, routes).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    let address: SocketAddr = server.address().parse().unwrap();
    let rows: &[Row] = &[
        ("/any", PAGE, Some("*"), false),
        ("/any", "https://other.example", Some("*"), false),
        ("/any", "null", Some("*"), false),
        ("/any-too", PAGE, Some("*"), false),
        ("/named", PAGE, Some(PAGE), true),
        ("/named", "https://other.example", None, false),
        ("/named", "http://page.example", None, false),
        ("/named", "https://page.example.evil", None, false),
        ("/named", "https://page.example:444", None, false),
        ("/named", "null", None, false),
        ("/peer", PAGE, Some(PAGE), false),
        ("/peer", "https://other.example", None, false),
        ("/local", PAGE, Some(PAGE), false),
        ("/local", "https://other.example", None, false),
    ];
    let peer = Client::new(&[]).showing(Shown::raw(5));
    let browser = Client::new(&[]).wants_x509();
    let mut cells = 0;
    for version in VERSIONS {
        for client in [&browser, &peer] {
            for (path, origin, allowed, credentials) in rows {
                for preflight in [false, true] {
                    let mut request = get("localhost", path);
                    request.headers_mut().insert("origin", origin.parse().unwrap());
                    if preflight {
                        *request.method_mut() = Method::OPTIONS;
                        let asked = "access-control-request-method";
                        request.headers_mut().insert(asked, "PUT".parse().unwrap());
                    }
                    let answer =
                        fetch(version, address, "localhost", client, request).await.unwrap();
                    let what = format!("{version:?} {path} {origin} {preflight}: {answer:?}");
                    let origins = answer.headers.get_all("access-control-allow-origin");
                    let told: Vec<_> = origins.iter().map(|v| v.to_str().unwrap()).collect();
                    assert_eq!(told, allowed.iter().copied().collect::<Vec<_>>(), "{what}");
                    let yes = answer.field("access-control-allow-credentials");
                    assert_eq!(yes, if *credentials { "true" } else { "" }, "{what}");
                    assert!(answer.headers.get_all("vary").iter().any(|v| v == "origin"), "{what}");
                    // A preflight says nothing of what stands behind it.
                    assert!(!preflight || answer.field("x-upstream").is_empty(), "{what}");
                    cells += 1;
                }
            }
        }
    }
    println!(
        "acceptance: {cells} CORS answers over h3, h2 and h1 to browsers and peers: `*` never with \
         credentials, credentials never on peer or loopback routes"
    );
}

#[test]
fn everything_for_everybody_is_refused_where_a_peer_is_asked_for() {
    let machine = machine();
    let file = machine.file("cors.toml");
    let rows = [
        ("access = \"peer\"\ncors = [\"*\"]", "name the origins"),
        ("cors = [\"*\"]\naccess = \"peer\"", "name the origins"),
        ("scope = \"ops\"\ncors = [\"*\"]", "name the origins"),
        ("access = \"loopback\"\ncors = [\"*\"]", "name the origins"),
        ("access = \"peer\"\ncors = [\"https://a.example\", \"*\"]", "name the origins"),
        ("cors = [\"null\"]", "an origin"),
        ("cors = [\"https://*.example\"]", "an origin"),
        ("cors = [\"https://a.example/path\"]", "an origin"),
        ("cors = [\"a.example\"]", "an origin"),
        ("cors = \"*\"", "a list of origins"),
    ];
    for (route, says) in rows {
        let text =
            format!("[[site]]\nnames = [\"localhost\"]\n[[site.route]]\npath = \"/x\"\n{route}\n");
        fs::write(&file, &text).unwrap();
        let said = machine.run(&["config", "check", "--config", file.to_str().unwrap()]);
        assert_eq!(said.code(), 2, "{route}: {said:?}");
        assert!(said.err.contains(says), "{route}: {said:?}");
    }
    println!("acceptance: {} CORS settings refused before anything is bound", rows.len());
}
