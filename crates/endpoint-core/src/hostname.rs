//! Which server is meant? One spelling for each name.
//!
//! Ground. DNS names compare without case and with or without the dot at the end (RFC 4343,
//! RFC 6066 §3), so a name is brought into one form before it is compared or stored.
//!
//! Not here: which certificate a name gets, and wildcards (`certs`).

use std::{fmt, net::IpAddr, str::FromStr};

use crate::identity::odd;

/// The name of a host: lower case, without the dot at the end, international labels in ASCII.
///
/// Shape: 1 to 253 characters; labels of 1 to 63 of `a-z 0-9 - _` that neither begin nor end with a
/// hyphen; the last label is not a number. Never an IP address. `xn--…` labels are taken as they come.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hostname(Box<str>);

impl Hostname {
    /// Brings a name into its one form.
    ///
    /// # Errors
    /// [`HostnameError`] if it is no name of a host.
    pub fn new(name: &str) -> Result<Self, HostnameError> {
        if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(HostnameError::IpAddress);
        }
        let ascii = if name.is_ascii() {
            name.to_ascii_lowercase()
        } else {
            if let Some((position, character)) = odd::first(name, |c| !odd::is_hidden(c)) {
                return Err(HostnameError::InvalidCharacter { character, position });
            }
            idna::domain_to_ascii(name).map_err(|_| HostnameError::NotInternational)?
        };
        let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if let Some((position, character)) = odd::first(ascii, legal) {
            return Err(HostnameError::InvalidCharacter { character, position });
        }
        if ascii.is_empty() {
            return Err(HostnameError::Empty);
        }
        if ascii.len() > 253 {
            return Err(HostnameError::TooLong { got: ascii.len() });
        }
        for label in ascii.split('.') {
            if label.is_empty() {
                return Err(HostnameError::EmptyLabel);
            }
            if label.len() > 63 {
                return Err(HostnameError::LabelTooLong { got: label.len() });
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(HostnameError::Hyphen { label: label.to_owned() });
            }
        }
        if ascii.rsplit('.').next().is_some_and(is_number) {
            return Err(HostnameError::Number);
        }
        Ok(Self(ascii.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether resolvers would read the last label as part of an IPv4 address, in whatever notation.
fn is_number(label: &str) -> bool {
    let hex =
        label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || label.bytes().all(|b| b.is_ascii_digit())
}

impl FromStr for Hostname {
    type Err = HostnameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl AsRef<str> for Hostname {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostname({self})")
    }
}

/// Why a text is not a [`Hostname`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HostnameError {
    /// There is no name.
    #[error("the host name is empty")]
    Empty,
    /// Two dots follow each other, or the name begins with one.
    #[error("the host name has nothing between two dots, or before the first")]
    EmptyLabel,
    /// A label begins or ends with a hyphen.
    #[error("`{label}` in the host name begins or ends with a hyphen")]
    Hyphen {
        /// The label.
        label: String,
    },
    /// A character cannot stand in a name.
    #[error("the host name has {character} at character {position}")]
    InvalidCharacter {
        /// The character's name, safe to print.
        character: String,
        /// Its place, from 1, in characters.
        position: usize,
    },
    /// The text is an IP address.
    #[error("expected a host name, found an IP address")]
    IpAddress,
    /// A label is too long.
    #[error("a part of the host name has {got} characters, allowed are 63")]
    LabelTooLong {
        /// Characters found.
        got: usize,
    },
    /// The international name cannot be written in ASCII (UTS #46).
    #[error("the host name is not a valid international name")]
    NotInternational,
    /// The last label is a number, so that the name would be read as an IPv4 address.
    #[error("the host name ends in a number, as only IP addresses do")]
    Number,
    /// The name is too long.
    #[error("the host name has {got} characters, allowed are 253")]
    TooLong {
        /// Characters found.
        got: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gives_one_spelling_to_each_name() {
        let table = [
            ("example.com", "example.com"),
            ("EXAMPLE.Com.", "example.com"),
            ("localhost", "localhost"),
            ("_dns.example.com", "_dns.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("bücher。example", "xn--bcher-kva.example"),
            ("1.example", "1.example"),
            ("0xg", "0xg"),
        ];
        for (text, want) in table {
            assert_eq!(Hostname::new(text).unwrap().as_str(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_name_and_says_why() {
        let label = "a".repeat(63);
        let table = [
            ("".to_owned(), "the host name is empty"),
            (".".to_owned(), "the host name is empty"),
            ("a..b".to_owned(), "nothing between two dots"),
            (".a".to_owned(), "nothing between two dots"),
            ("a..".to_owned(), "nothing between two dots"),
            ("127.0.0.1".to_owned(), "found an IP address"),
            ("::1".to_owned(), "found an IP address"),
            ("[::1]".to_owned(), "found an IP address"),
            ("127.1".to_owned(), "ends in a number"),
            ("0x7f".to_owned(), "ends in a number"),
            ("a.0x".to_owned(), "ends in a number"),
            ("1".to_owned(), "ends in a number"),
            ("127.0.0.1.".to_owned(), "ends in a number"),
            ("-a.b".to_owned(), "`-a` in the host name begins or ends with a hyphen"),
            ("a-.b".to_owned(), "`a-` in the host name"),
            ("a b".to_owned(), "U+0020 (space) at character 2"),
            ("a\0b".to_owned(), "U+0000 (NUL) at character 2"),
            ("*.example.com".to_owned(), "`*` at character 1"),
            ("a:1".to_owned(), "`:` at character 2"),
            ("ü\u{200b}a".to_owned(), "U+200B (zero-width space) at character 2"),
            (format!("{label}a.b"), "has 64 characters, allowed are 63"),
            (format!("{label}.{label}.{label}.{label}"), "has 255 characters, allowed are 253"),
        ];
        for (text, want) in table {
            let got = Hostname::new(&text).unwrap_err().to_string();
            assert!(got.contains(want), "{text:?}: {got}");
        }
        let longest = format!("{label}.{label}.{label}.{}.", "a".repeat(61));
        assert_eq!(Hostname::new(&longest).unwrap().as_str().len(), 253);
    }

    proptest! {
        #[test]
        fn keeps_a_name_that_is_in_its_form(text in "[a-zA-ZäöüßΩ0-9._-]{1,70}|\\PC{0,30}") {
            if let Ok(name) = Hostname::new(&text) {
                prop_assert_eq!(Hostname::new(name.as_str()), Ok(name.clone()));
                prop_assert!(name.as_str().is_ascii() && !name.as_str().ends_with('.'));
            }
        }
    }
}
