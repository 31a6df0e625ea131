//! Does a parser of hostile bytes hold? Coverage-guided runs of the targets in `fuzz/`.
//!
//! With `cargo-fuzz` installed this is `cargo +nightly fuzz run`. Without it the target is built
//! with the same instrumentation by hand (a nightly toolchain and a C++ compiler are needed in
//! both cases). The same entry points run as plain tests in `cargo xtask test`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::run::{Outcome, spell};

/// What cargo-fuzz tells rustc, without a sanitizer: the workspace forbids unsafe code.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions";

/// `cargo xtask fuzz`.
pub fn fuzz(root: &Path, target: &str, seconds: u64) -> Outcome {
    let folder = root.join("fuzz");
    let known = targets(&folder)?;
    if !known.iter().any(|name| name == target) {
        return Err(format!("no fuzz target `{target}`; there are: {}", known.join(", ")));
    }
    let corpus = folder.join("corpus").join(target);
    let time = format!("-max_total_time={seconds}");
    if installed() {
        let mut command = Command::new("cargo");
        command.current_dir(root).args(["+nightly", "fuzz", "run", target]);
        command.arg(&corpus).args(["--", &time]);
        return finish(&mut command);
    }
    println!("cargo-fuzz is not installed; building `{target}` with its instrumentation");
    let triple = host_triple()?;
    let mut build = Command::new("cargo");
    build.current_dir(&folder).args(["+nightly", "build", "--release", "--locked"]);
    build.args(["--bin", target, "--target", &triple]).env("RUSTFLAGS", INSTRUMENTATION);
    finish(&mut build)?;
    let artifacts = folder.join("artifacts").join(target);
    std::fs::create_dir_all(&artifacts)
        .map_err(|error| format!("cannot create {}: {error}", artifacts.display()))?;
    // New inputs go to a folder of their own: the checked-in corpus stays small and readable.
    let found = folder.join("target").join("found").join(target);
    std::fs::create_dir_all(&found)
        .map_err(|error| format!("cannot create {}: {error}", found.display()))?;
    let mut run = Command::new(folder.join("target").join(&triple).join("release").join(target));
    run.current_dir(&folder).arg(found).arg(corpus).arg(time);
    run.arg(format!("-artifact_prefix={}/", artifacts.display()));
    finish(&mut run)
}

fn targets(folder: &Path) -> Result<Vec<String>, String> {
    let folder = folder.join("fuzz_targets");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn installed() -> bool {
    let mut command = Command::new("cargo");
    command.args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn host_triple() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| format!("cannot start rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let triple = text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    triple.ok_or_else(|| "`rustc -vV` names no host".to_owned())
}

fn finish(command: &mut Command) -> Outcome {
    // A cargo that rustup started pins the toolchain for its children; `+nightly` must win.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    println!("==> {}", spell(command));
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{}` ended with {status}", spell(command))),
        Err(error) => Err(format!("cannot start {}: {error}", spell(command))),
    }
}
