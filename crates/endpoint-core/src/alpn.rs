//! Which protocol does a connection speak?
//!
//! Ground: a name of 1 to 255 bytes (RFC 7301 §3.1) and the names this project knows.
//! Not here: who may speak it (`config::access`), where it may be negotiated (`tls::choose`).

use std::{fmt, str::FromStr};

use bytes::Bytes;

/// An application protocol's name in TLS (RFC 7301): 1 to 255 bytes, compared byte by byte.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Alpn(Bytes);

impl Alpn {
    /// HTTP/3 (RFC 9114 §3.1).
    pub const H3: Self = Self(Bytes::from_static(b"h3"));
    /// HTTP/2 over TLS (RFC 9113 §3.2).
    pub const H2: Self = Self(Bytes::from_static(b"h2"));
    /// HTTP/1.1 (RFC 7301 §6).
    pub const HTTP_1_1: Self = Self(Bytes::from_static(b"http/1.1"));
    /// The ACME challenge protocol (RFC 8737 §4).
    pub const ACME_TLS_1: Self = Self(Bytes::from_static(b"acme-tls/1"));
    /// Round trips.
    pub const PING_1: Self = Self(Bytes::from_static(b"ping/1"));
    /// Streams that come back as they went.
    pub const ECHO_1: Self = Self(Bytes::from_static(b"echo/1"));
    /// What this endpoint is, the same answer for everybody.
    pub const DISCOVER_1: Self = Self(Bytes::from_static(b"discover/1"));
    /// Enrolment of new peers.
    pub const ENROLL_1: Self = Self(Bytes::from_static(b"enroll/1"));

    /// Takes a protocol name as it stands in a hello.
    ///
    /// # Errors
    /// [`AlpnError`] if `name` is empty or longer than 255 bytes.
    pub fn new(name: &[u8]) -> Result<Self, AlpnError> {
        match name.len() {
            1..=255 => Ok(Self(Bytes::copy_from_slice(name))),
            got => Err(AlpnError { got }),
        }
    }

    /// The name as it stands in a hello.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether browsers speak it: `h3`, `h2` or `http/1.1`.
    #[must_use]
    pub fn is_http(&self) -> bool {
        is_http_name(&self.0)
    }
}

/// Whether the raw protocol name is one that browsers speak.
pub(crate) fn is_http_name(name: &[u8]) -> bool {
    matches!(name, b"h3" | b"h2" | b"http/1.1")
}

impl fmt::Display for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alpn({self})")
    }
}

impl FromStr for Alpn {
    type Err = AlpnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.as_bytes())
    }
}

impl TryFrom<&[u8]> for Alpn {
    type Error = AlpnError;

    fn try_from(name: &[u8]) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl<const N: usize> TryFrom<&[u8; N]> for Alpn {
    type Error = AlpnError;

    fn try_from(name: &[u8; N]) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

/// Why bytes are not an [`Alpn`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a protocol name has {got} bytes, expected 1 to 255 (RFC 7301 §3.1)")]
pub struct AlpnError {
    got: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_empty_and_an_overlong_name() {
        assert!(Alpn::new(b"").is_err());
        assert!(Alpn::new(&[b'a'; 256]).is_err());
        assert!(Alpn::new(&[b'a'; 255]).is_ok());
    }

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(Alpn::new(b"a\x1b[1m").unwrap().to_string(), "a\\x1b[1m");
    }
}
