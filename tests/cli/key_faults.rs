//! Key files that must not be used: at the start of every command, and put in place while it runs.

use std::{fs, os::unix::fs::symlink, path::Path};

use endpoint_tests::machine::{Machine, string};

use crate::{bound_machine, chmod, dial, give_away, machine, ping};

/// What is wrong with a key file.
struct Fault {
    name: &'static str,
    /// Makes it so; gives `false` if it cannot here.
    make: fn(&Path) -> bool,
    code: i32,
    /// Stands in the text.
    says: &'static str,
    /// Stands in a hint, if there is a command that mends it.
    hint: &'static str,
}

fn with(content: &[u8]) -> impl Fn(&Path) -> bool {
    move |path| fs::write(path, content).is_ok()
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "readable by others",
        make: |path| {
            chmod(path, 0o644);
            true
        },
        code: 2,
        says: "has mode 0644, so others may have read the key",
        hint: "chmod 600 ",
    },
    Fault {
        name: "of another user",
        make: give_away,
        code: 2,
        says: "belongs to user 65534, not to user 0",
        hint: "chown 0 ",
    },
    Fault {
        name: "a link",
        make: |path| {
            let away = path.with_extension("away");
            fs::rename(path, &away).is_ok() && symlink(away, path).is_ok()
        },
        code: 2,
        says: "is a link",
        hint: "mv ",
    },
    Fault {
        name: "a folder",
        make: |path| fs::remove_file(path).is_ok() && fs::create_dir(path).is_ok(),
        code: 2,
        says: "is a folder, a pipe or a device",
        hint: "name a regular file",
    },
    Fault {
        name: "garbage",
        make: |path| with(b"\x00\xffgarbage\n")(path),
        code: 2,
        says: "not a PKCS#8 private key",
        hint: "",
    },
    Fault {
        name: "half-written",
        make: |path| {
            let whole = fs::read(path).unwrap();
            with(&whole[..whole.len() / 2])(path)
        },
        code: 2,
        says: "written only in part",
        hint: "key new",
    },
    Fault {
        name: "empty",
        make: |path| with(b"")(path),
        code: 2,
        says: "the key file is empty",
        hint: "key new",
    },
];

/// The command refuses the file, names it, and leaves it as it is.
fn assert_refused(machine: &Machine, fault: &Fault, words: &[&str]) {
    let file = machine.file("identity.key");
    let before = fs::read(&file).ok();
    let said = machine.run(&[words, &["--json"]].concat());
    let name = fault.name;
    assert_eq!(said.code(), fault.code, "{name}: {words:?}: {said:?}");
    assert!(said.err.contains(fault.says), "{name}: {words:?}: {said:?}");
    assert!(said.err.contains(file.to_str().unwrap()), "{name}: {words:?}: {said:?}");
    assert!(said.hints().iter().any(|hint| hint.contains(fault.hint)), "{name}: {said:?}");
    let object = said.objects().pop().expect("an object");
    assert_eq!(string(&object, "event"), "error", "{name}: {said:?}");
    assert_eq!(fs::read(&file).ok(), before, "{name}: the file is as it was");
}

#[test]
fn no_command_uses_a_faulty_key_file_or_replaces_it() {
    let other = machine();
    let served = other.serve();
    for fault in FAULTS {
        let machine = machine();
        let _ = machine.fingerprint();
        if !(fault.make)(&machine.file("identity.key")) {
            continue;
        }
        assert_refused(&machine, fault, &["key", "show"]);
        assert_refused(&machine, fault, &["serve", "--listen", "127.0.0.1:0"]);
        assert_refused(&machine, fault, &["ping", &served.peer()]);
    }
}

#[test]
fn a_key_file_that_cannot_be_read_is_refused() {
    let machine = bound_machine();
    let _ = machine.file("");
    let _ = machine.fingerprint();
    chmod(&machine.file("identity.key"), 0o000);
    for words in [&["key", "show"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let said = machine.run(words);
        assert_eq!(said.code(), 1, "{words:?}: {said:?}");
        assert!(said.err.contains("identity.key"), "{said:?}");
        assert!(said.err.to_lowercase().contains("permission denied"), "{said:?}");
    }
}

#[test]
fn a_missing_key_file_makes_a_new_identity_that_nobody_takes_for_the_old_one() {
    let (server, client) = (machine(), machine());
    let old = server.fingerprint();
    server.json(&["trust", "add", &client.fingerprint()]);
    fs::remove_file(server.file("identity.key")).unwrap();
    let served = server.serve();
    assert_ne!(string(&served.ready, "fingerprint"), old);
    let hex = old.strip_prefix("sha256:").unwrap();
    let said = client.run(&["ping", &format!("peer://{hex}@{}", served.address())]);
    assert_eq!(said.code(), 4, "{said:?}");
    // A client that lost its key is a stranger.
    fs::remove_file(client.file("identity.key")).unwrap();
    assert_eq!(ping(&client, &served).code(), 5);
}

#[test]
fn a_fault_that_appears_while_it_runs_admits_nobody_and_ends_nothing() {
    for fault in FAULTS {
        let (server, client, stranger) = (machine(), machine(), machine());
        let served = server.serve();
        server.json(&["trust", "add", &client.fingerprint()]);
        let mut live = dial(&client, &served);
        if !(fault.make)(&server.file("identity.key")) {
            continue;
        }
        served.running.signal(rustix::process::Signal::HUP);
        served.running.until("reload asked for by SIGHUP");
        assert_eq!(ping(&stranger, &served).code(), 5, "{}", fault.name);
        // The key that it proved at its start is the one that it has.
        assert_eq!(ping(&client, &served).code(), 0, "{}", fault.name);
        live.write(b"more\n");
        assert_eq!(live.line().as_deref(), Some("more"), "{}", fault.name);
    }
}

#[test]
fn a_key_that_another_program_renames_into_place_is_used_from_the_next_start_on() {
    let (server, client) = (machine(), machine());
    let served = server.serve();
    let other = machine();
    let new = other.fingerprint();
    fs::copy(other.file("identity.key"), server.file("new.key")).unwrap();
    chmod(&server.file("new.key"), 0o600);
    fs::rename(server.file("new.key"), server.file("identity.key")).unwrap();
    // Still the old one, and still nobody is let in.
    assert_eq!(ping(&client, &served).code(), 5);
    drop(served);
    let served = server.serve();
    assert_eq!(string(&served.ready, "fingerprint"), new);
    assert_eq!(ping(&client, &served).code(), 5);
}
