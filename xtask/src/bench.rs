//! How fast is it? The benchmark is the binary `bench` of the test package; this starts it.

use std::{path::Path, process::Command};

use crate::run::{Outcome, cargo, spell};

/// `cargo xtask bench`: standard output is the benchmark's JSON lines and nothing else.
pub fn bench(root: &Path, args: &[String]) -> Outcome {
    // The program is one of the servers that the benchmark starts.
    let package = ["--release", "--locked", "--quiet", "-p", "endpoint-tests"];
    let mut build = cargo(root);
    build.arg("build").args(package).args(["--bin", "endpoint-under-test"]);
    ended(build)?;
    let mut bench = cargo(root);
    bench.arg("run").args(package).args(["--bin", "bench", "--"]);
    bench.args(args.iter().filter(|arg| *arg != "--"));
    ended(bench)
}

fn ended(mut command: Command) -> Outcome {
    eprintln!("==> {}", spell(&command));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the benchmark ended with {status}")),
        Err(error) => Err(format!("cannot start cargo: {error}")),
    }
}
