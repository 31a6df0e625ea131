//! Limits of the configuration: shown, and taken in by a reload.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{dial, machine, ping};

#[test]
fn sighup_takes_in_limits_that_were_changed_and_says_which_wait_for_a_restart() {
    let (server, client) = (machine(), machine());
    let file = server.file("endpoint.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[limits]\nconnections_per_peer = 2\n");
    let served = server.serve();
    server.json(&["trust", "add", &client.fingerprint()]);
    let mut first = dial(&client, &served);
    let mut second = dial(&client, &served);
    assert_eq!(ping(&client, &served).code(), 6, "both answer, so a third one is refused");

    write("[limits]\nconnections_per_peer = 1\ncompressions = 5\n[tls]\nmin_version = \"1.3\"\n");
    served.running.signal(Signal::HUP);
    served.running.until("limits reloaded");
    // The older of two streams that are open is told, the other one goes on.
    first.until_end();
    let told = first.end();
    assert!(told.err.contains("too many connections of this key"), "{told:?}");
    second.write(b"goes on\n");
    assert_eq!(second.line().as_deref(), Some("goes on"));
    served.running.until("needs a restart to act");
    let log = served.running.err();
    let line = |part: &str| log.lines().find(|line| line.contains(part)).map(str::to_owned);
    let restart = line("compressions").unwrap();
    assert!(restart.contains("WARN") && restart.contains("needs a restart"), "{log}");
    assert!(line("[tls]").unwrap().contains("needs a restart"), "{log}");
    assert!(line("connections_per_peer").unwrap().contains("acts=\"at once\""), "{log}");

    // A file with a fault changes nothing.
    write("[limits]\nconnections_per_peer = 9\ncompressions = 0\n");
    served.running.signal(Signal::HUP);
    served.running.until("configuration refused: nothing of it changes");
    assert!(served.running.err().contains("endpoint.toml:3:16"), "{}", served.running.err());
    assert_eq!(ping(&client, &served).code(), 6);

    // A raised limit acts as well.
    write("[limits]\nconnections_per_peer = 9\n");
    served.running.signal(Signal::HUP);
    served.running.until("value=\"9\"");
    let ends = Instant::now() + Duration::from_secs(10);
    while ping(&client, &served).code() != 0 {
        assert!(Instant::now() < ends, "still refused: {}", served.running.err());
    }
}

#[test]
fn config_show_tells_each_limit_with_its_value_range_and_when_it_acts() {
    let machine = machine();
    let file = machine.file("endpoint.toml");
    fs::write(&file, "[limits]\ngive_way_after = \"1500ms\"\nconnections = 77\n").unwrap();
    let shown = machine.run(&["config", "show", "--json"]);
    assert_eq!(shown.code(), 0, "{shown:?}");
    let limits = shown.objects();
    let of = |name: &str| limits.iter().find(|limit| limit["name"] == name).unwrap();
    assert_eq!(of("give_way_after")["value"], "\"1500ms\"");
    assert_eq!(
        (&of("give_way_after")["set"], &of("goodbye")["set"]),
        (&true.into(), &false.into())
    );
    assert_eq!(of("connections")["value"], "77");
    assert_eq!(of("handshakes_reserved")["follows"], "an eighth of `handshakes_in_flight`");
    assert_eq!(of("penalty_panic")["default"], "\"90s\"");
    assert_eq!(of("answer_bytes")["acts"], "restart");
    assert!(limits.iter().all(|limit| limit["range"].as_str().is_some_and(|r| !r.is_empty())));

    // What it prints for people is `[limits]` of a file.
    let text = machine.run(&["config", "show"]).out;
    fs::write(&file, format!("[limits]\n{text}")).unwrap();
    let again = machine.run(&["config", "show"]).out;
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&text), values(&again));
    assert_eq!(machine.run(&["config", "check"]).code(), 0);
    fs::write(&file, "[limits]\nconections = 5\n").unwrap();
    assert_eq!(machine.run(&["config", "show"]).code(), 2);
}
