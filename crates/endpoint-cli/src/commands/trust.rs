//! Who may come in: edit and check `authorized_peers`.
//!
//! Edits happen under the file's lock and keep everything that is not concerned. A running server
//! is asked to take the new set up, and its answer is awaited: when `trust rm` returns, the key's
//! connections are closed.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use endpoint_core::{
    clock::Clock,
    config::Access,
    facts::{Address, Carrier, KeyKind, LinkFacts, PeerKey, Profile},
    identity::Fingerprint,
    trust::{
        AuthorizedPeersError, Policy,
        authorized::{self, EditError, Grant, LineFault, Parsed},
        file::{self, EditFileError, TrustFileError},
    },
};
use serde_json::{Value, json};

use super::{Context, key_text, table};
use crate::{
    args::{KeyWords, Trust, TrustAdd, TrustCheck},
    config::Config,
    control::{self, protocol::Request},
    error::{CliError, ExitKind, Place, Result},
    state::State,
};

pub(super) async fn run(command: Trust, context: &Context) -> Result<()> {
    match command {
        Trust::Add(args) => add(args, context).await,
        Trust::Rm(words) => remove(words, context).await,
        Trust::Ls => list(context),
        Trust::Check(args) => check(args, context),
        Trust::Lint => lint(context),
    }
}

async fn add(args: TrustAdd, context: &Context) -> Result<()> {
    let state = &context.state;
    let key = key_text(&args.key)?;
    let comment = args.comment.as_deref().unwrap_or(key.comment());
    state.make()?;
    let path = state.authorized();
    let line = file::edit(&path, |text| authorized::add_line(text, &key, &args.options, comment))
        .map_err(|error| changing_fault(&error, state))?;
    let reload = reload(Some(key.fingerprint()), context).await?;
    let allows = described(&line);
    let text = format!("{line}\n  allows {allows}");
    context.output.result(
        &json!({
            "fingerprint": key.fingerprint().to_string(),
            "line": line,
            "allows": allows,
            "running": reload.is_some(),
        }),
        &text,
    )?;
    match reload {
        Some(_) => context.output.say("the running endpoint has taken it up"),
        None => context.output.say(&format!(
            "no endpoint is running here; it takes it up at its start: {}",
            state.command("serve")
        )),
    }
    Ok(())
}

async fn remove(words: KeyWords, context: &Context) -> Result<()> {
    let state = &context.state;
    let key = key_text(&words.key)?.fingerprint();
    // First in memory: the running server needs no disk for it, and whatever the file is seen with while
    // it is edited, the key is out.
    let revoked = revoke(&key, context).await;
    state.check()?;
    let path = state.authorized();
    let removed = match file::read_trust_file(&path) {
        // Nothing to edit, and nothing to make.
        Ok(None) => Ok(0),
        _ => file::edit(&path, |text| {
            let (text, removed) = authorized::remove_key(text, &key);
            Ok::<_, EditError>((text, removed))
        }),
    };
    let removed = removed.map_err(|error| {
        let fault = changing_fault(&error, state);
        match revoked {
            Some(_) => fault.hint(
                "the running endpoint lets the key in no more, but it stands in the file: a restart would \
                 let it in again",
            ),
            None => fault,
        }
    })?;
    reload(None, context).await?;
    let closed = revoked.unwrap_or(0);
    let lines = if removed == 1 { "line" } else { "lines" };
    let connections = if closed == 1 { "connection" } else { "connections" };
    let text = format!("removed {removed} {lines}, closed {closed} {connections} of {key}");
    context.output.result(&json!({"removed": removed, "closed": closed}), &text)?;
    if removed == 0 {
        let message = format!("{key} does not stand in {}", path.display());
        return Err(CliError::failure("not-listed", message)
            .hint(format!("see what stands there: {}", state.command("trust ls"))));
    }
    Ok(())
}

/// Has a running server end the key's connections at once: how many; `None` without a server, or if it does
/// not have the key. A server that cannot is told of the change by [`reload`] all the same.
async fn revoke(key: &Fingerprint, context: &Context) -> Option<u64> {
    match control::ask_if_running(&context.state, Request::Revoke(*key)).await {
        Ok(items) => items?.first()?.get("closed")?.as_u64(),
        Err(error) => {
            let goes_on = "the file is changed all the same".to_owned();
            context.output.warning(&error.message, &[goes_on]);
            None
        }
    }
}

/// Asks a running server to take the file up and tells of faults in it; `None` without one.
async fn reload(added: Option<Fingerprint>, context: &Context) -> Result<Option<Value>> {
    let items = control::ask_if_running(&context.state, Request::Reload { added }).await?;
    let Some(answer) = items.and_then(|items| items.into_iter().next()) else { return Ok(None) };
    for problem in answer.get("problems").and_then(Value::as_array).into_iter().flatten() {
        let lint = format!("see all: {}", context.state.command("trust lint"));
        context.output.warning(problem.as_str().unwrap_or_default(), &[lint]);
    }
    Ok(Some(answer))
}

fn list(context: &Context) -> Result<()> {
    let path = context.state.authorized();
    let parsed = read(&path)?.map(|text| authorized::parse(&text));
    let grants: Vec<_> = parsed.iter().flat_map(|parsed| parsed.grants.iter()).cloned().collect();
    if context.output.is_json() {
        grants.iter().try_for_each(|grant| context.output.object(&object(grant)))?;
    } else if grants.is_empty() {
        context.output.say(&format!("{} lets nobody in", path.display()));
    } else {
        let rows = grants
            .iter()
            .map(|grant| [grant.fingerprint().to_string(), allowed(grant), named(grant)])
            .collect();
        context.output.text(&table(["fingerprint", "allows", "comment"], rows))?;
    }
    if let Some(Parsed { faults, .. }) = parsed
        && !faults.is_empty()
    {
        let message = format!("{} has lines that let nobody in: {}", path.display(), faults.len());
        context.output.warning(&message, &[context.state.command("trust lint")]);
    }
    Ok(())
}

fn check(args: TrustCheck, context: &Context) -> Result<()> {
    let state = &context.state;
    let key = key_text(&args.key)?.fingerprint();
    let (config, _) = Config::load(context.config.as_deref(), state)?;
    let handler = config.handlers.iter().find(|entry| entry.alpn == args.alpn);
    let Some(access) = handler.map(|entry| entry.access.clone()) else {
        let known: Vec<_> = config.handlers.iter().map(|entry| entry.alpn.to_string()).collect();
        let message = format!("this endpoint does not serve {}", args.alpn);
        return Err(CliError::failure("no-handler", message).hint(format!(
            "it serves {}: {}",
            known.join(", "),
            state.command("status")
        )));
    };
    let text = read(&state.authorized())?.unwrap_or_default();
    let parsed = authorized::parse(&text);
    let remote = args.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let facts = LinkFacts {
        id: 0,
        carrier: Carrier::Quic,
        profile: Profile { server: KeyKind::Raw, client: Some(KeyKind::Raw) },
        alpn: args.alpn.clone(),
        server_name: None,
        peer: PeerKey::Proven(KeyKind::Raw, key),
        remote: (remote, 0).into(),
        local: (remote, 0).into(),
    };
    let policy = Policy::new(Arc::new(parsed.grants));
    let judged = policy.judge(&facts, &access, &Address::at(facts.remote), Clock::system().now());
    let reason = judged.as_ref().err().map(ToString::to_string);
    let object = json!({
        "allowed": judged.is_ok(),
        "reason": reason,
        "fingerprint": key.to_string(),
        "alpn": args.alpn.to_string(),
        "from": remote.to_string(),
        "access": access.to_string(),
    });
    let Some(reason) = reason else {
        let why = match access {
            Access::Public => "everybody may",
            _ => "it may",
        };
        let text = format!("{key} from {remote}: {why} speak {}", args.alpn);
        return context.output.result(&object, &text);
    };
    if context.output.is_json() {
        context.output.object(&object)?;
    }
    let message = format!("{key} from {remote} may not speak {}: {reason}", args.alpn);
    let fault = CliError::new("not-authorized", ExitKind::NotAuthorized, message);
    Err(match policy.grants().lookup(&key) {
        None => fault.hint(format!("let it in: {}", state.command(&format!("trust add {key}")))),
        Some(grant) => {
            let place = format!("{}:{}", state.authorized().display(), grant.line());
            fault.hint(format!("its line is {place}; see it: {}", state.command("trust ls")))
        }
    })
}

fn lint(context: &Context) -> Result<()> {
    let path = context.state.authorized();
    check_file(&context.state)?;
    let count = read(&path)?.map_or(0, |text| authorized::parse(&text).grants.len());
    let keys = if count == 1 { "key" } else { "keys" };
    let text = format!("{} has no faults and lets {count} {keys} in", path.display());
    context.output.result(&json!({"event": "checked", "problems": 0, "keys": count}), &text)
}

/// Whether `serve` would take the trust file; tells every fault of it. Exit code 2.
pub(super) fn check_file(state: &State) -> Result<()> {
    state.check()?;
    let path = state.authorized();
    let text = read(&path)?.unwrap_or_default();
    let faults = line_faults(&authorized::parse(&text).faults, &path, &text);
    match CliError::sum(faults, &path) {
        Some(fault) => {
            Err(fault.hint(format!("mend it, then check: {}", state.command("trust lint"))))
        }
        None => Ok(()),
    }
}

/// Why the server could not take the trust file up.
pub(super) fn start_fault(error: &AuthorizedPeersError, state: &State) -> CliError {
    match error {
        AuthorizedPeersError::BadLines { path, faults } => {
            let text = read(path).ok().flatten().unwrap_or_default();
            CliError::sum(line_faults(faults, path, &text), path)
                .unwrap_or_else(|| CliError::usage("trust-line", error))
                .hint(format!("mend it, then check: {}", state.command("trust lint")))
        }
        AuthorizedPeersError::Unusable(error) => file_fault(error, ExitKind::Usage),
        other => CliError::usage("trust-file", other),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    file::read_trust_file(path).map_err(|error| file_fault(&error, ExitKind::Usage))
}

fn file_fault(error: &TrustFileError, exit: ExitKind) -> CliError {
    CliError::told("trust-file", exit, error)
}

fn changing_fault(error: &EditFileError<EditError>, state: &State) -> CliError {
    match error {
        EditFileError::File(error) => file_fault(error, ExitKind::Failure),
        EditFileError::Change(error) => edit_fault(error, state),
        other => CliError::told("trust-file", ExitKind::Failure, other),
    }
}

fn edit_fault(error: &EditError, state: &State) -> CliError {
    match error {
        EditError::Duplicate { key, line } => {
            let place = format!("{}:{line}", state.authorized().display());
            let message = format!("{key} stands in {place} already");
            CliError::failure("duplicate", message).hint(format!(
                "to change its options, remove it first: {}",
                state.command(&format!("trust rm {key}"))
            ))
        }
        EditError::Refused { .. } => CliError::told("trust-option", ExitKind::Usage, error)
            .hint("see the options: endpoint trust add --help"),
        other => CliError::told("trust-option", ExitKind::Usage, other)
            .hint("see the options: endpoint trust add --help"),
    }
}

fn line_faults(faults: &[LineFault], path: &Path, text: &[u8]) -> Vec<CliError> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split('\n').collect();
    faults
        .iter()
        .map(|fault| {
            let source = lines.get(fault.line.saturating_sub(1)).map(|line| (*line).to_owned());
            CliError::usage("trust-line", &fault.message).at(Place {
                file: path.to_owned(),
                line: fault.line,
                column: fault.column,
                source,
                width: fault.length,
                label: String::new(),
                help: fault.help.clone(),
            })
        })
        .collect()
}

/// What a line that was just written allows.
fn described(line: &str) -> String {
    let parsed = authorized::parse(line.as_bytes());
    parsed.grants.iter().next().map_or_else(String::new, |grant| allowed(grant))
}

/// What a grant allows, in words.
fn allowed(grant: &Grant) -> String {
    let mut words = vec![match grant.alpns() {
        None => "every protocol of access peer".to_owned(),
        Some(alpns) => alpns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }];
    if let Some(networks) = grant.from() {
        let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
        words.push(format!("from {}", networks.join(", ")));
    }
    if let Some(end) = grant.expires() {
        words.push(format!("until {end}"));
    }
    if !grant.scopes().is_empty() {
        let scopes: Vec<_> = grant.scopes().iter().map(ToString::to_string).collect();
        words.push(format!("with scope {}", scopes.join(", ")));
    }
    if let Some(most) = grant.max_connections() {
        words.push(format!("at most {most} connections"));
    }
    words.join(", ")
}

fn named(grant: &Grant) -> String {
    match grant.name() {
        Some(name) => format!("{name} {}", grant.comment()).trim_end().to_owned(),
        None => grant.comment().to_owned(),
    }
}

fn object(grant: &Grant) -> Value {
    json!({
        "fingerprint": grant.fingerprint().to_string(),
        "alpn": grant.alpns().map(|l| l.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "from": grant.from().map(|l| l.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "expires": grant.expires().map(|end| end.to_string()),
        "scope": grant.scopes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tenant": grant.tenant(),
        "max_connections": grant.max_connections(),
        "name": grant.name(),
        "comment": grant.comment(),
        "line": grant.line(),
    })
}
