//! Would `serve` take this configuration, and which limits would it hold?
//!
//! Reads what `serve` reads and judges it by the same functions.
//!
//! Always true: writes nothing, binds nothing, calls nobody.

use serde_json::json;

use super::{Context, serve::judge};
use crate::{
    config::{Config, limits},
    error::Result,
};

pub(super) async fn check(context: &Context) -> Result<()> {
    context.state.check()?;
    let (config, file) = Config::load(context.config.as_deref(), &context.state)?;
    let doubtful = judge::all(&config).await?;
    super::trust::check_file(&context.state)?;
    let name = file.as_ref().map(|file| file.display().to_string());
    let text = match &name {
        Some(name) => format!("{name} has no faults"),
        None => "no configuration file: the defaults hold".to_owned(),
    };
    if !context.output.is_json() {
        for doubt in &doubtful {
            let hint =
                "serve starts without it; the name has a certificate that clients do not take";
            context.output.warning(doubt, &[hint.to_owned()]);
        }
    }
    let object = json!({"event": "checked", "file": name, "problems": 0, "warnings": doubtful});
    context.output.result(&object, &text)
}

/// Prints every limit, as the file or a default sets it.
pub(super) fn show(context: &Context) -> Result<()> {
    let (config, _) = Config::load(context.config.as_deref(), &context.state)?;
    for limit in limits::all() {
        let set = config.settings.contains_key(limit.name);
        let value = limit.of(&config).map(|value| value.to_string());
        let object = json!({
            "event": "limit",
            "name": limit.name,
            "value": value,
            "set": set,
            "default": limit.default().to_string(),
            "follows": limit.follows(),
            "range": limit.range(),
            "acts": limit.acts.as_str(),
            "about": limit.about,
        });
        let (name, acts) = (limit.name, limit.acts.as_str());
        let from = if set { "set" } else { "default" };
        let text = match (&value, limit.follows()) {
            (None, Some(what)) => format!("# {name}: {what}  # acts: {acts}"),
            _ => format!("{name} = {}  # {from}, acts: {acts}", value.unwrap_or_default()),
        };
        context.output.result(&object, &text)?;
    }
    Ok(())
}
