//! What may stand in the configuration file, and what does it mean?
//!
//! One function for each table of the file. The names are part of the contract.

use std::{collections::BTreeSet, net::SocketAddr};

use endpoint_core::{
    alpn::Alpn,
    config::{Access, Acme, TlsIdentity},
};
use toml::de::{DeTable, DeValue};

use super::{
    Config, HANDLERS, HandlerEntry, Site, TlsVersion,
    access::{self, access},
    acme,
    certificate::certificate,
    limits,
    read::{Reader, Value},
    value, web,
};

/// The whole file. With faults the result is of no use; the reader has them.
pub(super) fn config<'t>(reader: &mut Reader<'t>) -> Config {
    let mut config = Config::default();
    let Some(document) = reader.document() else { return config };
    reader.names(&document, "", &FIELDS, &[]);
    if let Some(table) = section(reader, &document, "acme") {
        config.acme = acme::acme(reader, table);
    }
    if let Some(table) = section(reader, &document, "store") {
        config.store = acme::store(reader, table);
    }
    if let Some(addresses) = document.get("listen") {
        config.listen = listen(reader, addresses);
    }
    if let Some(addresses) = document.get("plain_listen") {
        needs_web(reader, addresses, "`plain_listen`");
        config.plain_listen = listen(reader, addresses);
    }
    if let Some(value) = document.get("loopback_http") {
        needs_web(reader, value, "`loopback_http`");
        config.loopback_http = web::loopback(reader, value);
    }
    if let Some(value) = document.get("qlog") {
        if let Some(fault) = super::without_qlog("`qlog`") {
            reader.lacking(value.span(), fault);
        }
        let folder = reader.string(value, "a folder such as \"qlog\"");
        config.qlog = folder.map(|text| reader.path(&text));
    }
    if let Some(sites) = document.get("site") {
        let mut names = BTreeSet::new();
        let listen = match config.listen.as_slice() {
            [] => &value::default_listen(),
            listen => listen,
        };
        config.sites = Vec::new();
        for value in reader.array(sites, "tables: [[site]]") {
            let found = site(reader, value, &mut names, listen, &config.acme);
            if let Some(site) = &found
                && (site.certificate.is_none()
                    || config.sites.iter().any(|s| s.certificate.is_some()))
            {
                no_addresses(reader, value);
            }
            config.sites.extend(found);
        }
    }
    if let Some(handlers) = document.get("handler") {
        config.handlers = Vec::new();
        for value in reader.array(handlers, "tables: [[handler]]") {
            let Some(entry) = handler(reader, value) else { continue };
            if config.handlers.iter().any(|other| other.alpn == entry.alpn) {
                let message = format!("the handler `{}` stands twice in the file", entry.alpn);
                reader.fault(value.span(), message, "the second one");
            }
            config.handlers.push(entry);
        }
    }
    if let Some(table) = section(reader, &document, "tls") {
        tls(reader, table, &mut config);
    }
    if let Some(table) = section(reader, &document, "limits") {
        limits::read(reader, table, &mut config);
    }
    if let Some(table) = section(reader, &document, "drain") {
        reader.names(table, " in [drain]", &["deadline"], &[]);
        if let Some(value) = table.get("deadline") {
            let deadline = reader.parsed(value, value::A_TIME, value::duration);
            config.drain_deadline = deadline.unwrap_or(config.drain_deadline);
        }
    }
    config
}

pub(super) const FIELDS: [&str; 11] = [
    "listen",
    "plain_listen",
    "loopback_http",
    "qlog",
    "site",
    "handler",
    "tls",
    "limits",
    "drain",
    "acme",
    "store",
];

fn section<'t, 'v>(
    reader: &mut Reader<'t>,
    document: &'v DeTable<'t>,
    name: &str,
) -> Option<&'v DeTable<'t>> {
    let value = document.get(name)?;
    reader.table(value, &format!("a table: [{name}]"))
}

fn listen<'t>(reader: &mut Reader<'t>, addresses: &Value<'t>) -> Vec<SocketAddr> {
    let expected = "a list of addresses such as [\"127.0.0.1:4433\"]";
    let mut found = Vec::new();
    let values = reader.array(addresses, expected);
    if addresses.get_ref().is_array() && values.is_empty() {
        reader.expected(addresses, "at least one address such as \"127.0.0.1:4433\"");
    }
    for value in values {
        found.extend(reader.parsed(value, "an address such as \"127.0.0.1:4433\"", value::listen));
    }
    found
}

fn site<'t>(
    reader: &mut Reader<'t>,
    value: &Value<'t>,
    seen: &mut BTreeSet<String>,
    listen: &[SocketAddr],
    acme: &Acme,
) -> Option<Site> {
    let table = reader.table(value, "a table: [[site]]")?;
    let later = [("webtransport", "WebTransport")];
    let known: Vec<&str> = ["names", "certificate"].into_iter().chain(web::SITE_FIELDS).collect();
    reader.names(table, " in [[site]]", &known, &later);
    for name in web::SITE_FIELDS {
        if let Some(value) = table.get(name) {
            needs_web(reader, value, &format!("`{name}`"));
        }
    }
    let mut names = Vec::new();
    match table.get("names") {
        None => reader.fault(value.span(), "a site lacks `names`", "this site"),
        Some(list) => {
            let expected = "a list of host names such as [\"example.com\"]";
            let values = reader.array(list, expected);
            if list.get_ref().is_array() && values.is_empty() {
                reader.expected(list, expected);
            }
            for value in values {
                let Some(name) = reader.parsed(value, "a host name", host_name) else { continue };
                if !seen.insert(name.clone()) {
                    let message = format!("the name `{name}` stands twice in the file");
                    reader.fault(value.span(), message, "the second one");
                }
                names.push(name);
            }
        }
    }
    let certificate = match table.get("certificate") {
        Some(value) => certificate(reader, value, &names, listen, acme)?,
        None => Some(TlsIdentity::SelfSigned),
    };
    let ports: Vec<u16> = listen.iter().map(SocketAddr::port).collect();
    let content = web::content(reader, table, &names, &ports);
    let (headers, access_log) = (web::headers(reader, table), web::access_log(reader, table));
    Some(Site {
        names,
        certificate,
        content,
        headers,
        access_log,
        routes: web::routes(reader, table),
    })
}

/// Notes names that are addresses: who names no host gets the first certificate, so they are for that site.
fn no_addresses<'t>(reader: &mut Reader<'t>, site: &Value<'t>) {
    let names =
        site.get_ref().as_table().and_then(|table| table.get("names")?.get_ref().as_array());
    for value in names.into_iter().flatten() {
        let DeValue::String(text) = value.get_ref() else { continue };
        if text.parse::<std::net::IpAddr>().is_ok() {
            let message = format!(
                "`{text}` is an address: only the first site with a certificate answers who names no host"
            );
            reader.fault(value.span(), message, "this name");
        }
    }
}

/// Notes a field that this build cannot serve.
fn needs_web<'t>(reader: &mut Reader<'t>, value: &Value<'t>, what: &str) {
    if !crate::web::BUILT_IN {
        reader.later(value.span(), what, "feature `http3`, the web server");
    }
}

/// A host name in lower case, one leading `*.` allowed.
fn host_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let bare = name.strip_prefix("*.").unwrap_or(&name);
    let label = |label: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if bare.len() <= 253 && bare.split('.').all(label) {
        return Ok(name);
    }
    if !text.is_ascii() {
        return Err(format!(
            "`{text}` is not a host name: write it in its ASCII form, such as xn--bcher-kva.example"
        ));
    }
    Err(format!("`{}` is not a host name such as www.example.com", text.escape_debug()))
}

fn handler<'t>(reader: &mut Reader<'t>, value: &Value<'t>) -> Option<HandlerEntry> {
    let table = reader.table(value, "a table: [[handler]]")?;
    reader.names(table, " in [[handler]]", &["alpn", "access", "scope"], &[]);
    let Some(name) = table.get("alpn") else {
        reader.fault(value.span(), "a handler lacks `alpn`", "this handler");
        return None;
    };
    let alpn = reader.parsed(name, "a protocol name such as \"echo/1\"", known_handler);
    let access = access(reader, table, Access::Peer, |reader, value, word| match word {
        "enroll" => reader.later(value.span(), "access = \"enroll\"", "enrolment"),
        word => access::unknown(reader, value, word),
    })?;
    let alpn = alpn?;
    if alpn == Alpn::DISCOVER_1 && access != Access::Public {
        let message =
            "discover/1 gives everybody the same answer: it goes only with access = \"public\"";
        reader.fault(name.span(), message, "this handler");
    }
    Some(HandlerEntry { alpn, access })
}

fn known_handler(text: &str) -> Result<Alpn, String> {
    if !HANDLERS.contains(&text) {
        let known = HANDLERS.join(", ");
        return Err(format!("this build has no handler `{}`: it has {known}", text.escape_debug()));
    }
    value::alpn(text)
}

fn tls<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>, config: &mut Config) {
    reader.names(table, " in [tls]", &["min_version"], &[]);
    let Some(value) = table.get("min_version") else { return };
    let expected = "\"1.2\" or \"1.3\"";
    config.min_tls = match reader.string(value, expected).as_deref() {
        Some("1.2") => TlsVersion::V1_2,
        Some("1.3") => TlsVersion::V1_3,
        Some(_) => return reader.expected(value, expected),
        None => return,
    };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{error::CliError, output::error_text};

    fn faults(text: &str) -> Vec<CliError> {
        match Config::parse(text, Path::new("endpoint.toml")) {
            Ok(_) => Vec::new(),
            Err(fault) if fault.others.is_empty() => vec![fault],
            Err(sum) => sum.others,
        }
    }

    #[test]
    fn tells_each_fault_with_line_column_and_text() {
        let table: &[(&str, usize, usize, &str)] = &[
            ("listen = \"127.0.0.1:1\"", 1, 10, "expected a list of addresses"),
            ("listen = []", 1, 10, "expected at least one address"),
            ("listen = [\"x\"]", 1, 11, "expected an address such as 127.0.0.1:4433"),
            ("listen = [4433]", 1, 11, "expected an address such as"),
            ("conections = 5", 1, 1, "unknown field `conections`"),
            ("[limits]\nconections = 5", 2, 1, "unknown field `conections` in [limits]"),
            ("[limits]\nconnections = -1", 2, 15, "expected a number from 1 to 10000000"),
            ("[limits]\nconnections = \"many\"", 2, 15, "expected a number from 1 to"),
            ("[limits]\npenalty_exempt = 5", 2, 18, "expected a list of networks"),
            ("[limits]\npenalty_exempt = [\"x\"]", 2, 19, "expected a network such as"),
            ("[limits]\nhandshakes_per_address = 0", 2, 26, "expected a number from 1"),
            ("limits = 5", 1, 10, "expected a table: [limits]"),
            ("[drain]\ndeadline = \"soon\"", 2, 12, "expected a time such as"),
            ("[drain]\ndeadline = 10", 2, 12, "expected a time such as"),
            ("[tls]\nmin_version = \"1.1\"", 2, 15, "expected \"1.2\" or \"1.3\""),
            ("[store]\nurl = \"x\"", 2, 7, "expected \"sqlite:FILE\""),
            ("[acme]\ncontact = [1]", 2, 12, "expected a URL"),
            ("[[site]]\nnames = [\"a\"]\ncertificate = \"auto\"", 3, 15, "no public authority"),
            ("[[site]]\nnames = [\"a\"]\ncertificate = \"none\"", 3, 15, "expected \"auto\""),
            ("[[site]]\nnames = [\"a\"]\ncertificate = { cert = \"c\" }", 3, 15, "expected"),
            ("[[site]]\nnames = [\"a b\"]", 2, 10, "`a b` is not a host name"),
            ("[[site]]\nnames = [\"bücher.example\"]", 2, 10, "write it in its ASCII form"),
            ("[[site]]\nnames = [\"a\", \"A\"]", 2, 15, "the name `a` stands twice"),
            ("[[site]]\n", 1, 1, "a site lacks `names`"),
            ("[[handler]]\nalpn = \"chat/1\"", 2, 8, "it has echo/1, ping/1, discover/1"),
            ("[[handler]]\nalpn = \"echo/1\"\naccess = \"all\"", 3, 10, "expected \"public\""),
            ("[[handler]]\naccess = \"peer\"", 1, 1, "a handler lacks `alpn`"),
            (
                "[[handler]]\nalpn = \"echo/1\"\naccess = \"public\"\nscope = \"x\"",
                4,
                9,
                "`scope` goes only with access = \"peer\"",
            ),
            ("[[handler]]\nalpn = \"discover/1\"", 2, 8, "it goes only with access = \"public\""),
            ("listen = [", 1, 11, "not TOML"),
            ("a = 1\na = 2", 2, 1, "not TOML: duplicate key"),
        ];
        for (text, line, column, expected) in table {
            let found = faults(text);
            let hit = found.iter().any(|fault| {
                let place = fault.place.as_ref().map(|p| (p.line, p.column));
                place == Some((*line, *column)) && fault.message.contains(expected)
            });
            assert!(hit, "{text:?}: {found:#?}");
        }
    }

    #[test]
    fn finds_all_faults_at_once_in_the_order_of_the_file() {
        let found = faults("lisen = 1\n[drain]\ndeadline = 1\n[limits]\nconnections = 0\n");
        let lines: Vec<_> = found.iter().filter_map(|f| f.place.as_ref().map(|p| p.line)).collect();
        assert_eq!(lines, [1, 3, 5]);
    }

    #[test]
    fn shows_the_line_carets_and_the_name_that_was_meant() {
        let found = faults("[limits]\nconections = 5\n");
        assert_eq!(
            error_text(found.first().unwrap(), false),
            "error: unknown field `conections` in [limits]\n \
             --> endpoint.toml:2:1\n  |\n\
             2 | conections = 5\n  | ^^^^^^^^^^ not a field\n  |\n\
             help: did you mean `connections`?\n"
        );
    }

    #[test]
    fn takes_the_listed_handlers_and_no_others() {
        let text = "[[handler]]\nalpn = \"discover/1\"\naccess = \"public\"\n\
                    [[handler]]\nalpn = \"echo/1\"\nscope = \"lab\"\n";
        let config = Config::parse(text, Path::new("e.toml")).unwrap();
        let told: Vec<_> =
            config.handlers.iter().map(|h| format!("{} {}", h.alpn, h.access)).collect();
        assert_eq!(told, ["discover/1 public", "echo/1 peer:lab"]);
    }
}
