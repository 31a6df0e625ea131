//! What does each command do?
//!
//! One file for each; a command reads its arguments, does its work through the library or the
//! control socket, and tells the result through `output`.

mod ask;
mod bundle;
mod cert;
mod completions;
mod config;
mod connect;
mod conns;
mod dial;
#[cfg(feature = "http3")]
mod fetch;
#[cfg(not(feature = "http3"))]
#[path = "fetch_off.rs"]
mod fetch;
mod key;
mod kick;
mod known;
mod ping;
mod probe;
mod run;
mod serve;
mod status;
mod store;
mod trust;

use std::{path::PathBuf, sync::Mutex};

use endpoint_core::identity::{Identity, KeyFileError, KeyText};

pub use self::serve::Given;

use crate::{
    args::{Command, ConfigCommand},
    error::{CliError, ExitKind, Result},
    output::Output,
    state::State,
};

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// How to speak.
    pub output: Output,
    /// Where this endpoint keeps its things.
    pub state: State,
    /// The configuration file that was named.
    pub config: Option<PathBuf>,
    /// Sockets that were given to listen on.
    pub given: Mutex<Given>,
}

/// Does what was asked.
///
/// # Errors
/// What went wrong, with the exit code.
pub async fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Serve(args) => serve::run(args, context).await,
        Command::Key(command) => key::run(command, context),
        Command::Trust(command) => trust::run(command, context).await,
        Command::Known(command) => known::run(command, context),
        Command::Ping(args) => ping::run(args, context).await,
        Command::Dial(args) => dial::run(args, context).await,
        Command::Probe(args) => probe::run(args, context).await,
        Command::Fetch(args) => fetch::run(args, context).await,
        Command::Cert(command) => cert::run(command, context).await,
        Command::Store(command) => store::run(command, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Status => status::run(context).await,
        Command::Conns => conns::run(context).await,
        Command::Kick(key) => kick::run(key, context).await,
        Command::Bundle(command) => bundle::run(command, context),
        Command::Config(ConfigCommand::Check) => config::check(context).await,
        Command::Config(ConfigCommand::Show) => config::show(context),
        Command::Completions { shell } => completions::run(shell, context),
    }
}

/// A key as people write it; an ssh line comes in several arguments.
fn key_text(words: &[String]) -> Result<KeyText> {
    KeyText::parse(&words.join(" ")).map_err(|error| {
        let fault = CliError::told("key-text", ExitKind::Usage, &error);
        if fault.hints.is_empty() {
            fault.hint("the other side prints its key: endpoint key show")
        } else {
            fault
        }
    })
}

/// This endpoint's identity, made if there is none.
fn identity(state: &State) -> Result<Identity> {
    state.make()?;
    Identity::load_or_create(state.identity()).map_err(|error| key_fault(&error, state))
}

/// A fault of the key file with its remedy.
fn key_fault(error: &KeyFileError, state: &State) -> CliError {
    let (code, exit) = match error {
        KeyFileError::AlreadyExists { .. } => ("key-exists", ExitKind::Failure),
        KeyFileError::Content { .. } => ("key-content", ExitKind::Usage),
        KeyFileError::ForeignOwner { .. } => ("key-owner", ExitKind::Usage),
        KeyFileError::Link { .. } => ("key-link", ExitKind::Usage),
        KeyFileError::LooseMode { .. } => ("key-mode", ExitKind::Usage),
        KeyFileError::NotAFile { .. } => ("key-file", ExitKind::Usage),
        _ => ("key-io", ExitKind::Failure),
    };
    let fault = CliError::told(code, exit, error);
    match error {
        KeyFileError::Content { path, .. } if fault.hints.is_empty() => {
            let word = crate::error::shell_word(path);
            let new = state.command("key new");
            fault.hint(format!(
                "put the right file there, or start anew: mv {word} {word}.bad && {new}"
            ))
        }
        _ => fault,
    }
}

/// The field of an object as people read it; `-` for what is absent.
fn word(field: Option<&serde_json::Value>) -> String {
    match field {
        None | Some(serde_json::Value::Null) => "-".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A time in milliseconds, to the microsecond.
fn milliseconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// A time in RFC 3339, UTC, to the millisecond.
fn time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Columns of text, each as wide as its widest cell.
fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let rows: Vec<[String; N]> =
        std::iter::once(head.map(|name| name.replace('_', " "))).chain(rows).collect();
    let mut widths = [0_usize; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns_under_their_heads() {
        let rows = vec![["1".to_owned(), "long name".to_owned()]];
        assert_eq!(table(["id", "peer_name"], rows), "id  peer name\n1   long name\n");
    }

    #[test]
    fn says_why_an_openssh_hash_is_no_key() {
        let error = key_text(&["SHA256:abcdefgh".to_owned()]).unwrap_err();
        assert_eq!(error.exit, ExitKind::Usage);
        assert!(error.message.contains("OpenSSH"), "{error}");
        assert!(!error.hints.is_empty());
    }
}
