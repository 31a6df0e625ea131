//! What the log looks like.

use serde_json::Value;

use crate::machine;

#[test]
fn a_json_log_is_an_object_a_line() {
    let (server, stranger) = (machine(), machine());
    let served = server.serve_with(&["--log-format", "json", "-v"]);
    let said = stranger.run(&["ping", &served.peer(), "-c", "1"]);
    assert_eq!(said.code(), 5, "{said:?}");
    served.running.until("key refused");
    served.running.signal(rustix::process::Signal::HUP);
    served.running.until("SIGHUP");
    let text = served.running.err();
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(lines.len() >= 2, "{text}");
    for line in &lines {
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
        assert!(line["target"].as_str().unwrap().starts_with("endpoint"), "{line}");
    }
    assert!(lines.iter().any(|line| line["message"] == "reload asked for by SIGHUP"));
}
