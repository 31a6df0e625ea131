//! The program as its users meet it: exit codes, one JSON object a line, and the next command in
//! every error.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; outside of functions marked as tests clippy cannot know"
)]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;

fn endpoint(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_endpoint"));
    command.arg("--state").arg(state).args(words).stdin(Stdio::null());
    command.env_remove("ENDPOINT_STATE").env_remove("ENDPOINT_CONFIG").env_remove("NO_COLOR");
    command.env_remove("XDG_RUNTIME_DIR");
    command
}

fn run(state: &Path, words: &[&str]) -> Output {
    endpoint(state, words).output().unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn fingerprint(state: &Path) -> String {
    let shown = objects(&run(state, &["key", "show", "--json"]));
    text(shown.first().unwrap(), "fingerprint").to_owned()
}

/// A server on a port of its own, ended with the test.
struct Served {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready: Value,
}

impl Served {
    fn start(state: &Path) -> Self {
        let mut child = endpoint(state, &["serve", "--json", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        Self { child, stdout, ready }
    }

    fn peer(&self) -> &str {
        text(&self.ready, "peer")
    }

    fn address(&self) -> &str {
        self.peer().split_once('@').unwrap().1
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn authorises_a_refused_peer_by_the_command_that_the_refusal_names() {
    let root = tempfile::tempdir().unwrap();
    let (server, client) = (root.path().join("server"), root.path().join("client"));
    let served = Served::start(&server);
    assert_eq!(text(&served.ready, "event"), "ready");
    assert_eq!(served.ready.get("pid").and_then(Value::as_u64), Some(served.child.id().into()));

    let refused = run(&client, &["ping", served.peer()]);
    assert_eq!(refused.status.code(), Some(5));
    let key = fingerprint(&client);
    let command = format!("endpoint trust add {key}");
    assert!(said(&refused).starts_with("127.0.0.1") || said(&refused).starts_with("error: "));
    assert!(said(&refused).contains(&command), "{}", said(&refused));

    let added = run(&server, &["trust", "add", &key, "--json"]);
    assert_eq!(added.status.code(), Some(0), "{}", said(&added));
    let reached = run(&client, &["ping", served.peer(), "--json", "-c", "2"]);
    assert_eq!(reached.status.code(), Some(0), "{}", said(&reached));
    let result = objects(&reached);
    let result = result.first().unwrap();
    assert_eq!(text(result, "alpn"), "ping/1");
    assert_eq!(text(result, "certificate_type"), "raw");
    assert!(text(result, "peer").contains(&served.peer()[7..71]));
    assert!(result.pointer("/rtt_ms/min").and_then(Value::as_f64).is_some());
    assert_eq!(result.get("resumed"), Some(&Value::Bool(false)));
}

#[test]
fn ends_a_live_dial_when_its_key_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let (server, client) = (root.path().join("server"), root.path().join("client"));
    let served = Served::start(&server);
    let key = fingerprint(&client);
    assert!(run(&server, &["trust", "add", &key]).status.success());
    let mut dial = endpoint(&client, &["dial", served.peer(), "--alpn", "echo/1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    dial.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let mut back = String::new();
    BufReader::new(dial.stdout.as_mut().unwrap()).read_line(&mut back).unwrap();
    assert_eq!(back, "hello\n");

    let connections = objects(&run(&server, &["conns", "--json"]));
    assert_eq!(connections.len(), 1);
    assert_eq!(text(connections.first().unwrap(), "peer"), key);
    let removed = objects(&run(&server, &["trust", "rm", &key, "--json"]));
    assert_eq!(removed, [serde_json::json!({"removed": 1, "closed": 1})]);
    assert_eq!(dial.wait().unwrap().code(), Some(5));
}

#[test]
fn pings_and_copies_stdin_to_an_echo_and_back_over_both_carriers() {
    let root = tempfile::tempdir().unwrap();
    let (server, client) = (root.path().join("server"), root.path().join("client"));
    let served = Served::start(&server);
    assert!(run(&server, &["trust", "add", &fingerprint(&client)]).status.success());
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let carriers: &[&[&str]] = if cfg!(feature = "tcp") { &[&[], &["--tcp"]] } else { &[&[]] };
    for carrier in carriers {
        let pinged = run(&client, &[&["ping", served.peer(), "-c", "1"][..], carrier].concat());
        assert_eq!(pinged.status.code(), Some(0), "{carrier:?}: {}", said(&pinged));
        let words = [&["dial", served.peer(), "--alpn", "echo/1"][..], carrier].concat();
        let mut dial =
            endpoint(&client, &words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = dial.stdin.take().unwrap();
        let bytes = sent.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes));
        let output = dial.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0), "{carrier:?}");
        assert!(output.stdout == sent, "{carrier:?}: {} bytes", output.stdout.len());
    }
}

#[test]
fn asks_before_it_believes_an_unknown_identity_and_never_believes_a_changed_one() {
    let root = tempfile::tempdir().unwrap();
    let (server, client) = (root.path().join("server"), root.path().join("client"));
    let served = Served::start(&server);
    assert!(run(&server, &["trust", "add", &fingerprint(&client)]).status.success());
    let address = served.address().to_owned();

    let unknown = run(&client, &["ping", &address]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(said(&unknown).contains("--accept-new"), "{}", said(&unknown));
    let learnt = run(&client, &["ping", &address, "--accept-new"]);
    assert_eq!(learnt.status.code(), Some(0), "{}", said(&learnt));
    assert_eq!(run(&client, &["ping", &address]).status.code(), Some(0));
    let known = objects(&run(&client, &["known", "ls", "--json"]));
    assert_eq!(known.len(), 1);

    let listed = std::fs::read_to_string(client.join("known_peers")).unwrap();
    let own = text(&served.ready, "fingerprint");
    let other = format!("sha256:{}", "ab".repeat(32));
    std::fs::write(client.join("known_peers"), listed.replace(own, &other)).unwrap();
    let changed = run(&client, &["ping", &address, "--accept-new", "--json"]);
    assert_eq!(changed.status.code(), Some(4), "{}", said(&changed));
    let fault = objects(&changed);
    let fault = fault.first().unwrap();
    assert!(text(fault, "file").ends_with("known_peers"));
    assert_eq!(fault.get("line").and_then(Value::as_u64), Some(1));
    assert!(text(fault, "message").contains(own) && text(fault, "message").contains(&other));
    assert!(said(&changed).contains("known forget"), "{}", said(&changed));

    let forgot = run(&client, &["known", "forget", &address]);
    assert_eq!(forgot.status.code(), Some(0), "{}", said(&forgot));
    assert!(client.join("known_peers.old").exists());
    assert_eq!(run(&client, &["ping", &address]).status.code(), Some(3));
}

#[test]
fn lists_what_a_port_offers() {
    let root = tempfile::tempdir().unwrap();
    let served = Served::start(&root.path().join("server"));
    let probed = run(&root.path().join("client"), &["probe", served.address(), "--json"]);
    let found = objects(&probed);
    let found = found.first().unwrap().get("identities").and_then(Value::as_array).unwrap();
    let raw = found.iter().find(|i| text(i, "certificate_type") == "raw").unwrap();
    assert_eq!(text(raw, "fingerprint"), text(&served.ready, "fingerprint"));
    assert!(found.iter().any(|identity| text(identity, "certificate_type") == "x509"));
    assert!(found.iter().any(|i| i.get("asks_client_key") == Some(&Value::Bool(true))));
}

#[test]
fn refuses_a_second_server_and_names_the_first() {
    let root = tempfile::tempdir().unwrap();
    let served = Served::start(root.path());
    let second = run(root.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let pid = format!("pid {}", served.child.id());
    assert!(said(&second).contains(&pid), "{}", said(&second));
    let other = root.path().join("other");
    let taken = run(&other, &["serve", "--listen", served.address(), "--json"]);
    assert_eq!(taken.status.code(), Some(1));
    assert_eq!(text(objects(&taken).first().unwrap(), "code"), "addr-in-use");
    assert!(said(&taken).contains("is already in use"), "{}", said(&taken));
}

#[test]
fn drains_at_sigterm_and_leaves_no_socket_behind() {
    let root = tempfile::tempdir().unwrap();
    let mut served = Served::start(root.path());
    assert!(run(root.path(), &["status"]).status.success());
    served.signal("-TERM");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    served.stdout.read_line(&mut rest).unwrap();
    assert_eq!(rest, "");
    let status = run(root.path(), &["status", "--json"]);
    assert_eq!(status.status.code(), Some(1));
    assert_eq!(text(objects(&status).first().unwrap(), "code"), "no-server");
    assert!(said(&status).contains("no endpoint is running for this state folder"));
}

#[test]
fn checks_a_configuration_without_any_effect() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("none");
    let file = root.path().join("endpoint.toml");
    std::fs::write(&file, "lisen = 1\n[limits]\nconections = 5\n").unwrap();
    let config = file.to_str().unwrap();
    let checked = run(&state, &["config", "check", "--config", config, "--json"]);
    assert_eq!(checked.status.code(), Some(2));
    let faults = objects(&checked);
    let lines: Vec<_> = faults.iter().map(|f| f.get("line").and_then(Value::as_u64)).collect();
    assert_eq!(lines, [Some(1), Some(3)]);
    assert!(said(&checked).contains("did you mean `listen`?"));
    assert!(said(&checked).contains("error: 2 problems in "));
    assert_eq!(run(&state, &["serve", "--config", config]).status.code(), Some(2));
    assert!(!state.exists());
    std::fs::write(&file, endpoint_cli::config::EXAMPLE).unwrap();
    assert!(run(&state, &["config", "check", "--config", config]).status.success());
    assert!(!state.exists());
}

#[test]
fn stops_at_a_bad_line_of_the_trust_file_and_names_it() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("authorized_peers");
    std::fs::write(&file, "# people\nalpm=\"echo/1\" sha256:00 bob\n").unwrap();
    let started = run(root.path(), &["serve", "--listen", "127.0.0.1:0", "--json"]);
    assert_eq!(started.status.code(), Some(2));
    let fault = objects(&started);
    let fault = fault.first().unwrap();
    assert!(text(fault, "file").ends_with("authorized_peers"));
    assert_eq!(fault.get("line").and_then(Value::as_u64), Some(2));
    assert_eq!(run(root.path(), &["trust", "lint"]).status.code(), Some(2));
    assert!(!root.path().join("identity.key").exists());
}

#[test]
fn survives_a_closed_stdout() {
    let root = tempfile::tempdir().unwrap();
    let mut shown = endpoint(root.path(), &["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(shown.stdout.take());
    let output = shown.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output), "");
}

#[test]
fn never_prints_a_private_key() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), &["key", "new"]);
    let pem = std::fs::read_to_string(root.path().join("identity.key")).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for words in [&["key", "show"][..], &["key", "show", "--json"], &["-vv", "key", "show"]] {
        let output = run(root.path(), words);
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        assert!(!all.contains(&body) && !all.contains("PRIVATE"), "{words:?}");
    }
}
