//! The table alone, with time as an argument.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    filter::{Arrival, End, Filter, Id, Refusal, Who},
    penalty::{Category, Failure},
    record::Kind,
    source::Source,
    table::Table,
};
use crate::{
    config::Limits,
    facts::Carrier,
    identity::Fingerprint,
    phase::{Activity, Phase, UnderWay},
};

/// A table and a clock.
pub(super) struct Door {
    pub(super) table: Table,
    pub(super) now: Instant,
}

/// Somebody at the door.
pub(super) struct Guest {
    pub(super) id: Id,
    activity: Activity,
    _busy: Option<UnderWay>,
}

impl Guest {
    fn gave_way(&self) -> bool {
        self.activity.gave_way().now_or_never().is_some()
    }
}

impl Door {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { table: Table::new(limits), now: Instant::now() }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn arrival(&self, address: IpAddr) -> Arrival {
        Arrival { address, carrier: Carrier::Tcp, activity: Activity::new(self.now) }
    }

    pub(super) fn arrive(&mut self, address: IpAddr) -> Result<Guest, Refusal> {
        let arrival = self.arrival(address);
        let activity = arrival.activity.clone();
        let id = self.table.arrive(arrival, self.now)?;
        Ok(Guest { id, activity, _busy: None })
    }

    /// Arrives and says its hello.
    pub(super) fn ask(&mut self, address: IpAddr) -> Guest {
        let guest = self.arrive(address).unwrap();
        self.table.ready(guest.id, 500, self.now);
        guest
    }

    pub(super) fn turns(&mut self) -> Vec<Id> {
        self.table.turns(self.now)
    }

    pub(super) fn shakes(&self, guest: &Guest) -> bool {
        use super::table::Stage;
        let stage = self.table.entries.get(&guest.id).map(|entry| entry.stage);
        matches!(stage, Some(Stage::Shaking { .. }))
    }

    /// A handshake that proves its address and becomes a connection.
    pub(super) fn connect(&mut self, address: IpAddr, who: Who) -> Result<Guest, Refusal> {
        let arrival = self.arrival(address);
        let activity = arrival.activity.clone();
        let id = self.table.proven(arrival, who, self.now)?;
        activity.enter(Phase::Shaken, self.now);
        Ok(Guest { id, activity, _busy: None })
    }

    fn connect_busy(&mut self, address: IpAddr) -> Result<Guest, Refusal> {
        let mut guest = self.connect(address, Who::Stranger)?;
        guest._busy = Some(guest.activity.begin(|| self.now));
        Ok(guest)
    }

    pub(super) fn gone(&mut self, guest: &Guest, end: End) {
        self.table.gone(guest.id, end, self.now);
    }

    fn count(&self, address: IpAddr, kind: Kind) -> usize {
        self.table.records.count(Source::of(address).address(), kind)
    }
}

pub(super) fn v4(site: u16, host: u8) -> IpAddr {
    let [a, b] = site.to_be_bytes();
    Ipv4Addr::new(10, a, b, host).into()
}

const SHAKING: Kind = Kind::Shaking(Carrier::Tcp);

#[tokio::test(start_paused = true)]
async fn a_burst_of_one_address_is_served_when_nobody_else_wants_the_room() {
    let mut door = Door::new(&Limits::default());
    let mut guests: Vec<_> = (0..2_000).map(|_| door.ask(v4(1, 1))).collect();
    let mut served = 0;
    while !guests.is_empty() {
        let turns = door.turns();
        assert!(!turns.is_empty(), "somebody waits while there is room");
        door.pass(5);
        for id in turns {
            let at = guests.iter().position(|guest| guest.id == id).unwrap();
            let guest = guests.swap_remove(at);
            assert!(!guest.gave_way());
            door.gone(&guest, End::Fair);
            served += 1;
        }
    }
    assert_eq!(served, 2_000);
    assert!(!door.table.has_waiting() && door.table.entries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_address_leaves_room_for_all_others_and_another_of_its_site_goes_before_it() {
    let mut door = Door::new(&Limits::default());
    let crowd: Vec<_> = (0..1_000).map(|_| door.ask(v4(1, 1))).collect();
    door.turns();
    let held = door.count(v4(1, 1), SHAKING);
    assert!((300..=400).contains(&held), "{held}");
    for guest in [door.ask(v4(2, 1)), door.ask(v4(1, 2))] {
        door.turns();
        // The site of the crowd is full: its other address waits until the crowd has been silent for a while.
        door.pass(500);
        door.turns();
        assert!(door.shakes(&guest));
    }
    let gave_way = crowd.iter().filter(|guest| guest.gave_way()).count();
    assert!((1..=64).contains(&gave_way), "{gave_way}");
    assert!(door.count(v4(1, 1), SHAKING) <= held);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_served_at_once_while_a_whole_site_does_its_worst() {
    let limits = Limits::default().handshakes_in_flight(128).waiting_connections(256);
    let mut door = Door::new(&limits);
    let mut silent = Vec::new();
    let mut longest = Duration::ZERO;
    for round in 0..80_u64 {
        for host in 0..64 {
            if let Ok(guest) = door.arrive(v4(1, host)) {
                door.table.ready(guest.id, 1, door.now);
                silent.push(guest);
            }
        }
        // Whoever was told to end does so.
        let (ended, rest): (Vec<_>, Vec<_>) = silent.into_iter().partition(Guest::gave_way);
        silent = rest;
        for guest in &ended {
            door.gone(guest, End::Fair);
        }
        door.turns();
        if round < 40 || round % 20 != 10 {
            door.pass(50);
            continue;
        }
        for address in [v4(1, 255), v4(2 + round as u16, 1)] {
            let (began, guest) = (door.now, door.ask(address));
            while !door.shakes(&guest) {
                assert!(!guest.gave_way(), "the newcomer was thrown out");
                assert!(door.now - began < Duration::from_secs(2), "{address} waits for ever");
                door.turns();
                door.pass(10);
            }
            longest = longest.max(door.now - began);
            door.gone(&guest, End::Fair);
        }
    }
    assert!(longest <= Duration::from_millis(600), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn weakened_so_that_nobody_gives_way_a_site_keeps_a_newcomer_waiting() {
    let limits = Limits::default()
        .handshakes_per_address(512)
        .handshakes_per_prefix(512)
        .handshakes_reserved(0)
        .give_way_after(Duration::from_secs(3600));
    let mut door = Door::new(&limits);
    let _crowd: Vec<_> = (0..1_000).map(|n| door.ask(v4(1, (n % 255) as u8))).collect();
    door.turns();
    let guest = door.ask(v4(2, 1));
    for _ in 0..100 {
        door.pass(50);
        door.turns();
    }
    assert!(!door.shakes(&guest));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_throws_out_the_longest_silent_of_the_fullest_and_not_the_newcomer() {
    let mut door = Door::new(&Limits::default().waiting_connections(100));
    let other = door.arrive(v4(2, 1)).unwrap();
    door.pass(10);
    let mut crowd = Vec::new();
    for n in 0..99 {
        crowd.push(door.arrive(v4(1, n % 3)).unwrap());
        door.pass(10);
    }
    let newcomer = door.arrive(v4(3, 1)).unwrap();
    assert!(!newcomer.gave_way() && !other.gave_way());
    let gone: Vec<_> = crowd.iter().enumerate().filter(|(_, g)| g.gave_way()).collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].0, 0, "of three alike the one that came first");
    let more: Vec<_> = (0..500).map(|n| door.arrive(v4(4, n as u8))).collect();
    assert!(!newcomer.gave_way() && !other.gave_way());
    assert!(more.iter().flatten().count() > 0);
}

#[tokio::test(start_paused = true)]
async fn who_spoke_goes_after_who_is_silent() {
    let limits = Limits::default().waiting_connections(4).handshakes_in_flight(1);
    let mut door = Door::new(&limits);
    let holder = door.ask(v4(9, 9));
    door.turns();
    assert!(door.shakes(&holder));
    let spoke = door.ask(v4(1, 1));
    door.pass(10);
    let silent: Vec<_> = (0..3).map(|_| door.arrive(v4(1, 1)).unwrap()).collect();
    let _newcomer = door.arrive(v4(2, 1)).unwrap();
    assert!(!spoke.gave_way() && silent[0].gave_way());
}

#[tokio::test(start_paused = true)]
async fn three_hundred_silent_connections_do_not_shut_a_table_of_four_hundred() {
    let mut door = Door::new(&Limits::default().connections(400));
    let silent: Vec<_> =
        (0..300).filter_map(|_| door.connect(v4(1, 1), Who::Stranger).ok()).collect();
    for n in 0..60 {
        let guest = door.connect(v4(2 + n, 1), Who::Stranger);
        assert!(guest.is_ok_and(|guest| !guest.gave_way()), "stranger {n}");
        door.pass(30);
    }
    assert!(silent.iter().filter(|guest| guest.gave_way()).count() > 0);
    for n in 0..100 {
        assert!(door.connect(v4(1, 1), Who::Known).is_ok(), "peer {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_busy_within_its_share_or_known_is_never_thrown_out() {
    let mut door = Door::new(&Limits::default().connections(40));
    let peers: Vec<_> = (0..10).map(|_| door.connect(v4(1, 1), Who::Known).unwrap()).collect();
    // Thirty places for strangers, three of them for one address: an eighth.
    let busy: Vec<_> = (0..30).filter_map(|n| door.connect_busy(v4(n / 3, 1)).ok()).collect();
    for n in 0..200 {
        door.pass(30);
        let _ = door.connect(v4(100 + n, 1), Who::Stranger);
        let _ = door.connect(v4(1, 1), Who::Known);
    }
    assert!(peers.iter().chain(&busy).all(|guest| !guest.gave_way()));
    assert!(door.connect_busy(v4(70, 7)).is_err(), "all are busy");
}

#[tokio::test(start_paused = true)]
async fn who_is_busy_beyond_its_share_goes_for_others_and_for_nobody_who_has_as_much() {
    let mut door = Door::new(&Limits::default().connections(40));
    let many: Vec<_> = (0..30).filter_map(|_| door.connect_busy(v4(1, 1)).ok()).collect();
    let more: Vec<_> = (0..30).filter_map(|n| door.connect_busy(v4(2 + n % 2, 1)).ok()).collect();
    assert!(many.iter().all(|guest| !guest.gave_way()), "there was room");
    door.pass(30);
    assert!(door.connect_busy(v4(1, 1)).is_err(), "it has more than its share");
    // Its share is three, and others get the rest of what it has.
    let mut came = Vec::new();
    for n in 0..60 {
        door.pass(30);
        came.extend(door.connect_busy(v4(100 + n, 1)));
        for guest in many.iter().filter(|guest| guest.gave_way()) {
            door.gone(guest, End::Fair);
        }
    }
    let left = many.iter().filter(|guest| !guest.gave_way()).count();
    assert_eq!((left, came.len()), (3, many.len() - 3), "of {}", many.len());
    assert!(came.iter().all(|guest| !guest.gave_way()));
    assert!(more.iter().all(|guest| !guest.gave_way()), "they have no more than their share");
    let first = many.iter().take(many.len() - 3);
    assert!(first.into_iter().all(Guest::gave_way), "who was busy for longest went first");
}

#[tokio::test(start_paused = true)]
async fn a_share_of_connections_is_asked_for_only_where_room_is_scarce() {
    let mut door = Door::new(&Limits::default().connections(400));
    let mut one = Vec::new();
    for _ in 0..290 {
        one.push(door.connect(v4(1, 1), Who::Stranger).unwrap());
        if let Some(guest) = one.iter().rev().find(|guest| guest.gave_way()) {
            door.gone(guest, End::Fair);
        }
    }
    let gave_way = one.iter().filter(|guest| guest.gave_way()).count();
    // 300 for strangers, an eighth of them kept for known addresses, a quarter of the rest for others.
    assert_eq!(290 - gave_way, 198);
    assert!(one.iter().take(gave_way).all(Guest::gave_way), "the longest silent ones went");
}

#[tokio::test(start_paused = true)]
async fn known_addresses_have_room_that_ten_thousand_prefixes_cannot_take() {
    let mut door = Door::new(&Limits::default());
    let peer = door.connect(v4(60_000, 1), Who::Known).unwrap();
    door.table.authorised(peer.id, Fingerprint::of_spki(b"peer"), door.now);
    door.gone(&peer, End::Fair);
    let mut crowd = Vec::new();
    for n in 0..10_000 {
        if let Ok(guest) = door.arrive(v4(n, 1)) {
            door.table.ready(guest.id, 1, door.now);
            crowd.push(guest);
        }
    }
    door.turns();
    assert!(door.table.has_waiting());
    let again = door.ask(v4(60_000, 1));
    door.turns();
    assert!(door.shakes(&again), "at once, though thousands wait");
    let mut strangers = Vec::new();
    for n in 0..10_000 {
        strangers.extend(door.connect_busy(v4(n, 1)));
    }
    assert!(door.connect_busy(v4(20_000, 1)).is_err());
    assert!(door.connect_busy(v4(60_000, 1)).is_ok(), "a visitor beside a peer");
    assert!(door.table.connected(again.id, Who::Known, door.now).is_ok());
}

#[tokio::test(start_paused = true)]
async fn refuses_who_keeps_failing_and_nobody_beside_it() {
    let mut door = Door::new(&Limits::default());
    let fail = |door: &mut Door, address, failure| {
        let guest = door.arrive(address);
        if let Ok(guest) = guest {
            door.gone(&guest, End::Failed(failure));
        }
    };
    for _ in 0..3 {
        fail(&mut door, v4(1, 1), Failure::Deadline);
    }
    assert_eq!(door.arrive(v4(1, 1)).err(), Some(Refusal::Penalised));
    // The same over QUIC, where hands are shaken before the address is known to be its own.
    assert_eq!(door.connect(v4(1, 1), Who::Stranger).err(), Some(Refusal::Penalised));
    assert!(door.connect(v4(1, 1), Who::Known).is_ok());
    assert!(door.arrive(v4(1, 2)).is_ok(), "an address of the same site");
    door.pass(20_000);
    assert!(door.arrive(v4(1, 1)).is_ok());
    let exempt: IpAddr = "127.0.0.9".parse().unwrap();
    for _ in 0..100 {
        fail(&mut door, exempt, Failure::Panic);
    }
    assert!(door.arrive(exempt).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_ban_for_keys_leaves_visitors_alone_and_spares_where_peers_come_from() {
    let mut door = Door::new(&Limits::default());
    let [banned, shared] = [v4(1, 1), v4(2, 1)];
    let peer = door.connect(shared, Who::Known).unwrap();
    door.table.authorised(peer.id, Fingerprint::of_spki(b"peer"), door.now);
    for address in [banned, shared] {
        for _ in 0..5 {
            let guest = door.connect(address, Who::Stranger).unwrap();
            door.table.failed(guest.id, Failure::Key, door.now);
        }
    }
    let visitor = door.arrive(banned);
    assert!(visitor.is_ok(), "shaking hands is open to visitors");
    let [at_banned, at_shared] = [banned, shared].map(|address| {
        let guest = door.connect(address, Who::Stranger).unwrap();
        door.table.is_banned(guest.id, Category::Key, door.now)
    });
    assert!(at_banned && !at_shared);
}

#[tokio::test(start_paused = true)]
async fn what_comes_faster_than_its_rate_waits_only_while_others_want_the_room() {
    let limits = Limits::default().handshakes_in_flight(8).handshakes_per_second(1);
    let mut door = Door::new(&limits);
    for _ in 0..20 {
        let guest = door.ask(v4(1, 1));
        assert_eq!(door.turns(), [guest.id], "there is room");
        door.gone(&guest, End::Fair);
    }
    let _room: Vec<_> = (2..8).map(|n| door.ask(v4(n, 1))).collect();
    door.turns();
    let (fast, slow) = (door.ask(v4(1, 1)), door.ask(v4(9, 1)));
    door.turns();
    assert!(!door.shakes(&fast) && door.shakes(&slow));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_unread_are_bounded() {
    let limits = Limits::default().handshakes_in_flight(1).waiting_bytes(100_000);
    let mut door = Door::new(&limits);
    let _holder = door.ask(v4(1, 1));
    door.turns();
    let mut heavy = Vec::new();
    for n in 0..100 {
        let guest = door.arrive(v4(2, n)).unwrap();
        door.table.ready(guest.id, 50_000, door.now);
        heavy.push(guest);
        door.pass(30);
    }
    let held = heavy.iter().filter(|guest| !guest.gave_way()).count();
    assert_eq!(held, 2);
}

fn v6(provider: u16, region: u8, site: u8, host: u16) -> IpAddr {
    let third = u16::from_be_bytes([region, site]);
    std::net::Ipv6Addr::new(0x2001, provider, third, host, 0, 0, 0, 1).into()
}

#[tokio::test(start_paused = true)]
async fn a_provider_with_countless_ipv6_sites_leaves_room_and_its_own_newcomer_goes_first() {
    let mut door = Door::new(&Limits::default().connections(400));
    let mut crowd = Vec::new();
    for n in 0..600_u16 {
        crowd.push(door.ask(v6(1, (n % 7) as u8, (n % 251) as u8, n)));
        crowd.extend(door.connect(v6(1, (n % 7) as u8, (n % 251) as u8, n), Who::Stranger));
        door.turns();
        // Whoever was told to end does so.
        let (ended, rest): (Vec<_>, Vec<_>) = crowd.into_iter().partition(Guest::gave_way);
        crowd = rest;
        for guest in &ended {
            door.gone(guest, End::Fair);
        }
        door.pass(5);
    }
    for address in [v6(2, 0, 0, 0), v4(1, 1), v6(1, 200, 0, 0)] {
        let (began, guest) = (door.now, door.ask(address));
        while !door.shakes(&guest) {
            assert!(door.now - began <= Duration::from_millis(1_100), "{address}");
            door.turns();
            door.pass(10);
        }
        assert!(door.table.connected(guest.id, Who::Stranger, door.now).is_ok(), "{address}");
        assert!(!guest.gave_way());
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_where_a_peer_came_from_is_not_thrown_out_for_strangers() {
    let mut door = Door::new(&Limits::default().waiting_connections(50).handshakes_in_flight(8));
    let peer = door.connect(v4(1, 1), Who::Known).unwrap();
    door.table.authorised(peer.id, Fingerprint::of_spki(b"peer"), door.now);
    let again = door.arrive(v4(1, 1)).unwrap();
    let strangers: Vec<_> = (0..2_000)
        .filter_map(|n| {
            door.pass(1);
            door.arrive(v4(2 + n, 1)).ok()
        })
        .collect();
    assert!(strangers.iter().any(Guest::gave_way) && !again.gave_way());
    let crowd: Vec<_> = (0..200)
        .filter_map(|_| {
            door.pass(25);
            door.arrive(v4(1, 1)).ok()
        })
        .collect();
    assert!(crowd.iter().filter(|guest| !guest.gave_way()).count() < 50, "a crowd is a crowd");
}
