//! How is this workspace built, tested and measured? `cargo xtask --help` lists the commands.
//!
//! Each command is one module. Everything runs real `cargo` commands and prints them first, so that
//! any of them can be repeated by hand.

mod bench;
mod features;
mod fuzz;
mod matrix;
mod parts;
mod run;
mod suite;
mod tidy;
mod tree;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test and measure the endpoint", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test of the workspace, installing missing real parts from Debian first.
    Test {
        /// Install nothing and leave out the test binaries that need installed parts (`acme*`, `interop*`).
        #[arg(long)]
        hermetic: bool,
    },
    /// Run the acceptance tests with their full counts, in the release profile.
    Long,
    /// Check every distinct set of public features: clippy for all, tests and docs for none, each
    /// alone and all; prove what must be absent from the dependency tree.
    Matrix {
        /// Clippy and the dependency proofs only.
        #[arg(long)]
        quick: bool,
    },
    /// Check the rules that no compiler checks: imports, file sizes, tasks, ADRs, links, versions.
    Tidy {
        /// A checkout of the RustSec advisory database to compare Cargo.lock with.
        #[arg(long, env = "ADVISORY_DB", value_name = "DIR")]
        advisory_db: Option<PathBuf>,
    },
    /// Build the benchmark in release and print its JSON lines.
    Bench {
        /// Passed on to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Fuzz one target with coverage guidance (needs a nightly toolchain and a C++ compiler).
    Fuzz {
        /// One of the files in `fuzz/fuzz_targets/`, without `.rs`.
        target: String,
        /// How long to run.
        #[arg(long, default_value_t = 60, value_name = "N")]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    let root = run::workspace_root();
    let outcome = match Cli::parse().command {
        Command::Test { hermetic } => suite::test(&root, hermetic),
        Command::Long => suite::long(&root),
        Command::Matrix { quick } => matrix::matrix(&root, quick),
        Command::Tidy { advisory_db } => tidy::tidy(&root, advisory_db),
        Command::Bench { args } => bench::bench(&root, &args),
        Command::Fuzz { target, seconds } => fuzz::fuzz(&root, &target, seconds),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
