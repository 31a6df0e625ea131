//! Several processes on one store, and processes that are killed.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use endpoint_tests::{
    count,
    faulty_ca::{Fault, FaultyCa, Route},
    machine::{Machine, Running, Server, string},
    pebble::{Pebble, Settings},
    ports::free_port,
};
use serde_json::Value;

use crate::{
    scene::{ENGINES, ended, leaf, with_both},
    site,
};

const NAMES: [&str; 3] = ["one.example", "two.example", "three.example"];

/// A machine that listens there and keeps things in that folder.
fn machine(pebble: &Pebble, ca: &FaultyCa, port: u16, engine: &str, shared: &Path) -> Machine {
    let settings = Settings { tls_port: port, ..Settings::default() };
    let acme = format!("engine = \"{engine}\"\nchallenges = [\"tls-alpn-01\"]\n");
    let text = crate::scene::config(
        &settings,
        &pebble.server_root(),
        &ca.directory(),
        &NAMES,
        &format!(
            "{acme}[store]\nurl = \"sqlite:{}\"\nsecret_file = \"{}\"\n",
            shared.join("shared.db").display(),
            shared.join("secret").display()
        ),
    );
    site::machine(&text)
}

#[test]
fn four_processes_make_one_order_for_each_name_and_answer_for_each_other() {
    with_both(four);
    println!(
        "acceptance: four processes on one store: one order a name, one account, all serve, by both engines"
    );
}

async fn four(engine: &'static str) {
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    let ca = FaultyCa::before(&pebble).await;
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o700)).unwrap();
    // One of them listens where the authority looks, whoever of them orders.
    let ports = [settings.tls_port, free_port(), free_port(), free_port()];
    let machines = ports.map(|port| machine(&pebble, &ca, port, engine, shared.path()));
    // Those first that nobody asks: they order, and the authority looks when the last one is there.
    ca.fail(Route::Challenge, Fault::Held, None);
    let mut servers: Vec<Server> = machines[1..].iter().map(site::serve).collect();
    let ends = Instant::now() + Duration::from_secs(30);
    while ca.calls(Route::Challenge) < NAMES.len() {
        assert!(Instant::now() < ends, "{engine}: nobody orders: {:?}", ca.orders());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    servers.push(site::serve(&machines[0]));
    ca.heal();
    for machine in &machines {
        site::until(machine, "three certificates", site::issued).await;
    }
    let seen = || ca.orders().len();
    assert_eq!(NAMES.map(|name| ca.orders_for(name)), [1, 1, 1], "{engine}: {}", seen());
    assert_eq!((ca.calls(Route::NewAccount), ca.failed_validations()), (1, 0), "{engine}");
    for name in NAMES {
        let mut shown = HashSet::new();
        for server in &servers {
            shown.insert(leaf(server, name).await);
        }
        assert_eq!(shown.len(), 1, "{engine}: {name}");
    }
    // A renewal of one is seen by all, and starts no second one.
    let old = leaf(&servers[0], NAMES[0]).await;
    let said = machines[2].run(&["cert", "renew", NAMES[0]]);
    assert_eq!(said.code(), 0, "{engine}: {said:?}");
    for server in &servers {
        let ends = Instant::now() + Duration::from_secs(30);
        let address = server.address().parse().unwrap();
        while site::shown(address, NAMES[0]).await[0] == old {
            assert!(Instant::now() < ends, "{engine}: one process serves the old certificate");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_ne!(leaf(server, NAMES[0]).await, old);
    }
    assert_eq!(NAMES.map(|name| ca.orders_for(name)), [2, 1, 1], "{engine}");
    for server in servers {
        ended(server);
    }
}

/// Names that take turns, so that the lock of a killed order, which lasts a minute, does not hold up the next.
fn many() -> Vec<String> {
    (0..count(20, 80)).map(|number| format!("n{number}.example")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_of_a_renewal_leaves_a_certificate_that_is_served() {
    let kills = count(20, 200);
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    println!("seed {seed}");
    let mut random = seed | 1;
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    let ca = FaultyCa::before(&pebble).await;
    let names = many();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let acme = |turn: usize| format!("engine = \"{}\"\n", ENGINES[turn % 2]);
    let write = |turn| {
        let root = pebble.server_root();
        crate::scene::config(&settings, &root, &ca.directory(), &words, &acme(turn))
    };
    let machine = site::machine(&write(0));
    let server = site::serve(&machine);
    site::until(&machine, "certificates", site::issued).await;
    assert_eq!(ca.orders().len(), names.len());
    ended(server);

    let (mut renewed, mut broken_off) = (0, 0);
    for turn in 0..kills {
        let case = format!("seed {seed}, turn {turn}");
        fs::write(machine.file("endpoint.toml"), write(turn)).unwrap();
        let name = &names[turn % names.len()];
        let mut server = site::serve(&machine);
        let list = site::certificates(&machine);
        let whole = |one: &Value| site::issued(one) && string(one, "issuer") == ca.directory();
        assert!(list.len() == names.len() && list.iter().all(whole), "{case}: {list:#?}");
        let before = leaf(&server, name).await;
        let orders = ca.orders().len();
        let mut renewing = Running::start(machine.command(&["cert", "renew", name]));
        // From the first request to after the last write.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ends = Instant::now() + Duration::from_secs(20);
        while ca.orders().len() == orders && renewing.runs() && Instant::now() < ends {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_micros((random >> 33) % 1_300_000)).await;
        let over = !renewing.runs();
        server.running.signal(rustix::process::Signal::KILL);
        while server.running.runs() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(server);
        // Whoever asked was told that it is done, or was cut off.
        let done = over && renewing.end().status.success();
        // `cert list` without an endpoint reads what is kept.
        let kept = site::certificates(&machine);
        let sound = |one: &Value| one["last_error"].is_null() && one["source"] == "acme";
        assert!(kept.len() == names.len() && kept.iter().all(sound), "{case}: {kept:#?}");
        let server = site::serve(&machine);
        let after = leaf(&server, name).await;
        renewed += usize::from(after != before);
        broken_off += usize::from(after == before);
        assert!(!(done && after == before), "{case}: a renewal was lost");
        let list = site::certificates(&machine);
        assert!(list.iter().all(site::issued), "{case}: {list:#?}");
        assert!(ca.orders().len() <= orders + 1, "{case}: {} orders", ca.orders().len() - orders);
        server.running.signal(rustix::process::Signal::KILL);
        drop(server);
    }
    assert_eq!((ca.accounts(), ca.calls(Route::NewAccount), ca.failed_validations()), (1, 1, 0));
    assert!(ca.orders().len() <= names.len() + kills, "{}", ca.orders().len());
    println!(
        "acceptance: {kills} kill -9 of the program while it renews: {renewed} renewed, {broken_off} \
         as before, 0 lost, every restart serves, {} orders",
        ca.orders().len()
    );
}
