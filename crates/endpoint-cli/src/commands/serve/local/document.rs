//! The status page as a document: complete without a script, alive with one.
//!
//! `script.js` fills the same tables from `/status.json`; a column that changes here changes there.

use std::fmt::{Result, Write as _};

use serde_json::Value;

use crate::web::escaped;

/// The page that shows `status`.
pub(super) fn html(status: &Value) -> String {
    let mut page = String::with_capacity(8192);
    // Writing into a `String` cannot fail.
    let _ = write_page(&mut page, status);
    page
}

fn write_page(page: &mut String, status: &Value) -> Result {
    page.push_str(include_str!("head.html"));
    identity(page, status)?;
    now(page, status)?;
    connections(page, list(status, "live"))?;
    refused(page, list(status, "refused"))?;
    certificates(page, list(status, "certificates"))?;
    listeners(page, status)?;
    page.push_str(
        "<section aria-labelledby=\"feed\"><h2 id=\"feed\">Events</h2>\
         <noscript><p>Events as they happen need a script; reload for fresh numbers.</p></noscript>\
         <p class=\"none\" id=\"events-none\" hidden>None since this page was opened.</p>\
         <ol id=\"events\" tabindex=\"0\" aria-labelledby=\"feed\" aria-live=\"polite\"></ol></section>\
         </main><p class=\"away\" id=\"said\" role=\"status\"></p></html>\n",
    );
    Ok(())
}

fn identity(page: &mut String, status: &Value) -> Result {
    let copied = |label: &str, value: &str| {
        format!("<dt>{label}<dd><code>{}</code> {}", escaped(value), copy(value, "Copy", label))
    };
    write!(
        page,
        "<section aria-labelledby=\"id\"><h2 id=\"id\">Identity</h2><dl>{}{}<dt>state folder<dd>\
         <code>{}</code><dt>version<dd>{} · pid {} · up <span id=\"uptime\">{}</span></dl></section>",
        copied("fingerprint", text(status, "fingerprint")),
        copied("peer address", text(status, "peer")),
        escaped(text(status, "state")),
        escaped(text(status, "version")),
        status.get("pid").unwrap_or(&Value::Null),
        time(number(status, "uptime_s")),
    )
}

/// The numbers of the moment. Rates need two looks, so they are the script's.
fn now(page: &mut String, status: &Value) -> Result {
    let connections = list(status, "live").len();
    let handshakes = status.pointer("/counters/handshakes").unwrap_or(&Value::Null);
    write!(
        page,
        "<section aria-labelledby=\"now\"><h2 id=\"now\">Now</h2><div class=\"tiles\">\
         <figure><figcaption>connections <b id=\"count\">{connections}</b></figcaption>\
         <p class=\"soft\"><span id=\"total\">{handshakes}</span> handshakes</p></figure>",
    )?;
    for (name, label) in [("handshakes", "handshakes"), ("bytes", "bytes")] {
        write!(
            page,
            "<figure class=\"alive\"><figcaption>{label}/s <b id=\"{name}\">–</b></figcaption>\
             <svg id=\"{name}-plot\" viewBox=\"0 0 120 32\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{label} a second, the last two minutes\"><polyline points=\"\"/></svg></figure>",
        )?;
    }
    page.push_str("</div></section>");
    Ok(())
}

fn connections(page: &mut String, live: &[Value]) -> Result {
    let rows = live.iter().map(|connection| {
        let rtt = connection.get("rtt_ms").and_then(Value::as_f64);
        format!(
            "<td title=\"{}\">{}<td><code>{}</code><td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}\
             <td class=\"n\">{}",
            escaped(text(connection, "peer")),
            escaped(&who(connection)),
            escaped(text(connection, "alpn")),
            escaped(text(connection, "profile")),
            escaped(text(connection, "remote")),
            rtt.map_or_else(|| "–".into(), |rtt| format!("{rtt:.1} ms")),
            size(number(connection, "bytes_sent")),
            size(number(connection, "bytes_received")),
        )
    });
    let head = "<th>peer<th>protocol<th>profile<th>remote<th class=\"n\">RTT<th class=\"n\">sent\
         <th class=\"n\">received";
    let card = Card { id: "connections", class: "wide", title: "Live connections", none: "None." };
    card.write(page, head, rows)
}

fn refused(page: &mut String, keys: &[Value]) -> Result {
    let rows = keys.iter().map(|key| {
        let print = text(key, "fingerprint");
        format!(
            "<td class=\"wrap\"><code>{}</code><td><code>{}</code><td>{}<td class=\"wrap\">{}<td>{}",
            escaped(print),
            escaped(text(key, "alpn")),
            escaped(text(key, "remote")),
            escaped(text(key, "reason")),
            copy(text(key, "allow"), "Copy command", "command"),
        )
    });
    let card = Card {
        id: "refusals",
        class: "wide",
        title: "Refused keys",
        none: "None since the start.",
    };
    card.write(page, "<th>key<th>protocol<th>remote<th>why<th>let it in", rows)
}

fn listeners(page: &mut String, status: &Value) -> Result {
    page.push_str("<section aria-labelledby=\"listen\"><h2 id=\"listen\">Listeners</h2><ul>");
    for address in list(status, "listen") {
        let carriers =
            if list(status, "udp_alone").contains(address) { "UDP" } else { "UDP and TCP" };
        write!(page, "<li><code>{}</code> {carriers}", escaped(address.as_str().unwrap_or("–")))?;
    }
    for address in list(status, "plain_listen") {
        let address = escaped(address.as_str().unwrap_or("–"));
        write!(page, "<li><code>{address}</code> HTTP, redirects to https")?;
    }
    let plain = text(status, "loopback_http");
    write!(page, "<li><code>{}</code> HTTP on this machine", escaped(plain))?;
    page.push_str("</ul><table><thead><tr><th>protocol<th>who may</thead><tbody>");
    for handler in list(status, "handlers") {
        let (alpn, access) = (escaped(text(handler, "alpn")), escaped(text(handler, "access")));
        write!(page, "<tr><td><code>{alpn}</code><td>{access}")?;
    }
    page.push_str("</table></section>");
    Ok(())
}

fn certificates(page: &mut String, certificates: &[Value]) -> Result {
    let rows = certificates.iter().map(|certificate| {
        let names: Vec<&str> =
            list(certificate, "names").iter().filter_map(Value::as_str).collect();
        let until = text(certificate, "not_after");
        let left = certificate.get("days_left").and_then(Value::as_i64);
        let fallback = certificate.get("fallback").and_then(Value::as_bool) == Some(true);
        let next = match certificate.get("next_at").and_then(Value::as_str) {
            Some(at) => format!("{} {}", text(certificate, "next_action"), minute(at)),
            None => text(certificate, "next_action").to_owned(),
        };
        format!(
            "<td class=\"wrap\">{}<td title=\"{}\">{}{}{}<td title=\"{}\">{}<td class=\"n{}\">{}\
             <td title=\"{}\">{}<td class=\"wrap\">{}",
            escaped(&names.join(", ")),
            escaped(text(certificate, "issuer")),
            escaped(text(certificate, "source")),
            if fallback { " (self-signed until then)" } else { "" },
            match text(certificate, "condition") {
                "–" | "whole" => String::new(),
                condition => format!(" ({})", escaped(condition)),
            },
            escaped(until),
            escaped(until.split('T').next().unwrap_or_default()),
            if left.is_some_and(|left| left < SOON) { " soon" } else { "" },
            left.map_or_else(|| "–".to_owned(), |left| left.to_string()),
            escaped(text(certificate, "next_at")),
            escaped(&next),
            escaped(text(certificate, "last_error")),
        )
    });
    let head = "<th>names<th>source<th>until<th class=\"n\">days left<th>next<th>last error";
    let card = Card { id: "certificates", class: "wide", title: "Certificates", none: "None." };
    card.write(page, head, rows)
}

/// A part of the page with one table, or a sentence where that would be empty.
struct Card {
    id: &'static str,
    class: &'static str,
    title: &'static str,
    none: &'static str,
}

impl Card {
    fn write(
        self,
        page: &mut String,
        head: &str,
        rows: impl ExactSizeIterator<Item = String>,
    ) -> Result {
        let Self { id, class, title, none } = self;
        let hidden = |yes: bool| if yes { " hidden" } else { "" };
        let (no_table, no_sentence) = (hidden(rows.len() == 0), hidden(rows.len() != 0));
        write!(
            page,
            "<section class=\"{class}\" aria-labelledby=\"{id}-title\"><h2 id=\"{id}-title\">{title}</h2>\
             <p class=\"none\" id=\"{id}-none\"{no_sentence}>{none}</p>\
             <table id=\"{id}-table\"{no_table}><thead><tr>{head}</thead><tbody id=\"{id}\">",
        )?;
        for row in rows {
            write!(page, "<tr>{row}")?;
        }
        page.push_str("</table></section>");
        Ok(())
    }
}

/// A button that copies `value`.
fn copy(value: &str, label: &str, what: &str) -> String {
    let value = escaped(value);
    format!("<button type=\"button\" data-copy=\"{value}\" data-what=\"{what}\">{label}</button>")
}

/// The peer's name, else the start of its fingerprint.
fn who(connection: &Value) -> String {
    match text(connection, "name") {
        "–" => text(connection, "peer").chars().take(23).collect(),
        name => name.to_owned(),
    }
}

/// Bytes as a person reads them, as `size` of `script.js` does.
fn size(bytes: u64) -> String {
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for larger in ["kB", "MB", "GB"] {
        if whole < 1000 {
            break;
        }
        (whole, tenths, unit) = (whole / 1000, whole % 1000 / 100, larger);
    }
    match whole < 10 && unit != "B" {
        true => format!("{whole}.{tenths} {unit}"),
        false => format!("{whole} {unit}"),
    }
}

/// A time to the minute, as `minute` of `script.js` writes it.
fn minute(at: &str) -> String {
    at.get(..16).unwrap_or(at).replace('T', " ")
}

/// Seconds as a person reads them, as `time` of `script.js` does.
fn time(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or("–")
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Days before its end from which on a certificate is marked, as in `script.js`.
const SOON: i64 = 14;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn escapes_what_a_peer_can_choose() {
        let evil = "<script>alert(1)</script>\"'&";
        let status = json!({
            "fingerprint": evil, "peer": evil, "state": evil, "listen": [evil],
            "live": [{"peer": evil, "name": evil, "alpn": evil, "remote": evil, "profile": evil}],
            "refused": [{"fingerprint": evil, "reason": evil, "alpn": evil, "remote": evil, "allow": evil}],
            "handlers": [{"alpn": evil, "access": evil}],
            "certificates": [{"names": [evil], "source": evil, "issuer": evil, "not_after": evil,
                "days_left": 1, "next_action": evil, "next_at": evil, "last_error": evil}],
        });
        let html = html(&status);
        assert!(!html.contains("<script>alert"), "{html}");
        assert!(!html.contains("=\"<"), "{html}");
    }

    #[test]
    fn tells_what_each_listener_does() {
        let status = json!({
            "listen": ["127.0.0.1:1", "127.0.0.1:2"], "udp_alone": ["127.0.0.1:2"],
            "plain_listen": ["127.0.0.1:3"], "loopback_http": "127.0.0.1:4",
        });
        let html = html(&status);
        for line in [
            "<li><code>127.0.0.1:1</code> UDP and TCP<",
            "<li><code>127.0.0.1:2</code> UDP<",
            "<li><code>127.0.0.1:3</code> HTTP, redirects to https<",
            "<li><code>127.0.0.1:4</code> HTTP on this machine<",
        ] {
            assert!(html.contains(line), "{line}: {html}");
        }
    }

    #[test]
    fn writes_numbers_as_a_person_reads_them() {
        let sizes = [0, 999, 1000, 9999, 10_000, 2_345_678, 7_000_000_000_000];
        let told = ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "2.3 MB", "7000 GB"];
        assert_eq!(sizes.map(size), told);
        let times = [0, 59, 61, 3600, 90_000];
        assert_eq!(times.map(time), ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
    }
}
