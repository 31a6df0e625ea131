//! Configuration faults, and that looking for them leaves no trace.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use endpoint_tests::machine::Machine;

use crate::machine;

#[test]
fn every_fault_is_told_with_file_line_and_column() {
    let machine = machine();
    let file = machine.file("endpoint.toml");
    let path = file.to_str().unwrap();
    for (text, place, says) in [
        ("lisen = []\n", "1:1", "did you mean `listen`?"),
        ("listen = [\"4433\"]\n", "1:11", "an address such as"),
        ("listen = 4433\n", "1:10", "a list of addresses"),
        ("\n[limits]\nconections = 5\n", "3:1", "connections"),
        ("[[handler]]\nalpn = \"ehco/1\"\n", "2:8", "echo/1"),
        ("[[handler]]\nalpn = \"echo/1\"\naccess = \"anybody\"\n", "3:10", "public"),
        ("[drain]\ndeadline = \"soon\"\n", "2:12", "a time such as"),
        ("listen = [\n", "", "endpoint.toml:"),
        ("[acme]\ndirectory = \"lego\"\n", "2:13", "letsencrypt"),
    ] {
        fs::write(&file, text).unwrap();
        for words in [&["config", "check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
            let said = machine.run(&[words, &["--json"]].concat());
            assert_eq!(said.code(), 2, "{text}: {said:?}");
            assert!(said.err.contains("error: "), "{text}: {said:?}");
            assert!(said.err.contains(&format!("{path}:{place}")), "{text}: {said:?}");
            assert!(said.err.contains(says), "{text}: {said:?}");
            for object in said.objects() {
                assert_eq!(object["event"], "error", "{text}: {said:?}");
                assert_eq!(object["file"], path, "{text}: {said:?}");
                assert!(object["line"].as_u64().is_some_and(|line| line > 0), "{said:?}");
                assert!(object["column"].as_u64().is_some_and(|column| column > 0), "{said:?}");
            }
        }
    }
    assert!(!machine.file("identity.key").exists());
}

#[test]
fn faults_are_told_all_at_once() {
    let machine = machine();
    let file = machine.file("endpoint.toml");
    fs::write(&file, "lisen = 1\n[limits]\nconections = 5\n").unwrap();
    let said = machine.run(&["config", "check", "--json"]);
    assert_eq!(said.code(), 2);
    let lines: Vec<_> = said.objects().iter().map(|o| o["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 3]);
}

#[test]
fn files_that_an_authority_is_known_by_are_read_and_nothing_is_made() {
    let machine = machine();
    let file = machine.file("endpoint.toml");
    let site = "[[site]]\nnames = [\"a.example\"]\ncertificate = \"auto\"\n";
    for (field, says) in [
        ("ca_root = \"/nowhere/roots.pem\"", "/nowhere/roots.pem"),
        ("eab = { kid = \"k\", hmac_file = \"/nowhere/eab.hmac\" }", "/nowhere/eab.hmac"),
    ] {
        let directory = "directory = \"https://127.0.0.1:1/dir\"";
        fs::write(&file, format!("[acme]\n{directory}\n{field}\n{site}")).unwrap();
        let said = machine.run(&["config", "check"]);
        assert_eq!(said.code(), 2, "{field}: {said:?}");
        assert!(said.err.contains(says) && said.err.contains("hint: "), "{field}: {said:?}");
    }
    assert!(!machine.file("store.secret").exists() && !machine.file("endpoint.db").exists());
}

#[test]
fn a_configuration_file_that_was_named_and_is_missing_is_a_fault() {
    let machine = machine();
    let said = machine.run(&["config", "check", "--config", "/nowhere/endpoint.toml"]);
    assert_eq!(said.code(), 2, "{said:?}");
    assert!(said.err.contains("/nowhere/endpoint.toml"), "{said:?}");
}

/// Every file and folder below `folder`: length and time of the last change.
fn listing(folder: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let facts = entry.metadata().unwrap();
            let key = entry.path().display().to_string();
            found.insert(key, (facts.len(), facts.modified().unwrap()));
            if facts.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn checking_writes_nothing_and_makes_nothing() {
    let machine = machine();
    let checked = machine.run(&["config", "check"]);
    assert_eq!(checked.code(), 0, "{checked:?}");
    assert!(!machine.state().exists());

    let _ = machine.fingerprint();
    machine.json(&["trust", "add", &machine.fingerprint()]);
    for text in ["", "[drain]\ndeadline = \"3s\"\n", "wrong = 1\n"] {
        fs::write(machine.file("endpoint.toml"), text).unwrap();
        let before = listing(&machine.state());
        let checked = machine.run(&["config", "check"]);
        assert_eq!(checked.code(), if text.starts_with("wrong") { 2 } else { 0 }, "{checked:?}");
        assert_eq!(listing(&machine.state()), before, "{text}");
    }
}

#[test]
fn a_handler_of_the_file_is_served_and_another_is_not() {
    let (server, client) = (machine(), machine());
    let file = server.file("endpoint.toml");
    fs::write(&file, "[[handler]]\nalpn = \"echo/1\"\naccess = \"public\"\n").unwrap();
    let served = server.serve();
    let dialled = client.run(&["dial", &served.peer(), "--alpn", "echo/1"]);
    assert_eq!(dialled.code(), 0, "{dialled:?}");
    let pinged = client.run(&["ping", &served.peer()]);
    assert_eq!(pinged.code(), 1, "{pinged:?}");
    assert!(pinged.err.contains("does not speak ping/1"), "{pinged:?}");
}

/// What `serve` and `config check` both refuse, with a word of why.
fn both_refuse(machine: &Machine, config: &str, says: &str) {
    fs::write(machine.file("endpoint.toml"), config).unwrap();
    for words in [&["config", "check"][..], &["serve"]] {
        let said = machine.run(words);
        assert_eq!(said.code(), 2, "{words:?} {config}: {said:?}");
        assert!(said.err.contains(says), "{words:?} {config}: {said:?}");
        assert!(!said.hints().is_empty(), "{words:?} {config}: {said:?}");
    }
}

#[test]
fn certificates_are_judged_as_serve_does() {
    let machine = machine();
    let pair = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["a.example".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ((cert, key), (_, other)) = (pair(), pair());
    let files =
        [("c.pem", &*cert), ("k.pem", &*key), ("other.pem", &*other), ("none.pem", "rubbish")];
    for (name, text) in files {
        fs::write(machine.file(name), text).unwrap();
    }
    let config = |cert: &str, key: &str| {
        format!(
            "listen = [\"127.0.0.1:0\"]\n[[site]]\nnames = [\"a.example\"]\n\
             certificate = {{ cert = \"{cert}\", key = \"{key}\" }}\n"
        )
    };
    both_refuse(&machine, &config("missing.pem", "k.pem"), "missing.pem");
    // What can befall a file by itself keeps nobody from being served, and is told by both.
    for (cert, key, says) in [
        ("none.pem", "k.pem", "none.pem"),
        ("c.pem", "other.pem", "does not belong"),
        ("c.pem", "k.pem", ""),
    ] {
        fs::write(machine.file("endpoint.toml"), config(cert, key)).unwrap();
        let said = machine.run(&["config", "check"]);
        assert!(said.code() == 0 && said.err.contains(says), "{cert} {key}: {said:?}");
        assert_eq!(said.err.is_empty(), says.is_empty(), "{said:?}");
        assert!(!machine.file("identity.key").exists());
    }
    fs::write(machine.file("endpoint.toml"), config("c.pem", "other.pem")).unwrap();
    let server = machine.serve();
    let info = machine.json(&["cert", "info", "a.example"]);
    assert_eq!((&info["condition"], &info["fallback"]), (&"damaged".into(), &true.into()));
    drop(server);
}

#[test]
fn two_listeners_on_one_address_are_a_fault() {
    let machine = machine();
    both_refuse(
        &machine,
        "listen = [\"127.0.0.1:4433\", \"127.0.0.1:4433\"]\n",
        "again in `listen`",
    );
    both_refuse(&machine, "listen = [\"0.0.0.0:4433\", \"[::]:4433\"]\n", "overlaps");
}
