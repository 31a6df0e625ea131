//! OCSP through the real program, seen by `openssl s_client -status`.

use std::process::{Command, Stdio};

use endpoint_tests::machine::{Running, Server};

use crate::{
    machine,
    responder::{Authority, GOOD},
    serve,
};

const NAME: &str = "stapled.example";

/// What OpenSSL says of a handshake.
fn s_client(server: &Server, root: &str) -> String {
    let address = server.address();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-servername", NAME, "-status"]);
    command.args(["-alpn", "http/1.1", "-CAfile", root, "-verify_return_error"]);
    command.stdin(Stdio::null());
    Running::start(command).end().out
}

#[test]
fn openssl_finds_the_answer_and_believes_it() {
    let authority = Authority::start(GOOD);
    let machine = machine("");
    let (cert, key) = authority.issue(NAME, true, &machine.state());
    let config = format!(
        "listen = [\"127.0.0.1:0\"]\nloopback_http = \"127.0.0.1:0\"\n[[site]]\nnames = [\"{NAME}\"]\n\
         certificate = {{ cert = \"{}\", key = \"{}\" }}\n",
        cert.display(),
        key.display()
    );
    std::fs::write(machine.file("endpoint.toml"), config).unwrap();
    let server = serve(&machine);
    let root = authority.root();
    let ends = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let said = loop {
        let said = s_client(&server, root.to_str().unwrap());
        if !said.contains("OCSP response: no response sent") {
            break said;
        }
        assert!(std::time::Instant::now() < ends, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    for part in ["OCSP Response Status: successful", "Cert Status: good", "Verify return code: 0"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
