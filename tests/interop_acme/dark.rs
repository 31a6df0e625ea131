//! Certificates stay in service while their store is damaged, full or read-only.
//!
//! Disks are small tmpfs mounts in a mount namespace of the program's own; records are damaged by Python's
//! sqlite3, as a failing disk would.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use endpoint_tests::{
    faulty_ca::Route,
    machine::{Running, Server},
    pebble::Settings,
};
use serde_json::Value;

use crate::scene::{Scene, ended, fault, leaf, names_all};

const NAME: &str = "one.example";

/// What somebody, or a disk, does to the file of a store.
fn tamper(store: &Path, sql: &str) {
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                  n = c.execute(sys.argv[2]).rowcount; c.commit(); sys.exit(n < 1)";
    let done = Command::new("python3").args(["-c", script]).arg(store).arg(sql).status().unwrap();
    assert!(done.success(), "{sql}");
}

fn empty_the_log(store: &Path) {
    let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)')";
    let done = Command::new("python3").args(["-c", script]).arg(store).status().unwrap();
    assert!(done.success());
}

fn flip(kind: &str) -> String {
    format!(
        "UPDATE records SET sealed = CAST(substr(sealed, 1, 40) || x'00' || substr(sealed, 42) AS BLOB) \
         WHERE kind = '{kind}'"
    )
}

fn ready(mut running: Running) -> Server {
    let line = running.line();
    let ready = line.as_deref().map(serde_json::from_str::<Value>);
    let Some(Ok(ready)) = ready else { panic!("not ready: {line:?}: {:?}", running.end()) };
    Server { running, ready }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_records_take_no_certificate_out_of_service_and_are_set_aside() {
    let scene = Scene::by("instant-acme", &[NAME]).await;
    let server = scene.serve();
    scene.issued(NAME).await;
    let first = leaf(&server, NAME).await;
    let store = scene.machine.state().join("endpoint.db");
    ended(server);
    let said = scene.machine.run(&["store", "check"]);
    assert!(said.code() == 0 && said.out.contains("0 damaged"), "{said:?}");

    // The history: served, told, and nothing is ordered by itself for an hour.
    tamper(&store, &flip("history"));
    let said = scene.machine.run(&["store", "check", "--json"]);
    assert_eq!(said.code(), 1, "{said:?}");
    let record = &said.objects()[0];
    assert_eq!(
        (&record["event"], &record["kind"]),
        (&"record".into(), &"history".into()),
        "{record}"
    );
    assert!(record["remedy"].as_str().unwrap().contains("set aside"), "{record}");
    let orders = scene.ca.calls(Route::NewOrder);
    let server = scene.serve();
    assert_eq!(leaf(&server, NAME).await, first);
    assert_eq!(scene.info(NAME)["fallback"], false);
    let said = scene.renew(NAME);
    assert_eq!(said.code(), 1, "{said:?}");
    names_all(&said.err, &["failure budget", "the next order may be made at"]);
    assert_eq!(scene.ca.calls(Route::NewOrder), orders);
    let said = scene.machine.run(&["store", "check"]);
    assert!(said.code() == 0 && said.out.contains("1 set aside"), "{said:?}");
    ended(server);

    // The certificate itself, while nobody runs: mended by hand, then issued anew.
    tamper(&store, &flip("certificate"));
    let said = scene.machine.run(&["store", "repair"]);
    assert!(said.code() == 0 && said.out.contains("certificate `one.example`"), "{said:?}");
    assert!(said.out.contains("0 damaged") && said.out.contains("2 set aside"), "{said:?}");
    tamper(&store, "DELETE FROM records WHERE kind = 'history'");
    let said = scene.machine.run(&["store", "repair"]);
    assert_eq!(said.code(), 0, "{said:?}");
    tamper(&store, "DELETE FROM records WHERE kind = 'history'");
    tamper(&store, "DELETE FROM heads WHERE kind = 'history'");
    let server = scene.serve();
    scene.issued(NAME).await;
    assert_ne!(leaf(&server, NAME).await, first);
    // While it runs: memory has it, and the disk gets it again.
    let second = leaf(&server, NAME).await;
    let orders = scene.ca.calls(Route::NewOrder);
    tamper(&store, &flip("certificate"));
    assert_eq!(scene.machine.run(&["store", "check"]).code(), 1);
    let said = scene.renew(NAME);
    assert_eq!(said.code(), 0, "{said:?}");
    assert_ne!(leaf(&server, NAME).await, second);
    assert_eq!(scene.ca.calls(Route::NewOrder), orders + 1);
    assert_eq!(scene.info(NAME)["condition"], "whole");
    assert_eq!(scene.machine.run(&["store", "check"]).code(), 0);
    ended(server);
    println!(
        "acceptance: a flipped history and a flipped certificate: served, told, set aside, renewed; check and repair \
         say so"
    );
}

/// The program with a mount namespace of its own, in which `folder` is a small disk of that kind that holds what
/// stands in `from`.
fn on_a_disk(scene: &Scene, folder: &Path, from: &Path, kind: &str) -> Command {
    let (folder, from) = (folder.display(), from.display());
    let then = match kind {
        "read-only" => format!("mount -o remount,ro {folder}"),
        _ => format!("cat /dev/zero > {folder}/ballast 2>/dev/null || true"),
    };
    let script = format!(
        "set -e; mount -t tmpfs -o size=1m,mode=0700 tmpfs {folder}; cp -a {from}/. {folder}/; {then}; exec \"$@\""
    );
    let plain = scene.machine.command(&["serve", "--json", "-v"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_a_read_only_disk_takes_no_certificate_out_of_service() {
    for (kind, crashed) in
        [("read-only", false), ("read-only", true), ("full", false), ("full", true)]
    {
        let disk = tempfile::tempdir().unwrap();
        let (kept, mounted): (PathBuf, PathBuf) =
            (disk.path().join("kept"), disk.path().join("mounted"));
        for folder in [&kept, &mounted] {
            std::fs::create_dir(folder).unwrap();
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let place = |folder: &Path| {
            let (db, secret) = (folder.join("endpoint.db"), folder.join("store.secret"));
            format!(
                "[store]\nurl = \"sqlite:{}\"\nsecret_file = \"{}\"\n",
                db.display(),
                secret.display()
            )
        };
        let scene = Scene::new(Settings::default(), &[NAME], "engine = \"instant-acme\"\n").await;
        let config = std::fs::read_to_string(scene.machine.file("endpoint.toml")).unwrap();
        let with = |folder: &Path| {
            let (top, rest) = config.split_once("[acme]").unwrap();
            let text = format!("{top}{}[acme]{rest}", place(folder));
            std::fs::write(scene.machine.file("endpoint.toml"), text).unwrap();
        };
        with(&kept);
        let server = scene.serve();
        scene.issued(NAME).await;
        let issued = leaf(&server, NAME).await;
        if crashed {
            // What the log holds is not in the database yet.
            server.running.signal(rustix::process::Signal::KILL);
            let mut running = server.running;
            running.until_end();
            let _ = running.end();
        } else {
            ended(server);
            // A log that was written once has room for more, also on a full disk.
            empty_the_log(&kept.join("endpoint.db"));
        }
        with(&mounted);
        let orders = scene.ca.calls(Route::NewOrder);
        let server = ready(Running::start(on_a_disk(&scene, &mounted, &kept, kind)));
        assert_eq!(leaf(&server, NAME).await, issued, "{kind} {crashed}");
        let info = scene.info(NAME);
        assert_eq!(info["fallback"], false, "{info:#}");
        // Nothing is ordered that could not be entered, and why is said.
        let said = scene.renew(NAME);
        if (kind, crashed, said.code()) == ("full", true, 0) {
            // It found room in the log, so what was ordered is entered and kept.
            assert_eq!(scene.info(NAME)["condition"], "whole");
            ended(server);
            continue;
        }
        assert_eq!(said.code(), 1, "{kind} {crashed}: {said:?}");
        assert_eq!(scene.ca.calls(Route::NewOrder), orders);
        assert!(fault(&scene.info(NAME)).contains("endpoint.db"), "{:#}", scene.info(NAME));
        assert_eq!(leaf(&server, NAME).await, issued, "{kind} {crashed}");
        ended(server);
    }
    println!(
        "acceptance: a store on a full and on a read-only disk, after a stop and after a crash: 4 of 4 served, nothing \
         ordered at once, told"
    );
}
