//! A trace of each connection, in a build that has feature `qlog`.

use std::fs;

use serde_json::Value;

use crate::machine;

#[test]
fn each_connection_leaves_a_trace_that_a_viewer_can_read() {
    let (server, client) = (machine(), machine());
    let folder = server.state().parent().unwrap().join("traces");
    let served = server.serve_with(&["--qlog", folder.to_str().unwrap()]);
    server.json(&["trust", "add", &client.fingerprint()]);
    for _ in 0..2 {
        assert_eq!(client.run(&["ping", &served.peer(), "-c", "1"]).code(), 0);
    }
    // The end of the process flushes nothing that was not handed on: every line is written as it comes.
    drop(served);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        assert!(file.to_str().unwrap().ends_with("_server.sqlog"), "{file:?}");
        let text = fs::read_to_string(&file).unwrap();
        // RFC 7464: a record separator before each text.
        let records: Vec<Value> = text
            .split('\u{1e}')
            .filter(|record| !record.is_empty())
            .map(|record| serde_json::from_str(record).expect("JSON"))
            .collect();
        assert!(records[0]["qlog_version"].is_string(), "{}", records[0]);
        let named = |name: &str| records.iter().filter(|r| r["name"] == name).count();
        assert!(named("quic:packet_received") > 0 || named("transport:packet_received") > 0);
        assert!(named("quic:packet_sent") > 0 || named("transport:packet_sent") > 0, "{text}");
    }
    println!("acceptance: qlog: one readable trace for each connection");
}

#[test]
fn a_folder_that_cannot_be_written_to_is_told_before_anything_listens() {
    let server = machine();
    let file = server.file("file");
    fs::write(&file, "").unwrap();
    let said = server.run(&["serve", "--listen", "127.0.0.1:0", "--qlog", file.to_str().unwrap()]);
    assert_eq!(said.code(), 2, "{said:?}");
    assert!(said.err.contains("qlog") && said.out.is_empty(), "{said:?}");
}
