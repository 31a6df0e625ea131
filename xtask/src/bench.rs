//! How fast is it? The benchmark is the binary `bench` of the test package; this starts it.

use std::path::Path;

use crate::run::{Outcome, cargo, spell};

/// `cargo xtask bench`: standard output is the benchmark's JSON lines and nothing else.
pub fn bench(root: &Path, args: &[String]) -> Outcome {
    let mut command = cargo(root);
    command.args(["run", "--release", "--locked", "--quiet", "-p", "endpoint-tests"]);
    command.args(["--bin", "bench", "--"]).args(args);
    eprintln!("==> {}", spell(&command));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the benchmark ended with {status}")),
        Err(error) => Err(format!("cannot start cargo: {error}")),
    }
}
