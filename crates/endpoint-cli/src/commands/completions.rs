//! How does a shell complete `endpoint`?

use clap::CommandFactory;
use clap_complete::Shell;

use super::Context;
use crate::{args::Args, error::Result};

pub(super) fn run(shell: Shell, context: &Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "endpoint", &mut script);
    context.output.text(&String::from_utf8_lossy(&script))
}
