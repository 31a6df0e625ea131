//! The `endpoint` program: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(endpoint_cli::run(std::env::args_os()))
}
