//! Which tests run, and how often does each try?
//!
//! `test` is the run for every change: reduced counts. `long` repeats the acceptance tests with
//! `ENDPOINT_TEST_LONG=1`, which the tests read as "full counts", in the release profile. A test
//! that counts something the project promises prints it after the word `acceptance:`; `long`
//! gathers these lines. The soak runs once more at the end, for 30 minutes, with nothing beside it.

use std::{path::Path, process::Command};

use crate::{
    parts,
    run::{Outcome, Steps, Tally, cargo},
};

/// Test binaries whose names begin with one of these need a program of [`parts::PARTS`].
const NEEDS_PARTS: [&str; 2] = ["acme", "interop"];
/// Unit tests in modules of this name start the real Pebble; otherwise they are ignored.
const NEEDS_PEBBLE: &str = "pebble_tests";
/// The test binary that shows what the program holds on to over time, and for how long it does.
const SOAK: &str = "soak";
const SOAK_SECONDS: &str = "1800";
/// The package of the tests against real parts.
const TESTS: &str = "endpoint-tests";
/// The package of the library.
const CORE: &str = "endpoint-core";

/// `cargo xtask test`.
pub fn test(root: &Path, hermetic: bool) -> Outcome {
    let mut steps = Steps::new("test");
    let mut tally = Tally::default();
    if hermetic {
        hermetic_run(root, &mut steps, &mut tally)?;
    } else {
        println!("Real parts that the tests start:");
        parts::provide()?;
        let mut command = cargo(root);
        command.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
        steps.watch("workspace tests", &mut command, |line| tally.read(line));
        // The same build, so that it costs their time alone.
        let mut command = cargo(root);
        command.args(["test", "--workspace", "--locked", "--no-fail-fast", "--lib"]);
        command.args(["--", "--ignored", NEEDS_PEBBLE]);
        steps.watch("engines against pebble", &mut command, |line| tally.read(line));
    }
    println!("\n{tally}");
    steps.finish()
}

fn hermetic_run(root: &Path, steps: &mut Steps, tally: &mut Tally) -> Outcome {
    let (left_out, kept): (Vec<String>, Vec<String>) = test_binaries(root)?
        .into_iter()
        .partition(|name| NEEDS_PARTS.iter().any(|part| name.starts_with(part)));
    let names = if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") };
    println!("Hermetic: nothing is installed; left out because they need real parts: {names}");
    let hermetic = |mut command: Command| {
        command.env("ENDPOINT_TEST_HERMETIC", "1");
        command
    };
    let mut others = hermetic(cargo(root));
    others.args(["test", "--workspace", "--locked", "--no-fail-fast", "--exclude", TESTS]);
    steps.watch("workspace tests", &mut others, |line| tally.read(line));
    let mut tests = hermetic(cargo(root));
    tests.args(["test", "--locked", "--no-fail-fast", "-p", TESTS, "--lib"]);
    for name in &kept {
        tests.args(["--test", name]);
    }
    steps.watch("endpoint tests", &mut tests, |line| tally.read(line));
    Ok(())
}

/// `cargo xtask long`.
pub fn long(root: &Path) -> Outcome {
    println!("Real parts that the tests start:");
    parts::provide()?;
    let mut steps = Steps::new("long");
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    // Beside the test package, what only the inside of the library can count: spellings, ids, cells of
    // damage, the table of sources. Features of the default build alone would leave some of it out.
    let inside: &[&str] = &["-p", CORE, "--lib", "--all-features", "--", "--nocapture"];
    let outside: &[&str] = &["--no-fail-fast", "-p", TESTS, "--", "--nocapture"];
    // Last and alone: what else runs would show in its figures.
    let soak: &[&str] = &["-p", TESTS, "--test", SOAK, "--", "--nocapture"];
    let full = ("ENDPOINT_TEST_LONG", "1");
    for (name, words, env) in [
        ("acceptance tests inside the library, full counts", inside, full),
        ("acceptance tests, full counts", outside, full),
        ("soak, 30 minutes", soak, ("ENDPOINT_SOAK_SECONDS", SOAK_SECONDS)),
    ] {
        let mut command = cargo(root);
        command.args(["test", "--release", "--locked"]).args(words).env(env.0, env.1);
        steps.watch(name, &mut command, |line| {
            tally.read(line);
            if let Some((_, said)) = line.split_once("acceptance:") {
                lines.push(said.trim().to_owned());
            }
        });
    }
    println!("\nacceptance counts");
    for line in &lines {
        println!("  {line}");
    }
    println!("{tally}");
    steps.finish()
}

/// Names of the integration test binaries of the test package, from its manifest and folder.
fn test_binaries(root: &Path) -> Result<Vec<String>, String> {
    let mut command = cargo(root);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let output = command.output().map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata is not JSON: {error}"))?;
    Ok(binaries_in(&metadata))
}

fn binaries_in(metadata: &serde_json::Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let targets = packages
        .iter()
        .filter(|package| package["name"] == TESTS)
        .flat_map(|package| package["targets"].as_array().map(Vec::as_slice).unwrap_or_default());
    let is_test = |target: &&serde_json::Value| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    };
    let mut names: Vec<String> = targets
        .filter(is_test)
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_test_binaries_of_the_test_package_alone() {
        let metadata = serde_json::json!({"packages": [
            {"name": "endpoint-core", "targets": [{"name": "x", "kind": ["test"]}]},
            {"name": TESTS, "targets": [
                {"name": "harness", "kind": ["lib"]},
                {"name": "peers", "kind": ["test"]},
                {"name": "interop_gnutls", "kind": ["test"]},
            ]},
        ]});
        assert_eq!(binaries_in(&metadata), ["interop_gnutls", "peers"]);
    }
}
