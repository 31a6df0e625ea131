//! Does every set of features build, pass and document itself?
//!
//! Clippy sees every distinct set. Tests and docs run for none, each alone and all, which is where
//! code that is only right together with another feature shows.

use std::{path::Path, process::Command};

use crate::{
    features::{Features, Set, spell},
    run::{Outcome, Steps, Tally, cargo},
    tree,
};

/// The packages whose features users choose; they share their features' names.
const PACKAGES: &[(&str, &str)] =
    &[("endpoint-core", "crates/endpoint-core"), ("endpoint-cli", "crates/endpoint-cli")];

/// `cargo xtask matrix`.
pub fn matrix(root: &Path, quick: bool) -> Outcome {
    let mut all = Vec::new();
    for (package, folder) in PACKAGES {
        let features = Features::of_manifest(&root.join(folder).join("Cargo.toml"))?;
        all.push((*package, features));
    }
    // The program has every feature of the library and may have more, so its sets are the sets.
    let (_, widest) = all.iter().max_by_key(|(_, f)| f.names().count()).ok_or("no packages")?;
    let sets = widest.distinct_sets();
    let main = if quick { Vec::new() } else { widest.main_sets() };
    println!(
        "{} distinct feature sets: {}",
        sets.len(),
        sets.iter().map(spell).collect::<Vec<_>>().join(", ")
    );

    let mut steps = Steps::new("matrix");
    let mut tally = Tally::default();
    steps.step("dependency tree", "cargo tree for what must be absent or single", || {
        let findings = tree::check(root).unwrap_or_else(|error| vec![error]);
        for finding in &findings {
            println!("    {finding}");
        }
        findings.is_empty()
    });
    for set in &sets {
        let mut command = with(root, "clippy", set, &all);
        command.args(["--all-targets", "--", "-D", "warnings"]);
        steps.run(&format!("clippy {}", spell(set)), &mut command);
    }
    for set in &main {
        let mut command = with(root, "test", set, &all);
        command.arg("--no-fail-fast");
        steps.watch(&format!("tests {}", spell(set)), &mut command, |line| tally.read(line));
    }
    for set in &main {
        let mut command = with(root, "doc", set, &all);
        command.arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
        steps.run(&format!("docs {}", spell(set)), &mut command);
    }
    if !quick {
        println!("\n{tally}");
    }
    steps.finish()
}

/// `cargo VERB` for the packages with `set`, each given only the features that it has.
fn with(root: &Path, verb: &str, set: &Set, packages: &[(&str, Features)]) -> Command {
    let mut command = cargo(root);
    command.args([verb, "--locked", "--no-default-features"]);
    let mut chosen = Vec::new();
    for (package, features) in packages {
        command.args(["-p", package]);
        let own = features.names().filter(|name| set.contains(*name));
        chosen.extend(own.map(|name| format!("{package}/{name}")));
    }
    if !chosen.is_empty() {
        command.args(["--features", &chosen.join(",")]);
    }
    command
}
