//! Whom should be dialled, and how is it known that it answers? What people write for a peer.
//!
//! Ground. The forms:
//!
//! | text | means |
//! |---|---|
//! | `peer://HEX64@host:port`, `sha256:HEX64@host:port` | this key, there |
//! | `https://host:port` (443 if left out) | whoever holds a certificate for the name |
//! | `https://host:port#sha256:HEX64` | both |
//! | `host:port` | the key in `known_peers`, or none yet |
//! | `name` | a name from `known_peers` |
//!
//! Always true: nothing in the text is silently dropped. A path, a query or a user would mean
//! something to whoever wrote it, so it is refused.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::{
    hostname::{Hostname, HostnameError},
    identity::{Fingerprint, KeyText, ParseKeyError, odd},
};

/// Whom to dial.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// The key with this fingerprint, at this address.
    Pinned {
        /// The key expected.
        fingerprint: Fingerprint,
        /// Where.
        host: HostPort,
    },
    /// Whoever proves the host's name by a certificate.
    Name {
        /// Where, and which name.
        host: HostPort,
    },
    /// Who proves the host's name and holds this key.
    NamePinned {
        /// Where, and which name.
        host: HostPort,
        /// The key expected.
        fingerprint: Fingerprint,
    },
    /// Whoever answers there: the key must come from `known_peers` or be learnt.
    Unpinned {
        /// Where.
        host: HostPort,
    },
    /// A name from `known_peers`, which holds the key and the address.
    Known {
        /// The name: see [`is_alias`].
        name: String,
    },
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParseTargetError::Empty);
        }
        let legal = |c: char| c != ' ' && !odd::is_hidden(c);
        if let Some((position, character)) = odd::first(text, legal) {
            return Err(ParseTargetError::InvalidCharacter { character, position });
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "peer" => pinned(rest),
                "https" => named(rest),
                _ => Err(ParseTargetError::Scheme { scheme: shown(scheme) }),
            };
        }
        if text.starts_with("sha256:") {
            return pinned(text);
        }
        if let Ok(key) = KeyText::parse(text) {
            return Err(ParseTargetError::NoAddress { fingerprint: key.fingerprint() });
        }
        if text.contains(['/', '?', '#', '@']) {
            return Err(surplus(text));
        }
        if is_alias(text) && text.parse::<Ipv4Addr>().is_err() {
            return Ok(Self::Known { name: text.to_owned() });
        }
        Ok(Self::Unpinned { host: text.parse()? })
    }
}

/// `HEX64@host:port` or `sha256:HEX64@host:port`.
fn pinned(rest: &str) -> Result<Target, ParseTargetError> {
    let Some((key, host)) = rest.split_once('@') else {
        return Err(match KeyText::parse(rest) {
            Ok(key) => ParseTargetError::NoAddress { fingerprint: key.fingerprint() },
            Err(_) => ParseTargetError::NoFingerprint,
        });
    };
    let key = key.strip_prefix("sha256:").unwrap_or(key);
    if key.is_empty() {
        return Err(ParseTargetError::NoFingerprint);
    }
    let fingerprint =
        KeyText::parse(&format!("sha256:{}", key.to_ascii_lowercase()))?.fingerprint();
    let host = host_port(host, None)?;
    Ok(Target::Pinned { fingerprint, host })
}

/// `host[:port][#sha256:HEX64]`.
fn named(rest: &str) -> Result<Target, ParseTargetError> {
    let Some((host, pin)) = rest.split_once('#') else {
        return Ok(Target::Name { host: host_port(rest, Some(443))? });
    };
    let host = host_port(host, Some(443))?;
    if !pin.starts_with("sha256:") {
        return Err(ParseTargetError::Fragment);
    }
    Ok(Target::NamePinned { host, fingerprint: KeyText::parse(pin)?.fingerprint() })
}

fn host_port(text: &str, default_port: Option<u16>) -> Result<HostPort, ParseTargetError> {
    if text.contains(['/', '?', '#', '@']) {
        return Err(surplus(text));
    }
    Ok(HostPort::parse(text, default_port)?)
}

fn surplus(text: &str) -> ParseTargetError {
    let from = |mark| text.find(mark).and_then(|at| text.get(at..)).map(shown).unwrap_or_default();
    match text.find(['/', '?', '#', '@']).and_then(|at| text.get(at..=at)) {
        Some("/") => ParseTargetError::Path { path: from('/') },
        Some("?") => ParseTargetError::Query,
        Some("#") => ParseTargetError::Fragment,
        _ => ParseTargetError::User,
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned { fingerprint, host } => write!(f, "peer://{}@{host}", fingerprint.hex()),
            Self::Name { host } => write!(f, "https://{host}"),
            Self::NamePinned { host, fingerprint } => write!(f, "https://{host}#{fingerprint}"),
            Self::Unpinned { host } => host.fmt(f),
            Self::Known { name } => f.write_str(name),
        }
    }
}

/// Whether `text` can be a name in `known_peers`: 1 to 64 of `a-z A-Z 0-9 . _ -`, the first a letter
/// or digit.
#[must_use]
pub fn is_alias(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&text.len())
        && text.bytes().all(legal)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// A host and a port.
///
/// Text: `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, from 1.
    pub port: u16,
}

/// A host: a name to look up, or an address.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name.
    Name(Hostname),
}

impl HostPort {
    fn parse(text: &str, default_port: Option<u16>) -> Result<Self, ParseHostPortError> {
        let missing = || ParseHostPortError::MissingPort { host: shown(text) };
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(ParseHostPortError::NotIpv6)?;
            if address.contains('%') {
                return Err(ParseHostPortError::Zone);
            }
            let address: Ipv6Addr = address.parse().map_err(|_| ParseHostPortError::NotIpv6)?;
            let port = match port.strip_prefix(':') {
                Some(port) => read_port(port)?,
                None if port.is_empty() => default_port.ok_or_else(missing)?,
                None => return Err(ParseHostPortError::NotIpv6),
            };
            return Ok(Self { host: Host::Ip(address.into()), port });
        }
        if text.matches(':').count() > 1 {
            return Err(ParseHostPortError::MissingBrackets);
        }
        let (host, port) = match text.split_once(':') {
            Some(("", _)) => return Err(ParseHostPortError::MissingHost),
            Some((host, port)) => (host, read_port(port)?),
            None if text.is_empty() => return Err(ParseHostPortError::MissingHost),
            None => (text, default_port.ok_or_else(missing)?),
        };
        let host = match host.parse::<Ipv4Addr>() {
            Ok(address) => Host::Ip(address.into()),
            Err(_) => Host::Name(host.parse()?),
        };
        Ok(Self { host, port })
    }
}

fn read_port(text: &str) -> Result<u16, ParseHostPortError> {
    Some(text)
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| ParseHostPortError::BadPort { port: shown(text) })
}

impl FromStr for HostPort {
    type Err = ParseHostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl fmt::Display for Host {
    /// An IPv6 address stands without brackets here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Why a text is not a [`HostPort`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseHostPortError {
    /// The port is no number from 1 to 65535.
    #[error("`{port}` is not a port: expected a number from 1 to 65535")]
    BadPort {
        /// What stands there.
        port: String,
    },
    /// The host is no name.
    #[error(transparent)]
    Host(#[from] HostnameError),
    /// An IPv6 address stands without brackets.
    #[error("an IPv6 address needs brackets before its port, as in `[::1]:4433`")]
    MissingBrackets,
    /// There is no host.
    #[error("there is no host before the port, as in `127.0.0.1:4433`")]
    MissingHost,
    /// There is no port.
    #[error("`{host}` has no port after it, as in `127.0.0.1:4433`")]
    MissingPort {
        /// The text.
        host: String,
    },
    /// The text in brackets is no IPv6 address.
    #[error("expected an IPv6 address in brackets and a port, as in `[::1]:4433`")]
    NotIpv6,
    /// The address names a zone.
    #[error("an IPv6 address with a zone (`%…`) cannot be dialled; use one without")]
    Zone,
}

/// Why a text is not a [`Target`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTargetError {
    /// There is no text.
    #[error("expected a peer, as in `peer://HEX64@host:port`, found nothing")]
    Empty,
    /// Something other than a pin follows `#`.
    #[error(
        "after `#` only a pin may stand, with `https://` before it: `https://host:port#sha256:HEX64`"
    )]
    Fragment,
    /// The host or port is wrong.
    #[error(transparent)]
    HostPort(#[from] ParseHostPortError),
    /// A character has no place in any form.
    #[error("the peer has {character} at character {position}; was it damaged when copied?")]
    InvalidCharacter {
        /// The character's name, safe to print.
        character: String,
        /// Its place, from 1, in characters.
        position: usize,
    },
    /// The fingerprint is wrong.
    #[error("the peer's fingerprint: {0}")]
    Key(#[from] ParseKeyError),
    /// There is a fingerprint and no address.
    #[error("a fingerprint alone cannot be dialled; add its address: `{fingerprint}@host:port`")]
    NoAddress {
        /// The fingerprint.
        fingerprint: Fingerprint,
    },
    /// There is an address and no fingerprint.
    #[error(
        "there is no fingerprint before the host, as in `peer://HEX64@host:port`; \
         `endpoint key show` prints it on the other side"
    )]
    NoFingerprint,
    /// The text has a path.
    #[error("leave out `{path}`: a connection has no path")]
    Path {
        /// The path.
        path: String,
    },
    /// The text has a query.
    #[error("leave out everything from `?` on: a connection has no query")]
    Query,
    /// The scheme is unknown.
    #[error("unknown scheme `{scheme}://`; expected `peer://` or `https://`")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The text names a user.
    #[error(
        "leave out what stands before `@`: a peer has no user; a fingerprint is written \
         `peer://HEX64@host:port`"
    )]
    User,
}

/// A part of the text, safe to print and not too long.
fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests;
