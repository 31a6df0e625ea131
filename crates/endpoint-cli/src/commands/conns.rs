//! Who is connected to the running endpoint?

use super::{Context, table, word};
use crate::{
    control::{self, protocol::Request},
    error::Result,
};

pub(super) async fn run(context: &Context) -> Result<()> {
    let items = control::ask(&context.state, Request::Connections).await?;
    if context.output.is_json() {
        return items.iter().try_for_each(|item| context.output.object(item));
    }
    if items.is_empty() {
        context.output.say("no live connections");
        return Ok(());
    }
    let columns = ["id", "peer", "name", "alpn", "carrier", "remote", "since", "rtt_ms"];
    let rows = items.iter().map(|item| columns.map(|column| word(item.get(column)))).collect();
    context.output.text(&table(columns, rows))
}
