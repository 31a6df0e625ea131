//! A build without feature `qlog` says so.

use std::fs;

use crate::machine;

#[test]
fn a_build_without_qlog_refuses_to_trace() {
    let server = machine();
    let folder = server.state().parent().unwrap().join("traces");
    let words = ["serve", "--listen", "127.0.0.1:0", "--qlog", folder.to_str().unwrap()];
    let config = server.file("endpoint.toml");
    let field = format!("qlog = \"{}\"\n", folder.display());
    for (text, words) in [("", &words[..]), (&field, &words[..3]), (&field, &["config", "check"])] {
        fs::write(&config, text).unwrap();
        let said = server.run(words);
        assert_eq!(said.code(), 2, "{said:?}");
        assert!(said.err.contains("feature `qlog`"), "{said:?}");
        let hints = said.hints();
        assert_eq!(hints.first(), Some(&"build it in: cargo build --release --features qlog"));
        assert!(!said.err.contains("DIR"), "{said:?}");
        assert!(!folder.exists());
    }
}
