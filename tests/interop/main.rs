//! Does the endpoint work with programs that are not ours?
//!
//! GnuTLS and OpenSSL over TCP, aioquic over QUIC, `ssh-keygen` and `openssl pkey` for key files,
//! Chromium and other HTTP clients over all three versions.
//! `cargo xtask test` installs what is missing.

mod aioquic;
#[cfg(feature = "http3")]
mod browser;
#[cfg(feature = "http3")]
mod chromium;
mod disks;
mod dist;
mod gnutls;
mod keys;
#[cfg(feature = "http3")]
mod loopback;
mod openssl;
mod pypi;
#[cfg(feature = "http3")]
mod service;
#[cfg(feature = "http3")]
mod status_page;
#[cfg(feature = "http3")]
mod transfers;
#[cfg(feature = "http3")]
mod tunnels;
#[cfg(feature = "http3")]
mod upstreams;
#[cfg(feature = "http3")]
mod versions;

use std::process::Command;

use endpoint_tests::machine::{Machine, Running, Said};

/// A machine that has nothing yet.
fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"))
}

/// A foreign program with a stdin that stays open until its end is asked for.
fn start(program: &str, words: &[&str]) -> Running {
    let mut command = Command::new(program);
    command.args(words).stdin(std::process::Stdio::piped());
    Running::start(command)
}

/// A foreign program, run to its end, which must be a success.
fn run(program: &str, words: &[&str]) -> Said {
    let said = start(program, words).end();
    assert_eq!(said.code(), 0, "{program} {words:?}: {said:?}");
    said
}

/// The fingerprint of a private key, as anybody can compute it: `openssl … | sha256sum`.
fn fingerprint_by_openssl(key: &str) -> String {
    let line = format!("openssl pkey -in '{key}' -pubout -outform DER | sha256sum");
    let said = run("sh", &["-c", &line]);
    format!("sha256:{}", said.out.split_whitespace().next().expect("a digest"))
}
