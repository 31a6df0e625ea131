//! Who is told how full it is, with time as an argument.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    filter::{Arrival, Filter, Who},
    table::Table,
};
use crate::{
    config::Limits,
    facts::Carrier,
    phase::{Activity, Crowd},
};

fn arrival(last: u8, site: u8, now: Instant) -> Arrival {
    let address = IpAddr::from(Ipv4Addr::new(198, 51, site, last));
    Arrival { address, carrier: Carrier::Tcp, activity: Activity::new(now) }
}

#[test]
fn a_full_share_hurries_its_own_newcomers_and_a_full_table_everybodys() {
    // 96 for strangers: 84 for all of them, 12 for an address, 24 for a site.
    let now = Instant::now();
    let mut table = Table::new(&Limits::default().connections(128).waiting_connections(1000));
    let mut told = Vec::new();
    for count in 0..20 {
        let guest = arrival(1, 1, now);
        let activity = guest.activity.clone();
        table.arrive(guest, now).unwrap();
        told.push((count, activity));
    }
    let crowd = |n: usize| told[n].1.crowd();
    assert_eq!(
        [crowd(0), crowd(4), crowd(5), crowd(19)].map(|c| c > Crowd::Roomy),
        [false, false, true, true]
    );
    table.tick(now);
    assert_eq!(crowd(0), Crowd::Most, "those who are there hear of it too");
    let other = arrival(1, 2, now);
    let activity = other.activity.clone();
    table.arrive(other, now).unwrap();
    assert_eq!(activity.crowd(), Crowd::Roomy);

    // Connections from everywhere.
    let mut guests = Vec::new();
    for count in 0..63_u8 {
        let guest = arrival(count, 100 + count / 2, now);
        guests.push(guest.activity.clone());
        table.proven(guest, Who::Stranger, now).unwrap();
    }
    assert_eq!((guests[0].crowd(), guests[62].crowd()), (Crowd::Roomy, Crowd::Most));
    table.tick(now + Duration::from_secs(1));
    assert_eq!(guests[0].crowd(), Crowd::Most);
    assert_eq!(activity.crowd(), Crowd::Most, "also before the first byte");
}
