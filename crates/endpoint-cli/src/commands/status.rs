//! How is the running endpoint?
//!
//! One screen for people; with `--json` the same facts as one object, made by `serve::desk`.

use serde_json::Value;

use super::Context;
use crate::{
    control::{self, protocol::Request},
    error::Result,
};

pub(super) async fn run(context: &Context) -> Result<()> {
    let items = control::ask(&context.state, Request::Status).await?;
    let status = items.first().cloned().unwrap_or(Value::Null);
    context.output.result(&status, &screen(&status, |rest| context.state.command(rest)))
}

fn screen(status: &Value, command: impl Fn(&str) -> String) -> String {
    let text = |name: &str| {
        status.get(name).map_or_else(String::new, |value| match value {
            Value::String(text) => text.clone(),
            Value::Array(list) => {
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            other => other.to_string(),
        })
    };
    let list = |name: &str| status.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let field =
        |item: &Value, name: &str| item.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut lines = vec![
        format!("endpoint {}, pid {}, up {} s", text("version"), text("pid"), text("uptime_s")),
        format!("peer         {}", text("peer")),
        format!("fingerprint  {}", text("fingerprint")),
        format!("listen       {}", text("listen")),
    ];
    for address in list("plain_listen") {
        lines.push(format!("redirect     http://{}/", address.as_str().unwrap_or("-")));
    }
    if let Some(address) = status.get("loopback_http").and_then(Value::as_str) {
        lines.push(format!("status page  http://{address}/"));
    }
    lines.push(format!("state        {}", text("state")));
    let handlers: Vec<_> = list("handlers")
        .iter()
        .map(|item| format!("{} ({})", field(item, "alpn"), field(item, "access")))
        .collect();
    lines.push(format!("handlers     {}", handlers.join(", ")));
    let trust = status.get("trust").cloned().unwrap_or_default();
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
    lines.push(format!("connections  {} live", text("connections")));
    lines.push(format!("trust        {} keys", number(&trust, "keys")));
    for problem in trust.get("problems").and_then(Value::as_array).into_iter().flatten() {
        lines.push(format!("  problem    {}", problem.as_str().unwrap_or("-")));
    }
    if let Some(lost) = status.pointer("/log/lines_lost").and_then(Value::as_u64)
        && lost > 0
    {
        lines.push(format!("log          {lost} lines lost, nobody read them"));
    }
    if let Some(counters) = status.get("counters").and_then(Value::as_object) {
        let told: Vec<_> = counters
            .iter()
            .filter(|(_, count)| count.as_u64() != Some(0))
            .map(|(name, count)| format!("{} {count}", name.replace('_', " ")))
            .collect();
        lines.push(format!("since start  {}", told.join(", ")));
    }
    let refused = list("refused");
    if !refused.is_empty() {
        lines.push("last refused keys, newest last; to let one in, use its command:".to_owned());
    }
    for item in refused {
        let (alpn, remote, at) = (field(&item, "alpn"), field(&item, "remote"), field(&item, "at"));
        lines.push(format!("  {at} {remote} {alpn}: {}", field(&item, "reason")));
        let add = command(&format!("trust add {}", field(&item, "fingerprint")));
        lines.push(format!("    {add}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gives_a_ready_command_for_every_refused_key() {
        let status = json!({
            "version": "0.1.0", "pid": 7, "uptime_s": 3, "listen": ["127.0.0.1:1", "[::1]:1"],
            "plain_listen": ["127.0.0.1:80"], "loopback_http": "127.0.0.1:8080",
            "counters": {"denied": 1, "kicked": 0}, "connections": 0,
            "trust": {"keys": 1, "problems": ["authorized_peers:2:1: unknown option"]},
            "refused": [{"fingerprint": "sha256:ab", "alpn": "echo/1", "remote": "127.0.0.1:9",
                "reason": "unknown key", "at": "2026-11-22T10:00:00Z"}],
        });
        let screen = screen(&status, |rest| format!("endpoint {rest}"));
        assert!(screen.contains("\n    endpoint trust add sha256:ab"), "{screen}");
        assert!(screen.contains("listen       127.0.0.1:1 [::1]:1\n"), "{screen}");
        assert!(screen.contains("redirect     http://127.0.0.1:80/\n"), "{screen}");
        assert!(screen.contains("status page  http://127.0.0.1:8080/\n"), "{screen}");
        assert!(screen.contains("since start  denied 1\n"), "{screen}");
        assert!(screen.contains("  problem    authorized_peers:2:1"), "{screen}");
    }
}
