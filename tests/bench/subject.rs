//! What is compared, and what is it asked to do?

use std::net::SocketAddr;

use crate::{ours, raw, report::Named};

/// One of the stacks compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// Ours: mutual raw keys, a handler for authorised peers.
    Endpoint,
    /// Ours, as a browser sees it: X.509 P-256, a public handler; dialled by `QuinnDefault`'s client.
    EndpointX509,
    /// The same with ten server names, each of which is asked for in turn.
    EndpointTenNames,
    /// The same with a hundred thousand.
    EndpointManyNames,
    /// quinn as it comes: X.509 P-256, the server alone proves itself.
    QuinnDefault,
    /// quinn with our transport parameters, mutual raw keys and stream credit as the server's yes,
    /// all fixed beforehand: no choice by hello, no admission, no access decision.
    QuinnTuned,
    /// The same without the yes: the client has its stream credit from the start.
    QuinnTunedAtOnce,
}

impl Subject {
    pub const ALL: [Self; 5] = [
        Self::Endpoint,
        Self::EndpointX509,
        Self::QuinnDefault,
        Self::QuinnTuned,
        Self::QuinnTunedAtOnce,
    ];
    pub const MAIN: [Self; 3] = [Self::Endpoint, Self::QuinnDefault, Self::QuinnTuned];

    /// What a number of names costs.
    pub const NAMES: [Self; 3] =
        [Self::EndpointTenNames, Self::EndpointManyNames, Self::QuinnDefault];

    /// How many names the server has beside the one that all have.
    pub fn names(self) -> usize {
        match self {
            Self::EndpointTenNames => 10,
            Self::EndpointManyNames => 100_000,
            _ => 0,
        }
    }

    /// Whether the server shows a certificate.
    pub fn is_x509(self) -> bool {
        !matches!(self, Self::Endpoint | Self::QuinnTuned | Self::QuinnTunedAtOnce)
    }

    pub fn find(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().chain(Self::NAMES).find(|subject| subject.name() == name);
        found.ok_or_else(|| format!("no subject `{name}`"))
    }
}

impl Named for Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::EndpointX509 => "endpoint-x509",
            Self::EndpointTenNames => "endpoint-10-names",
            Self::EndpointManyNames => "endpoint-100000-names",
            Self::QuinnDefault => "quinn-default",
            Self::QuinnTuned => "quinn-tuned",
            Self::QuinnTunedAtOnce => "quinn-tuned-at-once",
        }
    }

    fn is_ours(self) -> bool {
        !matches!(self, Self::QuinnDefault | Self::QuinnTuned | Self::QuinnTunedAtOnce)
    }
}

/// What a pair of processes does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// Handshakes, [`DIALS`] under way at one time.
    Handshake,
    /// Connections that stay and do nothing.
    Idle,
    /// Requests on one connection, each after the answer to the one before.
    Serial,
    /// Requests on [`CONNECTIONS`] connections, [`IN_FLIGHT`] under way on each.
    Concurrent,
}

/// Handshakes under way at one time.
pub const DIALS: usize = 8;
/// Connections that carry concurrent requests.
pub const CONNECTIONS: usize = 4;
/// Concurrent requests on each.
pub const IN_FLIGHT: usize = 32;
/// Bytes of a request and of its answer.
pub const REQUEST_BYTES: usize = 64;
/// The longest request that a server reads.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

impl Work {
    const ALL: [Self; 4] = [Self::Handshake, Self::Idle, Self::Serial, Self::Concurrent];

    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Serial => "serial",
            Self::Concurrent => "concurrent",
        }
    }

    pub fn find(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|work| work.name() == name);
        found.ok_or_else(|| format!("no work `{name}`"))
    }

    /// Bidirectional streams that the tuned quinn lets a peer open: what our endpoint has granted by
    /// then, which is little until streams are used.
    pub fn tuned_streams(self) -> u32 {
        match self {
            Self::Handshake | Self::Idle => 16,
            Self::Serial | Self::Concurrent => 100,
        }
    }
}

/// What keeps a server running: it ends when this is dropped.
pub type Server = Box<dyn std::any::Any>;

/// Starts the server of `subject`. The text tells the client how to recognise it.
pub async fn serve(subject: Subject, work: Work) -> Result<(Server, SocketAddr, String), String> {
    match subject {
        Subject::Endpoint
        | Subject::EndpointX509
        | Subject::EndpointTenNames
        | Subject::EndpointManyNames => {
            let server = ours::serve(subject).await?;
            let (address, secret) = (server.address()?, server.certificate_hex());
            Ok((Box::new(server), address, secret))
        }
        Subject::QuinnDefault | Subject::QuinnTuned | Subject::QuinnTunedAtOnce => {
            let (endpoint, certificate) = raw::serve(subject, work)?;
            let address = endpoint.local_addr().map_err(|error| error.to_string())?;
            Ok((Box::new(endpoint), address, certificate))
        }
    }
}

/// The dialling side of a subject.
pub enum Client {
    Ours(ours::Client),
    Raw(raw::Client),
}

/// A connection of either.
pub enum Connection {
    Ours(endpoint_core::Connection),
    /// With the stream that was the yes, kept so that it is not sent.
    Raw(
        quinn::Connection,
        #[expect(dead_code, reason = "held, not read: dropped, it would be sent")]
        Option<raw::Stream>,
    ),
}

impl Client {
    pub async fn new(subject: Subject, server: SocketAddr, secret: &str) -> Result<Self, String> {
        match subject {
            Subject::Endpoint => Ok(Self::Ours(ours::Client::new(server).await?)),
            _ => Ok(Self::Raw(raw::Client::new(subject, server, secret)?)),
        }
    }

    /// Dials; returns when the server has said yes.
    pub async fn connect(&self) -> Result<Connection, String> {
        match self {
            Self::Ours(client) => Ok(Connection::Ours(client.connect().await?)),
            Self::Raw(client) => {
                let (connection, first) = client.connect().await?;
                Ok(Connection::Raw(connection, first))
            }
        }
    }
}

impl Connection {
    pub fn close(&self) {
        match self {
            Self::Ours(connection) => connection.close(),
            Self::Raw(connection, _) => connection.close(0_u32.into(), b""),
        }
    }

    /// One request on a new stream, and its answer.
    pub async fn request(&self) -> Result<(), String> {
        let request = [7; REQUEST_BYTES];
        let answer = match self {
            Self::Ours(connection) => ours::request(connection, &request).await?,
            Self::Raw(connection, _) => raw::request(connection, &request).await?,
        };
        if answer == request { Ok(()) } else { Err("the answer is not the request".to_owned()) }
    }
}
