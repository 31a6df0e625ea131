//! What follows for a site, and for who lives in it, when too many of its addresses fail.

use std::net::IpAddr;

use super::{
    filter::{End, Filter, Who},
    penalty::{Category, Failure},
    shake::SITE_LINGERING,
    source::Source,
    table_tests::{Door, v4},
};
use crate::{config::Limits, identity::Fingerprint};

/// Twenty-four addresses of a site that fail once each: none of them is penalised, the site is.
fn fail(door: &mut Door) {
    for host in 1..=24 {
        let guest = door.arrive(v4(1, host)).unwrap();
        door.gone(&guest, End::Failed(Failure::Deadline));
    }
}

fn limits() -> Limits {
    Limits::default().handshakes_in_flight(8)
}

fn is_penalised(door: &Door) -> bool {
    let site = Source::of(v4(1, 1)).site();
    door.table.records.is_banned(site, Category::Handshake, door.now)
}

#[tokio::test(start_paused = true)]
async fn a_site_that_keeps_failing_is_put_behind_others_and_nobody_in_it_is_refused() {
    let mut door = Door::new(&limits());
    let peer = door.connect(v4(1, 250), Who::Known).unwrap();
    door.table.authorised(peer.id, Fingerprint::of_spki(b"peer"), door.now);
    fail(&mut door);
    assert!(is_penalised(&door));
    // Where there is room nothing is noticed.
    let first = door.ask(v4(1, 100));
    assert_eq!(door.turns(), [first.id]);
    door.gone(&first, End::Fair);
    // Where room is scarce others go first, and who is new from that site waits and is not refused; a peer's
    // address goes on as before.
    let room: Vec<_> = (2..8).map(|n| door.ask(v4(n, 1))).collect();
    door.turns();
    let (of_site, other, of_peer) =
        (door.ask(v4(1, 200)), door.ask(v4(9, 1)), door.ask(v4(1, 250)));
    door.turns();
    assert!(!door.shakes(&of_site) && door.shakes(&other) && door.shakes(&of_peer));
    assert!(door.connect(v4(1, 201), Who::Stranger).is_ok(), "over QUIC as well");
    for guest in &room {
        door.gone(guest, End::Fair);
    }
    door.turns();
    assert!(door.shakes(&of_site), "its turn comes when others have had theirs");
}

/// The twin: with a penalty that never holds the site takes the last room from others.
#[tokio::test(start_paused = true)]
async fn without_penalties_a_site_that_keeps_failing_is_served_in_its_turn() {
    let mut door = Door::new(&limits().penalty_holds_from(std::time::Duration::from_secs(86_400)));
    fail(&mut door);
    assert!(!is_penalised(&door));
    let _room: Vec<_> = (2..8).map(|n| door.ask(v4(n, 1))).collect();
    door.turns();
    let of_site = door.ask(v4(1, 200));
    door.turns();
    assert!(door.shakes(&of_site));
}

#[tokio::test(start_paused = true)]
async fn an_address_whose_handshakes_fail_has_no_more_of_them_than_its_share() {
    let mut door = Door::new(&Limits::default());
    // Exempt from penalties, which would refuse it before.
    let here = |host| IpAddr::from([127, 0, 0, host]);
    let served = |door: &mut Door, address| {
        let guest = door.ask(address);
        door.turns();
        let shakes = door.shakes(&guest);
        if shakes {
            door.table.closing(guest.id, Some(Failure::Left), door.now);
        }
        (guest, shakes)
    };
    // An eighth of 512.
    let failed: Vec<_> = (0..64).map(|_| served(&mut door, here(1))).collect();
    assert!(failed.iter().all(|(_, shakes)| *shakes));
    let (one_more, shakes) = served(&mut door, here(1));
    assert!(!shakes, "what has failed is still there");
    assert!(served(&mut door, here(2)).1, "another of its site");
    // The first is gone at last.
    door.gone(&failed[0].0, End::Fair);
    door.turns();
    assert!(door.shakes(&one_more));
}

/// The default's shares of 512 handshakes: 64 an address, 128 a site.
#[tokio::test(start_paused = true)]
async fn a_site_that_keeps_much_in_memory_leaves_room_for_its_other_addresses_and_for_others() {
    let mut door = Door::new(&Limits::default());
    let shakes = |door: &mut Door, address| {
        let guest = door.ask(address);
        door.turns();
        let shakes = door.shakes(&guest);
        door.gone(&guest, End::Fair);
        shakes
    };
    let linger = |door: &mut Door, address, count| -> Vec<_> {
        (0..count).map(|_| door.table.lingers(address, door.now)).collect()
    };
    // One each, and nobody is stopped.
    let mut here: Vec<_> = (1..=63).flat_map(|host| linger(&mut door, v4(1, host), 1)).collect();
    assert!(shakes(&mut door, v4(1, 1)));
    here.extend(linger(&mut door, v4(1, 1), 65));
    // A share of the site: who keeps something waits, who keeps nothing does not.
    for (host, served) in [(1, false), (2, false), (63, false), (64, true), (250, true)] {
        assert_eq!(shakes(&mut door, v4(1, host)), served, "{host}");
    }
    // More than one for each of its addresses and a share, and the site waits; others do not.
    here.extend(linger(&mut door, v4(1, 1), SITE_LINGERING - 128));
    assert!(!shakes(&mut door, v4(1, 250)) && shakes(&mut door, v4(2, 1)));
    for id in here {
        door.table.gone(id, End::Fair, door.now);
    }
    assert!(shakes(&mut door, v4(1, 1)));
}

#[tokio::test(start_paused = true)]
async fn what_everybody_keeps_in_memory_is_bounded_and_peers_come_in_all_the_same() {
    let mut door = Door::new(&Limits::default());
    let peer = door.connect(v4(1, 250), Who::Known).unwrap();
    door.table.authorised(peer.id, Fingerprint::of_spki(b"peer"), door.now);
    assert!(!door.table.is_full_of_lingering());
    // One from each of many sites.
    for n in 0..4 * SITE_LINGERING {
        let address = IpAddr::from([10, (n >> 8) as u8, (n & 255) as u8, 1]);
        door.table.lingers(address, door.now);
    }
    assert!(door.table.is_full_of_lingering());
    let (stranger, of_peer) = (door.ask(v4(9, 1)), door.ask(v4(1, 250)));
    door.turns();
    assert!(!door.shakes(&stranger) && door.shakes(&of_peer));
}

#[tokio::test(start_paused = true)]
async fn an_exemption_acts_at_once_on_who_is_there() {
    let mut door = Door::new(&Limits::default());
    let here = v4(1, 1);
    let guest = door.connect(here, Who::Stranger).unwrap();
    let fail = |door: &mut Door| {
        (0..100).for_each(|_| door.table.failed(guest.id, Failure::Key, door.now));
        door.table.is_banned(guest.id, Category::Key, door.now)
    };
    let exempt = Limits::default().penalty_exempt([(v4(0, 0), 8)]);
    door.table.set_limits(&exempt, door.now);
    assert!(!fail(&mut door), "exempt");
    door.table.set_limits(&Limits::default(), door.now);
    assert!(!door.table.is_banned(guest.id, Category::Key, door.now), "nothing was booked");
    assert!(fail(&mut door));
    door.table.set_limits(&exempt, door.now);
    assert!(!door.table.is_banned(guest.id, Category::Key, door.now), "exempt again");
}
