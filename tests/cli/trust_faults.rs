//! Trust files that must not be believed: at the start, and put in place while it runs.

use std::{fs, os::unix::fs::symlink, path::Path, thread};

use endpoint_tests::machine::Machine;

use crate::{bound_machine, chmod, dial, give_away, is_root, machine, ping};

/// What is wrong with a trust file that lets one key in.
#[derive(Clone, Copy)]
struct Fault {
    name: &'static str,
    /// Makes it so; gives `false` if it cannot here.
    make: fn(&Path) -> bool,
    /// Stands in the text of `serve`.
    at_start: &'static str,
    /// Stands in a hint.
    hint: &'static str,
    /// Stands in the log of a server that runs.
    alarm: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "writable by others",
        make: |path| {
            chmod(path, 0o666);
            true
        },
        at_start: "has mode 0666, so others can write to it",
        hint: "chmod go-w ",
        alarm: "has mode 0666",
    },
    Fault {
        name: "in a folder that others may write to",
        make: |path| {
            chmod(path.parent().unwrap(), 0o777);
            // The folder's mode is no event of the file.
            let touched = fs::read(path).unwrap();
            fs::write(path, touched).is_ok()
        },
        at_start: "other users may write to the state folder",
        hint: "chmod 700 ",
        alarm: "has mode 0777",
    },
    Fault {
        name: "of another user",
        make: give_away,
        at_start: "belongs to user 65534",
        hint: "chown 0 ",
        alarm: "belongs to user 65534",
    },
    Fault {
        name: "a link",
        make: |path| {
            let away = path.with_extension("away");
            fs::rename(path, &away).is_ok() && symlink(away, path).is_ok()
        },
        at_start: "is a link",
        hint: "mv ",
        alarm: "is a link",
    },
    Fault {
        name: "a folder",
        make: |path| fs::remove_file(path).is_ok() && fs::create_dir(path).is_ok(),
        at_start: "is not a regular file",
        hint: "mv ",
        alarm: "is not a regular file",
    },
    Fault {
        name: "garbage",
        make: |path| fs::write(path, b"\x00\xff\xfegarbage\n").is_ok(),
        at_start: "authorized_peers:1:",
        hint: "",
        alarm: "line admits nobody",
    },
    Fault {
        name: "half-written",
        make: |path| {
            let whole = fs::read(path).unwrap();
            fs::write(path, &whole[..40]).is_ok()
        },
        at_start: "authorized_peers:1:",
        hint: "",
        alarm: "line admits nobody",
    },
];

/// A machine that trusts `client`, with nothing else in its trust file.
fn trusting(client: &Machine) -> Machine {
    let server = machine();
    trust_only(&server, &[&client.fingerprint()]);
    server
}

fn trust_only(server: &Machine, lines: &[&str]) {
    let path = server.file("authorized_peers");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    chmod(&path, 0o600);
}

#[test]
fn no_server_starts_with_a_faulty_trust_file() {
    for fault in FAULTS {
        let client = machine();
        let server = trusting(&client);
        let path = server.file("authorized_peers");
        if !(fault.make)(&path) {
            continue;
        }
        for words in
            [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"], &["trust", "lint"]]
        {
            let said = server.run(&[words, &["--json"]].concat());
            let name = fault.name;
            assert_eq!(said.code(), 2, "{name}: {words:?}: {said:?}");
            assert!(said.err.contains(fault.at_start), "{name}: {words:?}: {said:?}");
            assert!(fault.hint.is_empty() || said.hints().iter().any(|h| h.contains(fault.hint)));
            assert!(said.objects().iter().all(|object| object["event"] == "error"), "{said:?}");
        }
        chmod(&server.state(), 0o700);
        assert!(!server.file("identity.key").exists(), "{}: nothing was begun", fault.name);
    }
}

/// Applies the fault below a live connection: it ends, nobody else comes in.
fn assert_ends(fault: Fault) {
    let (client, stranger) = (machine(), machine());
    let server = trusting(&client);
    let served = server.serve();
    let mut live = dial(&client, &served);
    if !(fault.make)(&server.file("authorized_peers")) {
        return;
    }
    served.running.until(fault.alarm);
    live.until_end();
    let said = live.end();
    assert_eq!(said.code(), 5, "{}: {said:?}", fault.name);
    for machine in [&client, &stranger] {
        let said = ping(machine, &served);
        assert_eq!(said.code(), 5, "{}: {said:?}", fault.name);
    }
}

#[test]
fn a_fault_that_appears_while_it_runs_ends_what_lives_and_admits_nobody() {
    thread::scope(|scope| {
        for group in FAULTS.chunks(3) {
            scope.spawn(move || group.iter().copied().for_each(assert_ends));
        }
    });
}

#[test]
fn a_file_that_goes_missing_or_empty_while_it_runs_lets_nobody_in() {
    type Make = fn(&Path);
    let cases: [(Make, &str); 2] = [
        (|path| fs::remove_file(path).unwrap(), "is missing"),
        (|path| fs::write(path, "").unwrap(), "authorized_peers reloaded"),
    ];
    for (make, told) in cases {
        let client = machine();
        let server = trusting(&client);
        let served = server.serve();
        let mut live = dial(&client, &served);
        make(&server.file("authorized_peers"));
        served.running.until(told);
        live.until_end();
        assert_eq!(live.end().code(), 5);
        assert_eq!(ping(&client, &served).code(), 5);
        // And it comes back with the file.
        server.json(&["trust", "add", &client.fingerprint()]);
        assert_eq!(ping(&client, &served).code(), 0);
    }
}

#[test]
fn a_missing_or_an_empty_file_at_the_start_means_nobody() {
    for content in [None, Some(""), Some("# nobody yet\n\n")] {
        let (server, client) = (machine(), machine());
        if let Some(content) = content {
            fs::write(server.file("authorized_peers"), content).unwrap();
            chmod(&server.file("authorized_peers"), 0o600);
        }
        let served = server.serve();
        assert_eq!(ping(&client, &served).code(), 5, "{content:?}");
        assert_eq!(server.json(&["status"])["trust"]["keys"], 0);
    }
}

#[test]
fn an_editor_that_renames_a_new_file_into_place_is_followed() {
    let (one, two) = (machine(), machine());
    let server = trusting(&one);
    let served = server.serve();
    let mut live = dial(&one, &served);
    let new = server.file("authorized_peers.swp");
    fs::write(&new, format!("{}\n", two.fingerprint())).unwrap();
    chmod(&new, 0o600);
    fs::rename(new, server.file("authorized_peers")).unwrap();
    live.until_end();
    assert_eq!(live.end().code(), 5);
    assert_eq!(ping(&one, &served).code(), 5);
    assert_eq!(ping(&two, &served).code(), 0);
}

#[test]
fn one_bad_line_among_good_ones_stops_a_start_and_while_it_runs_admits_only_the_good_ones() {
    let (good, typo) = (machine(), machine());
    let server = machine();
    trust_only(&server, &[&good.fingerprint(), &typo.fingerprint()]);
    let served = server.serve();
    let mut live = dial(&typo, &served);
    let mut stays = dial(&good, &served);
    // A slip of the finger: a key that is one digit short.
    let key = typo.fingerprint();
    trust_only(&server, &[&good.fingerprint(), &key[..key.len() - 1]]);
    served.running.until("line admits nobody");
    served.running.until("authorized_peers:2:");
    live.until_end();
    assert_eq!(live.end().code(), 5);
    assert_eq!(ping(&typo, &served).code(), 5);
    assert_eq!(ping(&good, &served).code(), 0);
    stays.write(b"still here\n");
    assert_eq!(stays.line().as_deref(), Some("still here"));
    let problems = server.json(&["status"])["trust"]["problems"].clone();
    assert!(problems[0].as_str().unwrap().contains("authorized_peers:2:"), "{problems}");

    drop(served);
    let said = server.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(said.code(), 2, "{said:?}");
    assert!(said.err.contains("authorized_peers:2:"), "{said:?}");
}

#[test]
fn a_file_that_becomes_unreadable_while_it_runs_lets_nobody_in() {
    let (server, client) = (bound_machine(), machine());
    trust_only(&server, &[&client.fingerprint()]);
    let path = server.file("authorized_peers");
    if is_root() {
        give_away(&path);
    }
    let served = server.serve();
    let mut live = dial(&client, &served);
    chmod(&path, 0o000);
    served.running.until("this process may not read");
    live.until_end();
    assert_eq!(live.end().code(), 5);
    assert_eq!(ping(&client, &served).code(), 5);
    chmod(&path, 0o600);
    served.running.signal(rustix::process::Signal::HUP);
    served.running.until("reload asked for by SIGHUP");
    served.running.until("authorized_peers reloaded");
    // A process that is told of nothing looks by itself.
    let mut last = ping(&client, &served);
    for _ in 0..20 {
        if last.code() == 0 {
            break;
        }
        last = ping(&client, &served);
    }
    assert_eq!(last.code(), 0, "{last:?}");
}
