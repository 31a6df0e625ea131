//! What does a `[[site]]` answer with? Plain data; the web server makes it work.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use endpoint_core::config::Access;
use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::{
    access::{self, access},
    read::{Reader, Value},
    value,
};

/// What a site answers with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// A page that says what runs here.
    Welcome,
    /// The files of a folder.
    Root {
        /// The folder.
        folder: PathBuf,
        /// Whether folders without an index are listed.
        listing: bool,
    },
    /// Other HTTP servers, in turn.
    Proxy(Vec<Upstream>),
    /// Another address, to which path and query are added.
    Redirect(String),
}

/// An HTTP server behind a site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Upstream {
    /// `http://host:port` (HTTP/1.1) or `h2c://host:port` (HTTP/2).
    Tcp {
        /// Name or address, and port.
        authority: String,
        /// HTTP/2 without an upgrade (RFC 9113 §3.3).
        http2: bool,
    },
    /// `unix:/path`, HTTP/1.1.
    Unix(PathBuf),
}

/// A rule for a part of a site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Where it begins to hold: a path of whole segments, without a slash at its end.
    pub path: String,
    /// Who may send requests.
    pub access: Access,
    /// Bytes of a request's body.
    pub body_limit: Option<u64>,
    /// Time to the answer's head.
    pub timeout: Option<Duration>,
    /// Requests at one time.
    pub requests: Option<usize>,
    /// Silence of an upstream within its answer.
    pub upstream_idle: Option<Duration>,
    /// Silence in both directions of a tunnel.
    pub tunnel_idle: Option<Duration>,
    /// Origins that scripts may read from.
    pub cors: Vec<String>,
    /// Addresses whose forwarded fields are believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            path: "/".into(),
            access: Access::Public,
            body_limit: None,
            timeout: None,
            requests: None,
            upstream_idle: None,
            tunnel_idle: None,
            cors: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// Where plain HTTP for this machine listens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LoopbackHttp {
    /// 127.0.0.1:8080, or a free port if that is taken.
    #[default]
    Default,
    /// Nowhere.
    Off,
    /// There and nowhere else.
    At(SocketAddr),
}

/// Fields of a `[[site]]` that this file reads.
pub(super) const SITE_FIELDS: [&str; 7] =
    ["root", "listing", "proxy", "redirect", "headers", "access_log", "route"];

/// Fields of a `[[site.route]]`.
pub(super) const ROUTE_FIELDS: [&str; 10] = [
    "path",
    "access",
    "scope",
    "body_limit",
    "timeout",
    "requests",
    "upstream_idle",
    "tunnel_idle",
    "cors",
    "trusted_proxies",
];

/// Fields of an answer that frame it or that the server knows better (RFC 9112 §6, RFC 9114 §4.2).
const SET_BY_US: [&str; 11] = [
    "alt-svc",
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// The content of a site with these names. `ports` are the endpoint's own.
pub(super) fn content<'t>(
    reader: &mut Reader<'t>,
    table: &DeTable<'t>,
    names: &[String],
    ports: &[u16],
) -> Content {
    let listing = table.get("listing");
    let listed = listing.and_then(|value| boolean(reader, value)).unwrap_or(false);
    // All are read, so that each tells its own faults.
    let root = table.get("root").and_then(|value| {
        let text = reader.string(value, "a folder such as \"/srv/www\"")?;
        Some(Content::Root { folder: reader.path(&text), listing: listed })
    });
    let proxy = table.get("proxy").map(|value| proxy(reader, value));
    let redirect = table.get("redirect").and_then(|value| {
        let expected = "an address such as \"https://www.example.com\"";
        let to = reader.parsed(value, expected, redirect)?;
        if let Some(name) = own_name(&to, names, ports) {
            let message =
                format!("`{name}` is a name of this site: the redirect would lead to itself");
            reader.fault(value.span(), message, "this value");
        }
        Some(Content::Redirect(to))
    });
    let kinds = ["root", "proxy", "redirect"].into_iter().filter_map(|name| table.get(name));
    let mut kinds: Vec<_> = kinds.map(Value::span).collect();
    kinds.sort_by_key(|span| span.start);
    if let [_, second, ..] = kinds.as_slice() {
        let message = "a site has one of `root`, `proxy` and `redirect`";
        reader.fault(second.clone(), message, "the second one");
    }
    if let (Some(value), true, None) = (listing, listed, table.get("root")) {
        reader.fault(value.span(), "`listing` goes only with `root`", "this value");
    }
    root.or(proxy).or(redirect).unwrap_or(Content::Welcome)
}

fn proxy<'t>(reader: &mut Reader<'t>, value: &Value<'t>) -> Content {
    let expected = "a list of servers such as [\"http://127.0.0.1:3000\"]";
    let values = match value.get_ref() {
        DeValue::String(_) => vec![value],
        _ => reader.array(value, expected),
    };
    if values.is_empty() && value.get_ref().is_array() {
        reader.expected(value, expected);
    }
    let servers = values.into_iter().filter_map(|value| reader.parsed(value, expected, upstream));
    Content::Proxy(servers.collect())
}

/// The name of the site that an address leads back to: a port that is none of ours is another server.
fn own_name<'n>(address: &str, names: &'n [String], ports: &[u16]) -> Option<&'n String> {
    let authority = address.split_once("://")?.1.split('/').next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    if port.is_some_and(|port| ![80, 443].contains(&port) && !ports.contains(&port)) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let above = host.split_once('.').map(|(_, above)| above);
    names.iter().find(|name| {
        **name == host || name.strip_prefix("*.").is_some_and(|rest| Some(rest) == above)
    })
}

/// Fields that every answer of the site carries.
pub(super) fn headers<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Vec<(String, String)> {
    let Some(value) = table.get("headers") else { return Vec::new() };
    let expected = "a table such as { x-frame-options = \"DENY\" }";
    let Some(fields) = reader.table(value, expected) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, value) in fields {
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let name_text: &str = name.get_ref();
        if name_text.is_empty() || !name_text.bytes().all(token) {
            reader.fault(name.span(), "not the name of a header field", "this name");
            continue;
        }
        let lower = name_text.to_ascii_lowercase();
        if SET_BY_US.contains(&lower.as_str()) {
            reader.fault(name.span(), format!("`{lower}` is set by the server"), "this name");
            continue;
        }
        let Some(text) = reader.string(value, "the field's text") else { continue };
        if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            found.push((lower, text.into_owned()));
        } else {
            reader.fault(value.span(), "a header field takes printable ASCII", "this value");
        }
    }
    found
}

/// Whether requests are logged.
pub(super) fn access_log<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> bool {
    table.get("access_log").and_then(|value| boolean(reader, value)).unwrap_or(false)
}

/// The rules of a site, the longest path first.
pub(super) fn routes<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Vec<Route> {
    let Some(value) = table.get("route") else { return Vec::new() };
    let mut routes: Vec<Route> = Vec::new();
    for value in reader.array(value, "tables: [[site.route]]") {
        let Some(route) = route(reader, value) else { continue };
        if routes.iter().any(|other| other.path == route.path) {
            let message = format!(
                "the route `{}` stands twice (with or without a slash at its end)",
                route.path
            );
            reader.fault(value.span(), message, "the second one");
        }
        routes.push(route);
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    routes
}

fn route<'t>(reader: &mut Reader<'t>, value: &Value<'t>) -> Option<Route> {
    let table = reader.table(value, "a table: [[site.route]]")?;
    reader.names(table, " in [[site.route]]", &ROUTE_FIELDS, &[]);
    let Some(path) = table.get("path") else {
        reader.fault(value.span(), "a route lacks `path`", "this route");
        return None;
    };
    let mut route = Route {
        path: reader.parsed(path, "a path such as \"/admin/\"", route_path)?,
        ..Route::default()
    };
    let unsaid = |scope| match table.contains_key("scope") {
        true => Access::Peer(scope),
        false => Access::Public,
    };
    route.access = access(reader, table, unsaid, access::unknown)?;
    if let Some(value) = table.get("body_limit") {
        route.body_limit = reader.parsed(value, "a size such as \"10MiB\"", value::size);
    }
    if let Some(value) = table.get("timeout") {
        route.timeout = reader.parsed(value, value::A_TIME, value::silence);
    }
    if let Some(value) = table.get("requests") {
        route.requests = reader.number(value, 1..=1_000_000);
    }
    if let Some(value) = table.get("upstream_idle") {
        route.upstream_idle = reader.parsed(value, value::A_TIME, value::silence);
    }
    if let Some(value) = table.get("tunnel_idle") {
        route.tunnel_idle = reader.parsed(value, value::A_TIME, value::silence);
    }
    if let Some(list) = table.get("cors") {
        for value in reader.array(list, "a list of origins such as [\"https://app.example\"]") {
            route.cors.extend(reader.parsed(value, "an origin", origin));
        }
        if !matches!(route.access, Access::Public) && route.cors.iter().any(|origin| origin == "*")
        {
            let message = "`*` lets every page read what only a peer may see: name the origins";
            reader.fault(list.span(), message, "this list");
        }
    }
    if let Some(list) = table.get("trusted_proxies") {
        for value in reader.array(list, "a list of networks such as [\"10.0.0.0/8\"]") {
            route.trusted_proxies.extend(reader.parsed(value, "a network", value::network));
        }
    }
    Some(route)
}

/// Where plain HTTP for this machine listens.
pub(super) fn loopback<'t>(reader: &mut Reader<'t>, value: &Value<'t>) -> LoopbackHttp {
    let expected = "\"off\" or a loopback address such as \"127.0.0.1:8080\"";
    let parse = |text: &str| match text {
        "off" => Ok(LoopbackHttp::Off),
        text => match value::listen(text)? {
            address if address.ip().is_loopback() => Ok(LoopbackHttp::At(address)),
            address => Err(format!(
                "{address} is not a loopback address: plain HTTP for this machine goes nowhere else; \
                 write 127.0.0.1:{}",
                address.port()
            )),
        },
    };
    reader.parsed(value, expected, parse).unwrap_or_default()
}

fn boolean<'t>(reader: &mut Reader<'t>, value: &Value<'t>) -> Option<bool> {
    match value.get_ref() {
        DeValue::Boolean(value) => Some(*value),
        _ => {
            reader.expected(value, "true or false");
            None
        }
    }
}

/// An upstream.
///
/// # Errors
/// What was expected.
pub fn upstream(text: &str) -> Result<Upstream, String> {
    let expected = || "expected a server such as http://127.0.0.1:3000, h2c://127.0.0.1:3000 or unix:/run/app.sock";
    if let Some(path) = text.strip_prefix("unix:") {
        let path = Path::new(path);
        return match path.is_absolute() {
            true => Ok(Upstream::Unix(path.to_owned())),
            false => Err("a unix socket is named from the root: unix:/run/app.sock".into()),
        };
    }
    if text.starts_with("https://") {
        return Err(
            "an upstream over TLS is not supported: name it as http:// on this machine or \
                    a network that you trust"
                .into(),
        );
    }
    let (rest, http2) = match (text.strip_prefix("http://"), text.strip_prefix("h2c://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return Err(expected().into()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if authority.is_empty() || !authority.bytes().all(legal) {
        return Err(match rest.contains('/') {
            true => "an upstream has no path: requests keep theirs".into(),
            false => expected().into(),
        });
    }
    let after = authority.rsplit(']').next().unwrap_or_default();
    let authority = match after.split_once(':') {
        Some((_, port)) if !matches!(port.parse::<u16>(), Ok(1..)) => return Err(expected().into()),
        Some(_) => authority.to_owned(),
        None => format!("{authority}:80"),
    };
    Ok(Upstream::Tcp { authority, http2 })
}

fn redirect(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\');
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if text.contains(['?', '#']) {
        return Err(
            "a redirect has no query and no fragment: each request keeps its own path and query"
                .into(),
        );
    }
    match rest {
        Some(rest)
            if printable && !rest.is_empty() && !rest.starts_with('/') && !rest.contains('@') =>
        {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("expected an address such as https://www.example.com".into()),
    }
}

fn origin(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    match rest {
        _ if text == "*" => Ok(text.into()),
        Some(rest) if !rest.is_empty() && rest.bytes().all(legal) => Ok(text.to_ascii_lowercase()),
        _ => Err("expected an origin such as https://app.example, without a path".into()),
    }
}

/// A rule's path is compared with decoded paths, so it is written in the plain form. A slash at its end
/// changes nothing and is left out.
fn route_path(text: &str) -> Result<String, String> {
    let plain = text.starts_with('/')
        && !text.contains("//")
        && !text.split('/').any(|segment| segment == "." || segment == "..")
        && !text.contains(['%', '\\', '?', '#'])
        && !text.contains(char::is_control);
    match plain {
        true if text == "/" => Ok(text.to_owned()),
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("expected a path such as /admin/, without `%`, `//`, `.` or `..`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    /// Line and message of each fault.
    fn faults(text: &str) -> Vec<(usize, String)> {
        let Err(fault) = Config::parse(text, std::path::Path::new("e.toml")) else {
            return Vec::new();
        };
        let all = if fault.others.is_empty() { vec![fault] } else { fault.others };
        let line = |fault: &crate::error::CliError| fault.place.as_ref().map_or(0, |p| p.line);
        let ours = all.into_iter().filter(|fault| fault.code != "not-in-this-build");
        ours.map(|fault| (line(&fault), fault.message)).collect()
    }

    #[test]
    fn tells_what_would_be_accepted_in_silence() {
        let site = "[[site]]\nnames = [\"a.example\", \"*.b.example\"]\n";
        let route = "[[site.route]]\npath = \"/a/\"\naccess = \"peer\"\n";
        let table = [
            ("listing = true", 3, "`listing` goes only with `root`"),
            ("proxy = \"http://127.0.0.1:1\"\nroot = 5", 4, "a site has one of"),
            ("proxy = \"http://127.0.0.1:1\"\nroot = 5", 4, "expected a folder"),
            ("root = \"x\"\nredirect = true", 4, "expected an address"),
            ("redirect = \"https://c.example/?a\"", 3, "no query and no fragment"),
            ("redirect = \"https://c.example/#a\"", 3, "no query and no fragment"),
            ("redirect = \"https://A.example/x\"", 3, "is a name of this site"),
            ("redirect = \"http://x.b.example:80\"", 3, "is a name of this site"),
            ("redirect = \"https://a.example.:4433\"", 3, "is a name of this site"),
            ("headers = { Content-Length = \"1\" }", 3, "`content-length` is set by the server"),
            ("headers = { x-request-id = \"1\" }", 3, "`x-request-id` is set by the server"),
            ("[[site.route]]\npath = \"/a\"\ntimeout = \"0s\"", 5, "expected a time from 1ms to"),
            ("[[site.route]]\npath = \"/a/\"\n[[site.route]]\npath = \"/a\"", 5, "stands twice"),
            ("[[site]]\nnames = [\"127.0.0.1\"]", 4, "is an address"),
        ];
        for (text, line, expected) in table {
            let found = faults(&format!("{site}{text}\n"));
            let hit = found.iter().any(|(at, text)| *at == line && text.contains(expected));
            assert!(hit, "{text:?}: {found:?}");
        }
        for text in [
            "redirect = \"https://a.example:8443\"",
            "redirect = \"https://b.example\"",
            "root = \"x\"\nlisting = true",
            "listing = false",
            "headers = { x-frame-options = \"DENY\" }",
        ] {
            assert_eq!(faults(&format!("{site}{text}\n{route}")), [], "{text:?}");
        }
        assert_eq!(faults("[[site]]\nnames = [\"127.0.0.1\"]\n"), [], "the first site's");
    }

    #[test]
    fn leaves_the_slash_at_a_route_s_end_out() {
        if !crate::web::BUILT_IN {
            return;
        }
        let text = "[[site]]\nnames = [\"a\"]\n[[site.route]]\npath = \"/\"\n\
                    [[site.route]]\npath = \"/a/\"\n[[site.route]]\npath = \"/a/b\"\n";
        let config = Config::parse(text, std::path::Path::new("e.toml")).unwrap();
        let routes = config.sites.iter().flat_map(|site| &site.routes);
        assert_eq!(
            routes.map(|route| route.path.as_str()).collect::<Vec<_>>(),
            ["/a/b", "/a", "/"]
        );
    }
}
