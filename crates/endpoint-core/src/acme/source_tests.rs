//! Does one name get its certificate, whatever authority, store and clock do?

use super::*;
use crate::{
    acme::{
        fake::{CA, Mood, NAME, OTHER, STAGING, Seen, World},
        issuer::Fault,
    },
    certs::plan::{AT_FIRST, FIRST, PER_HOUR},
    config::ChallengeKind,
    store::Kind,
};

#[path = "entries_tests.rs"]
mod entries;

/// Dice that fall alike for a seed, which a failing test prints.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

/// Looks when the source wants to be looked at, until `seconds` have passed.
async fn live(world: &World, source: &AcmeSource, seconds: i64) {
    let end = world.clock.now().as_second() + seconds;
    loop {
        let looked = source.look(world.clock.now(), false).await;
        let now = world.clock.now().as_second();
        let again = looked.again.expect("a time").as_second().max(now + 1);
        if again >= end {
            return world.clock.advance(end - now);
        }
        world.clock.advance(again - now);
    }
}

fn count(world: &World) -> usize {
    world.authorities.orders().len()
}

#[tokio::test]
async fn issues_once_and_a_second_start_asks_nobody() {
    let world = World::new();
    let source = world.source();
    let kept = source.kept(world.clock.now()).await;
    assert!(kept.fresh.is_none() && kept.fault.is_none());
    let looked = source.look(world.clock.now(), false).await;
    assert!(looked.fresh.is_some(), "{looked:?}");
    assert_eq!(looked.fault, None);
    assert_eq!((count(&world), world.authorities.state().windows), (1, 1));
    let again = world.source();
    let kept = again.kept(world.clock.now()).await;
    assert!(kept.fresh.is_some());
    let looked = again.look(world.clock.now(), false).await;
    assert!(looked.fresh.is_none());
    assert_eq!((count(&world), world.authorities.state().windows), (1, 1));
    let standing = again.standing();
    assert_eq!(standing.issuer.as_deref(), Some(CA));
    assert_eq!(standing.next.unwrap().0, "renew");
    assert_eq!(standing.last_error, None);
}

#[tokio::test]
async fn renews_in_time_for_lives_of_all_lengths() {
    for (life, renew_before, orders) in
        [(30, None, 25..=30), (6 * 86_400, Some(30), 2..=2), (90 * 86_400, None, 1..=1)]
    {
        let mut world = World::new();
        world.config.renew_before = renew_before.map(|days| Duration::from_secs(days * 86_400));
        world.authorities.state().lifetime = life;
        let source = world.source();
        live(&world, &source, if life == 30 { 600 } else { 5 * 86_400 }).await;
        assert!(orders.contains(&count(&world)), "{life} s: {} orders", count(&world));
        let held = source.state().held.clone().unwrap();
        assert!(held.loaded.validity.until > world.clock.now());
        assert_eq!(source.standing().last_error, None);
        assert!(world.authorities.orders().iter().skip(1).all(|order| order.replaces));
    }
}

#[tokio::test]
async fn four_processes_make_one_order_and_one_account() {
    let world = World::new();
    let sources: Vec<_> = (0..4).map(|_| Arc::new(world.source())).collect();
    let mut looks = tokio::task::JoinSet::new();
    for source in &sources {
        let (source, now) = (Arc::clone(source), world.clock.now());
        looks.spawn(async move { source.look(now, false).await });
    }
    looks.join_all().await;
    world.clock.advance(10);
    for source in &sources {
        source.look(world.clock.now(), false).await;
        assert!(source.state().held.is_some());
    }
    assert_eq!(count(&world), 1);
    assert_eq!(world.authorities.state().registered.len(), 1);
}

#[tokio::test]
async fn many_names_share_one_account_and_fail_each_for_itself() {
    let world = World::new();
    let desk = world.process();
    let mut looks = tokio::task::JoinSet::new();
    for name in ["a.example", "b.example", "c.example"] {
        let source = AcmeSource::new(desk.clone(), name).unwrap();
        let now = world.clock.now();
        looks.spawn(async move { source.look(now, false).await.fresh.is_some() });
    }
    assert_eq!(looks.join_all().await, [true; 3]);
    assert_eq!(world.authorities.state().registered.len(), 1);
    assert_eq!(desk.vault.names().await.unwrap(), ["a.example", "b.example", "c.example"]);
}

#[tokio::test]
async fn an_account_that_the_authority_forgot_is_registered_again_with_the_same_key() {
    let world = World::new();
    let source = world.source();
    source.look(world.clock.now(), false).await;
    world.authorities.state().forgotten.insert(CA.to_owned());
    let looked = source.look(world.clock.now(), true).await;
    assert!(looked.fresh.is_some(), "{looked:?}");
    assert_eq!(world.authorities.state().registered.len(), 1, "the same key");
    // Once: an authority that never knows it ends the order.
    world.authorities.mood(CA, Mood::Forgetful);
    let before = count(&world);
    let looked = source.look(world.clock.now(), true).await;
    assert!(looked.fresh.is_none() && count(&world) == before + 2);
}

#[tokio::test]
async fn a_restart_forgets_neither_failures_nor_what_the_authority_asked_for() {
    let world = World::new();
    world.authorities.mood(CA, Mood::Fails(Fault::RateLimited, Some(3600)));
    let looked = world.source().look(world.clock.now(), false).await;
    assert!(looked.fault.unwrap().contains(CA));
    for _ in 0..10 {
        world.clock.advance(300);
        world.source().look(world.clock.now(), false).await;
    }
    assert_eq!(count(&world), 1, "silence for 3600 s");
    world.clock.advance(599);
    world.source().look(world.clock.now(), false).await;
    assert_eq!(count(&world), 1);
    world.clock.advance(1);
    world.authorities.mood(CA, Mood::Good);
    assert!(world.source().look(world.clock.now(), false).await.fresh.is_some());
}

#[tokio::test]
async fn an_operator_learns_when_the_budget_allows_the_next_order() {
    let world = World::new();
    let source = world.source();
    world.authorities.mood(CA, Mood::Fails(Fault::Refused, None));
    source.look(world.clock.now(), true).await;
    source.look(world.clock.now(), true).await;
    assert_eq!(count(&world), AT_FIRST);
    let looked = source.look(world.clock.now(), true).await;
    assert!(looked.fresh.is_none());
    assert_eq!(count(&world), AT_FIRST);
    let until = source.spent_until().unwrap();
    let wait = until.duration_since(world.clock.now()).as_secs();
    assert!((600..=601).contains(&wait), "{wait}");
}

#[tokio::test]
async fn what_cannot_be_kept_is_served_and_kept_later_without_another_order() {
    let world = World::new();
    let source = world.source();
    world.store.full.lock().unwrap().insert(Kind::Certificate);
    let looked = source.look(world.clock.now(), false).await;
    assert!(looked.fresh.is_some());
    assert!(looked.fault.unwrap().contains("cannot be kept in the test's store"));
    for _ in 0..100 {
        world.clock.advance(30);
        let looked = source.look(world.clock.now(), false).await;
        assert!(looked.fresh.is_none());
    }
    assert_eq!(count(&world), 1);
    world.store.full.lock().unwrap().clear();
    world.clock.advance(30);
    let looked = source.look(world.clock.now(), false).await;
    assert_eq!(looked.fault, None);
    assert!(world.source().kept(world.clock.now()).await.fresh.is_some());
    assert_eq!(count(&world), 1);
}

#[tokio::test]
async fn without_a_budget_that_can_be_kept_one_order_is_made_and_not_at_once() {
    for kind in [Kind::History, Kind::Certificate] {
        let world = World::new();
        world.store.full.lock().unwrap().insert(Kind::History);
        world.store.full.lock().unwrap().insert(kind);
        world.authorities.mood(CA, Mood::Fails(Fault::Refused, None));
        let source = world.source();
        let looked = source.look(world.clock.now(), false).await;
        assert!(looked.fault.unwrap().contains("no space"));
        live(&world, &source, 590).await;
        assert_eq!(count(&world), 0, "in the first ten minutes");
        live(&world, &source, 86_400).await;
        // An operator cannot make more of them either.
        let looked = source.look(world.clock.now(), true).await;
        assert!(looked.fault.unwrap().contains("one order was made"));
        assert_eq!(count(&world), 1);
        // What was tried holds from then on, and stands in the store as soon as it can.
        world.store.full.lock().unwrap().clear();
        world.authorities.mood(CA, Mood::Good);
        live(&world, &source, 60).await;
        assert!(source.state().held.is_some() && count(&world) == 2);
        assert_eq!(world.source().looked(world.clock.now(), false).await.fault, None);
        assert_eq!(count(&world), 2);
    }
}

#[tokio::test]
async fn a_certificate_that_begins_later_replaces_none_that_holds() {
    for full in [false, true] {
        let world = World::new();
        let source = world.source();
        source.look(world.clock.now(), false).await;
        let first = source.leaf();
        if full {
            world.clock.advance(700);
            world.store.full.lock().unwrap().insert(Kind::Certificate);
        }
        world.authorities.state().begins_in = 3600;
        let looked = source.look(world.clock.now(), true).await;
        assert!(looked.fresh.is_none(), "full {full}");
        assert_eq!((source.leaf(), count(&world)), (first.clone(), 2), "full {full}");
        live(&world, &source, 3500).await;
        assert_eq!((source.leaf(), count(&world)), (first.clone(), 2), "full {full}");
        if !full {
            let again = world.source();
            again.kept(world.clock.now()).await;
            assert_eq!(again.leaf(), first);
        }
        live(&world, &source, 200).await;
        assert_ne!(source.leaf(), first, "full {full}");
        assert_eq!(count(&world), 2);
    }
}

#[tokio::test]
async fn garbage_counts_as_a_failure_and_replaces_nothing() {
    let world = World::new();
    let source = world.source();
    source.look(world.clock.now(), false).await;
    let before = source.leaf();
    world.authorities.mood(CA, Mood::Garbage);
    let looked = source.look(world.clock.now(), true).await;
    assert!(looked.fresh.is_none());
    assert!(source.standing().last_error.unwrap().contains("not valid for `a.example`"));
    assert_eq!(source.leaf(), before);
    assert_eq!(source.state().history.failed.len(), 1);
}

#[tokio::test]
async fn after_a_failure_another_proof_goes_first() {
    let world = World::new();
    let source = world.source();
    world.authorities.mood(CA, Mood::Fails(Fault::Refused, None));
    source.look(world.clock.now(), false).await;
    world.clock.advance(120);
    source.look(world.clock.now(), false).await;
    let first = |seen: &Seen| seen.proofs.first().copied();
    let firsts: Vec<_> = world.authorities.orders().iter().map(first).collect();
    assert_eq!(firsts, [Some(ChallengeKind::TlsAlpn01), Some(ChallengeKind::Http01)]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_authority_ends_by_the_deadline_and_counts_as_silent() {
    let world = World::new();
    let source = world.source();
    world.authorities.mood(CA, Mood::Silent);
    let looked = source.look(world.clock.now(), false).await;
    assert!(looked.fault.unwrap().contains("not done within 330 s"));
    assert!(source.state().history.failed.is_empty());
    world.clock.advance(10);
    world.authorities.mood(CA, Mood::Good);
    assert!(source.look(world.clock.now(), false).await.fresh.is_some());
}

#[tokio::test]
async fn an_order_that_a_crash_broke_off_is_remembered_and_made_again() {
    let world = World::new();
    world.authorities.mood(CA, Mood::Silent);
    let source = Arc::new(world.source());
    let (looking, now) = (Arc::clone(&source), world.clock.now());
    let look = tokio::spawn(async move { looking.look(now, false).await });
    while count(&world) == 0 {
        tokio::task::yield_now().await;
    }
    look.abort();
    let _ = look.await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    world.authorities.mood(CA, Mood::Good);
    let restarted = world.source();
    let looked = restarted.look(world.clock.now(), false).await;
    assert!(looked.fresh.is_none(), "a moment's pause first");
    assert_eq!(restarted.state().history.directories[CA].silent, 1);
    world.clock.advance(10);
    assert!(restarted.look(world.clock.now(), false).await.fresh.is_some());
    assert_eq!(count(&world), 2);
}

#[tokio::test]
async fn tries_staging_after_a_refusal_and_serves_only_what_the_authority_itself_issued() {
    let world = World::new().with_staging();
    let source = world.source();
    world.authorities.mood(CA, Mood::Fails(Fault::Refused, None));
    source.look(world.clock.now(), false).await;
    world.authorities.mood(CA, Mood::Good);
    world.clock.advance(70);
    let looked = source.look(world.clock.now(), false).await;
    assert!(looked.fresh.is_some());
    let directories: Vec<_> =
        world.authorities.orders().into_iter().map(|order| order.directory).collect();
    assert_eq!(directories, [CA, STAGING, CA]);
    assert_eq!(source.standing().issuer.as_deref(), Some(CA));
}

#[tokio::test]
async fn goes_to_the_next_authority_while_the_first_is_down() {
    let world = World::new().with_other();
    let source = world.source();
    world.authorities.mood(CA, Mood::Fails(Fault::Unavailable, None));
    live(&world, &source, 300).await;
    assert_eq!(source.standing().issuer.as_deref(), Some(OTHER));
    assert!(source.state().held.is_some());
}

#[tokio::test]
async fn a_certificate_of_another_process_is_taken_over_without_an_order() {
    let world = World::new();
    world.authorities.state().lifetime = 3600;
    let (one, two) = (world.source(), world.source());
    one.look(world.clock.now(), false).await;
    assert!(two.look(world.clock.now(), false).await.fresh.is_some());
    assert!(!two.changed());
    one.look(world.clock.now(), true).await;
    two.desk.look().await.unwrap();
    assert!(two.changed());
    assert!(two.look(world.clock.now(), false).await.fresh.is_some());
    assert!(!two.changed());
    assert_eq!(count(&world), 2);
}

#[tokio::test]
async fn obeys_the_window_and_asks_again_when_told() {
    let world = World::new();
    world.authorities.state().window = Some((86_400, 2 * 86_400));
    let source = world.source();
    live(&world, &source, 86_300).await;
    assert_eq!(count(&world), 1);
    assert!((4..=5).contains(&world.authorities.state().windows));
    // Each answer moves the window; this one is over at once.
    world.authorities.state().window = Some((-20, -10));
    live(&world, &source, 90_000).await;
    assert!((2..=3).contains(&count(&world)), "{}", count(&world));
}

#[tokio::test]
async fn answers_of_one_process_are_found_by_another_and_cost_strangers_nothing() {
    use crate::certs::challenges::Challenges;
    let world = World::new();
    world.authorities.mood(CA, Mood::Silent);
    let challenges = Arc::new(Challenges::default());
    let ordering = Arc::new(AcmeSource::new(world.process_with(&challenges), NAME).unwrap());
    let other = Arc::new(Challenges::default());
    let bystander = world.process_with(&other);
    other.look_elsewhere(vec![bystander.elsewhere()]);
    // A stranger who asked a moment before must not hide what comes.
    assert!(other.tls_alpn_anywhere(NAME).await.is_none());
    let (looking, now) = (Arc::clone(&ordering), world.clock.now());
    let look = tokio::spawn(async move { looking.look(now, false).await });
    while count(&world) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(challenges.tls_alpn(NAME).is_some());
    assert!(other.tls_alpn(NAME).is_none());
    assert!(other.tls_alpn_anywhere(NAME).await.is_some());
    let reads = || world.store.reads.load(std::sync::atomic::Ordering::Relaxed);
    let before = reads();
    for i in 0..1000 {
        assert!(other.tls_alpn_anywhere(&format!("scan-{i}.example")).await.is_none());
        assert!(other.http_anywhere(&format!("token-{i}")).await.is_none());
    }
    assert_eq!(reads(), before);
    look.abort();
    let _ = look.await;
}

/// Sixty days with an authority that fails in every way, and restarts in between.
#[tokio::test(start_paused = true)]
async fn sixty_days_of_failures_cost_no_more_than_the_budget_and_end_in_a_certificate() {
    for seed in 1..=3 {
        let days = if seed == 1 { 60 } else { 20 };
        simulate(seed, days).await;
    }
}

async fn simulate(seed: u64, days: i64) {
    let world = World::new().with_staging().with_other();
    world.authorities.state().lifetime = 6 * 86_400;
    let mut dice = Dice(seed);
    let mut source = world.source();
    let start = world.clock.now().as_second();
    let mut mood_until = start;
    let mut good_since = None;
    let (mut looks, mut uncovered) = (0_u64, 0_i64);
    while world.clock.now().as_second() < start + days * 86_400 {
        let now = world.clock.now().as_second();
        if now >= mood_until {
            // Bad days, with a good one now and then.
            let kind = dice.below(8);
            let good = kind == 0;
            for directory in [CA, STAGING, OTHER] {
                let after = [None, Some(1), Some(40), Some(3600), Some(50_000)];
                let after = after[dice.below(5) as usize];
                let mood = match kind + dice.below(3) {
                    _ if good => Mood::Good,
                    1 => Mood::Silent,
                    2 => Mood::Garbage,
                    3 => Mood::Forgetful,
                    4 | 5 => Mood::Fails(Fault::Unavailable, after),
                    6 => Mood::Fails(Fault::RateLimited, after),
                    7 => Mood::Fails(Fault::AccountRefused, after),
                    _ => Mood::Fails(Fault::Refused, after),
                };
                world.authorities.mood(directory, mood);
            }
            let hours = if good { 24 } else { 6 + dice.below(18) };
            mood_until = now + (hours * 3600).cast_signed();
            good_since = good.then_some(now);
            if dice.below(3) == 0 {
                source = world.source();
                source.kept(world.clock.now()).await;
            }
        }
        let forced = dice.below(200) == 0;
        let looked = source.look(world.clock.now(), forced).await;
        looks += 1;
        let held = source.state().held.as_ref().map(|held| held.loaded.validity.until);
        let covered = held.is_some_and(|until| until >= world.clock.now());
        // A wait that an authority asked for may be longer than a day, so only that counts.
        if let Some(since) = good_since
            && now - since > 60_000
            && !covered
        {
            uncovered += 1;
        }
        let again = looked.again.expect("a time").as_second();
        let next = again.clamp(now + 1, mood_until.max(now + 1));
        world.clock.advance(next - now);
    }
    let context = format!("seed {seed}, {looks} looks, {} orders", count(&world));
    assert_eq!(uncovered, 0, "{context}");
    assert!(looks < 24 * days.cast_unsigned() * 60, "no loop: {context}");
    let failing: Vec<_> =
        world.authorities.orders().into_iter().filter(|order| order.failed).collect();
    assert!(failing.len() > 20, "{context}");
    for (place, first) in failing.iter().enumerate() {
        let within = |time: Duration| {
            failing[place..].iter().filter(|order| order.at <= later(first.at, time)).count()
        };
        assert!(within(Duration::from_secs(3600)) <= PER_HOUR, "{context}, at {}", first.at);
        assert!(within(FIRST) <= AT_FIRST, "{context}, at {}", first.at);
    }
}

#[tokio::test]
async fn a_name_that_fails_here_takes_over_what_another_process_obtained() {
    let world = World::new();
    world.authorities.mood(CA, Mood::Fails(Fault::Refused, None));
    let (here, there) = (world.source(), world.source());
    here.look(world.clock.now(), false).await;
    world.authorities.mood(CA, Mood::Good);
    world.clock.advance(70);
    there.look(world.clock.now(), false).await;
    here.desk.look().await.unwrap();
    assert!(here.changed(), "although it waits for its next order");
    assert!(here.look(world.clock.now(), false).await.fresh.is_some());
    assert_eq!(here.standing().last_error, None);
}
