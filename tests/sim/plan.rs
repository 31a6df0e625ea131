//! What happens in a run? Everything that is left to chance is chosen here, from the seed, before it begins.

use std::net::{IpAddr, Ipv4Addr};

use endpoint_tests::chance::Chance;

use crate::network::Line;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// 2 to 6 peers, by number.
    pub peers: usize,
    /// Pairs of which the first one takes the second one's data at the start, and on which terms.
    pub grants: Vec<(usize, usize, Terms)>,
    pub line: Line,
    /// What happens, and when, in milliseconds; in order.
    pub events: Vec<(u64, Event)>,
}

/// How long and from where a peer may send.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// For so many seconds.
    pub seconds: Option<i64>,
    /// Only from the network in which all peers are at first.
    pub inside: bool,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// `from` dials `to` and sends it this much on each stream, with so long between two.
    Call { from: usize, to: usize, streams: Vec<usize>, pause_ms: u64 },
    /// `from` dials where `at` is and expects the key of `to` there.
    CallElsewhere { from: usize, to: usize, at: usize },
    /// `at` takes `key` out of its set.
    Revoke { at: usize, key: usize },
    /// `at` takes `key` into its set, on these terms.
    Add { at: usize, key: usize, terms: Terms },
    /// `at` ends what it has with `key`, which stays allowed.
    Kick { at: usize, key: usize },
    /// Nothing passes between the two for so long.
    Blackhole { one: usize, other: usize, ms: u64 },
    /// Others see `peer` at another port, or at another address.
    Rebind { peer: usize, address: bool },
    /// `peer` is gone, at once or in good order, and is there again after so long.
    Restart { peer: usize, crash: bool, ms: u64 },
    /// The clock of `peer` jumps.
    Jump { peer: usize, seconds: i64 },
    /// For `client`, what is sent to `victim` reaches `impostor` for so long.
    Hijack { client: usize, victim: usize, impostor: usize, ms: u64 },
    /// The last datagrams come once more.
    Replay { datagrams: usize },
}

/// Where a peer is.
#[must_use]
pub fn address(peer: usize) -> IpAddr {
    IpAddr::from(Ipv4Addr::new(10, 0, 0, u8::try_from(peer + 1).expect("few peers")))
}

/// Within which things begin to happen, in milliseconds.
const SPAN_MS: u64 = 25_000;

impl Plan {
    /// What `seed` means.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(&[seed]);
        // Few are quick, and find most; many find what only they can do.
        let peers = 2
            + usize::from(chance.happens(400))
            + chance.index(4) * usize::from(chance.happens(150));
        let peers = peers.min(6);
        let line = line(&mut chance);
        let mut grants = Vec::new();
        for server in 0..peers {
            for client in 0..peers {
                if server != client && chance.happens(750) {
                    let terms = terms(&mut chance, 200, 40);
                    grants.push((server, client, terms));
                }
            }
        }
        let mut events = Vec::new();
        for _ in 0..chance.between(4, 8) {
            let at = chance.between(0, SPAN_MS);
            events.push((at, call(&mut chance, peers)));
        }
        for _ in 0..chance.between(2, 7) {
            let at = chance.between(0, SPAN_MS);
            events.push((at, fault(&mut chance, peers)));
        }
        events.sort_by_key(|(at, _)| *at);
        Self { seed, peers, grants, line, events }
    }
}

fn line(chance: &mut Chance) -> Line {
    let delay_ms = chance.between(1, 120);
    // A third of the networks is good, a third is poor, a third is bad.
    let (loss, other) = match chance.index(3) {
        0 => (0, 0),
        1 => (chance.between(0, 50), chance.between(0, 30)),
        _ => (chance.between(0, 300), chance.between(0, 100)),
    };
    Line {
        loss,
        twice: other,
        damaged: other / 4,
        delay_ms,
        more_ms: chance.between(0, 100) * u64::from(other > 0),
    }
}

fn pair(chance: &mut Chance, peers: usize) -> (usize, usize) {
    let one = chance.index(peers);
    (one, (one + 1 + chance.index(peers - 1)) % peers)
}

fn call(chance: &mut Chance, peers: usize) -> Event {
    let (from, to) = pair(chance, peers);
    if peers > 2 && chance.happens(100) {
        let at = (0..peers).find(|peer| *peer != from && *peer != to).unwrap_or(to);
        return Event::CallElsewhere { from, to, at };
    }
    let streams = (0..chance.between(1, 4))
        .map(|_| match chance.happens(100) {
            true => chance.index(40_000),
            false => chance.index(3_000),
        })
        .collect();
    Event::Call { from, to, streams, pause_ms: chance.between(0, 4_000) }
}

fn fault(chance: &mut Chance, peers: usize) -> Event {
    let (one, other) = pair(chance, peers);
    let ms = chance.between(100, 12_000);
    match chance.index(12) {
        0 | 1 => Event::Revoke { at: one, key: other },
        2 => Event::Add { at: one, key: other, terms: terms(chance, 500, 20) },
        3 => Event::Kick { at: one, key: other },
        4 | 5 => Event::Blackhole { one, other, ms },
        6 => Event::Rebind { peer: one, address: false },
        7 => Event::Rebind { peer: one, address: true },
        8 => Event::Restart { peer: one, crash: chance.happens(500), ms: ms / 4 },
        9 => Event::Jump { peer: one, seconds: seconds(chance, 0, 200) - 100 },
        10 if peers > 2 => {
            let client = (0..peers).find(|peer| *peer != one && *peer != other).unwrap_or(one);
            Event::Hijack { client, victim: one, impostor: other, ms }
        }
        _ => Event::Replay { datagrams: 1 + chance.index(40) },
    }
}

fn terms(chance: &mut Chance, expiring: u64, most: u64) -> Terms {
    let seconds = chance.happens(expiring).then(|| seconds(chance, 1, most));
    Terms { seconds, inside: chance.happens(300) }
}

fn seconds(chance: &mut Chance, from: u64, to: u64) -> i64 {
    i64::try_from(chance.between(from, to)).expect("a small number")
}
