//! Close the connections of a key now.

use serde_json::json;

use super::{Context, key_text};
use crate::{
    args::KeyWords,
    control::{self, protocol::Request},
    error::Result,
};

pub(super) async fn run(words: KeyWords, context: &Context) -> Result<()> {
    let key = key_text(&words.key)?.fingerprint();
    let items = control::ask(&context.state, Request::Kick(key)).await?;
    let closed = items.first().and_then(|item| item.get("closed")?.as_u64()).unwrap_or(0);
    let connections = if closed == 1 { "connection" } else { "connections" };
    let text = format!("closed {closed} {connections} of {key}");
    context.output.result(&json!({"closed": closed}), &text)?;
    if !context.output.is_json() {
        let rm = context.state.command(&format!("trust rm {key}"));
        context.output.say(&format!("the key may come back; to end that: {rm}"));
    }
    Ok(())
}
