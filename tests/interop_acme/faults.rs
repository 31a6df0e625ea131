//! Authorities that err: what can be issued is, and the rest is told.

use std::time::{Duration, Instant};

use endpoint_tests::{
    faulty_ca::{Fault, FaultyCa, Route},
    pebble::{Pebble, Settings},
    ports::free_port,
};

use crate::{
    scene::{
        self, Case, ENGINES, Scene, ended, fault, leaf, names_all, stands_in, time, together,
        with_both,
    },
    site,
};

const NAME: &str = "one.example";

#[test]
fn a_silent_or_slow_authority_is_given_up_by_the_deadline_and_asked_again() {
    let case = |engine, how| Box::pin(gives_nothing(engine, how)) as Case;
    let both = |engine| [case(engine, Fault::Silence), case(engine, Fault::Slow)];
    together(ENGINES.into_iter().flat_map(both));
    println!(
        "acceptance: CA silent and CA slow: told, self-signed meanwhile, then issued, by both engines"
    );
}

async fn gives_nothing(engine: &'static str, how: Fault) {
    let scene = Scene::by(engine, &[NAME]).await;
    scene.ca.fail(Route::Directory, how, None);
    let server = scene.serve();
    // While the first request is still open.
    assert_eq!(scene.info(NAME)["fallback"], true);
    let own = leaf(&server, NAME).await;
    let info = scene.until(NAME, "a fault", stands_in).await;
    assert!(fault(&info).contains("within 30 s"), "{info:#}");
    assert!(time(&info, "next_at") <= scene::now() + Duration::from_secs(8), "{info:#}");
    names_all(&scene.words(NAME), &["self-signed", "within 30 s", &scene.ca.directory(), engine]);
    assert_eq!(scene.ca.calls(Route::NewOrder), 0);
    scene.ca.heal();
    scene.issued(NAME).await;
    assert_ne!(leaf(&server, NAME).await, own);
    assert_eq!((scene.ca.orders().len(), scene.ca.accounts()), (1, 1));
    ended(server);
}

#[test]
fn an_authority_that_is_down_at_the_start_is_asked_again_until_it_is_up() {
    with_both(down_at_start);
    println!(
        "acceptance: CA down at start: told, self-signed meanwhile, then issued, by both engines"
    );
}

async fn down_at_start(engine: &'static str) {
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    let port = free_port();
    let directory = format!("https://localhost:{port}/dir");
    let acme = format!("engine = \"{engine}\"\n");
    let text = scene::config(&settings, &pebble.server_root(), &directory, &[NAME], &acme);
    let machine = site::machine(&text);
    let server = site::serve(&machine);
    let down = |info: &serde_json::Value| stands_in(info) && fault(info).contains("refused");
    site::until(&machine, "a fault", down).await;
    let said = machine.run(&["cert", "info", NAME]);
    names_all(&said.out, &["self-signed", "refused", &directory, "20"]);
    let own = leaf(&server, NAME).await;
    let ca = FaultyCa::at(&pebble, port).await;
    site::until(&machine, "a certificate", site::issued).await;
    assert_ne!(leaf(&server, NAME).await, own);
    assert_eq!((ca.orders().len(), ca.accounts(), ca.failed_validations()), (1, 1, 0));
    ended(server);
}

#[test]
fn refused_nonces_are_no_failures() {
    with_both(bad_nonces);
    println!(
        "acceptance: 20 % bad nonces: three certificates, no failure, one account, by both engines"
    );
}

async fn bad_nonces(engine: &'static str) {
    let names = [NAME, "two.example", "three.example"];
    let settings = Settings { nonces_refused: 10, ..Settings::default() };
    let scene = Scene::new(settings, &names, &format!("engine = \"{engine}\"\n")).await;
    scene.ca.refuse_nonces(1, 5);
    let server = scene.serve();
    for name in names {
        let info = scene.issued(name).await;
        assert_eq!(fault(&info), "", "{info:#}");
    }
    assert!(scene.ca.nonces_refused() >= 5, "{}", scene.ca.nonces_refused());
    let distinct = names.map(|name| scene.ca.orders_for(name).min(1));
    assert_eq!((distinct, scene.ca.accounts()), ([1, 1, 1], 1));
    assert_eq!(scene.ca.calls(Route::Certificate).min(3), 3);
    let said = ended(server);
    assert!(!said.err.contains("certificate not renewed"), "{said:?}");
}

#[test]
fn broken_answers_leave_the_old_certificate_in_place() {
    with_both(broken);
    println!(
        "acceptance: 5xx, wrong content type, refusals: old certificate served, told, then renewed, by both engines"
    );
}

async fn broken(engine: &'static str) {
    let scene = Scene::by(engine, &[NAME]).await;
    // Once at the start: issued a few seconds later, without anybody's help.
    scene.ca.fail(Route::NewOrder, Fault::Status(503), Some(1));
    let server = scene.serve();
    let info = scene.until(NAME, "a fault", |info| stands_in(info) || site::issued(info)).await;
    assert!(site::issued(&info) || fault(&info).contains("503"), "{info:#}");
    scene.issued(NAME).await;
    let old = leaf(&server, NAME).await;
    for (route, told, says) in [
        (Route::NewOrder, Fault::Status(500), "500"),
        (Route::Directory, Fault::Status(502), "502"),
        (Route::Directory, Fault::WrongType, "directory"),
        (Route::NewOrder, Fault::WrongType, "placing the order"),
        (Route::Certificate, Fault::WrongType, "failed"),
        (Route::Finalize, Fault::Problem(500, "serverInternal"), "serverInternal"),
    ] {
        scene.ca.fail(route, told.clone(), None);
        let said = scene.renew(NAME);
        scene.ca.heal();
        assert_eq!(said.code(), 1, "{engine} {route:?} {told:?}: {said:?}");
        assert!(said.err.contains(says), "{engine} {route:?} {told:?}: {said:?}");
        let info = scene.info(NAME);
        assert!(fault(&info).contains(says), "{engine} {route:?} {told:?}: {info:#}");
        assert!(!fault(&info).contains("<html>"), "{info:#}");
        assert!(info["fallback"] == false && info["next_at"].is_string(), "{info:#}");
        assert_eq!(leaf(&server, NAME).await, old, "{engine} {route:?} {told:?}");
    }
    let said = scene.renew(NAME);
    assert_eq!(said.code(), 0, "{engine}: {said:?}");
    assert_ne!(leaf(&server, NAME).await, old);
    assert_eq!((scene.ca.accounts(), fault(&scene.info(NAME))), (1, ""));
    ended(server);
}

#[test]
fn an_authority_that_asks_to_wait_is_not_asked_before() {
    with_both(limited);
    println!(
        "acceptance: 429 with a time: no call before it has passed, then issued, by both engines"
    );
}

async fn limited(engine: &'static str) {
    const WAIT: Duration = Duration::from_secs(6);
    let scene = Scene::by(engine, &[NAME]).await;
    // rustls-acme shows no header, so there the text has to name the time.
    let (began, told) = if engine == "instant-acme" {
        (None, Fault::RateLimited(Some(WAIT.as_secs().to_string())))
    } else {
        // Whole seconds stand in the text, so up to one of these is lost.
        let until = scene::now() + 2 * WAIT;
        (Some(Instant::now() + WAIT), Fault::LimitedUntil(until.strftime("%F %T").to_string()))
    };
    scene.ca.fail(Route::NewOrder, told, Some(1));
    let server = scene.serve();
    let info = scene.until(NAME, "a fault", stands_in).await;
    assert!(fault(&info).contains("rateLimited"), "{info:#}");
    names_all(&scene.words(NAME), &["self-signed", "rateLimited", &scene.ca.directory()]);
    leaf(&server, NAME).await;
    // An operator who insists changes nothing.
    let mut refused = 0;
    loop {
        let said = scene.renew(NAME);
        if said.code() == 0 {
            break;
        }
        refused += 1;
        names_all(&said.err, &["the next order may be made at", "cert info"]);
        assert_eq!(scene.ca.calls(Route::NewOrder), 1, "{engine}: {said:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(refused > 0, "{engine}: the limit was over before anybody looked");
    let times = scene.ca.times(Route::NewOrder);
    let least = began.unwrap_or(times[0]) + WAIT - Duration::from_secs(u64::from(began.is_some()));
    assert!(times.len() == 2 && times[1] >= least, "{engine}: {times:?}");
    scene.issued(NAME).await;
    assert_eq!(scene.ca.accounts(), 1);
    ended(server);
}

#[test]
fn an_authority_that_forgot_us_gets_the_same_key_again() {
    with_both(forgotten);
    println!(
        "acceptance: account unknown after a CA restart: registered again once, renewed, by both engines"
    );
}

async fn forgotten(engine: &'static str) {
    let names = [NAME, "two.example"];
    let mut scene = Scene::by(engine, &names).await;
    let server = scene.serve();
    for name in names {
        scene.issued(name).await;
    }
    assert_eq!(scene.ca.calls(Route::NewAccount), 1);
    let old = leaf(&server, NAME).await;
    scene.pebble.restart().await;
    for name in names {
        let said = scene.renew(name);
        assert_eq!(said.code(), 0, "{engine}: {said:?}: {:#}", scene.info(name));
    }
    assert_eq!(scene.ca.calls(Route::NewAccount), 2, "once more, not once for each name");
    assert_ne!(leaf(&server, NAME).await, old);
    ended(server);
}

#[test]
fn a_name_that_cannot_be_proved_costs_two_orders_and_holds_up_no_other() {
    with_both(unresolvable);
    println!(
        "acceptance: one of three names unresolvable: two issued, two failing orders at most, by both engines"
    );
}

async fn unresolvable(engine: &'static str) {
    let names = [NAME, "lost.example", "three.example"];
    let scene = Scene::by(engine, &names).await;
    scene.pebble.hide("lost.example").await;
    let server = scene.serve();
    scene.until("lost.example", "a fault", stands_in).await;
    for name in [NAME, "three.example"] {
        assert_eq!(fault(&scene.issued(name).await), "");
    }
    let text = scene.words("lost.example");
    names_all(&text, &["self-signed", "lost.example", "validation failed", "order again", "20"]);
    let own = leaf(&server, "lost.example").await;
    for _ in 0..4 {
        assert_eq!(scene.renew("lost.example").code(), 1);
    }
    let said = scene.renew("lost.example");
    names_all(&said.err, &["failure budget", "the next order may be made at"]);
    assert_eq!(scene.ca.orders_for("lost.example"), 2, "{engine}");
    assert_eq!((scene.ca.failed_validations(), scene.ca.accounts()), (2, 1), "{engine}");
    assert_eq!(leaf(&server, "lost.example").await, own);
    // Not even a restart forgets it.
    ended(server);
    let server = scene.serve();
    assert_eq!(scene.renew("lost.example").code(), 1);
    assert_eq!(scene.ca.orders_for("lost.example"), 2, "{engine}");
    ended(server);
}
