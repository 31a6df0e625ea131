use futures_util::FutureExt as _;

use super::*;
use crate::{
    alpn::Alpn,
    config::Scope,
    facts::{KeyKind, PeerKey},
    transport::tcp_link::TcpLink,
    trust::AuthorizedPeers,
};

fn key(n: u8) -> Fingerprint {
    Fingerprint::from_bytes([n; 32])
}

fn policy(lines: &str) -> Policy {
    AuthorizedPeers::from_text(lines).unwrap().policy()
}

fn allowing(n: u8) -> Policy {
    policy(&format!("{}\n", key(n)))
}

fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

/// A table whose closes nobody sends unless the test spawns the second part.
fn live(policy: Policy) -> (Arc<Live>, impl Future<Output = ()> + Send + 'static, Clock) {
    let clock = Clock::manual(noon());
    let (live, pacing) = Live::new(policy, clock.clone(), 2);
    (live, async move { pacing.send().await }, clock)
}

fn arrive(live: &Arc<Live>, n: u8) -> Guard {
    arrive_as(live, n, Access::Peer(Scope::ANY), Carrier::Quic)
}

fn arrive_over(live: &Arc<Live>, n: u8, carrier: Carrier) -> Guard {
    arrive_as(live, n, Access::Peer(Scope::ANY), carrier)
}

fn arrive_at(live: &Arc<Live>, n: u8, access: Access) -> Guard {
    arrive_as(live, n, access, Carrier::Quic)
}

/// A duplex pipe stands in for either carrier; what is done differently goes by the facts.
fn arrive_as(live: &Arc<Live>, n: u8, access: Access, carrier: Carrier) -> Guard {
    let remote = "127.0.0.1:1000".parse().unwrap();
    let (ours, _) = tokio::io::duplex(64);
    let facts = LinkFacts {
        id: live.next_id(),
        carrier,
        profile: Profile { server: KeyKind::Raw, client: Some(KeyKind::Raw) },
        alpn: Alpn::ECHO_1,
        server_name: None,
        peer: PeerKey::Proven(KeyKind::Raw, key(n)),
        remote,
        local: remote,
    };
    let link = Link::from(TcpLink::new(ours, remote, false));
    live.register(facts, access, link)
}

#[tokio::test]
async fn a_permit_does_not_outlive_the_scopes_that_it_told_of() {
    let told = |options: &str| policy(&format!("{options} {}\n", key(1)));
    let (live, _pacing, _) = live(told("scope=\"ops,lab\",tenant=\"a\""));
    let guard = arrive(&live, 1);
    let permit = guard.permit().unwrap();
    assert!(permit.has_scope(&Scope::new("ops").unwrap()));
    assert_eq!(
        live.set_policy_from(|| told("scope=\"ops,lab,more\",tenant=\"a\"")),
        0,
        "more is no loss"
    );
    assert_eq!(live.set_policy_from(|| told("scope=\"lab\",tenant=\"a\"")), 1);
    assert_eq!(guard.entry().denial(), Some(&Denial::GrantChanged));

    // Swapped between the judgement and its note.
    let guard = arrive(&live, 1);
    let judged = guard.judge();
    live.set_policy_from(|| told("scope=\"lab\",tenant=\"b\""));
    assert_eq!(guard.settle(judged).unwrap_err(), Denial::GrantChanged);
}

#[tokio::test]
async fn a_handler_for_everybody_goes_on_without_the_grant_that_went_away() {
    let (live, _pacing, clock) =
        live(policy(&format!("expires=\"2026-06-01T12:00:10Z\",scope=\"ops\" {}\n", key(1))));
    let guard = arrive_at(&live, 1, Access::Public);
    let permit = guard.permit().unwrap();
    assert_eq!(permit.scopes().len(), 1);
    clock.advance(10);
    assert_eq!(live.tick(), 0);
    assert_eq!(guard.watch().check(), Ok(()));
    assert_eq!((permit.scopes(), permit.name(), permit.tenant()), (&[][..], None, None));
    assert_eq!(permit.fingerprint(), Some(key(1)), "the key is proven all the same");
}

#[tokio::test]
async fn a_set_swapped_between_registration_and_judgement_is_the_one_that_counts() {
    let (live, _pacing, _) = live(allowing(1));
    let guard = arrive(&live, 1);
    assert_eq!(live.set_policy_from(Policy::default), 1, "the table finds it before it is judged");
    assert_eq!(guard.permit().unwrap_err(), Denial::UnknownKey);
    assert_eq!(guard.watch().check(), Err(CloseCode::Revoked));

    let guard = arrive(&live, 1);
    live.set_policy_from(Policy::default);
    live.set_policy_from(|| allowing(1));
    assert!(guard.permit().is_err(), "what was denied once stays denied");
    assert!(arrive(&live, 1).permit().is_ok());
}

#[tokio::test]
async fn a_set_swapped_between_judgement_and_its_note_still_ends_the_connection() {
    let (live, _pacing, _) = live(allowing(1));
    let guard = arrive(&live, 1);
    let judged = guard.judge();
    assert!(judged.is_ok(), "the old set said yes");
    assert_eq!(live.set_policy_from(Policy::default), 1);
    assert_eq!(guard.settle(judged).unwrap_err(), Denial::UnknownKey);
    assert!(live.snapshot().is_empty());
}

#[tokio::test]
async fn an_old_look_does_not_take_off_the_watch_that_a_new_set_asks_for() {
    let (live, _pacing, clock) = live(allowing(1));
    let guard = arrive(&live, 1);
    let judged = guard.judge();
    live.set_policy_from(|| policy(&format!("expires=\"2026-06-01T12:00:10Z\" {}\n", key(1))));
    assert!(guard.settle(judged).is_ok());
    clock.advance(9);
    assert_eq!(live.tick(), 0);
    clock.advance(1);
    assert_eq!(live.tick(), 1);
    assert_eq!(guard.entry().denial(), Some(&Denial::Expired));
    assert_eq!(guard.watch().denied().await, CloseCode::Expired);
}

#[tokio::test]
async fn each_stream_asks_the_clock_without_waiting_for_the_tick() {
    let expiring = policy(&format!("expires=\"2026-06-01T12:00:10Z\" {}\n", key(1)));
    let (live, _pacing, clock) = live(expiring);
    let guard = arrive(&live, 1);
    guard.permit().unwrap();
    assert_eq!(guard.watch().check(), Ok(()));
    clock.advance(10);
    assert_eq!(guard.watch().check(), Err(CloseCode::Expired));
    assert_eq!(live.tick(), 0, "counted once");
}

#[tokio::test]
async fn a_key_has_its_places_back_when_its_connections_are_gone() {
    let (live, _pacing, _) = live(allowing(1));
    let (first, second) = (arrive(&live, 1), arrive(&live, 1));
    first.permit().unwrap();
    second.permit().unwrap();
    let third = arrive(&live, 1);
    assert_eq!(third.permit().unwrap_err(), Denial::TooManyConnections { limit: 2 });
    drop(third);
    drop(first);
    let fourth = arrive(&live, 1);
    fourth.permit().unwrap();
    drop((second, fourth));
    let table = live.table();
    assert!(table.entries.is_empty() && table.per_peer.is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn a_kick_ends_one_key_and_counts_each_connection_once() {
    let (live, _pacing, _) = live(policy(&format!("{}\n{}\n", key(1), key(2))));
    let (kicked, other) = (arrive(&live, 1), arrive(&live, 2));
    kicked.permit().unwrap();
    other.permit().unwrap();
    assert_eq!(live.kick(&key(1)), 1);
    assert_eq!(live.kick(&key(1)), 0);
    assert_eq!(live.set_policy_from(Policy::default), 1, "only the other is left to end");
    assert_eq!(kicked.entry().denial(), Some(&Denial::Kicked));
}

#[tokio::test(start_paused = true)]
async fn closes_go_out_twenty_in_a_millisecond_while_denials_are_there_at_once() {
    let (live, pacing, _) = live(policy(&format!("max-connections=\"50\" {}\n", key(1))));
    let pacing = tokio::spawn(pacing);
    let guards: Vec<_> = (0..50).map(|_| arrive(&live, 1)).collect();
    guards.iter().for_each(|guard| drop(guard.permit().unwrap()));
    assert_eq!(live.set_policy_from(Policy::default), 50);
    assert!(guards.iter().all(|guard| guard.watch().check().is_err()));
    let closed = || {
        let ended = guards.iter().filter(|g| g.entry().link.closed().now_or_never().is_some());
        ended.count()
    };
    let mut seen = vec![closed()];
    let began = Instant::now();
    while closed() < 50 {
        // The paused clock moves on only when nothing else is left to do.
        tokio::time::sleep(Duration::from_micros(500)).await;
        if seen.last() != Some(&closed()) {
            seen.push(closed());
        }
    }
    assert_eq!(seen, [0, 20, 40, 50]);
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    drop((guards, live));
    pacing.await.unwrap();
}

#[tokio::test]
async fn a_denied_tcp_link_has_ended_when_the_swap_of_the_set_returns() {
    let (live, _pacing, _) = live(allowing(1));
    let [tcp, quic] = [Carrier::Tcp, Carrier::Quic].map(|carrier| arrive_over(&live, 1, carrier));
    tcp.permit().unwrap();
    quic.permit().unwrap();
    assert_eq!(live.set_policy_from(Policy::default), 2);
    assert!(tcp.entry().link.closed().now_or_never().is_some());
    assert!(quic.entry().link.closed().now_or_never().is_none(), "waits for its turn");
}

#[tokio::test]
async fn an_expired_key_is_not_known_and_its_limit_holds_all_the_same() {
    let lines = format!("expires=\"2026-06-01T12:00:10Z\",max-connections=\"1\" {}\n", key(1));
    let (live, _pacing, clock) = live(policy(&lines));
    assert!(live.knows(&key(1)) && !live.knows(&key(2)));
    clock.advance(10);
    assert!(!live.knows(&key(1)), "no place of the reserve");
    let first = arrive_at(&live, 1, Access::Public);
    first.permit().unwrap();
    let second = arrive_at(&live, 1, Access::Public);
    assert_eq!(second.permit().unwrap_err(), Denial::TooManyConnections { limit: 1 });
}

#[tokio::test]
async fn a_denied_connection_gives_its_place_back_at_once() {
    let (live, _pacing, _) = live(policy(&format!("max-connections=\"1\" {}\n", key(1))));
    let guard = arrive(&live, 1);
    guard.permit().unwrap();
    assert_eq!(live.kick(&key(1)), 1);
    let next = arrive(&live, 1);
    next.make_room().await;
    next.permit().unwrap();
    drop((guard, next));
    let table = live.table();
    assert!(table.per_peer.is_empty() && table.waiting.is_empty() && table.entries.is_empty());
}

#[tokio::test]
async fn no_older_set_is_stored_over_a_newer_one() {
    let peers = AuthorizedPeers::from_text(&format!("{}\n{}\n", key(1), key(2))).unwrap();
    let (live, _pacing, _) = live(peers.policy());
    let (stored, others) = std::sync::mpsc::channel();
    // The watch has read the set, and before it stores it a revocation comes by.
    let mut revoking = None;
    live.set_policy_from(|| {
        let older = peers.policy();
        let (live, peers) = (Arc::clone(&live), peers.clone());
        revoking = Some(std::thread::spawn(move || {
            peers.revoke(&key(1), noon()).unwrap();
            live.set_policy_from(|| peers.policy());
            stored.send(()).unwrap();
        }));
        // It waits for its turn, however long it is given.
        assert!(others.recv_timeout(Duration::from_millis(100)).is_err());
        older
    });
    revoking.unwrap().join().unwrap();
    assert!(!live.knows(&key(1)) && live.knows(&key(2)));
    // Many at once, and each revocation lasts.
    let all: String = (1..=32).map(|n| format!("{}\n", key(n))).collect();
    let peers = AuthorizedPeers::from_text(&all).unwrap();
    live.set_policy_from(|| peers.policy());
    std::thread::scope(|scope| {
        for n in 1..=32 {
            let (live, peers) = (&live, &peers);
            scope.spawn(move || {
                live.set_policy_from(|| peers.policy());
                peers.revoke(&key(n), noon()).unwrap();
                live.set_policy_from(|| peers.policy());
                assert!(!live.knows(&key(n)));
            });
        }
    });
    assert!((1..=32).all(|n| !live.knows(&key(n))));
}

/// The twin: the set is read before its turn.
#[tokio::test]
async fn a_set_that_was_read_before_its_turn_would_let_a_revoked_key_in_again() {
    let peers = AuthorizedPeers::from_text(&format!("{}\n", key(1))).unwrap();
    let (live, _pacing, _) = live(peers.policy());
    let older = peers.policy();
    peers.revoke(&key(1), noon()).unwrap();
    live.set_policy_from(|| peers.policy());
    live.set_policy_from(|| older);
    assert!(live.knows(&key(1)));
}

/// Connections of key 1 that have been silent since their number of seconds after now.
fn silent_since(live: &Arc<Live>, seconds: [u64; 4]) -> [(Guard, Activity); 4] {
    let now = Instant::now();
    seconds.map(|seconds| {
        let guard = arrive_at(live, 1, Access::Public);
        let activity = Activity::new(now);
        activity.enter(crate::phase::Phase::Shaken, now + Duration::from_secs(seconds));
        guard.follow(&activity);
        guard.permit().unwrap();
        (guard, activity)
    })
}

fn ended(connections: &[(Guard, Activity); 4]) -> [bool; 4] {
    std::array::from_fn(|n| connections[n].0.entry().denial().is_some())
}

#[tokio::test]
async fn a_lowered_limit_of_keys_ends_the_longest_silent_and_says_so() {
    for own_limit in [false, true] {
        let lines = |limit: usize| match own_limit {
            true => format!("max-connections=\"{limit}\" {}\n", key(1)),
            false => format!("{}\n", key(1)),
        };
        let (live, _pacing, _) = live(policy(&lines(4)));
        live.set_connections_per_peer(4);
        let lower = |limit| match own_limit {
            true => live.set_policy_from(|| policy(&lines(limit))),
            false => live.set_connections_per_peer(limit),
        };
        let four = silent_since(&live, [40, 10, 30, 20]);
        assert_eq!(lower(4), 0);
        assert_eq!(lower(3), 1);
        assert_eq!(ended(&four), [false, true, false, false]);
        let told = four[1].0.entry().denial().unwrap();
        assert_eq!(*told, Denial::TooManyConnections { limit: 3 });
        assert_eq!(told.code(true), CloseCode::TooManyConnections);
        // With something under way it goes last.
        let _busy = four[3].1.begin(Instant::now);
        assert_eq!(lower(1), 2);
        assert_eq!(ended(&four), [true, true, true, false]);
        let next = arrive_at(&live, 1, Access::Public);
        assert_eq!(next.permit().unwrap_err(), Denial::TooManyConnections { limit: 1 });
    }
}
