//! What do the options of a line mean?

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::line::{Fault, RawOption};
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

/// Whether `name`, in letters of either case, is an option without which a line admits more.
pub(super) fn restricts(name: &str) -> bool {
    RESTRICT.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The option that is called so in other programs or in plain words.
pub(super) fn synonym(name: &str) -> Option<&'static str> {
    let known = SYNONYMS.iter().find(|(word, _)| *word == name).map(|(_, option)| *option);
    known.or_else(|| NAMES.into_iter().find(|known| *known == name))
}

/// Every word that stands for an option without which a line admits more.
pub(super) fn words_for_restrictions() -> impl Iterator<Item = &'static str> {
    RESTRICT.into_iter().chain(SYNONYMS.iter().map(|(word, _)| *word))
}

/// The option that `name` was probably meant to be.
pub(super) fn near(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    synonym(&lower).or_else(|| {
        NAMES
            .into_iter()
            .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
            .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
            .min()
            .map(|(_, known)| known)
    })
}

/// The value as it should be written, if the option can have it. Only to be shown.
pub(super) fn mended_value(name: &str, value: &str) -> Option<String> {
    let mended = match name {
        "from" => {
            let items = value.split([',', ' ']).filter(|item| !item.is_empty());
            items.map(without_zeros).collect::<Vec<_>>().join(",")
        }
        "alpn" | "scope" => value.trim_matches([',', ' ']).to_owned(),
        _ => value.trim().to_owned(),
    };
    let sound = !mended.contains(['"', '\\']);
    (sound && Options::default().set(name, &mended).is_ok()).then_some(mended)
}

/// The address with decimal numbers as a person wrote them, without zeros before them.
fn without_zeros(item: &str) -> String {
    let (address, prefix) = item.split_once('/').map_or((item, None), |(a, p)| (a, Some(p)));
    let number = |digits: &str| match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let address = match address.contains(':') {
        true => address.to_owned(),
        false => address.split('.').map(number).collect::<Vec<_>>().join("."),
    };
    prefix.map_or_else(|| address.clone(), |prefix| format!("{address}/{}", number(prefix)))
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
    // No registered protocol has these; an option that lost its quotes does.
    if !item.bytes().all(|b| b.is_ascii_graphic() && b != b'=' && b != b'"') {
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
    let wrong = || Wrong::new(format!("`{}` is neither an address nor a network", shown(item)));
    let zeros = |digits: &str| digits.len() > 1 && digits.starts_with('0');
    let (address, prefix) = item.split_once('/').map_or((item, None), |(a, p)| (a, Some(p)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if (!address.contains(':') && address.split('.').any(|n| digits(n) && zeros(n)))
        || prefix.is_some_and(|prefix| digits(prefix) && zeros(prefix))
    {
        // Some programs take `010` for eight (inet_aton(3)), others for ten.
        let message = format!("`{}` has zeros before a number", shown(item));
        let mended = without_zeros(item);
        let decimal = mended.parse::<IpNet>().is_ok() || mended.parse::<IpAddr>().is_ok();
        let help = if decimal { format!("write `{mended}`") } else { "leave them out".to_owned() };
        return Err(Wrong::new(message).help(help));
    }
    // `IpNet` reads addresses more liberally than `IpAddr`, so each part is read by itself.
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let net = match prefix {
        None => IpNet::from(address),
        Some(bits) if digits(bits) => {
            let bits = bits.parse().map_err(|_| wrong())?;
            IpNet::new(address, bits).map_err(|_| wrong())?
        }
        Some(_) => return Err(wrong()),
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
    if value.len() > 1 && value.starts_with('0') && value.bytes().all(|b| b.is_ascii_digit()) {
        let message = format!("`{}` has zeros before the number", shown(value));
        return Err(Wrong::new(message).help("leave them out"));
    }
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
    // A quote that was set too late would make a name of an option.
    let words = value.split(|c: char| c.is_ascii_whitespace() || c == ',');
    if words.filter_map(|word| word.split_once('=')).any(|(name, _)| restricts(name.trim())) {
        let message = format!("the name `{}` holds an option", shown(value));
        return Err(Wrong::new(message).help("close the quote before the comma"));
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
    match near(name) {
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
const SYNONYMS: [(&str, &str); 15] = [
    ("expire", "expires"),
    ("expiry", "expires"),
    ("expiry-time", "expires"),
    ("expires-at", "expires"),
    ("until", "expires"),
    ("valid-until", "expires"),
    ("valid-to", "expires"),
    ("protocol", "alpn"),
    ("protocols", "alpn"),
    ("ip", "from"),
    ("address", "from"),
    ("allow-from", "from"),
    ("source-address", "from"),
    ("source-ip", "from"),
    ("max-conn", "max-connections"),
];
const RESTRICT: [&str; 4] = ["alpn", "expires", "from", "max-connections"];
