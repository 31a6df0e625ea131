//! Under a service manager: sockets that were bound before, and what the manager is told.
//!
//! The manager's side is done as its manual says (sd_listen_fds(3), sd_notify(3)), by Python, which passes
//! sockets on as descriptors 3, 4 and 5.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::Command,
    time::Duration,
};

use endpoint_tests::machine::{Machine, Running};
use rustix::process::Signal;
use serde_json::Value;

use crate::machine;

/// Binds UDP and TCP of one free port and TCP of another, passes them on and becomes the program.
const GIVE: &str = r#"
import os, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 0))
tcp = socket.create_server(udp.getsockname())
plain = socket.create_server(("127.0.0.1", 0))
given = [os.dup(s.fileno()) for s in (plain, udp, tcp)]
print(plain.getsockname()[1], flush=True)
high = [os.dup2(fd, 20 + i, inheritable=False) for i, fd in enumerate(given)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3")
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// The program, started by such a script.
fn given(machine: &Machine, script: &str, words: &[&str]) -> Command {
    let command = machine.command(words);
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    python
}

#[test]
fn listens_on_the_sockets_that_it_was_given() {
    let (server, client) = (machine(), machine());
    let mut running = Running::start(given(&server, GIVE, &["serve", "--json"]));
    let plain = running.line().expect("the plain port");
    let ready: Value = serde_json::from_str(&running.line().expect("ready")).expect("JSON");
    let listen = ready["listen"].as_array().expect("a list");
    assert_eq!(listen.len(), 1, "{ready}");
    let peer = ready["peer"].as_str().expect("a peer");
    server.json(&["trust", "add", &client.fingerprint()]);
    for carrier in [&[][..], &["--tcp"]] {
        let said = client.run(&[&["ping", peer, "-c", "1"], carrier].concat());
        assert_eq!(said.code(), 0, "{said:?}");
    }
    let mut stream = TcpStream::connect(format!("127.0.0.1:{plain}")).expect("the plain port");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let port = listen[0].as_str().and_then(|address| address.rsplit_once(':')).expect("a port").1;
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    assert!(answer.contains(&format!("location: https://localhost:{port}/x\r\n")), "{answer}");
    println!("acceptance: socket activation: QUIC, TLS and plain HTTP on sockets that were given");
}

#[test]
fn a_descriptor_that_is_no_socket_is_told() {
    let server = machine();
    let mut command = server.command(&["serve"]);
    command.env("LISTEN_FDS", "1").env_remove("LISTEN_PID").env("LISTEN_FDS_FIRST_FD", "2");
    let said = Running::start(command).end();
    assert_eq!(said.code(), 2, "{said:?}");
    assert!(said.err.contains("descriptor"), "{said:?}");
}

/// Passes one socket of a kind on, bound and no more.
const GIVE_ONE: &str = r#"
import os, socket, sys
given = socket.socket(socket.AF_INET, socket.KIND); given.bind(("127.0.0.1", 0))
os.dup2(os.dup2(given.fileno(), 20), 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn given_one(machine: &Machine, kind: &str) -> Running {
    Running::start(given(machine, &GIVE_ONE.replace("KIND", kind), &["serve"]))
}

#[test]
fn a_udp_socket_alone_is_told_as_such() {
    let server = machine();
    let running = given_one(&server, "SOCK_DGRAM");
    let began = std::time::Instant::now();
    while server.run(&["status"]).code() != 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{running:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    running.signal(Signal::TERM);
    let said = running.end();
    assert_eq!(said.code(), 0, "{said:?}");
    let line = said.err.lines().find(|line| line.starts_with("listening ")).expect("a line");
    assert!(line.ends_with(" (UDP)"), "{line}");
    assert!(!said.err.contains("https://"), "{said:?}");
}

#[test]
fn a_tcp_socket_that_does_not_listen_is_told() {
    let said = given_one(&machine(), "SOCK_STREAM").end();
    assert_eq!(said.code(), 2, "{said:?}");
    assert!(said.err.contains("descriptor 3 ") && said.err.contains("not listen"), "{said:?}");
}

#[test]
fn sockets_that_cannot_be_counted_are_told() {
    let machine = machine();
    let serve = machine.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=two exec \"$0\" \"$@\""]);
    shell.arg(serve.get_program()).args(serve.get_args());
    let said = Running::start(shell).end();
    assert_eq!(said.code(), 2, "{said:?}");
    assert!(said.err.contains("LISTEN_FDS is `two`"), "{said:?}");
}

#[test]
fn tells_the_manager_when_it_is_ready_reloads_lives_and_stops() {
    let server = machine();
    let path = server.file("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut command = server.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID");
    let running = Running::start(command);
    let mut told = String::new();
    let mut until = |text: &str| {
        while !told.contains(text) {
            let mut buffer = [0; 4096];
            let count = manager.recv(&mut buffer).expect("a message");
            told.push_str(&String::from_utf8_lossy(&buffer[..count]));
            told.push('\n');
        }
        told.clear();
    };
    until("READY=1");
    until("WATCHDOG=1");
    running.signal(Signal::HUP);
    until("RELOADING=1\nMONOTONIC_USEC=");
    until("READY=1");
    running.signal(Signal::TERM);
    until("STOPPING=1");
    assert_eq!(running.end().code(), 0);
}
