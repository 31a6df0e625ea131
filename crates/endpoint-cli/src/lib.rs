//! The `endpoint` program.
//!
//! `args` says what the user asked for, `commands` does it, `output` speaks. Everything that can
//! go wrong is a [`error::CliError`] with one of six exit codes.
//!
//! Always true: the program names neither quinn nor rustls, and no command prints a private key.

#[cfg(feature = "acme")]
mod acme;
#[cfg(not(feature = "acme"))]
#[path = "acme_off.rs"]
mod acme;
pub mod args;
pub mod commands;
pub mod config;
pub mod control;
mod dumps;
pub mod error;
#[cfg(feature = "sqlite")]
mod kept;
#[cfg(not(feature = "sqlite"))]
#[path = "kept_off.rs"]
mod kept;
mod log;
pub mod output;
#[cfg(feature = "qlog")]
mod qlog;
#[cfg(not(feature = "qlog"))]
#[path = "qlog_off.rs"]
mod qlog;
mod spool;
pub mod state;
pub mod usage;
#[cfg(feature = "http3")]
mod web;
#[cfg(not(feature = "http3"))]
#[path = "web_off.rs"]
mod web;

use std::{ffi::OsString, sync::Mutex, time::Duration};

use clap::{Parser, error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand};

use crate::{
    args::{Args, Command},
    commands::{Context, Given},
    error::{CliError, Result},
    output::Output,
    state::State,
};

/// Runs the program with `arguments`, the program's own name first; gives its exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(refusal) => {
            let output = Output::new(usage::wants_json(&arguments));
            return match usage::error(&refusal) {
                Some(fault) => {
                    if refusal.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
                        output.say(&refusal.render().ansi().to_string());
                    }
                    end(output, Err(fault))
                }
                None => end(output, output.text(&refusal.render().ansi().to_string())),
            };
        }
    };
    dumps::forbid();
    let output = Output::new(args.global.json);
    let serving = matches!(args.command, Command::Serve(_));
    if serving {
        let format = args.global.log_format;
        if let Err(fault) = spool::start([output::lost_objects, log::lost_lines(format)]) {
            return end(output, Err(fault));
        }
    }
    log::start(serving, args.global.verbose, args.global.log_format);
    let code = end(output, start(args, output));
    spool::flush();
    code
}

/// How long the end waits for what serves to be dropped: a thread that a disk keeps may hold up the process
/// for longer, and sockets would stay open, and their ports taken, until the system is rid of it.
const CLOSING: Duration = Duration::from_millis(500);

fn start(args: Args, output: Output) -> Result<()> {
    let state = State::resolve(args.global.state.as_deref())?;
    let given = match args.command {
        Command::Serve(_) => Given::take()?,
        _ => Given::default(),
    };
    let closing = if matches!(args.command, Command::Serve(_)) { CLOSING } else { Duration::ZERO };
    let context = Context { output, state, config: args.global.config, given: Mutex::new(given) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failure("runtime", format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(commands::run(args.command, &context));
    // A thread that waits for stdin must not keep the program.
    runtime.shutdown_timeout(closing);
    result
}

fn end(output: Output, result: Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) if error.message.is_empty() => error.exit.code(),
        Err(mut error) => {
            if error.hints.is_empty() {
                error = error.hint("see what the command takes: endpoint help COMMAND");
            }
            output.error(&error);
            error.exit.code()
        }
    }
}
