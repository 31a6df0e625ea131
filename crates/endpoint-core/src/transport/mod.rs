//! What carries bytes? Step 1 of 6: sockets, carriers, streams.
//!
//! Gives arrivals and, once hands are shaken, links. Not here: who the peer is (`tls`), what it may do
//! (`trust`).

mod amplification;
mod connection_id;
mod credit;
#[cfg(any(feature = "acme", feature = "http3"))]
pub(crate) mod fetch;
mod frames;
mod kept;
mod keys;
mod link;
mod network;
#[cfg(feature = "qlog")]
mod qlog;
#[cfg(not(feature = "qlog"))]
#[path = "qlog_off.rs"]
mod qlog;
mod quic;
mod quic_crypto;
mod retirements;
mod stream;
#[cfg(feature = "tcp")]
pub(crate) mod tcp;
#[cfg(feature = "tcp")]
pub(crate) mod tcp_link;
#[cfg(not(feature = "tcp"))]
#[path = "tcp_link_off.rs"]
mod tcp_link;
mod varint;
mod whereabouts;

pub(crate) use self::{
    amplification::Unproven,
    credit::StreamCredit,
    kept::Kept,
    keys::ListenKeys,
    link::{Link, Question, QuicLink, from_quinn, without_peers_text},
    network::of_system,
    qlog::Qlog,
    quic::{
        Accepting, CLOSING_PERIOD, bind_udp, client_endpoint, client_transport, server_endpoint,
    },
    retirements::{RetirementRate, Retirements, counting},
    varint::varint,
    whereabouts::Whereabouts,
};
pub use self::{
    network::Network,
    stream::{RecvStream, SendStream},
};
