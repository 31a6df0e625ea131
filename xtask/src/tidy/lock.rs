//! Is every crate in Cargo.lock new enough, allowed, and there once?

use semver::Version;

use super::Finding;

/// Oldest versions without a known hole that concerns this project.
const MINIMUM: &[(&str, &str)] = &[
    ("quinn-proto", "0.11.15"),
    ("rustls", "0.23.18"),
    ("rustls-webpki", "0.103.13"),
    ("aws-lc-sys", "0.39.0"),
    ("bytes", "1.11.1"),
    ("ring", "0.17.12"),
    ("time", "0.3.47"),
    ("tracing-subscriber", "0.3.20"),
    ("h2", "0.4.16"),
    ("ed25519-dalek", "3.0.0"),
];

/// Crates that may not even stand in the lock file, and why.
const BANNED: &[(&str, &str)] = &[
    ("rustls-pemfile", "unmaintained, RUSTSEC-2025-0134; rustls-pki-types reads PEM"),
    ("openssl-sys", "a second TLS stack"),
    ("native-tls", "a second TLS stack"),
    ("iroh", "no dependency by decision, see adr/0011"),
];

/// Crates whose types cross crate boundaries: two versions do not fit together.
const ONCE: &[&str] = &["rustls", "quinn-proto", "quinn", "aws-lc-rs", "tokio", "bytes"];

const FILE: &str = "Cargo.lock";

/// A package of the lock file.
pub struct Locked {
    pub name: String,
    pub version: Version,
    pub source: Option<String>,
}

/// Reads the packages of a lock file.
pub fn packages(lock: &str) -> Result<Vec<Locked>, String> {
    let table: toml::Table = lock.parse().map_err(|error| format!("{FILE}: {error}"))?;
    let packages = table.get("package").and_then(toml::Value::as_array);
    let packages = packages.map(Vec::as_slice).unwrap_or_default();
    packages
        .iter()
        .map(|package| {
            let text = |key: &str| package.get(key).and_then(toml::Value::as_str);
            let name = text("name").ok_or("a package without a name")?.to_owned();
            let version = text("version").ok_or("a package without a version")?;
            let version = Version::parse(version).map_err(|error| format!("{name}: {error}"))?;
            Ok(Locked { name, version, source: text("source").map(str::to_owned) })
        })
        .collect::<Result<_, String>>()
}

/// Checks the lock file's text.
pub fn check(lock: &str) -> Vec<Finding> {
    let packages = match packages(lock) {
        Ok(packages) => packages,
        Err(error) => return vec![Finding::error(FILE, 0, error)],
    };
    let mut findings = Vec::new();
    let mut say = |text: String| findings.push(Finding::error(FILE, 0, text));
    for Locked { name, version, source } in &packages {
        let minimum = MINIMUM.iter().find(|(known, _)| known == name);
        if let Some((_, least)) = minimum
            && Version::parse(least).is_ok_and(|least| *version < least)
        {
            say(format!(
                "{name} {version} has known holes; at least {least}: `cargo update -p {name}`"
            ));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| banned == name) {
            say(format!("{name} is banned: {why}"));
        }
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        if source.as_deref().is_some_and(|source| source != registry) {
            say(format!("{name} {version} does not come from crates.io"));
        }
    }
    for name in ONCE {
        let count = packages.iter().filter(|package| package.name == *name).count();
        if count > 1 {
            say(format!("{count} versions of {name}: `cargo tree -i {name}` says who asks"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(packages: &[(&str, &str)]) -> Vec<String> {
        let lock: String = packages
            .iter()
            .map(|(name, version)| {
                format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n")
            })
            .collect();
        check(&lock).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn refuses_a_version_with_known_holes() {
        assert_eq!(found(&[("quinn-proto", "0.11.14")]).len(), 1);
        assert_eq!(found(&[("quinn-proto", "0.11.15")]).len(), 0);
        assert_eq!(found(&[("ed25519-dalek", "2.2.0")]).len(), 1);
    }

    #[test]
    fn refuses_banned_crates_and_second_copies() {
        assert_eq!(found(&[("rustls-pemfile", "2.0.0")]).len(), 1);
        assert_eq!(found(&[("rustls", "0.23.46"), ("rustls", "0.24.0")]).len(), 1);
    }

    #[test]
    fn refuses_a_crate_from_elsewhere() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"git+https://x\"\n";
        assert_eq!(check(lock).len(), 1);
    }

    #[test]
    fn a_lock_file_that_cannot_be_read_is_an_error() {
        assert_eq!(check("[[package").len(), 1);
    }
}
