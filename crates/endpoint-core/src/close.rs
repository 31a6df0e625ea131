//! Why did a connection end?
//!
//! Ground: the application close codes of this project (RFC 9000 §19.19, frame type 0x1d). A peer gets
//! the code and no text. HTTP/3 connections use HTTP/3's codes instead (RFC 9114 §8.1).

use std::fmt;

/// The code in an application close. The numbers are fixed: `docs/path-of-a-connection.md`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CloseCode {
    /// Both sides have what they wanted.
    Done,
    /// The key is not allowed here, or none was shown.
    NotAuthorized,
    /// The key was allowed and no longer is.
    Revoked,
    /// The key's grant came to its end.
    Expired,
    /// A limit was reached; try later.
    Overloaded,
    /// The endpoint is shutting down.
    ShuttingDown,
    /// The handler ended with an error or a panic.
    HandlerFailed,
    /// An ACME challenge was answered (RFC 8737 §4).
    ChallengeDone,
    /// The other side broke the protocol.
    ProtocolError,
    /// The key has as many connections as it may.
    TooManyConnections,
}

impl CloseCode {
    /// Every code, by number.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::NotAuthorized,
        Self::Revoked,
        Self::Expired,
        Self::Overloaded,
        Self::ShuttingDown,
        Self::HandlerFailed,
        Self::ChallengeDone,
        Self::ProtocolError,
        Self::TooManyConnections,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::NotAuthorized => 1,
            Self::Revoked => 2,
            Self::Expired => 3,
            Self::Overloaded => 4,
            Self::ShuttingDown => 5,
            Self::HandlerFailed => 6,
            Self::ChallengeDone => 7,
            Self::ProtocolError => 8,
            Self::TooManyConnections => 9,
        }
    }

    /// The number on HTTP/3 connections (RFC 9114 §8.1), where the nearest of its codes stands in.
    #[must_use]
    pub const fn http3(self) -> u32 {
        match self {
            // H3_NO_ERROR
            Self::Done | Self::ShuttingDown | Self::ChallengeDone => 0x100,
            // H3_GENERAL_PROTOCOL_ERROR
            Self::ProtocolError => 0x101,
            // H3_INTERNAL_ERROR
            Self::HandlerFailed => 0x102,
            // H3_EXCESSIVE_LOAD
            Self::Overloaded | Self::TooManyConnections => 0x107,
            // H3_REQUEST_REJECTED
            Self::NotAuthorized => 0x10b,
            // H3_REQUEST_CANCELLED
            Self::Revoked | Self::Expired => 0x10c,
        }
    }

    /// What a close of an HTTP/3 connection means, as far as [`Self::http3`] says it.
    #[must_use]
    pub fn from_http3(number: u64) -> Option<Self> {
        match number {
            0x100 => Some(Self::Done),
            0x101 => Some(Self::ProtocolError),
            0x102 => Some(Self::HandlerFailed),
            0x107 => Some(Self::Overloaded),
            0x10b => Some(Self::NotAuthorized),
            0x10c => Some(Self::Revoked),
            _ => None,
        }
    }

    /// The code with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::NotAuthorized => "not authorised",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting down",
            Self::HandlerFailed => "handler failed",
            Self::ChallengeDone => "challenge done",
            Self::ProtocolError => "protocol error",
            Self::TooManyConnections => "too many connections of this key",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number().into()), Some(code));
        }
        assert_eq!(CloseCode::from_number(10), None);
    }
}
