//! The README's walk, each command as a user types it.

use std::time::{Duration, Instant};

use crate::{dial, machine, ping};

/// The words after `endpoint` of the command in a hint.
fn command_in<'a>(hints: &[&'a str]) -> Vec<&'a str> {
    let words = hints.iter().find_map(|hint| Some(hint.split_once("endpoint ")?.1));
    words.expect("a hint with a command").split_whitespace().collect()
}

#[test]
fn a_refused_peer_is_let_in_by_the_command_that_its_refusal_names() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    let refused = ping(&client, &served);
    assert_eq!(refused.code(), 5, "{refused:?}");
    assert!(refused.err.contains("error: "), "{refused:?}");
    assert!(refused.err.contains("does not let this endpoint speak ping/1"), "{refused:?}");

    let hints = refused.hints();
    let command = command_in(&hints);
    assert_eq!(command, ["trust", "add", &client.fingerprint()]);
    let added = server.run(&command);
    assert_eq!(added.code(), 0, "{added:?}");

    let reached = ping(&client, &served);
    assert_eq!(reached.code(), 0, "{reached:?}");
}

#[test]
fn the_server_names_the_same_command_in_its_log_and_its_status() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    let refused = ping(&client, &served);
    assert_eq!(refused.code(), 5);
    let command = format!("trust add {}", client.fingerprint());
    served.running.until(&command);
    let status = server.run(&["status"]);
    assert!(status.out.contains(&command), "{status:?}");
    assert!(status.out.contains(&server.state().display().to_string()), "{status:?}");
}

#[test]
fn removing_a_key_ends_its_live_dial_within_a_second() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    let key = client.fingerprint();
    server.json(&["trust", "add", &key]);
    let mut live = dial(&client, &served);
    let started = Instant::now();
    let removed = server.json(&["trust", "rm", &key]);
    assert_eq!(removed, serde_json::json!({"removed": 1, "closed": 1}));
    let returned = Instant::now();
    live.until_end();
    let (took, after) = (started.elapsed(), returned.elapsed());
    let said = live.end();
    assert_eq!(said.code(), 5, "{said:?}");
    assert!(said.hints().iter().any(|hint| hint.contains("endpoint trust add")), "{said:?}");
    // Counted from the end of the command: its own start is the machine's time, not the server's.
    assert!(after < Duration::from_secs(1), "{after:?}");
    println!("acceptance: trust rm ended a live dial {} ms after it was typed", took.as_millis());
    assert_eq!(ping(&client, &served).code(), 5);
}

#[test]
fn removing_one_key_leaves_the_connections_of_others() {
    let (server, one, two) = (machine(), machine(), machine());
    let served = server.serve();
    for client in [&one, &two] {
        server.json(&["trust", "add", &client.fingerprint()]);
    }
    let (gone, mut stays) = (dial(&one, &served), dial(&two, &served));
    server.json(&["trust", "rm", &one.fingerprint()]);
    assert_eq!(gone.end().code(), 5);
    stays.write(b"still here\n");
    assert_eq!(stays.line().as_deref(), Some("still here"));
    assert_eq!(stays.end().code(), 0);
}

#[test]
fn kick_ends_a_connection_whose_key_may_come_back() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    let key = client.fingerprint();
    server.json(&["trust", "add", &key]);
    let live = dial(&client, &served);
    assert_eq!(server.json(&["kick", &key]), serde_json::json!({"closed": 1}));
    assert_ne!(live.end().code(), 0);
    assert_eq!(ping(&client, &served).code(), 0);
}

#[test]
fn a_rotated_key_is_a_stranger_until_it_is_let_in() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    server.json(&["trust", "add", &client.fingerprint()]);
    assert_eq!(ping(&client, &served).code(), 0);
    let rotated = client.json(&["key", "rotate"]);
    assert_eq!(rotated["new"], client.fingerprint().as_str());
    assert_eq!(ping(&client, &served).code(), 5);
}
