//! Which certificates are served, and what is to be done about them?
//!
//! The running endpoint knows best; without one, what is kept in the store is told.

use std::path::Path;

use endpoint_core::{
    KeptCertificate, Vault, VaultError, clock::Clock, endpoint::CertificateInfo, store,
};
use serde_json::{Value, json};

use super::{Context, table, time_text, word};
use crate::{
    args::{Cert, CertName},
    config::Config,
    control::{self, protocol::Request},
    error::{CliError, ExitKind, Result, io_cause, shell_word},
};

pub(super) async fn run(command: Cert, context: &Context) -> Result<()> {
    match command {
        Cert::List => list(context).await,
        Cert::Info(CertName { name }) => info(&name, context).await,
        Cert::Renew(CertName { name }) => renew(&name, context).await,
        Cert::Import { cert, key } => import(&cert, &key, context).await,
        Cert::Export { name: CertName { name }, output } => {
            export(&name, output.as_deref(), context).await
        }
    }
}

/// A certificate as `cert list --json` prints it.
pub(super) fn object(info: &CertificateInfo) -> Value {
    json!({
        "name": info.names.first(),
        "names": info.names,
        "source": info.source,
        "issuer": info.issuer,
        "engine": info.engine,
        "engine_reason": info.engine_reason,
        "not_before": time_text(info.not_before),
        "not_after": time_text(info.not_after),
        "fallback": info.fallback,
        "condition": info.condition.as_str(),
        "next_action": info.next_action,
        "next_at": info.next_at.map(time_text),
        "last_error": info.last_error,
        "served": "yes",
    })
}

/// A certificate that is kept, in the same form.
fn kept_object(info: &KeptCertificate, served: &str) -> Value {
    json!({
        "name": info.name,
        "names": info.names,
        "source": info.origin.source,
        "issuer": info.origin.issuer,
        "engine": info.origin.engine,
        "engine_reason": null,
        "not_before": time_text(info.not_before),
        "not_after": time_text(info.not_after),
        "fallback": false,
        "condition": info.condition.as_str(),
        "next_action": null,
        "next_at": null,
        "last_error": info.fault,
        "served": if info.fault.is_none() { served } else { "no" },
    })
}

/// What is served, else what is kept; and whether an endpoint is running.
async fn all(context: &Context) -> Result<(Vec<Value>, bool)> {
    if let Some(mut items) = control::ask_if_running(&context.state, Request::Certificates).await? {
        let configured: Vec<String> = items.iter().flat_map(names).collect();
        // What no site names is served too, once it is asked for. A store that only the endpoint can open
        // hides nothing of what the endpoint tells.
        if let Ok(kept) = kept(context, "on-request").await {
            let own = |item: &Value| word(item.get("name"));
            items.extend(kept.into_iter().filter(|item| !configured.contains(&own(item))));
        }
        return Ok((items, true));
    }
    Ok((kept(context, "no").await?, false))
}

/// What stands in the store.
async fn kept(context: &Context, served: &str) -> Result<Vec<Value>> {
    let Some(vault) = open(context, Make::No).await? else { return Ok(Vec::new()) };
    let now = Clock::system().now();
    let mut items = Vec::new();
    for name in vault.names().await.map_err(|error| vault_fault(&error))? {
        match vault.info(&name, now).await {
            Ok(info) => items.extend(info.as_ref().map(|info| kept_object(info, served))),
            // One that cannot be trusted hides none of the others.
            Err(error) => items.push(json!({
                "name": name, "names": [name], "source": null, "issuer": null, "engine": null,
                "engine_reason": null, "not_before": null, "not_after": null, "fallback": false,
                "condition": "damaged", "next_action": null, "next_at": null, "last_error": error.to_string(),
                "served": "no",
            })),
        }
    }
    Ok(items)
}

async fn list(context: &Context) -> Result<()> {
    let (items, served) = all(context).await?;
    if context.output.is_json() {
        return items.iter().try_for_each(|item| context.output.object(item));
    }
    if !served {
        context.output.say("no endpoint is running: these are kept");
    }
    if items.is_empty() {
        context.output.say("no certificates");
        return Ok(());
    }
    let columns = ["names", "source", "issuer", "engine", "not_after", "next_action", "last_error"];
    let mut rows: Vec<[String; 7]> = Vec::new();
    for item in &items {
        let row = columns.map(|column| cell(item, column));
        // An imported certificate is kept under each of its names.
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    context.output.text(&table(columns, rows))
}

/// A field of a certificate as people read it.
fn cell(item: &Value, column: &str) -> String {
    match column {
        "names" => names(item).join(" "),
        "source" if item.get("fallback").and_then(Value::as_bool) == Some(true) => {
            format!("{} (self-signed until then)", word(item.get("source")))
        }
        "source" if condition(item) != "whole" => {
            format!("{} ({})", word(item.get("source")), condition(item))
        }
        "next_action" => match item.get("next_at").and_then(Value::as_str) {
            Some(at) => format!("{} {at}", word(item.get(column))),
            None => word(item.get(column)),
        },
        "last_error" => word(item.get(column)).chars().take(60).collect(),
        column => word(item.get(column)),
    }
}

/// How the newest certificate stands.
fn condition(item: &Value) -> &str {
    item.get("condition").and_then(Value::as_str).unwrap_or("whole")
}

fn names(item: &Value) -> Vec<String> {
    let names = item.get("names").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The certificate of a name, in any case and with or without its last dot.
fn of<'i>(items: &'i [Value], name: &str) -> Result<&'i Value> {
    let wanted = name.strip_suffix('.').unwrap_or(name);
    let fits = |item: &&Value| names(item).iter().any(|own| own.eq_ignore_ascii_case(wanted));
    items.iter().find(fits).ok_or_else(|| {
        let known: Vec<String> = items.iter().flat_map(names).take(10).collect();
        let message = format!("there is no certificate for `{}`", name.escape_debug());
        let fault = CliError::failure("cert-unknown", message);
        match known.is_empty() {
            true => fault.hint("name it in a [[site]], or import one: endpoint cert import --help"),
            false => fault.hint(format!("there are: {}", known.join(", "))),
        }
    })
}

async fn info(name: &str, context: &Context) -> Result<()> {
    let (items, served) = all(context).await?;
    let item = of(&items, name)?;
    let mut text = String::new();
    let fallback = item.get("fallback").and_then(Value::as_bool) == Some(true);
    let lines = [
        ("names", names(item).join(" ")),
        ("source", word(item.get("source"))),
        ("issuer", word(item.get("issuer"))),
        (
            "engine",
            match item.get("engine").and_then(Value::as_str) {
                Some(engine) => format!("{engine}: {}", word(item.get("engine_reason"))),
                None => "-".to_owned(),
            },
        ),
        (
            "served",
            match (served, word(item.get("served")).as_str()) {
                (false, _) => "no: no endpoint is running".to_owned(),
                (true, _) if fallback => "a self-signed one, until one is issued".to_owned(),
                (true, "on-request") => "yes, from its second handshake on".to_owned(),
                (true, told) => told.to_owned(),
            },
        ),
        ("condition", condition(item).to_owned()),
        ("not before", word(item.get("not_before"))),
        ("not after", word(item.get("not_after"))),
        ("next", cell(item, "next_action")),
        ("last error", word(item.get("last_error"))),
    ];
    for (label, value) in lines {
        text.push_str(&format!("{label:<11} {value}\n"));
    }
    context.output.result(item, &text)
}

async fn renew(name: &str, context: &Context) -> Result<()> {
    if context.output.shows_progress() {
        context.output.progress(&format!("renewing the certificate of {name} …"));
    }
    let answer = control::ask(&context.state, Request::Renew(name.to_owned())).await;
    if context.output.shows_progress() {
        context.output.progress_end();
    }
    let items = answer?;
    let item = items.first().cloned().unwrap_or_default();
    let Some(code) = item.get("error").and_then(Value::as_str) else {
        let until = word(item.get("not_after"));
        return context.output.result(&item, &format!("renewed {name}: valid until {until}"));
    };
    let fault = CliError::failure(
        match code {
            "budget" => "cert-budget",
            "unknown" => "cert-unknown",
            "not-renewable" => "cert-not-renewable",
            _ => "cert-failed",
        },
        word(item.get("message")),
    );
    let look = context.state.command(&format!("cert info {name}"));
    Err(match (code, item.get("until").and_then(Value::as_str)) {
        ("budget", Some(until)) => {
            fault.hint(format!("it is tried again by itself at {until}: {look}"))
        }
        ("unknown", _) => fault.hint(context.state.command("cert list")),
        _ => fault.hint(format!("see what is planned: {look}")),
    })
}

async fn import(cert: &Path, key: &Path, context: &Context) -> Result<()> {
    let chain = read(cert)?;
    let secret = zeroize::Zeroizing::new(read(key)?);
    let Some(vault) = open(context, Make::Yes).await? else { return Ok(()) };
    let now = Clock::system().now();
    let names = vault.import(&chain, &secret, now).await.map_err(|error| match error {
        VaultError::Unfit(_) => CliError::told("cert-import", ExitKind::Failure, &error)
            .hint(format!("look at the chain: openssl x509 -in {} -noout -text", shell_word(cert))),
        error => vault_fault(&error),
    })?;
    let served =
        control::ask_if_running(&context.state, Request::Reload { added: None }).await?.is_some();
    let first = names.first().map(String::as_str).unwrap_or_default();
    let info = vault.info(first, now).await.map_err(|error| vault_fault(&error))?;
    let until = info.as_ref().map(|info| time_text(info.not_after)).unwrap_or_default();
    let text = format!("kept for {}, valid until {until}", names.join(", "));
    context.output.result(&json!({"names": names, "not_after": until}), &text)?;
    if !served && !context.output.is_json() {
        let serve = context.state.command("serve");
        context.output.say(&format!("it is served from the next start: {serve}"));
    }
    Ok(())
}

async fn export(name: &str, output: Option<&Path>, context: &Context) -> Result<()> {
    let asked = Request::Chain(name.to_owned());
    let chain = match control::ask_if_running(&context.state, asked).await? {
        Some(items) => {
            items.first().and_then(|item| item.get("chain")?.as_str()).map(str::to_owned)
        }
        None => match open(context, Make::No).await? {
            Some(vault) => vault
                .export(name, Clock::system().now())
                .await
                .map_err(|error| vault_fault(&error))?,
            None => None,
        },
    };
    let Some(chain) = chain else {
        let (items, _) = all(context).await?;
        of(&items, name)?;
        let message = format!("nothing is served under `{}` now", name.escape_debug());
        return Err(CliError::failure("cert-unknown", message)
            .hint(context.state.command(&format!("cert info {name}"))));
    };
    let Some(file) = output else {
        return context.output.result(&json!({"name": name, "chain": chain}), &chain);
    };
    write(file, &chain).map_err(|error| CliError::io("write", file, &error))?;
    let text = format!("wrote {}", file.display());
    context.output.result(&json!({"name": name, "file": file.display().to_string()}), &text)
}

/// Writes beside, then renames over: whole or not at all.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut beside = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    std::io::Write::write_all(&mut beside, text.as_bytes())?;
    beside.persist(file)?;
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    const MOST: u64 = 1024 * 1024;
    let fault = |error: std::io::Error| {
        let message = format!("cannot read {}: {}", file.display(), io_cause(&error));
        CliError::usage("cert-file", message)
            .hint(format!("look at it: ls -l {}", shell_word(file)))
    };
    let size = std::fs::metadata(file).map_err(fault)?.len();
    if size > MOST {
        return Err(fault(std::io::Error::other(
            "it is larger than 1 MiB, so it is no certificate",
        )));
    }
    std::fs::read(file).map_err(fault)
}

/// Whether a store that is not there is made.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Make {
    Yes,
    No,
}

/// The store of the configuration; `None` if it is not there and shall not be made.
async fn open(context: &Context, make: Make) -> Result<Option<Vault>> {
    context.state.check()?;
    let (config, _) = Config::load(context.config.as_deref(), &context.state)?;
    if make == Make::No && !config.store_exists() {
        return Ok(None);
    }
    if matches!(config.store, endpoint_core::StoreConfig::Memory) {
        let message = "the store is \"memory:\", which ends with this command";
        return Err(CliError::usage("no-store", message)
            .hint("give [store] url a file: sqlite:endpoint.db"));
    }
    context.state.make()?;
    let store = store::open(&config.store).await.map_err(|error| store_fault(&error))?;
    Ok(Some(Vault::new(store)))
}

/// A fault of the store with its remedy.
pub(super) fn store_fault(error: &store::StoreError) -> CliError {
    CliError::told("store", ExitKind::Failure, error)
}

pub(super) fn vault_fault(error: &VaultError) -> CliError {
    CliError::told("store", ExitKind::Failure, error)
}
