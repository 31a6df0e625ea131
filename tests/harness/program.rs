//! The `endpoint` program, for tests that start it as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(endpoint_cli::run(std::env::args_os()))
}
