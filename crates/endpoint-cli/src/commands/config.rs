//! Would `serve` take this configuration?
//!
//! Reads what `serve` reads and judges it by the same functions.
//!
//! Always true: writes nothing, binds nothing, calls nobody.

use serde_json::json;

use super::{Context, serve::judge};
use crate::{config::Config, error::Result};

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
