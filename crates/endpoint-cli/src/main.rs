//! The `endpoint` program: see the library.

use std::process::ExitCode;

/// A tenth cheaper for each request over HTTP/3 than the C library's, dearer in idle memory
/// (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(endpoint_cli::run(std::env::args_os()))
}
