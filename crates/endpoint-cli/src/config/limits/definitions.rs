//! The limits themselves, in the order of the file.

use std::time::Duration;

use endpoint_core::config::Limits;

use super::{
    Acts::{self, AtOnce, Next, Restart},
    Config, Kind, Limit,
};

/// Every limit, in the order of the file.
#[must_use]
pub fn all() -> &'static [Limit] {
    LIMITS
}

static LIMITS: &[Limit] = &[
    number("handshakes_in_flight", 512, (1, MOST), AtOnce,
        |c, n| { c.handshakes = n; library(c, |l| l.handshakes_in_flight(n)); },
        "Handshakes of validated addresses at one time, on each carrier. Above it newcomers wait for their turn, prefix by prefix."),
    number("handshakes_per_address", 64, (1, MOST), AtOnce, |c, n| library(c, |l| l.handshakes_per_address(n)),
        "Of these, what one address (IPv4 /32, IPv6 /64) may have while others want the room.")
        .following("an eighth of `handshakes_in_flight`"),
    number("handshakes_per_prefix", 128, (1, MOST), AtOnce, |c, n| library(c, |l| l.handshakes_per_prefix(n)),
        "The same of one site (IPv4 /24, IPv6 /48); an IPv6 /40 has twice as much, a /32 three times.")
        .following("a quarter of `handshakes_in_flight`"),
    number("handshakes_reserved", 64, (0, MOST), AtOnce, |c, n| library(c, |l| l.handshakes_reserved(n)),
        "Of these, what is kept for addresses from which a peer was authorised within 24 hours.")
        .following("an eighth of `handshakes_in_flight`"),
    number("handshakes_per_second", 500, (1, MOST), AtOnce, |c, n| library(c, |l| l.handshakes_per_second(small(n))),
        "Handshakes that one address begins in a second, four times as many at once. What comes faster is served when nobody else waits. A site has four times as many, an IPv6 /40 eight times, a /32 sixteen times."),
    number("handshakes_per_hour", 200_000, (1, MOST), AtOnce, |c, n| library(c, |l| l.handshakes_per_hour(small(n))),
        "The same in an hour, half of them at once."),
    time("handshake_deadline", secs(5), (MS, HOUR), Next, |c, t| library(c, |l| l.handshake_deadline(t)),
        "From the first packet to a finished handshake, without the time that it waited for its turn. Beyond it the handshake is given up."),
    time("give_way_after", secs(1), (MS, HOUR), AtOnce, |c, t| library(c, |l| l.give_way_after(t)),
        "Silence within a handshake after which it gives way to one that waits and whose prefix has fewer; half of it where its own prefix has more than its share."),
    number("unvalidated_in_flight", 64, (0, MOST), AtOnce, |c, n| library(c, |l| l.unvalidated_in_flight(n)),
        "QUIC handshakes of addresses that are not validated yet, half of them for one prefix. Above it they are asked to prove their address (Retry)."),
    number("waiting_connections", 4096, (1, MOST), AtOnce,
        |c, n| { c.waiting = n; library(c, |l| l.waiting_connections(n)); },
        "TCP connections that are silent or wait for a handshake. When there are more, the longest silent one of the fullest prefix goes. An eighth of the open files at most."),
    number("waiting_first_flights", 256, (1, MOST), AtOnce, |c, n| library(c, |l| l.waiting_first_flights(n)),
        "First flights of validated QUIC clients that wait for a handshake. One more is dropped, and the client sends it again."),
    size("waiting_bytes", 16 << 20, (64 << 10, TIB), AtOnce, |c, n| library(c, |l| l.waiting_bytes(bytes(n))),
        "Bytes that those who wait over TCP may leave unread in all. Above it one of the fullest prefix goes."),
    number("connections", 10_000, (1, MOST), AtOnce,
        |c, n| { c.connections = n; library(c, |l| l.connections(n)); },
        "Live connections in all, a quarter of them for keys in authorized_peers. At it the longest silent stranger of the fullest prefix ends with code 4; the newcomer, if nobody is silent. When it is lowered, strangers above it end, the longest silent first. Checked against the limit on open files."),
    number("connections_per_address", 937, (1, MOST), AtOnce, |c, n| library(c, |l| l.connections_per_address(n)),
        "Of those that strangers may have, which are three quarters of `connections`, what one address may have while others want the room. Then the longest silent one of it ends.")
        .following("an eighth of them"),
    number("connections_per_prefix", 1875, (1, MOST), AtOnce, |c, n| library(c, |l| l.connections_per_prefix(n)),
        "The same of one site; an IPv6 /40 has twice as much, a /32 three times.")
        .following("a quarter of them"),
    number("connections_reserved", 937, (0, MOST), AtOnce, |c, n| library(c, |l| l.connections_reserved(n)),
        "Of those that strangers may have, what is kept for addresses from which a peer was authorised within 24 hours.")
        .following("an eighth of them"),
    number("connections_per_peer", 8, (1, MOST), AtOnce, |c, n| library(c, |l| l.connections_per_peer(n)),
        "Live connections of one key; `max-connections=` in authorized_peers replaces it for that key. At it connections that do not answer give way within seconds; else the newcomer ends with code 9 and is told the number. When either is lowered, the excess ends in the same way, the longest silent first."),
    number("tracked_prefixes", 32_768, (1, MOST), AtOnce, |c, n| library(c, |l| l.tracked_prefixes(n)),
        "Prefixes about which something is remembered while nothing of theirs is there, about 150 bytes each. The oldest is forgotten first."),
    time("penalty_deadline", secs(10), (ZERO, HOUR), AtOnce, |c, t| library(c, |l| l.penalty_deadline(t)),
        "What a first byte or a handshake costs its proven address that is not there in time. Costs add up, and time takes them off."),
    time("penalty_left", secs(1), (ZERO, HOUR), AtOnce, |c, t| library(c, |l| l.penalty_left(t)),
        "The same for a handshake that is left and a connection that asks for nothing."),
    time("penalty_key", secs(5), (ZERO, HOUR), AtOnce, |c, t| library(c, |l| l.penalty_key(t)),
        "The same for a key without a grant."),
    time("penalty_panic", secs(90), (ZERO, HOUR), AtOnce, |c, t| library(c, |l| l.penalty_panic(t)),
        "The same for a panic of the endpoint at what came."),
    time("penalty_forgiven", secs(1), (ZERO, HOUR), AtOnce, |c, t| library(c, |l| l.penalty_forgiven(t)),
        "What a good connection takes off the cost of handshakes, until a penalty holds."),
    time("penalty_holds_from", secs(15), (MS, DAY), AtOnce, |c, t| library(c, |l| l.penalty_holds_from(t)),
        "The sum from which an address is refused, until time has taken it off. A site is put behind others from 16 times as much on, an IPv6 /40 from 64 times, a /32 from 256 times."),
    time("penalty_most", secs(600), (MS, DAY), AtOnce, |c, t| library(c, |l| l.penalty_most(t)),
        "The most that can be owed, unless it takes more to be put behind others."),
    Limit {
        name: "penalty_exempt",
        kind: Kind::Networks {
            default: &["127.0.0.0/8", "::1/128"],
            set: |c, networks| {
                let networks: Vec<_> = networks.iter().map(|n| (n.addr(), n.prefix_len())).collect();
                library(c, |l| l.penalty_exempt(networks));
            },
        },
        follows: None,
        acts: AtOnce,
        about: "Networks that are never penalised for failures, such as those of proxies. Shares, rates and totals hold for them too.",
    },
    time("first_byte_deadline", secs(5), (MS, HOUR), Next, |c, t| library(c, |l| l.first_byte_deadline(t)),
        "How long a TCP connection may say nothing. Then it is closed."),
    time("crowded_first_byte_deadline", secs(1), (MS, HOUR), Next, |c, t| library(c, |l| l.crowded_first_byte_deadline(t)),
        "The same once its network has half of its share, or half of all is taken."),
    time("first_request_deadline", secs(10), (MS, DAY), Next, |c, t| library(c, |l| l.first_request_deadline(t)),
        "For whoever holds no grant: from the handshake to the first request or stream. Then it is closed."),
    time("stranger_idle", secs(60), (MS, DAY), Next, |c, t| library(c, |l| l.stranger_idle(t)),
        "For whoever holds no grant: silence between two requests; half of it once half of all connections are taken. Then it is closed."),
    time("crowded_stranger_idle", secs(5), (MS, DAY), Next, |c, t| library(c, |l| l.crowded_stranger_idle(t)),
        "The same once three quarters of all connections are taken."),
    time("goodbye", Duration::from_millis(250), (MS, HOUR), Next, |c, t| library(c, |l| l.goodbye(t)),
        "From the news that it ends to the end of a connection on which nothing is under way."),
    number("streams_per_connection", 100, (16, 65_536), Next, |c, n| library(c, |l| l.streams_per_connection(small(n))),
        "Bidirectional streams of an authorised key at one time. The peer waits for credit."),
    number("requests_per_connection", 100, (16, 65_536), Next, |c, n| library(c, |l| l.requests_per_connection(small(n))),
        "Requests of an HTTP/3 or HTTP/2 connection at one time. The client waits for credit."),
    number("retired_ids_per_minute", 16, (1, 65_536), Restart, |c, n| library(c, |l| l.retired_ids_per_minute(small(n))),
        "QUIC connection ids that a peer may retire in a minute, twice as many at once. One that retires more is closed; a client that moves retires one."),
    time("request_header_deadline", secs(10), (MS, HOUR), Next, |c, t| library(c, |l| l.request_header_deadline(t)),
        "From the first byte of a request to the end of its header section. Then its connection, or over HTTP/3 its stream, ends."),
    time("request_body_idle", secs(30), (MS, DAY), Next, |c, t| library(c, |l| l.request_body_idle(t)),
        "Silence within the body of a request. The answer is 408."),
    number("request_body_rate", 500, (1, 1 << 30), Next, |c, n| library(c, |l| l.request_body_rate(small(n))),
        "Bytes a second that have to come of a body until the answer begins. The answer to a slower one is 408."),
    time("request_body_grace", secs(30), (MS, DAY), Next, |c, t| library(c, |l| l.request_body_grace(t)),
        "Time of waiting for a body before its rate counts."),
    size("answer_bytes", 128 << 20, (0, TIB), Restart, |c, n| library(c, |l| l.answer_bytes(bytes(n))),
        "Bytes of answers that wait for their clients, of all connections together. Above it answers wait, and the one of which nothing was taken for the longest time, at least a second, is given up."),
    time("answer_idle", secs(60), (MS, DAY), Next, |c, t| library(c, |l| l.request_answer_idle(t)),
        "Time for which a client may take nothing of an answer that waits for it. Then the answer is given up, or the connection where nothing is left to give up."),
    number("compressions", 32, (1, 1_000_000), Restart, |c, n| c.web.compressions = n,
        "Files that are compressed at one time. Further ones are sent as they are."),
    size("compress_up_to", 10 << 20, (0, TIB), Restart, |c, n| c.web.compress_up_to = n,
        "Size above which no file is compressed."),
    time("upstream_idle", secs(600), (MS, YEAR), Restart, |c, t| c.web.upstream_idle = t,
        "Silence of an upstream within its answer, while the client waits. Then the answer breaks off: events (SSE) have to come, or comments in their place, more often than this. A route may replace it."),
    time("upstream_send_idle", secs(60), (MS, YEAR), Restart, |c, t| c.web.upstream_send_idle = t,
        "Time for which an upstream may take nothing of a request's body. Then its connection ends; 502, or the answer breaks off."),
    time("tunnel_idle", secs(3600), (MS, YEAR), Restart, |c, t| c.web.tunnel_idle = t,
        "Silence in both directions after which a WebSocket ends. A route may replace it."),
];

/// Sets a limit of the library.
fn library(config: &mut Config, set: impl FnOnce(Limits) -> Limits) {
    config.limits = set(std::mem::take(&mut config.limits));
}

impl Limit {
    const fn following(mut self, what: &'static str) -> Self {
        self.follows = Some(what);
        self
    }
}

const fn number(
    name: &'static str,
    default: usize,
    (least, most): (usize, usize),
    acts: Acts,
    set: fn(&mut Config, usize),
    about: &'static str,
) -> Limit {
    Limit { name, kind: Kind::Number { default, least, most, set }, follows: None, acts, about }
}

const fn time(
    name: &'static str,
    default: Duration,
    (least, most): (Duration, Duration),
    acts: Acts,
    set: fn(&mut Config, Duration),
    about: &'static str,
) -> Limit {
    Limit { name, kind: Kind::Time { default, least, most, set }, follows: None, acts, about }
}

const fn size(
    name: &'static str,
    default: u64,
    (least, most): (u64, u64),
    acts: Acts,
    set: fn(&mut Config, u64),
    about: &'static str,
) -> Limit {
    Limit { name, kind: Kind::Size { default, least, most, set }, follows: None, acts, about }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn bytes(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// More than any machine carries; keeps sums of limits far from overflow.
const MOST: usize = 10_000_000;
const ZERO: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = secs(3_600);
const DAY: Duration = secs(86_400);
const YEAR: Duration = secs(365 * 86_400);
const TIB: u64 = 1 << 40;
