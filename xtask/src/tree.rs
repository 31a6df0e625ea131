//! Is what must be absent absent? Proofs about the dependency tree, as data.
//!
//! `cargo tree` for the Linux target says what a build holds; Cargo.lock cannot, because it lists
//! what any target might need.

use std::path::Path;

use crate::run::cargo;

/// The target that is shipped and that the proofs are about.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What one build must not hold.
pub struct Absent {
    pub package: &'static str,
    /// Features of the build, comma-separated; the package's defaults are off.
    pub features: &'static str,
    pub crates: &'static [&'static str],
}

/// Crates that a build of `package` with `features` must not hold.
pub const ABSENT: &[Absent] = &[
    Absent { package: "endpoint-core", features: "", crates: &["tokio-rustls"] },
    Absent { package: "endpoint-cli", features: "", crates: &["tokio-rustls"] },
    Absent { package: "endpoint-core", features: "tcp", crates: HTTP_ACME_STORE },
    Absent { package: "endpoint-cli", features: "tcp", crates: HTTP_ACME_STORE },
    Absent {
        package: "endpoint-core",
        features: "http3",
        crates: &["qlog", "rustls-acme", "instant-acme", "sqlx", "libsqlite3-sys", "axum"],
    },
    Absent {
        package: "endpoint-cli",
        features: "http3",
        crates: &["qlog", "rustls-acme", "instant-acme", "sqlx", "libsqlite3-sys"],
    },
    Absent { package: "endpoint-core", features: "acme", crates: STORE_AND_WEB },
    Absent { package: "endpoint-cli", features: "acme", crates: STORE_AND_WEB },
    Absent { package: "endpoint-core", features: "sqlite", crates: HTTP_AND_ACME },
    Absent { package: "endpoint-cli", features: "sqlite", crates: HTTP_AND_ACME },
];

/// ACME brings neither the store on a disk nor a web server.
const STORE_AND_WEB: &[&str] =
    &["sqlx", "libsqlite3-sys", "chacha20poly1305", "h3", "h3-quinn", "axum", "tower-http", "qlog"];

/// The store on a disk brings neither HTTP nor ACME.
const HTTP_AND_ACME: &[&str] =
    &["rustls-acme", "instant-acme", "hyper", "h2", "h3", "axum", "tower-http", "qlog"];

/// The HTTP stack, the ACME client and SQLite: each needs its own feature.
const HTTP_ACME_STORE: &[&str] = &[
    "rustls-acme",
    "instant-acme",
    "h3",
    "h3-quinn",
    "hyper",
    "h2",
    "axum",
    "tower-http",
    "prometheus-client",
    "qlog",
    "sqlx",
    "libsqlite3-sys",
];

/// Crates that no build of the workspace may hold: a second crypto provider and what RustSec lists
/// as unmaintained (RUSTSEC-2025-0134).
pub const NEVER: &[&str] = &["ring", "rustls-pemfile", "openssl-sys", "native-tls"];

/// Crates of which every build holds exactly one version: types of two versions do not fit.
pub const ONCE: &[&str] = &["rustls", "quinn-proto", "quinn", "aws-lc-rs"];

/// Checks every proof; each finding is a sentence.
pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut findings = Vec::new();
    let whole = names(&tree(root, &["--workspace", "--all-features"])?);
    for name in NEVER {
        if whole.iter().any(|(found, _)| found == name) {
            findings.push(format!("`{name}` stands in the tree; `cargo tree -i {name}` says why"));
        }
    }
    for name in ONCE {
        let versions: Vec<&str> =
            whole.iter().filter(|(found, _)| found == name).map(|(_, v)| v.as_str()).collect();
        if versions.len() != 1 {
            findings.push(format!("expected exactly one `{name}`, found {versions:?}"));
        }
    }
    for Absent { package, features, crates } in ABSENT {
        let args = ["-p", package, "--no-default-features", "--features", features];
        let held = names(&tree(root, &args)?);
        if held.is_empty() {
            findings.push(format!("the tree of {package} is empty: the proof proves nothing"));
        }
        for name in *crates {
            if held.iter().any(|(found, _)| found == name) {
                let with = if features.is_empty() { "no features" } else { features };
                findings.push(format!("{package} with {with} holds `{name}`"));
            }
        }
    }
    Ok(findings)
}

fn tree(root: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = cargo(root);
    command.args(["tree", "--locked", "--prefix", "none", "--target", TARGET]);
    command.args(["--edges", "normal,build", "--format", "{p}"]).args(args);
    let output = command.output().map_err(|error| format!("cannot run cargo tree: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Name and version of every crate in the output, each pair once.
fn names(tree: &str) -> Vec<(String, String)> {
    let mut names: Vec<(String, String)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_crate_once_from_a_tree() {
        let tree = "a v1.0.0 (/x)\nb v2.0.0\nb v2.0.0 (*)\nb v3.0.0\n\n";
        let pairs = names(tree);
        assert_eq!(pairs.len(), 3);
        assert_eq!(pairs[1], ("b".to_owned(), "v2.0.0".to_owned()));
    }
}
