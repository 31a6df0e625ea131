//! Does RustSec know a hole in a crate of Cargo.lock?
//!
//! Works on a snapshot of the advisory database in a folder, without a network. An advisory that
//! does not concern us stands with its reason in `deny.toml`, where cargo-deny reads it too.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use semver::{Version, VersionReq};

use super::{
    Finding,
    lock::{Locked, packages},
};

/// Where a snapshot is looked for when none is named.
pub fn find(root: &Path) -> Option<PathBuf> {
    let places = ["../advisory-db", "../shared/advisory-db"];
    places.iter().map(|place| root.join(place)).find(|place| place.join("crates").is_dir())
}

/// Compares every crate of `lock` with the snapshot; gives how many have advisories at all, and
/// what concerns us.
pub fn check(folder: &Path, lock: &str, deny: &str) -> Result<(usize, Vec<Finding>), String> {
    let crates = folder.join("crates");
    if !crates.is_dir() {
        return Err(format!("{} is no RustSec snapshot: it has no `crates`", folder.display()));
    }
    let ignored = ignored(deny)?;
    let mut findings = Vec::new();
    let mut compared = 0;
    for package in packages(lock)? {
        if package.source.is_none() {
            continue;
        }
        compared += 1;
        let Ok(entries) = std::fs::read_dir(crates.join(&package.name)) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "md") {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                let advisory = Advisory::parse(&text)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                findings.extend(advisory.judge(&package, &ignored));
            }
        }
    }
    Ok((compared, findings))
}

/// The ids in `[advisories] ignore` of deny.toml.
fn ignored(deny: &str) -> Result<BTreeSet<String>, String> {
    let table: toml::Table = deny.parse().map_err(|error| format!("deny.toml: {error}"))?;
    let list = table.get("advisories").and_then(|section| section.get("ignore"));
    let list = list.and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let id = |entry: &toml::Value| entry.get("id").unwrap_or(entry).as_str().map(str::to_owned);
    Ok(list.iter().filter_map(id).collect())
}

/// What an advisory says that decides whether it concerns a version.
struct Advisory {
    id: String,
    informational: Option<String>,
    withdrawn: bool,
    patched: Vec<VersionReq>,
    unaffected: Vec<VersionReq>,
    elsewhere: bool,
}

impl Advisory {
    fn parse(text: &str) -> Result<Self, String> {
        let (_, rest) = text.split_once("```toml").ok_or("no TOML front matter")?;
        let (front, _) = rest.split_once("\n```").ok_or("front matter without an end")?;
        let table: toml::Table = front.parse().map_err(|error| format!("{error}"))?;
        let advisory = table.get("advisory").ok_or("no [advisory]")?;
        let text = |key: &str| advisory.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let ranges = |key: &str| -> Result<Vec<VersionReq>, String> {
            let list = table.get("versions").and_then(|versions| versions.get(key));
            let list = list.and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let texts = list.iter().filter_map(toml::Value::as_str);
            texts.map(|text| VersionReq::parse(text).map_err(|e| format!("{text}: {e}"))).collect()
        };
        let systems = table.get("affected").and_then(|affected| affected.get("os"));
        let systems =
            systems.and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Ok(Self {
            id: text("id").ok_or("no id")?,
            informational: text("informational"),
            withdrawn: advisory.get("withdrawn").is_some(),
            patched: ranges("patched")?,
            unaffected: ranges("unaffected")?,
            elsewhere: !systems.is_empty()
                && !systems.iter().any(|system| system.as_str() == Some("linux")),
        })
    }

    fn affects(&self, version: &Version) -> bool {
        let within = |ranges: &[VersionReq]| ranges.iter().any(|range| range.matches(version));
        !self.withdrawn && !within(&self.patched) && !within(&self.unaffected)
    }

    /// Unmaintained crates, notices and holes on other systems are warnings.
    fn judge(&self, package: &Locked, ignored: &BTreeSet<String>) -> Option<Finding> {
        if !self.affects(&package.version) || ignored.contains(&self.id) {
            return None;
        }
        let kind = self.informational.as_deref().unwrap_or("vulnerability");
        let text = format!("{} {}: {} ({kind})", package.name, package.version, self.id);
        let mild = self.elsewhere || matches!(kind, "unmaintained" | "notice");
        Some(if mild {
            Finding::warning("Cargo.lock", 0, text)
        } else {
            Finding::error("Cargo.lock", 0, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(advisory: &str, versions: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("crates/quinn-proto");
        std::fs::create_dir_all(&place).unwrap();
        let text = format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"quinn-proto\"\n{advisory}\n\
             [versions]\n{versions}\n```\n\n# Title\n"
        );
        std::fs::write(place.join("RUSTSEC-2026-0001.md"), text).unwrap();
        folder
    }

    fn lock(version: &str) -> String {
        format!(
            "[[package]]\nname = \"quinn-proto\"\nversion = \"{version}\"\nsource = \"registry\"\n"
        )
    }

    fn found(advisory: &str, versions: &str, version: &str, deny: &str) -> Vec<Finding> {
        let folder = snapshot(advisory, versions);
        check(folder.path(), &lock(version), deny).unwrap().1
    }

    #[test]
    fn finds_a_version_that_is_neither_patched_nor_unaffected() {
        let ranges =
            "patched = [\">= 0.11.7\", \">= 0.10.9, < 0.11.0\"]\nunaffected = [\"< 0.9.0\"]";
        for (version, count) in
            [("0.11.6", 1), ("0.11.7", 0), ("0.10.9", 0), ("0.10.8", 1), ("0.8.0", 0)]
        {
            assert_eq!(found("", ranges, version, "").len(), count, "{version}");
        }
    }

    #[test]
    fn an_advisory_without_a_patch_concerns_every_version() {
        assert_eq!(found("", "patched = []", "9.9.9", "").len(), 1);
    }

    #[test]
    fn withdrawn_and_ignored_advisories_do_not_count() {
        assert_eq!(found("withdrawn = \"2026-01-01\"", "patched = []", "1.0.0", "").len(), 0);
        let deny = "[advisories]\nignore = [{ id = \"RUSTSEC-2026-0001\", reason = \"x\" }]";
        assert_eq!(found("", "patched = []", "1.0.0", deny).len(), 0);
    }

    #[test]
    fn an_unmaintained_crate_is_a_warning_and_an_unsound_one_an_error() {
        assert!(found("informational = \"unmaintained\"", "patched = []", "1.0.0", "")[0].warning);
        assert!(!found("informational = \"unsound\"", "patched = []", "1.0.0", "")[0].warning);
    }

    #[test]
    fn a_folder_without_advisories_is_an_error_and_not_a_pass() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path(), &lock("1.0.0"), "").is_err());
    }
}
