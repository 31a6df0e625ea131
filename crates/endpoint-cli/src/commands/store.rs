//! Seal what is kept with a new secret.

use endpoint_core::{StoreConfig, config::StoreSecret, store};
use serde_json::json;

use super::{Context, cert::store_fault};
use crate::{
    args::Store,
    config::{Config, SECRET_VARIABLE},
    control::{self, protocol::Request},
    error::{CliError, Result},
};

pub(super) async fn run(command: Store, context: &Context) -> Result<()> {
    let Store::Rekey { new_secret } = command;
    context.state.check()?;
    let (config, _) = Config::load(context.config.as_deref(), &context.state)?;
    if !config.store_exists() {
        let folder = context.state.folder().display();
        return Err(CliError::failure("no-store", format!("nothing is kept in {folder} yet"))
            .hint("the store is made by the first certificate: endpoint serve"));
    }
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
