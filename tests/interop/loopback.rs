//! A program that knows nothing of us reaches a site by plain HTTP on loopback: Debian's `gh`.

use std::{fs, process::Command};

use endpoint_tests::machine::{Running, Said};

use crate::{machine, upstreams::Upstream};

/// `gh` as it talks to `api.NAME`, with a home of its own.
fn gh(mut command: Command, name: &str, home: &std::path::Path, words: &[&str]) -> Said {
    for variable in ["GITHUB_TOKEN", "GH_CONFIG_DIR", "XDG_CONFIG_HOME", "http_proxy", "HTTP_PROXY"]
    {
        command.env_remove(variable);
    }
    command.args(words).env("GH_HOST", name).env("GH_TOKEN", "secret").env("HOME", home);
    command.env("GH_NO_UPDATE_NOTIFIER", "1");
    Running::start(command).end()
}

#[test]
fn gh_reaches_a_site_by_its_name_under_run() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let home = machine.state().parent().unwrap().join("home");
    fs::create_dir(&home).unwrap();
    let file = machine.state().parent().unwrap().join("site.toml");
    let config = format!(
        "loopback_http = \"127.0.0.1:0\"\n[[site]]\nnames = [\"localhost\"]\n\
         [[site]]\nnames = [\"api.github.localhost\"]\nproxy = \"{}\"\n",
        upstream.url()
    );
    fs::write(&file, config).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    let run = || machine.command(&["run", "--", "gh"]);
    let got = gh(run(), "github.localhost", &home, &["api", "/"]);
    assert_eq!((got.code(), got.out.as_str()), (0, "GET /"), "{got:?}");
    // The upstream sees what gh sent, under the name that it asked for, and no peer.
    let got = gh(run(), "github.localhost", &home, &["api", "fields"]);
    let fields = got.out.to_ascii_lowercase();
    for field in
        ["host: api.github.localhost", "authorization: token secret", "x-forwarded-proto: http\n"]
    {
        assert!(fields.contains(field), "{field}: {got:?}");
    }
    assert!(!fields.contains("endpoint-peer") && !fields.contains("proxy-connection"), "{got:?}");
    let got = gh(run(), "github.localhost", &home, &["api", "-X", "POST", "echo", "-f", "k=v"]);
    assert_eq!((got.code(), got.out.as_str()), (0, "{\"k\":\"v\"}"), "{got:?}");
    // A name that is no site of ours is refused with a sentence, and gh's exit code is passed on.
    let elsewhere = ["api", "http://api.elsewhere.localhost/"];
    let got = gh(run(), "github.localhost", &home, &elsewhere);
    assert_eq!(got.code(), 1, "{got:?}");
    assert!(got.err.contains("421") && got.out.contains("not served"), "{got:?}");
    // It is the listener that leads there: without it the name leads nowhere.
    let alone = gh(Command::new("gh"), "github.localhost", &home, &["api", "/"]);
    assert_ne!(alone.code(), 0, "{alone:?}");
    drop(server);
    println!("acceptance: gh reaches api.github.localhost under `endpoint run`, GET and POST");
}
