//! Life of a server process: its claim on a folder and a port, signals, and its end.

use std::fs;

use rustix::process::Signal;

use crate::{chmod, dial, machine, ping};

#[test]
fn a_second_server_of_one_state_folder_is_refused_with_the_pid_of_the_first() {
    let server = machine();
    let served = server.serve();
    let second = server.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code(), 1, "{second:?}");
    assert!(second.err.contains(&format!("pid {}", served.running.pid())), "{second:?}");
    assert!(!second.hints().is_empty(), "{second:?}");
    // One that was killed keeps nobody out.
    drop(served);
    let _third = server.serve();
}

#[test]
fn a_busy_port_is_named_with_another_one_to_take() {
    let (server, other) = (machine(), machine());
    let served = server.serve();
    let said = other.run(&["serve", "--listen", &served.address(), "--json"]);
    assert_eq!(said.code(), 1, "{said:?}");
    assert_eq!(said.objects()[0]["code"], "addr-in-use");
    assert!(said.err.contains(&served.address()), "{said:?}");
    let hints = said.hints();
    assert!(hints.iter().any(|hint| hint.contains("ss -l")), "{said:?}");
    assert!(hints.iter().any(|hint| hint.contains("serve --listen 127.0.0.1:")), "{said:?}");
    // A port that TCP alone has is as busy.
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let said = other.run(&["serve", "--listen", &address]);
    assert_eq!(said.code(), 1, "{said:?}");
    assert!(said.err.contains("already in use"), "{said:?}");
}

#[test]
fn sighup_takes_up_a_file_that_was_edited() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    assert_eq!(ping(&client, &served).code(), 5);
    let reloads = |status: &serde_json::Value| status["counters"]["reloads"].as_u64().unwrap();
    let before = reloads(&server.json(&["status"]));
    let path = server.file("authorized_peers");
    fs::write(&path, format!("{}\n", client.fingerprint())).unwrap();
    chmod(&path, 0o600);
    served.running.signal(Signal::HUP);
    served.running.until("reload asked for by SIGHUP");
    served.running.until("grants=1");
    assert!(reloads(&server.json(&["status"])) > before);
    assert_eq!(ping(&client, &served).code(), 0);
}

#[test]
fn sigterm_lets_a_live_stream_finish_and_refuses_new_connections() {
    let (server, client) = (machine(), machine());
    let mut served = server.serve();
    server.json(&["trust", "add", &client.fingerprint()]);
    let mut live = dial(&client, &served);
    served.running.signal(Signal::TERM);
    served.running.until("draining");
    let late = ping(&client, &served);
    assert_eq!(late.code(), 6, "{late:?}");
    live.write(b"to the end\n");
    assert_eq!(live.line().as_deref(), Some("to the end"));
    assert!(served.running.runs());
    let said = live.end();
    assert_eq!((said.code(), said.out.as_str()), (0, "hello\nto the end\n"), "{said:?}");
    let ended = served.running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.objects().len(), 1, "{ended:?}");
}

#[test]
fn the_drain_deadline_ends_a_stream_that_does_not_finish() {
    let (server, client) = (machine(), machine());
    let config = server.file("endpoint.toml");
    fs::write(&config, "[drain]\ndeadline = \"300ms\"\n").unwrap();
    let served = server.serve();
    server.json(&["trust", "add", &client.fingerprint()]);
    let mut live = dial(&client, &served);
    served.running.signal(Signal::TERM);
    let ended = served.running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    live.until_end();
    assert_ne!(live.end().code(), 0);
}

#[test]
fn a_second_signal_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let (server, client) = (machine(), machine());
        let served = server.serve();
        server.json(&["trust", "add", &client.fingerprint()]);
        let mut live = dial(&client, &served);
        served.running.signal(Signal::TERM);
        served.running.until("draining");
        let started = std::time::Instant::now();
        served.running.signal(second);
        let ended = served.running.end();
        assert_eq!(ended.code(), 1, "{ended:?}");
        assert!(ended.err.contains("ended at once by a second signal"), "{ended:?}");
        // The deadline is ten seconds.
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        live.until_end();
        assert_ne!(live.end().code(), 0);
        let after = server.run(&["status"]);
        assert_eq!(after.code(), 1, "{after:?}");
        assert!(after.err.contains("no endpoint is running"), "{after:?}");
    }
}

#[test]
fn the_control_socket_is_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = machine();
    let _served = server.serve();
    let mode = |name: &str| server.file(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("control.sock"), 0o600);
    assert_eq!(mode(""), 0o700);
}
