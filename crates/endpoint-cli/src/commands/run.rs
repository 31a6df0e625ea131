//! Run a command under the loopback listener.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;
use tokio::process::Command;

use super::Context;
use crate::{
    args::Run,
    config::SECRET_VARIABLE,
    control::{self, protocol::Request},
    error::{CliError, ExitKind, Result, io_cause},
};

/// Variables that would lead requests around the listener.
const CLEARED: [&str; 4] = ["NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"];

pub(super) async fn run(args: Run, context: &Context) -> Result<()> {
    let own = |mut fault: CliError| {
        fault.exit = ExitKind::Passed(125);
        fault
    };
    let items = control::ask(&context.state, Request::Status).await.map_err(own)?;
    let address = items.first().and_then(|status| status.get("loopback_http"));
    let Some(address) = address.and_then(Value::as_str) else {
        let message = "the running endpoint has no listener for plain HTTP on loopback";
        return Err(own(CliError::failure("no-loopback-http", message).hint(
            "take `loopback_http = \"off\"` out and start it again: endpoint config check",
        )));
    };
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(own(CliError::usage("run", "there is no command to run")));
    };
    let proxy = format!("http://{address}");
    let mut command = Command::new(program);
    command.args(arguments).env("HTTP_PROXY", &proxy).env("http_proxy", &proxy);
    // Whoever reads the secret reads the keys.
    command.env_remove(SECRET_VARIABLE);
    for name in CLEARED {
        command.env_remove(name);
    }
    let name = program.to_string_lossy();
    let status = command.status().await.map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => 127,
            _ => 126,
        };
        let message = format!("cannot run {name}: {}", io_cause(&error));
        CliError::new("run", ExitKind::Passed(code), message)
            .hint(format!("look for it: command -v {name}"))
    })?;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128_i32.saturating_add(signal),
        (None, None) => 125,
    };
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::silent(code)),
        Err(_) => Err(CliError::silent(125)),
    }
}
