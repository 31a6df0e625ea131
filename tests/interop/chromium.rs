//! A browser loads pages from `serve --root`: over TCP first, then, as `Alt-Svc` tells it, over QUIC.

use std::fs;

use endpoint_tests::{
    machine::{Machine, Server},
    sha256,
};
use serde_json::json;

use crate::{browser::Browser, machine, run};

/// A page that asks for its data until the answer comes over HTTP/3.
const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8">
<title>probe</title>
<link rel="icon" href="data:,">
<p id="text">bytes of the page: äöü</p>
<script>
const hex = (bytes) => [...new Uint8Array(bytes)].map((b) => b.toString(16).padStart(2, "0")).join("");
async function load(name) {
  const answer = await fetch(name, { cache: "no-store" });
  const bytes = await answer.arrayBuffer();
  const [entry] = performance.getEntriesByName(new URL(name, location)).slice(-1);
  const digest = hex(await crypto.subtle.digest("SHA-256", bytes));
  return { protocol: entry.nextHopProtocol, status: answer.status, digest };
}
window.loaded = (async () => {
  const seen = [];
  for (let number = 0; number < 100; number += 1) {
    seen.push(await load("data.bin?" + number));
    if (seen.at(-1).protocol === "h3") break;
    await new Promise((resume) => setTimeout(resume, 50));
  }
  return seen;
})();
</script>
"#;

const NAME: &str = "peer.test";

/// A site with the page, and its log.
fn serve(machine: &Machine, data: &[u8]) -> Server {
    let folder = machine.state().parent().unwrap().join("www");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("index.html"), PAGE).unwrap();
    fs::write(folder.join("data.bin"), data).unwrap();
    let file = machine.state().parent().unwrap().join("site.toml");
    let config =
        format!("loopback_http = \"off\"\n[[site]]\nnames = [\"{NAME}\"]\naccess_log = true\n");
    fs::write(&file, config).unwrap();
    let (folder, file) = (folder.to_str().unwrap(), file.to_str().unwrap());
    machine.serve_with(&["--root", folder, "--config", file])
}

/// The server's key as browsers are told to believe it.
fn pin(server: &Server) -> String {
    let line = format!(
        "openssl s_client -connect {} -servername {NAME} </dev/null 2>/dev/null | openssl x509 -pubkey -noout | \
         openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64",
        server.address()
    );
    run("sh", &["-c", &line]).out.trim().to_owned()
}

/// Versions of the requests in the log, in order, for paths that begin with `path`.
fn logged(server: &Server, path: &str) -> Vec<String> {
    let field = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}="))?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let log = server.running.err();
    log.lines()
        .filter(|line| line.contains("endpoint_cli::access"))
        .filter(|line| field(line, "uri").is_some_and(|uri| uri.starts_with(path)))
        .filter_map(|line| field(line, "version"))
        .collect()
}

fn browser(server: &Server) -> Browser {
    Browser::start(&[
        &format!("--ignore-certificate-errors-spki-list={}", pin(server)),
        // Not our port: lifts the rule that QUIC needs a certificate of a known root, and forces nothing.
        &format!("--origin-to-force-quic-on={NAME}:1"),
        &format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"),
    ])
}

#[test]
fn loads_a_page_over_http2_first_and_then_by_alt_svc_over_http3() {
    let machine = machine();
    let data: Vec<u8> = (0..300_000_u32).map(|n| n.to_be_bytes()[3] ^ n.to_be_bytes()[2]).collect();
    let server = serve(&machine, &data);
    let digest = sha256(&data);
    let mut browser = browser(&server);
    let url = format!("https://{NAME}:{}/", server.port());
    let loads = endpoint_tests::count(4, 50);
    let mut protocols = Vec::new();
    for load in 0..loads {
        browser.open(&url);
        let seen = browser.value("loaded");
        let seen = seen.as_array().unwrap();
        for entry in seen {
            assert_eq!(entry["status"], 200, "load {load}: {seen:?}");
            assert_eq!(entry["digest"], digest.as_str(), "load {load}: {seen:?}");
        }
        assert_eq!(seen.last().unwrap()["protocol"], "h3", "load {load}: {seen:?}");
        let text = browser.value("document.getElementById('text').textContent");
        assert_eq!(text, "bytes of the page: äöü");
        let own = browser.value("performance.getEntriesByType('navigation')[0].nextHopProtocol");
        protocols.push(own.as_str().unwrap().to_owned());
        // The next load asks again, instead of what this one kept.
        browser.call("Network.setCacheDisabled", json!({"cacheDisabled": true}));
    }
    assert_eq!(protocols.first().unwrap(), "h2", "{protocols:?}");
    assert!(protocols[1..].iter().all(|protocol| protocol == "h3"), "{protocols:?}");
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    // The server's own word: it was TCP, and from one moment on it is QUIC.
    let pages = logged(&server, "/");
    assert_eq!(pages.first().map(String::as_str), Some("HTTP/2.0"), "{pages:?}");
    assert_eq!(pages.last().map(String::as_str), Some("HTTP/3.0"), "{pages:?}");
    assert!(pages.is_sorted(), "{pages:?}");
    let of_data = logged(&server, "/data.bin");
    assert!(of_data.contains(&"HTTP/3.0".to_owned()), "{of_data:?}");
    let counters = machine.json(&["status"])["counters"].clone();
    assert_eq!(counters["denied"], 0, "{counters}");
    println!(
        "acceptance: Chromium loads a page {loads} times: h2, then by Alt-Svc {} times h3",
        loads - 1
    );
}
