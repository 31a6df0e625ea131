//! The identities of endpoints dialled before: list, forget, and what dials do with them.
//!
//! Always true: a line that cannot be read ends the command; it is never taken for "unknown".

use endpoint_core::{
    identity::Fingerprint,
    target::HostPort,
    trust::known::{self, Known, KnownError, KnownPeer, KnownPeers},
};
use serde_json::json;

use super::{Context, table};
use crate::{
    args,
    error::{CliError, ExitKind, Place, Result, shell_word},
};

pub(super) fn run(command: args::Known, context: &Context) -> Result<()> {
    match command {
        args::Known::Ls => list(context),
        args::Known::Forget { peer } => forget(&peer, context),
    }
}

fn list(context: &Context) -> Result<()> {
    let known = load(context)?;
    let names = |peer: &KnownPeer| -> Vec<String> {
        peer.hosts().iter().map(ToString::to_string).chain(peer.aliases().iter().cloned()).collect()
    };
    if context.output.is_json() {
        return known.iter().try_for_each(|peer| {
            context.output.object(&json!({
                "names": names(peer),
                "fingerprint": peer.fingerprint().to_string(),
                "comment": peer.comment(),
                "line": peer.line(),
            }))
        });
    }
    if known.iter().len() == 0 {
        context.output.say("no endpoint has been learnt here");
        return Ok(());
    }
    let rows = known
        .iter()
        .map(|peer| {
            [names(peer).join(","), peer.fingerprint().to_string(), peer.comment().to_owned()]
        })
        .collect();
    context.output.text(&table(["names", "fingerprint", "comment"], rows))
}

fn forget(peer: &str, context: &Context) -> Result<()> {
    context.state.check()?;
    let path = context.state.known();
    let forgotten = match path.exists() {
        true => known::forget(&path, peer).map_err(|error| fault(&error, context))?,
        // Nothing to edit, and nothing to make.
        false => 0,
    };
    if forgotten == 0 {
        let name = peer.escape_debug();
        let message = format!("`{name}` does not stand in {}", path.display());
        return Err(CliError::failure("not-listed", message)
            .hint(format!("see what stands there: {}", context.state.command("known ls"))));
    }
    let lines = if forgotten == 1 { "line" } else { "lines" };
    let text =
        format!("forgot {peer}: {forgotten} {lines}, the file before is {}.old", path.display());
    context.output.result(&json!({"forgotten": forgotten}), &text)
}

/// Whether a key is known at `host`.
pub(super) fn holds(host: &HostPort, context: &Context) -> Result<bool> {
    Ok(load(context)?.find(&host.to_string()).is_some())
}

/// Writes the key down that `host` showed and that was agreed to.
pub(super) fn learn(host: &HostPort, key: Fingerprint, context: &Context) -> Result<()> {
    known::learn(&context.state.known(), host, &key).map_err(|error| fault(&error, context))
}

/// Another key answered than the one expected: both keys, and where the expected one stands.
pub(super) fn changed(
    host: &str,
    expected: Fingerprint,
    got: Fingerprint,
    context: &Context,
) -> CliError {
    let message = format!("the identity of {host} has changed: expected {expected}, got {got}");
    let error = CliError::new("peer-changed", ExitKind::PeerChanged, message).hint(
        "somebody may be listening in: ask its operator what it prints there: endpoint key show",
    );
    let place = host.parse::<HostPort>().ok().and_then(|address| {
        match load(context).ok()?.lookup(&address, &got) {
            Known::Changed { expected: pinned, file, line } if pinned == expected => {
                Some((file, line))
            }
            _ => None,
        }
    });
    let Some((file, line)) = place else {
        return error
            .hint(format!("if the change is right, name the new key: endpoint ping {got}@{host}"));
    };
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let source = text.lines().nth(line.saturating_sub(1)).map(ToOwned::to_owned);
    let expected = expected.to_string();
    let found = source.as_ref().and_then(|source| source.find(&expected));
    error
        .at(Place {
            file,
            line,
            column: found.map_or(1, |column| column.saturating_add(1)),
            source,
            width: expected.len(),
            label: "the key that was expected".into(),
            help: None,
        })
        .hint(format!(
            "if the change is right: {}",
            context.state.command(&format!("known forget {}", shell_word(host)))
        ))
}

fn load(context: &Context) -> Result<KnownPeers> {
    context.state.check()?;
    KnownPeers::load(&context.state.known()).map_err(|error| fault(&error, context))
}

fn fault(error: &KnownError, context: &Context) -> CliError {
    match error {
        KnownError::Line { path, fault } => {
            let text = std::fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let source = text.split('\n').nth(fault.line.saturating_sub(1));
            let again = context.state.command("known ls");
            let hint = format!("mend it, then check: {again}");
            CliError::usage("known-line", &fault.message).hint(hint).at(Place {
                file: path.clone(),
                line: fault.line,
                column: fault.column,
                source: source.map(ToOwned::to_owned),
                width: fault.length,
                label: String::new(),
                help: fault.help.clone(),
            })
        }
        KnownError::Changed { host, expected, file, line } => {
            let message =
                format!("another key is known for {host}: {expected}, {}:{line}", file.display());
            CliError::new("peer-changed", ExitKind::PeerChanged, message).hint(format!(
                "if the change is right: {}",
                context.state.command(&format!("known forget {host}"))
            ))
        }
        other => CliError::told("known-file", ExitKind::Usage, other),
    }
}
