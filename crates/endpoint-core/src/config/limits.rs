//! How much may a connection, a peer and everybody together cost?
//!
//! Ground: plain data, every limit explicit, every default safe.

use std::time::Duration;

use super::{
    admission::AdmissionLimits,
    pace::{BodyLimits, PaceLimits},
};

/// Limits of an endpoint. Each has a safe default and a method of the same name that replaces it.
#[derive(Clone, Debug)]
pub struct Limits {
    pub(crate) handshakes_in_flight: usize,
    pub(crate) unvalidated_in_flight: usize,
    pub(crate) connections: usize,
    pub(crate) connections_per_peer: usize,
    pub(crate) admission: AdmissionLimits,
    pub(crate) handshake_deadline: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) streams_per_connection: u32,
    pub(crate) pace: PaceLimits,
    pub(crate) requests: RequestLimits,
    pub(crate) stream_window_bytes: u32,
    pub(crate) connection_window_bytes: u32,
    pub(crate) udp_buffer_bytes: usize,
    pub(crate) retired_ids: u32,
}

/// How many HTTP requests may be open on a connection, and how long may each take?
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "without HTTP nobody asks for the times")]
pub(crate) struct RequestLimits {
    pub(crate) at_once: u32,
    /// From a request's first byte to the end of its header section.
    pub(crate) header: Duration,
    /// How slow its body may be.
    pub(crate) body: BodyLimits,
    /// From when a client takes nothing of an answer that waits for it.
    pub(crate) answer_idle: Duration,
    /// Bytes of answers that wait for their clients, of all connections.
    pub(crate) answer_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            at_once: 100,
            header: Duration::from_secs(10),
            body: BodyLimits::default(),
            answer_idle: Duration::from_secs(60),
            answer_bytes: 128 << 20,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes_in_flight: 512,
            unvalidated_in_flight: 64,
            connections: 10_000,
            connections_per_peer: 8,
            admission: AdmissionLimits::default(),
            handshake_deadline: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(8),
            streams_per_connection: 100,
            pace: PaceLimits::default(),
            requests: RequestLimits::default(),
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 4 * 1024 * 1024,
            udp_buffer_bytes: 4 * 1024 * 1024,
            retired_ids: 16,
        }
    }
}

impl Limits {
    limit!(
        /// Handshakes of validated addresses at one time, on each carrier; above it newcomers wait for their
        /// turn, prefix by prefix. Default 512.
        handshakes_in_flight: usize => handshakes_in_flight
    );
    limit!(
        /// Handshakes of unvalidated UDP addresses at one time; above it every such arrival gets a
        /// Retry packet (RFC 9000 §8.1.2). Default 64.
        unvalidated_in_flight: usize => unvalidated_in_flight
    );
    limit!(
        /// Live connections in all; a quarter of them is kept for keys in `authorized_peers`. Default
        /// 10 000.
        connections: usize => connections
    );
    limit!(
        /// Live connections of one key; `max-connections=` in `authorized_peers` replaces it for
        /// that key. Default 8.
        connections_per_peer: usize => connections_per_peer
    );
    limit!(
        /// Time from the first packet to a finished handshake. Default 5 s.
        handshake_deadline: Duration => handshake_deadline
    );
    limit!(
        /// Silence after which a connection is given up. Default 30 s.
        idle_timeout: Duration => idle_timeout
    );
    limit!(
        /// Pause after which an idle connection sends a keep-alive. Default 8 s.
        keep_alive: Duration => keep_alive
    );
    limit!(
        /// Bidirectional streams that an authorised key may have open at one time. Default 100,
        /// at least 16. It begins with 16 and gets more as it uses them; everybody else has 8 to 16,
        /// as far as the access rules let them in.
        streams_per_connection: u32 => streams_per_connection
    );
    limit!(
        /// HTTP requests that a connection may have open at one time, whoever it is. Default 100, at least 16;
        /// over HTTP/3 it begins with 8.
        requests_per_connection: u32 => requests.at_once
    );
    limit!(
        /// Time from an HTTP request's first byte to the end of its header section. Default 10 s.
        request_header_deadline: Duration => requests.header
    );
    limit!(
        /// Time for which a client may take nothing of an answer that waits for it. Over HTTP/3 and HTTP/2 the
        /// request is given up then; over HTTP/1.1, and where nothing else of the answer is left to give up, the
        /// connection. Default 60 s.
        request_answer_idle: Duration => requests.answer_idle
    );
    limit!(
        /// Bytes of answers that wait for their clients, of all connections and versions that one service
        /// answers. Above it bodies are not read on, and the answer of which nothing was taken for the longest
        /// time, at least a second, is given up. A connection that holds nothing may always have a piece. Default
        /// 128 MiB.
        answer_bytes: usize => requests.answer_bytes
    );
    limit!(
        /// Flow-control window of a stream in bytes (RFC 9000 §4.1). Default 256 KiB.
        stream_window_bytes: u32 => stream_window_bytes
    );
    limit!(
        /// Flow-control window of a connection in bytes (RFC 9000 §4.1), for accepted ones of authorised
        /// keys and dialled ones; everybody else gets 256 KiB at most, and 2 MiB for answers. Default
        /// 4 MiB.
        connection_window_bytes: u32 => connection_window_bytes
    );
    limit!(
        /// QUIC connection ids that a peer may retire in a minute, and twice as many at once; a connection whose peer
        /// retires more is closed. A client that changes its address retires one. Default 16, at least 1.
        retired_ids_per_minute: u32 => retired_ids
    );
    limit!(
        /// Kernel buffer asked for on each UDP socket, each way, in bytes. Default 4 MiB.
        udp_buffer_bytes: usize => udp_buffer_bytes
    );
}
