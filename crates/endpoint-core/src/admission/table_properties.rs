//! What holds of the table whatever happens at the door.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::time::{Duration, Instant};

use super::{
    filter::{Arrival, End, Filter, Id, Who},
    penalty::Failure,
    record::Kind,
    table::Table,
};
use crate::{
    config::Limits,
    facts::Carrier,
    identity::Fingerprint,
    phase::{Activity, Phase, UnderWay},
};

#[derive(Clone, Debug)]
enum Step {
    Arrive(u16, u8, bool),
    Ready(prop::sample::Index, usize),
    Connect(prop::sample::Index, bool),
    Prove(u16, u8, bool, bool),
    Busy(prop::sample::Index),
    Gone(prop::sample::Index, u8),
    Authorised(prop::sample::Index, u8),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    prop_oneof![
        6 => (0_u16..40, 0_u8..4, any::<bool>()).prop_map(|(s, h, q)| Step::Arrive(s, h, q)),
        6 => (any::<Index>(), 0_usize..2_000).prop_map(|(i, bytes)| Step::Ready(i, bytes)),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(i, known)| Step::Connect(i, known)),
        3 => (0_u16..40, 0_u8..4, any::<bool>(), any::<bool>())
            .prop_map(|(s, h, q, known)| Step::Prove(s, h, q, known)),
        2 => any::<Index>().prop_map(Step::Busy),
        4 => (any::<Index>(), 0_u8..5).prop_map(|(i, end)| Step::Gone(i, end)),
        1 => (any::<Index>(), 0_u8..20).prop_map(|(i, key)| Step::Authorised(i, key)),
        3 => (0_u16..2_000).prop_map(Step::Pass),
    ]
}

/// Odd sites are IPv6.
fn address(site: u16, host: u8) -> IpAddr {
    if site.is_multiple_of(2) {
        Ipv4Addr::new(192, 0, site as u8, host).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, site << 7, host.into(), 0, 0, 0, 1).into()
    }
}

struct Guest {
    id: Id,
    activity: Activity,
    known: bool,
    busy: Option<UnderWay>,
    ended: bool,
}

impl Guest {
    fn gave_way(&self) -> bool {
        self.activity.gave_way().now_or_never().is_some()
    }
}

const WAITING: usize = 24;
const HANDSHAKES: usize = 16;
const CONNECTIONS: usize = 32;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("ENDPOINT_TEST_LONG").is_some() { 4_096 } else { 64 }))]

    #[test]
    fn counts_are_right_room_is_bounded_and_nobody_busy_within_its_share_or_new_gives_way(
        steps in prop::collection::vec(step(), 1..300)
    ) {
        let limits = Limits::default()
            .waiting_connections(WAITING)
            .waiting_first_flights(WAITING)
            .handshakes_in_flight(HANDSHAKES)
            .connections(CONNECTIONS)
            .tracked_prefixes(64);
        let mut now = Instant::now();
        let mut table = Table::new(&limits);
        let mut guests: Vec<Guest> = Vec::new();
        for step in steps {
            let mut new = None;
            let shares = table.budget.strangers;
            let within = |id: &Id| {
                let source = table.entries[id].source;
                let count = |prefix| table.records.count(prefix, Kind::Stranger);
                source.prefixes().all(|prefix| count(prefix) <= shares.share(prefix))
            };
            let stays = |guest: &Guest| {
                !guest.gave_way() && (guest.known || guest.busy.is_some() && within(&guest.id))
            };
            let busy: Vec<Id> = guests
                .iter()
                .filter(|guest| stays(guest))
                .map(|guest| guest.id)
                .collect();
            match step {
                Step::Arrive(site, host, quic) => {
                    let carrier = if quic { Carrier::Quic } else { Carrier::Tcp };
                    let activity = Activity::new(now);
                    let arrival = Arrival { address: address(site, host), carrier, activity: activity.clone() };
                    if let Ok(id) = table.arrive(arrival, now) {
                        new = Some(id);
                        guests.push(Guest { id, activity, known: false, busy: None, ended: false });
                    }
                }
                Step::Ready(at, bytes) if !guests.is_empty() => {
                    table.ready(at.get(&guests).id, bytes, now);
                }
                Step::Connect(at, known) if !guests.is_empty() => {
                    let at = at.index(guests.len());
                    let guest = &mut guests[at];
                    let who = if known { Who::Known } else { Who::Stranger };
                    if table.connected(guest.id, who, now).is_ok() {
                        guest.known = known;
                        guest.activity.enter(Phase::Shaken, now);
                        new = Some(guest.id);
                    }
                }
                Step::Prove(site, host, quic, known) => {
                    let carrier = if quic { Carrier::Quic } else { Carrier::Tcp };
                    let activity = Activity::new(now);
                    let arrival = Arrival { address: address(site, host), carrier, activity: activity.clone() };
                    let who = if known { Who::Known } else { Who::Stranger };
                    if let Ok(id) = table.proven(arrival, who, now) {
                        new = Some(id);
                        activity.enter(Phase::Shaken, now);
                        guests.push(Guest { id, activity, known, busy: None, ended: false });
                    }
                }
                Step::Busy(at) if !guests.is_empty() => {
                    let at = at.index(guests.len());
                    let guest = &mut guests[at];
                    let connected = guest.activity.phase() >= Phase::Shaken;
                    guest.busy = (guest.busy.is_none() && connected).then(|| guest.activity.begin(|| now));
                }
                Step::Gone(at, end) if !guests.is_empty() => {
                    let mut guest = guests.swap_remove(at.index(guests.len()));
                    guest.ended = true;
                    let end = match end {
                        0 => End::Failed(Failure::Deadline),
                        1 => End::Failed(Failure::Left),
                        _ => End::Fair,
                    };
                    table.gone(guest.id, end, now);
                }
                Step::Authorised(at, key) if !guests.is_empty() => {
                    table.authorised(at.get(&guests).id, Fingerprint::of_spki(&[key]), now);
                }
                Step::Pass(milliseconds) => {
                    now += Duration::from_millis(milliseconds.into());
                    table.tick(now);
                }
                _ => {}
            }
            table.turns(now);
            for guest in &guests {
                prop_assert!(!guest.gave_way() || new != Some(guest.id), "the newcomer gave way");
                prop_assert!(!guest.gave_way() || !busy.contains(&guest.id), "a busy one within its share gave way");
            }
            for carrier in [Carrier::Quic, Carrier::Tcp] {
                let shaking = table.lane(carrier).shaking.len();
                let count = |kind| {
                    table.entries.values().filter(|entry| entry.kind() == Some(kind)).count()
                };
                for (kind, most) in [
                    (Kind::Waiting(carrier), WAITING),
                    (Kind::Shaking(carrier), HANDSHAKES),
                    (Kind::Stranger, CONNECTIONS - CONNECTIONS / 4),
                ] {
                    prop_assert_eq!(table.records.total(kind), count(kind));
                    prop_assert!(count(kind) <= most, "{:?}", kind);
                }
                prop_assert_eq!(shaking, count(Kind::Shaking(carrier)));
            }
            prop_assert!(table.connections() <= CONNECTIONS);
            prop_assert_eq!(table.entries.len(), guests.len());
            // Four prefixes for each that is here, and what is remembered.
            prop_assert!(table.records.len() <= 4 * guests.len() + 64);
        }
        for guest in guests {
            table.gone(guest.id, End::Fair, now);
        }
        prop_assert!(table.entries.is_empty() && !table.has_waiting());
        prop_assert_eq!(table.connections(), 0);
        prop_assert!(table.records.len() <= 64);
    }
}
