//! What do a command and the running endpoint say to each other?
//!
//! One request a connection, as a line of JSON; the answer is any number of `item` lines and one
//! `done` or `error` line. Pure: bytes in, values out, fit for fuzzing.
//!
//! Always true: a line longer than its cap is refused before it is parsed, and a request that
//! does not parse has no effect.

use std::time::Duration;

use endpoint_core::identity::Fingerprint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest request, its line break included.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024;

/// Longest line of an answer, its line break included.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// What a command asks of the running endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// How are you? One item.
    Status,
    /// Who is connected? One item a connection.
    Connections,
    /// Close the connections of this key. One item: `{"closed":n}`.
    Kick(Fingerprint),
    /// How many connections does this key have? One item: `{"live":n}`.
    Live(Fingerprint),
    /// Read `authorized_peers` and the certificates again, after the line of this key was added anew, if one
    /// was. One item: what came of it.
    Reload {
        /// The key.
        added: Option<Fingerprint>,
    },
    /// End the connections of this key and let it in no more, before the file is changed. One item:
    /// `{"closed":n}`, or null if the key is not authorised.
    Revoke(Fingerprint),
    /// Which certificates are served? One item a certificate.
    Certificates,
    /// Renew the certificate of this name. One item: what came of it.
    Renew(String),
    /// The chain that this name is served with. One item: `{"chain":PEM or null}`.
    Chain(String),
}

#[derive(Deserialize, Serialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
enum RequestLine {
    Status {},
    Connections {},
    Kick {
        key: String,
    },
    Live {
        key: String,
    },
    Reload {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        added: Option<String>,
    },
    Revoke {
        key: String,
    },
    Certificates {},
    Renew {
        name: String,
    },
    Chain {
        name: String,
    },
}

impl Request {
    /// Reads a request line, with or without its line break.
    ///
    /// # Errors
    /// [`ProtocolError`]: too long, no JSON, no known request, or a bad fingerprint.
    pub fn parse(line: &[u8]) -> Result<Self, ProtocolError> {
        if line.len() > MAX_REQUEST_BYTES {
            return Err(ProtocolError::TooLong { max: MAX_REQUEST_BYTES });
        }
        match serde_json::from_slice(line).map_err(|_| ProtocolError::Malformed)? {
            RequestLine::Status {} => Ok(Self::Status),
            RequestLine::Connections {} => Ok(Self::Connections),
            RequestLine::Reload { added } => {
                let added = added.as_deref().map(fingerprint).transpose()?;
                Ok(Self::Reload { added })
            }
            RequestLine::Revoke { key } => fingerprint(&key).map(Self::Revoke),
            RequestLine::Certificates {} => Ok(Self::Certificates),
            RequestLine::Renew { name } => name_of_host(name).map(Self::Renew),
            RequestLine::Chain { name } => name_of_host(name).map(Self::Chain),
            RequestLine::Kick { key } => fingerprint(&key).map(Self::Kick),
            RequestLine::Live { key } => fingerprint(&key).map(Self::Live),
        }
    }

    /// The request as a line.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let line = match self {
            Self::Status => RequestLine::Status {},
            Self::Connections => RequestLine::Connections {},
            Self::Reload { added } => {
                RequestLine::Reload { added: added.as_ref().map(ToString::to_string) }
            }
            Self::Revoke(key) => RequestLine::Revoke { key: key.to_string() },
            Self::Certificates => RequestLine::Certificates {},
            Self::Renew(name) => RequestLine::Renew { name: name.clone() },
            Self::Chain(name) => RequestLine::Chain { name: name.clone() },
            Self::Kick(key) => RequestLine::Kick { key: key.to_string() },
            Self::Live(key) => RequestLine::Live { key: key.to_string() },
        };
        to_line(&line)
    }

    /// How long the answer may take: an order at a certificate authority goes through several rounds.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        Duration::from_secs(match self {
            Self::Renew(_) => 300,
            _ => 30,
        })
    }
}

/// A line of the answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// One of the things asked for.
    Item {
        /// The thing.
        item: Value,
    },
    /// There is nothing more.
    Done {},
    /// The request failed.
    Error {
        /// What is wrong.
        message: String,
    },
}

impl Answer {
    /// Reads a line of an answer, with or without its line break.
    ///
    /// # Errors
    /// [`ProtocolError`]: too long, no JSON, or no known answer.
    pub fn parse(line: &[u8]) -> Result<Self, ProtocolError> {
        if line.len() > MAX_ANSWER_BYTES {
            return Err(ProtocolError::TooLong { max: MAX_ANSWER_BYTES });
        }
        serde_json::from_slice(line).map_err(|_| ProtocolError::Malformed)
    }

    /// The answer as a line.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }
}

/// A DNS name has 253 characters at most (RFC 1035 §2.3.4), an address fewer.
fn name_of_host(name: String) -> Result<String, ProtocolError> {
    match (1..=254).contains(&name.len()) {
        true => Ok(name),
        false => Err(ProtocolError::Malformed),
    }
}

fn fingerprint(text: &str) -> Result<Fingerprint, ProtocolError> {
    text.parse().map_err(|_| ProtocolError::Malformed)
}

fn to_line(value: &impl Serialize) -> Vec<u8> {
    // Values of these two types always have a JSON form; an empty line would be refused as malformed.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Why a line is no part of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// It is no JSON, or says something unknown.
    #[error("not understood: are both sides the same version? endpoint --version")]
    Malformed,
    /// It is longer than anything that is ever said.
    #[error("a line has more than {max} bytes")]
    TooLong {
        /// The cap.
        max: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Fingerprint = Fingerprint::from_bytes([7; 32]);

    #[test]
    fn reads_back_every_request_it_writes() {
        for request in [
            Request::Status,
            Request::Connections,
            Request::Kick(KEY),
            Request::Reload { added: None },
            Request::Reload { added: Some(KEY) },
            Request::Revoke(KEY),
            Request::Certificates,
            Request::Renew("example.com".into()),
            Request::Chain("::1".into()),
        ] {
            assert_eq!(Request::parse(&request.to_line()), Ok(request));
        }
    }

    #[test]
    fn reads_back_every_answer_it_writes() {
        let item = serde_json::json!({"closed": 1, "text": "line\nbreak"});
        for answer in
            [Answer::Item { item }, Answer::Done {}, Answer::Error { message: "no".into() }]
        {
            let line = answer.to_line();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(Answer::parse(&line), Ok(answer));
        }
    }

    #[test]
    fn refuses_what_is_no_request() {
        for bad in [
            &b""[..],
            b"\n",
            b"status",
            b"{}",
            b"{\"request\":\"halt\"}",
            b"{\"request\":\"kick\"}",
            b"{\"request\":\"renew\",\"name\":\"\"}",
            b"{\"request\":\"kick\",\"key\":\"sha256:00\"}",
            b"{\"request\":\"status\",\"more\":1}",
            b"{\"request\":\"status\"}{}",
            b"\xff\xfe",
        ] {
            assert_eq!(Request::parse(bad), Err(ProtocolError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn refuses_a_long_line_before_parsing_it() {
        let mut line = Request::Status.to_line();
        line.resize(MAX_REQUEST_BYTES + 1, b' ');
        let max = MAX_REQUEST_BYTES;
        assert_eq!(Request::parse(&line), Err(ProtocolError::TooLong { max }));
    }

    #[test]
    fn does_not_overflow_on_deep_nesting() {
        let deep = b"[".repeat(MAX_REQUEST_BYTES);
        assert_eq!(Request::parse(&deep), Err(ProtocolError::Malformed));
    }
}
