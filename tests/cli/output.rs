//! What the program prints: exit codes, the JSON of the contract, and a reader that has gone.

use std::process::{Command, Stdio};

use endpoint_tests::machine::{Running, fields, string};
use rustix::process::Signal;
use serde_json::Value;

use crate::{dial, machine, ping};

#[test]
fn each_kind_of_failure_has_its_exit_code_an_error_and_a_hint_with_a_command() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    server.json(&["trust", "add", &client.fingerprint()]);
    let stranger = machine();
    let (peer, address) = (served.peer(), served.address());
    let other = format!("peer://{}@{address}", "ab".repeat(32));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("peer://{}@{}", "ab".repeat(32), silent.local_addr().unwrap());
    let nowhere = format!("peer://{}@localhost.invalid:1", "ab".repeat(32));
    for (from, code, words) in [
        (&client, 1, &["dial", &peer, "--alpn", "nothing/9"][..]),
        (&client, 1, &["status"]),
        (&client, 2, &["ping"]),
        (&client, 2, &["pign", &peer]),
        (&client, 2, &["ping", &peer, "--nonsense"]),
        (&client, 2, &["trust", "add", "nonsense"]),
        (&client, 2, &["serve", "--listen", "nonsense"]),
        (&client, 3, &["ping", &address]),
        (&client, 3, &["ping", "nobody-known"]),
        (&client, 4, &["ping", &other]),
        (&stranger, 5, &["ping", &peer]),
        (&stranger, 5, &["dial", &peer, "--alpn", "echo/1"]),
        (&server, 5, &["trust", "check", &stranger.fingerprint(), "--alpn", "echo/1"]),
        (&client, 6, &["ping", &silent, "--timeout", "500ms"]),
        (&client, 6, &["ping", &nowhere, "--timeout", "2s"]),
    ] {
        let said = from.run(words);
        assert_eq!(said.code(), code, "{words:?}: {said:?}");
        assert!(said.err.lines().any(|line| line.starts_with("error: ")), "{words:?}: {said:?}");
        assert!(!said.hints().is_empty(), "{words:?}: {said:?}");
        assert_eq!(said.out, "", "{words:?}: {said:?}");

        let said = from.run(&[words, &["--json"]].concat());
        assert_eq!(said.code(), code, "{words:?}: {said:?}");
        let objects = said.objects();
        let told = objects.last().unwrap_or_else(|| panic!("{words:?}: {said:?}"));
        if told.get("event").is_some() {
            assert_eq!(told["event"], "error", "{words:?}: {said:?}");
            assert!(!string(told, "code").is_empty() && !string(told, "message").is_empty());
            assert!(told["hints"].as_array().is_some_and(|hints| !hints.is_empty()), "{said:?}");
        }
    }
}

#[test]
fn removing_a_key_that_is_not_listed_is_a_failure_with_a_result() {
    let (server, stranger) = (machine(), machine());
    let said = server.run(&["trust", "rm", &stranger.fingerprint(), "--json"]);
    assert_eq!(said.code(), 1, "{said:?}");
    let objects = said.objects();
    assert_eq!(objects[0], serde_json::json!({"removed": 0, "closed": 0}));
    assert_eq!(objects[1]["code"], "not-listed");
    assert!(said.hints().iter().any(|hint| hint.contains("trust ls")), "{said:?}");
}

#[test]
fn a_pin_that_no_longer_holds_is_told_with_file_and_line() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    server.json(&["trust", "add", &client.fingerprint()]);
    let address = served.address();
    let learnt = client.run(&["ping", &address, "--accept-new", "-c", "1"]);
    assert_eq!(learnt.code(), 0, "{learnt:?}");
    let known = client.file("known_peers");
    let own = string(&served.ready, "fingerprint");
    let text = std::fs::read_to_string(&known).unwrap();
    let other = format!("sha256:{}", "ab".repeat(32));
    std::fs::write(&known, text.replace(&own, &other)).unwrap();
    for more in [&[][..], &["--accept-new"]] {
        let said = client.run(&[&["ping", &address, "--json"], more].concat());
        assert_eq!(said.code(), 4, "{said:?}");
        let fault = &said.objects()[0];
        assert_eq!(fault["file"], known.to_str().unwrap());
        assert!(fault["line"].as_u64().is_some());
        assert!(said.err.contains(&own) && said.err.contains(&other), "{said:?}");
        assert!(said.hints().iter().any(|hint| hint.contains("known forget")), "{said:?}");
    }
}

fn is_fingerprint(value: &Value) -> bool {
    let hex = value.as_str().and_then(|text| text.strip_prefix("sha256:"));
    hex.is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[test]
fn objects_have_the_fields_of_the_contract() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    let ready = &served.ready;
    assert_eq!(fields(ready), ["event", "fingerprint", "listen", "peer", "pid", "urls"]);
    assert_eq!(ready["event"], "ready");
    assert!(is_fingerprint(&ready["fingerprint"]));
    assert_eq!(ready["pid"], served.running.pid());
    assert!(ready["urls"].as_array().is_some());
    let hex = string(ready, "fingerprint").replace("sha256:", "");
    assert_eq!(served.peer(), format!("peer://{hex}@{}", served.address()));

    let key = client.json(&["key", "show"]);
    assert_eq!(fields(&key), ["curl_pin", "ed25519", "fingerprint", "peer_id", "ssh"]);
    assert!(is_fingerprint(&key["fingerprint"]));
    assert!(string(&key, "ed25519").starts_with("ed25519:"));
    assert!(string(&key, "curl_pin").starts_with("sha256//"));
    assert!(string(&key, "ssh").starts_with("ssh-ed25519 AAAA"));

    let fingerprint = client.fingerprint();
    server.json(&["trust", "add", &fingerprint]);
    let pinged = client.json(&["ping", &served.peer(), "-c", "3"]);
    for field in ["peer", "alpn", "certificate_type", "handshake_ms", "rtt_ms", "resumed"] {
        assert!(pinged.get(field).is_some(), "{field}: {pinged}");
    }
    assert_eq!(pinged["peer"], served.peer().as_str());
    assert_eq!(pinged["alpn"], "ping/1");
    assert_eq!(pinged["certificate_type"], "raw");
    assert_eq!(pinged["resumed"], false);
    assert!(pinged["handshake_ms"].as_f64().is_some_and(|time| time > 0.0), "{pinged}");
    assert!(pinged["rtt_ms"]["min"].as_f64() <= pinged["rtt_ms"]["max"].as_f64(), "{pinged}");
    assert_eq!(pinged["rtt_ms"]["count"], 3);

    let by_name = format!(
        "https://localhost:{}#{}",
        served.port(),
        x509_fingerprint(&client, &served.address())
    );
    let pinged = client.json(&["ping", &by_name, "-c", "1"]);
    assert_eq!(pinged["certificate_type"], "x509");

    let live = dial(&client, &served);
    // The pings before may not have ended yet on the other side.
    let connections = server.run(&["conns", "--json"]).objects();
    let connection = connections.iter().find(|connection| connection["alpn"] == "echo/1");
    let connection = connection.unwrap_or_else(|| panic!("{connections:?}"));
    assert_eq!(connection["peer"], fingerprint.as_str());
    assert_eq!(connection["certificate_type"], "raw");
    assert_eq!(connection["carrier"], "quic");
    assert_eq!(connection["access"], "peer");
    drop(live);
    let removed = server.json(&["trust", "rm", &fingerprint]);
    assert_eq!(fields(&removed), ["closed", "removed"]);
    drop(served);
    server.json(&["trust", "add", &fingerprint]);
    let removed = server.json(&["trust", "rm", &fingerprint]);
    assert_eq!(removed, serde_json::json!({"removed": 1, "closed": 0}));
}

fn x509_fingerprint(from: &endpoint_tests::machine::Machine, address: &str) -> String {
    let probed = from.json(&["probe", address]);
    let identities = probed["identities"].as_array().unwrap();
    let x509 = identities.iter().find(|identity| identity["certificate_type"] == "x509");
    string(x509.unwrap(), "fingerprint")
}

#[test]
fn status_tells_of_connections_handlers_trust_and_counters() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    assert_eq!(ping(&client, &served).code(), 5);
    let status = server.json(&["status"]);
    assert_eq!(status["pid"], served.running.pid());
    assert_eq!(status["counters"]["denied"], 1);
    assert_eq!(status["trust"]["keys"], 0);
    let handlers = status["handlers"].as_array().unwrap();
    let public: Vec<_> = handlers.iter().filter(|h| h["access"] == "public").collect();
    assert_eq!(public.len(), 4, "{status}");
    assert_eq!(public[0]["alpn"], "discover/1");
}

#[test]
fn probe_lists_every_identity_and_to_whom_it_offers_what() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    let probed = client.json(&["probe", &served.address()]);
    assert_eq!(probed["address"], served.address().as_str());
    let identities = probed["identities"].as_array().unwrap();
    let raw = string(&served.ready, "fingerprint");
    for identity in identities {
        assert!(is_fingerprint(&identity["fingerprint"]), "{identity}");
        let is_raw = identity["certificate_type"] == "raw";
        assert_eq!(identity["fingerprint"] == raw.as_str(), is_raw, "{identity}");
    }
    let alpns = |kind: &str, with_key: bool| -> Vec<String> {
        let of = |identity: &&Value| {
            identity["certificate_type"] == kind && identity["with_client_key"] == with_key
        };
        let lists = identities.iter().filter(of).flat_map(|i| i["alpns"].as_array().unwrap());
        lists.map(|alpn| alpn.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(alpns("raw", false), ["discover/1", "h3"]);
    assert_eq!(alpns("x509", false), ["discover/1", "h3"]);
    for kind in ["raw", "x509"] {
        let offered = alpns(kind, true);
        assert!(offered.iter().any(|alpn| alpn == "echo/1"), "{kind}: {probed}");
        assert!(offered.iter().any(|alpn| alpn == "ping/1"), "{kind}: {probed}");
    }
    let said = client.run(&["probe", &served.address()]);
    assert_eq!(said.code(), 0, "{said:?}");
    assert!(said.out.contains(&format!("raw {raw}")) && said.out.contains("x509 sha256:"));
    assert!(said.out.contains("with a client key, asked for: "), "{said:?}");
}

#[test]
fn completions_are_scripts_that_the_shell_takes() {
    let machine = machine();
    let said = machine.run(&["completions", "bash"]);
    assert_eq!(said.code(), 0, "{said:?}");
    let mut bash = Command::new("bash");
    bash.arg("-n").stdin(Stdio::piped());
    let mut bash = Running::start(bash);
    bash.write(said.out.as_bytes());
    let checked = bash.end();
    assert_eq!((checked.code(), checked.err.as_str()), (0, ""), "{checked:?}");
    assert!(said.out.contains("--accept-new"));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let said = machine.run(&["completions", shell]);
        assert!(said.code() == 0 && said.out.contains("endpoint"), "{shell}: {said:?}");
    }
}

#[test]
fn help_has_examples_for_every_command() {
    let machine = machine();
    for words in [
        &["--help"][..],
        &["serve", "--help"],
        &["key", "--help"],
        &["trust", "add", "--help"],
        &["known", "--help"],
        &["ping", "--help"],
        &["dial", "--help"],
        &["probe", "--help"],
        &["status", "--help"],
        &["conns", "--help"],
        &["kick", "--help"],
        &["config", "check", "--help"],
        &["completions", "--help"],
    ] {
        let said = machine.run(words);
        assert_eq!(said.code(), 0, "{words:?}: {said:?}");
        assert!(said.out.contains("Examples:\n"), "{words:?}: {said:?}");
    }
    let said = machine.run(&["--version"]);
    assert_eq!(said.out, format!("endpoint {}\n", env!("CARGO_PKG_VERSION")));
    assert!(!machine.state().exists());
}

/// Runs with a stdout whose reader has gone; gives the exit code and stderr.
fn unread(mut command: Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    server.json(&["trust", "add", &client.fingerprint()]);
    let peer = served.peer();
    let address = served.address();
    for (on, words) in [
        (&client, &["--help"][..]),
        (&client, &["completions", "bash"]),
        (&client, &["key", "show"]),
        (&client, &["key", "show", "--json"]),
        (&client, &["ping", &peer, "-c", "1"]),
        (&client, &["probe", &address]),
        (&server, &["status"]),
        (&server, &["status", "--json"]),
        (&server, &["trust", "ls"]),
    ] {
        let (code, err) = unread(on.command(words));
        assert_eq!(code, Some(0), "{words:?}: {err}");
        assert!(!err.contains("panicked") && !err.contains("error"), "{words:?}: {err}");
    }
}

#[test]
fn a_server_whose_stdout_nobody_reads_runs_and_drains() {
    let server = machine();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = server.command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let ends = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.run(&["status"]).code() != 0 {
        assert!(std::time::Instant::now() < ends, "not ready");
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure_with_its_cause() {
    let machine = machine();
    let _ = machine.fingerprint();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = machine.command(&["key", "show"]);
    let output = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("cannot write to stdout: no space left on device"), "{err}");
}

#[test]
fn an_error_stays_an_error_when_nobody_reads_it() {
    let machine = machine();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = machine.command(&["status", "--json"]);
    let other = writer.try_clone().unwrap();
    assert_eq!(command.stdout(writer).stderr(other).status().unwrap().code(), Some(1));
}
