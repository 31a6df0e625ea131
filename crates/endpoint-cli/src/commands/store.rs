//! Is what is kept in order? Mend it, or seal it with a new secret.

use std::{sync::Arc, time::Duration};

use endpoint_core::{
    Ailing, Condition, Examined, StoreConfig, Vault, clock::Clock, config::StoreSecret, store,
};
use serde_json::json;

use super::{
    Context,
    cert::{store_fault, vault_fault},
    time_text,
};
use crate::{
    args::Store,
    config::{Config, SECRET_VARIABLE},
    control::{self, protocol::Request},
    error::{CliError, Result},
};

/// How long a repair keeps others from repairing, should it be killed.
const REPAIR: Duration = Duration::from_secs(60);

pub(super) async fn run(command: Store, context: &Context) -> Result<()> {
    match command {
        Store::Check => check(context).await,
        Store::Repair => repair(context).await,
        Store::Rekey { new_secret } => rekey(new_secret, context).await,
    }
}

/// The configuration of a store that is there.
fn existing(context: &Context) -> Result<Config> {
    context.state.check()?;
    let (config, _) = Config::load(context.config.as_deref(), &context.state)?;
    if !config.store_exists() {
        let folder = context.state.folder().display();
        return Err(CliError::failure("no-store", format!("nothing is kept in {folder} yet"))
            .hint("the store is made by the first certificate: endpoint serve"));
    }
    Ok(config)
}

async fn opened(context: &Context) -> Result<Vault> {
    let config = existing(context)?;
    let store = store::open(&config.store).await.map_err(|error| store_fault(&error))?;
    Ok(Vault::new(store))
}

async fn check(context: &Context) -> Result<()> {
    let vault = opened(context).await?;
    let found = vault.examine(Clock::system().now()).await.map_err(|error| vault_fault(&error))?;
    for ailing in &found.ailing {
        let Ailing { kind, id, condition, why, remedy, .. } = ailing;
        let object = json!({
            "event": "record", "kind": kind.as_str(), "id": id, "condition": condition.as_str(),
            "why": why, "remedy": remedy,
        });
        let text = format!("{condition}: {kind} `{id}`: {why}\n  repair: {remedy}");
        context.output.result(&object, &text)?;
    }
    for aside in &found.asides {
        let at = time_text(aside.at);
        let object = json!({
            "event": "aside", "number": aside.number, "kind": aside.kind, "id": aside.id, "at": at,
            "why": aside.why,
        });
        context.output.result(&object, &format!("aside since {at}: {aside}: {}", aside.why))?;
    }
    summed_up(&vault, &found, context)?;
    match damaged(&found) {
        0 => Ok(()),
        count => Err(CliError::failure("store-damaged", format!("{count} records are damaged"))
            .hint(format!("set them aside: {}", context.state.command("store repair")))),
    }
}

async fn repair(context: &Context) -> Result<()> {
    let vault = opened(context).await?;
    let store = Arc::clone(vault.store());
    let now = Clock::system().now();
    let Some(lease) =
        store.lock("repair", now, REPAIR).await.map_err(|error| store_fault(&error))?
    else {
        return Err(CliError::failure("repair-busy", "another repair is under way")
            .hint("wait a minute, then try again"));
    };
    let done = repair_all(&vault, context).await;
    let _ = store.unlock(lease).await;
    let found = done?;
    summed_up(&vault, &found, context)?;
    match damaged(&found) {
        0 => Ok(()),
        count => Err(CliError::failure(
            "store-damaged",
            format!("{count} records are still damaged; somebody else changes the store"),
        )
        .hint(context.state.command("store check"))),
    }
}

/// Mends what is damaged, and looks again.
async fn repair_all(vault: &Vault, context: &Context) -> Result<Examined> {
    let clock = Clock::system();
    let found = vault.examine(clock.now()).await.map_err(|error| vault_fault(&error))?;
    for ailing in &found.ailing {
        let done = vault.repair(ailing, clock.now()).await.map_err(|error| vault_fault(&error))?;
        let Some(done) = done else { continue };
        let object = json!({
            "event": "repaired", "kind": ailing.kind.as_str(), "id": ailing.id, "why": ailing.why,
            "done": done,
        });
        let text = format!("{} `{}`: {}\n  {done}", ailing.kind, ailing.id, ailing.why);
        context.output.result(&object, &text)?;
    }
    vault.examine(clock.now()).await.map_err(|error| vault_fault(&error))
}

fn damaged(found: &Examined) -> usize {
    found.ailing.iter().filter(|ailing| ailing.condition == Condition::Damaged).count()
}

fn summed_up(vault: &Vault, found: &Examined, context: &Context) -> Result<()> {
    let damaged = damaged(found);
    let out_of_date = found.ailing.len() - damaged;
    let (records, aside, place) = (found.records, found.asides.len(), vault.store().place());
    let object = json!({
        "event": "checked", "store": place, "records": records, "damaged": damaged,
        "out_of_date": out_of_date, "aside": aside,
    });
    let text = format!(
        "{place}: {records} records, {damaged} damaged, {out_of_date} out of date, {aside} set aside"
    );
    context.output.result(&object, &text)
}

async fn rekey(new_secret: Option<std::path::PathBuf>, context: &Context) -> Result<()> {
    let config = existing(context)?;
    if control::ask_if_running(&context.state, Request::Status).await?.is_some() {
        return Err(CliError::failure(
            "running",
            "the endpoint is running and holds the old secret",
        )
        .hint("end it first, for example: kill -TERM PID (endpoint status tells it)"));
    }
    let StoreConfig::Sqlite { path, secret } = &config.store else { return Ok(()) };
    let new = match new_secret {
        Some(file) => StoreSecret::File(file),
        None => secret.clone(),
    };
    if matches!(new, StoreSecret::Environment(_)) {
        let message =
            format!("the secret stands in {SECRET_VARIABLE}, which no command can change");
        return Err(CliError::usage("store-secret", message)
            .hint("put the new one into a file: endpoint store rekey --new-secret FILE"));
    }
    store::rekey(path, secret, &new).await.map_err(|error| store_fault(&error))?;
    let place = match &new {
        StoreSecret::File(file) => file.display().to_string(),
        _ => SECRET_VARIABLE.to_owned(),
    };
    let text = format!("sealed anew; the secret is in {place}");
    context.output.result(&json!({"secret_file": place}), &text)?;
    if new != *secret && !context.output.is_json() {
        context.output.say("name it from now on: [store] secret_file, or ENDPOINT_SECRET");
    }
    Ok(())
}
