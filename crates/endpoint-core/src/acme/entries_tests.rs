//! Does what was tried survive clocks that jump and processes that enter at once?

use super::*;
use crate::store::Store;

/// What a process reads that has just begun.
async fn stored(world: &World) -> History {
    let source = world.source();
    source.read_history(world.clock.now()).await;
    source.state().history.clone()
}

#[tokio::test]
async fn a_clock_that_was_set_back_stops_nobody_for_years() {
    for (mood, waits) in [
        (Mood::Fails(Fault::Refused, None), 6 * 3600),
        (Mood::Fails(Fault::Unavailable, None), 3600),
        (Mood::Fails(Fault::RateLimited, Some(600)), 7 * 86_400),
    ] {
        let world = World::new();
        let start = world.clock.now().as_second();
        world.clock.advance(10 * 365 * 86_400);
        world.authorities.mood(CA, mood);
        live(&world, &world.source(), 7200).await;
        let (failed, now) = (count(&world), world.clock.now().as_second());
        // Whoever had the lock in that future died with it.
        let lock = format!("order {NAME} (a)");
        let held = world.store.lock(&lock, world.clock.now(), Duration::from_secs(60)).await;
        assert!(held.unwrap().is_some());
        world.clock.advance(start - now);
        world.authorities.mood(CA, Mood::Good);
        let source = world.source();
        // The budget is not filled up by that either.
        if failed >= AT_FIRST {
            source.look(world.clock.now(), true).await;
            assert_eq!(count(&world), failed, "{mood:?}");
        }
        live(&world, &source, waits + 3600).await;
        assert!(source.state().held.is_some(), "{mood:?}: {:?}", source.standing());
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_let_a_certificate_end() {
    let world = World::new();
    let start = world.clock.now().as_second();
    world.authorities.state().lifetime = 30 * 86_400;
    let source = world.source();
    source.look(world.clock.now(), false).await;
    // It was issued today, but the history says: in ten years.
    let odd: Timestamp = "2036-11-26T12:00:00Z".parse().unwrap();
    source.note(|history| history.issued = Some(odd.into())).await.unwrap();
    live(&world, &source, 31 * 86_400).await;
    assert!(count(&world) >= 2);
    let held = source.state().held.clone().unwrap();
    assert!(held.loaded.validity.until > world.clock.now(), "since {start}");
}

#[tokio::test]
async fn what_one_process_enters_is_not_overwritten_by_another() {
    let world = World::new();
    let (one, two) = (world.source(), world.source());
    one.look(world.clock.now(), false).await;
    two.look(world.clock.now(), false).await;
    // One waits for the authority's window while an order of the other fails.
    world.authorities.mood(CA, Mood::Fails(Fault::Refused, None));
    two.look(world.clock.now(), true).await;
    one.ask(0, world.clock.now()).await.unwrap();
    let history = stored(&world).await;
    assert_eq!(history.failed.len(), 1, "{history:?}");
    assert!(history.suggested.is_some());
    two.note(|history| history.begin(CA, world.clock.now())).await.unwrap();
    one.ask(0, world.clock.now()).await.unwrap();
    assert!(stored(&world).await.open.is_some());
}

#[tokio::test(start_paused = true)]
async fn one_damaged_answer_does_not_keep_the_others_from_being_swept_away() {
    use crate::store::Change;
    let world = World::new();
    for id in ["http-01 a", "http-01 b"] {
        let change = Change::Replace(Kind::Challenge, id.to_owned(), None, b"{".to_vec().into());
        world.store.write(vec![change], world.clock.now()).await.unwrap();
    }
    world.store.damaged.lock().unwrap().insert((Kind::Challenge, "http-01 a".to_owned()));
    let watch = tokio::spawn(world.process().watch());
    tokio::time::sleep(Duration::from_millis(50)).await;
    watch.abort();
    assert_eq!(world.store.list(Kind::Challenge).await.unwrap(), []);
}
