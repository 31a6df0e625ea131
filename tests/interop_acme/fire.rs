//! A challenge that is pending while strangers do their worst: the authority gets its answer.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use endpoint_tests::{
    crowd::{Crowd, WAYS, Way},
    faulty_ca::{Fault, Route},
    pebble::Settings,
    until,
};
use tokio::time::Instant;

use crate::{scene::Scene, site};

/// Room that a small crowd fills.
const SMALL: &str = "[limits]\nhandshakes_in_flight = 64\nconnections = 400\npenalty_exempt = []\n";
/// The same without shares, turns and an end of patience.
const WEAKENED: &str = "[limits]\nhandshakes_in_flight = 64\nconnections = 400\nhandshakes_per_address = 64\n\
    handshakes_per_prefix = 64\nhandshakes_reserved = 0\ngive_way_after = \"1h\"\nwaiting_connections = 64\n\
    handshake_deadline = \"10m\"\nfirst_byte_deadline = \"10m\"\ncrowded_first_byte_deadline = \"10m\"\n";
const NAME: &str = "fire.example";

/// The addresses of 127.0.`third`.0/24; Pebble comes from 127.0.0.1, which is none of the crowd's.
fn site_of(third: u8) -> Vec<IpAddr> {
    (2..=250).map(|host| Ipv4Addr::new(127, 0, third, host).into()).collect()
}

/// A program whose order waits until the crowd of these members fills the room.
async fn besieged(limits: &str, places: Vec<IpAddr>, ways: &[Way], members: usize) -> Siege {
    let scene = Scene::new(Settings::default(), &[NAME], limits).await;
    scene.ca.fail(Route::NewOrder, Fault::Held, None);
    let server = scene.serve();
    let address: SocketAddr = server.address().parse().unwrap();
    let crowd = Crowd::gather(address, places, ways, members);
    let counters = || scene.machine.json(&["status"])["counters"].clone();
    let held = || counters()["held"].as_u64().unwrap() > 0;
    until("the room is full", held).await;
    until("an order", || scene.ca.calls(Route::NewOrder) > 0).await;
    scene.ca.heal();
    Siege { scene, _server: server, _crowd: crowd }
}

struct Siege {
    scene: Scene,
    _server: endpoint_tests::machine::Server,
    _crowd: Crowd,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_challenge_is_answered_under_fire_also_to_the_attacker_s_own_site() {
    for third in [9, 0] {
        let siege = besieged(SMALL, site_of(third), &WAYS, 100).await;
        let began = Instant::now();
        siege.scene.issued(NAME).await;
        let status = siege.scene.machine.json(&["status"]);
        let challenges = status["counters"]["challenges"].as_u64().unwrap();
        assert!(challenges > 0, "{status:#}");
        println!(
            "acceptance: a certificate was issued in {:?} under fire from 127.0.{third}.0/24, {challenges} looks \
             answered",
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_shares_and_turns_the_authority_does_not_get_in() {
    let siege = besieged(WEAKENED, site_of(0), &[Way::HalfHello, Way::Silent], 200).await;
    let ends = Instant::now() + Duration::from_secs(60);
    while siege.scene.ca.failed_validations() == 0 {
        assert!(!site::issued(&siege.scene.info(NAME)), "the authority was let in");
        assert!(Instant::now() < ends, "the authority did not look");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
