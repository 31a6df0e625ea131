//! What do the options of a line mean?

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::line::{self, Fault, RawOption};
use crate::{alpn::Alpn, config::Scope};

/// The options of one line, read.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) alpns: Option<Vec<Alpn>>,
    pub(super) from: Option<Vec<IpNet>>,
    pub(super) expires: Option<Timestamp>,
    pub(super) scopes: Vec<Scope>,
    pub(super) tenant: Option<String>,
    pub(super) max_connections: Option<usize>,
    pub(super) name: Option<String>,
}

/// Reads all options of a line; the first that is unknown, double or wrong is the line's fault.
pub(super) fn read(raw: &[RawOption<'_>]) -> Result<Options, Fault> {
    let mut options = Options::default();
    for (i, option) in raw.iter().enumerate() {
        let name_fault = |message: String| Fault::new(option.at, option.name.len(), message);
        if !NAMES.contains(&option.name) {
            let message = format!("unknown option `{}`", option.name);
            return Err(name_fault(message).help(suggestion(option.name)));
        }
        if raw.iter().take(i).any(|before| before.name == option.name) {
            let message = format!("option `{}` stands here twice", option.name);
            return Err(name_fault(message).help("join both into one"));
        }
        let Some(value) = option.value.as_deref() else {
            let message = format!("option `{}` has no value", option.name);
            return Err(name_fault(message).help(format!("write {}", example(option.name))));
        };
        options.set(option.name, value).map_err(|Wrong { message, help }| {
            let help = help.unwrap_or_else(|| format!("write {}", example(option.name)));
            Fault::new(option.value_at, option.value_length, message).help(help)
        })?;
    }
    Ok(options)
}

/// The first word at or after byte `from` that is an option which restricts, and its place.
pub(super) fn misplaced(text: &str, from: usize) -> Option<(usize, &str)> {
    let mut at = from;
    for word in text.get(from..)?.split(line::is_blank) {
        let name = word.split_once('=').map(|(name, _)| name.to_ascii_lowercase());
        if name.is_some_and(|name| RESTRICT.contains(&name.as_str())) {
            return Some((at, word));
        }
        at += word.len() + 1;
    }
    None
}

impl Options {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        match name {
            "alpn" => self.alpns = Some(list(value, alpn)?),
            "from" => self.from = Some(list(value, network)?),
            "expires" => self.expires = Some(time(value)?),
            "scope" => self.scopes = list(value, scope)?,
            "tenant" => self.tenant = Some(tenant(value)?),
            "max-connections" => self.max_connections = Some(count(value)?),
            _ => self.name = Some(label(value)?),
        }
        Ok(())
    }
}

/// Why a value does not do; without help an example helps.
#[derive(Debug)]
struct Wrong {
    message: String,
    help: Option<String>,
}

impl Wrong {
    fn new(message: String) -> Self {
        Self { message, help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

fn list<T>(value: &str, read: impl Fn(&str) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    value
        .split(',')
        .map(|item| match item.trim_matches([' ', '\t']) {
            "" => Err(Wrong::new("the list has an empty item".to_owned())),
            item => read(item),
        })
        .collect()
}

fn alpn(item: &str) -> Result<Alpn, Wrong> {
    if !item.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Wrong::new(format!("`{}` is not the name of a protocol", shown(item))));
    }
    item.parse().map_err(|why: crate::alpn::AlpnError| Wrong::new(why.to_string()))
}

fn network(item: &str) -> Result<IpNet, Wrong> {
    if item.starts_with('!') {
        return Err(
            Wrong::new("`from` knows no `!`".to_owned()).help("list the networks that are allowed")
        );
    }
    let net = match item.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => item.parse().map_err(|_| {
            Wrong::new(format!("`{}` is neither an address nor a network", shown(item)))
        })?,
    };
    if net.trunc() != net {
        return Err(Wrong::new(format!("`{net}` has bits after its prefix")).help(format!(
            "did you mean `{}`, or the one address `{}`?",
            net.trunc(),
            net.addr()
        )));
    }
    // 96 bits of an IPv4 address in IPv6 form are fixed (RFC 4291 §2.5.5.2).
    if let (IpAddr::V4(address), Some(bits)) =
        (net.addr().to_canonical(), net.prefix_len().checked_sub(96))
        && net.addr().is_ipv6()
    {
        let mapped = ipnet::Ipv4Net::new(address, bits).map(IpNet::V4);
        return mapped.map_err(|_| Wrong::new(format!("`{net}` is not a network")));
    }
    Ok(net)
}

fn scope(item: &str) -> Result<Scope, Wrong> {
    Scope::new(item).map_err(|why| Wrong::new(why.to_string()))
}

fn tenant(value: &str) -> Result<String, Wrong> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if value.is_empty() || value.len() > 64 || !value.bytes().all(legal) {
        let message =
            format!("`{}` is not a tenant: expected 1 to 64 of a-z A-Z 0-9 . _ -", shown(value));
        return Err(Wrong::new(message));
    }
    Ok(value.to_owned())
}

fn count(value: &str) -> Result<usize, Wrong> {
    let number =
        if value.bytes().all(|b| b.is_ascii_digit()) { value.parse::<u32>().ok() } else { None };
    match number {
        Some(0) => Err(Wrong::new("a key with no connections is not authorised at all".to_owned())
            .help("remove the line, or give a number from 1")),
        Some(number) => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
        None => Err(Wrong::new(format!(
            "`{}` is not a number of connections: expected 1 to {}",
            shown(value),
            u32::MAX
        ))),
    }
}

fn label(value: &str) -> Result<String, Wrong> {
    let legal = |b: u8| b.is_ascii_graphic() || b == b' ';
    if value.trim().is_empty() || value.len() > 64 || !value.bytes().all(legal) {
        let message = format!(
            "`{}` is not a name: expected 1 to 64 printable ASCII characters",
            shown(value)
        );
        return Err(Wrong::new(message));
    }
    Ok(value.trim().to_owned())
}

fn time(value: &str) -> Result<Timestamp, Wrong> {
    let compact = value.strip_suffix('Z').unwrap_or(value);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let dashed = value.len() == 10 && digits(&value.replace('-', ""));
    let wrong = || Wrong::new(format!("`{}` is not a time", shown(value)));
    if digits(compact) && matches!(compact.len(), 8 | 12 | 14) {
        return utc(&format!("{compact:0<14}")).ok_or_else(wrong);
    }
    if dashed && value.bytes().enumerate().all(|(i, b)| (b == b'-') == (i == 4 || i == 7)) {
        return utc(&format!("{:0<14}", value.replace('-', ""))).ok_or_else(wrong);
    }
    // A bracket would name a time zone, whose rules change.
    let zoned = value.contains('[');
    value.parse().ok().filter(|_| !zoned).ok_or_else(wrong)
}

/// Reads `YYYYMMDDHHMMSS` as UTC.
fn utc(digits: &str) -> Option<Timestamp> {
    let two = |at: usize| digits.get(at..at + 2)?.parse::<i8>().ok();
    let year = digits.get(..4)?.parse().ok()?;
    let time = DateTime::new(year, two(4)?, two(6)?, two(8)?, two(10)?, two(12)?, 0).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn suggestion(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let near = match lower.as_str() {
        "expiry-time" | "expiry" | "until" => Some("expires"),
        "protocol" | "protocols" => Some("alpn"),
        "ip" | "address" | "source-address" => Some("from"),
        lower => NAMES
            .into_iter()
            .map(|known| (strsim::damerau_levenshtein(lower, known), known))
            .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
            .min()
            .map(|(_, known)| known),
    };
    match near {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("the options are {}", NAMES.join(", ")),
    }
}

fn example(name: &str) -> &'static str {
    match name {
        "alpn" => "alpn=\"echo/1,ping/1\"",
        "from" => "from=\"192.0.2.0/24,2001:db8::1\"",
        "expires" => {
            "expires=\"20261231\", \"202612311800Z\", \"2026-12-31\" or \"2026-12-31T18:00:00Z\""
        }
        "scope" => "scope=\"lab,ops\"",
        "tenant" => "tenant=\"acme\"",
        "max-connections" => "max-connections=4",
        _ => "name=\"bob's laptop\"",
    }
}

/// The value, safe to print and not too long.
fn shown(value: &str) -> String {
    value.chars().take(64).collect::<String>().escape_debug().to_string()
}

/// Every option there is, in the order of the alphabet.
const NAMES: [&str; 7] = ["alpn", "expires", "from", "max-connections", "name", "scope", "tenant"];

/// The options without which a line admits more.
const RESTRICT: [&str; 4] = ["alpn", "expires", "from", "max-connections"];
