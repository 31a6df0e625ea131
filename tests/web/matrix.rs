//! Who gets which answer: every identity × rule × kind of handshake × version, measured by what the
//! handlers saw and by what the client was told, against an oracle of a few lines.

mod visit;

use endpoint_core::Limits;
use endpoint_tests::{
    http::{VERSIONS, get},
    weak::{Form, Weak, Weakness},
    who::{HOW, How, WHO, Who},
};
use futures_util::{StreamExt, stream};
use http::{StatusCode, Version};

use self::visit::{Early, Visit, visit};
use crate::site::Site;

const RULES: [&str; 5] = ["/public", "/enroll", "/peer", "/scoped", "/loopback"];

// ---- the oracle -------------------------------------------------------------------------------------

/// What a request gets before and after whatever changes.
type Fate = (bool, bool);

/// Whether the client shows a key: a certificate is an ambient credential, and never asked for beside HTTP.
fn shows(who: Who, form: Form) -> bool {
    who != Who::None && form == Form::Raw
}

fn oracle(who: Who, form: Form, rule: &str) -> Fate {
    let same = |served| (served, served);
    match (rule, who) {
        ("/public" | "/loopback", _) => same(true),
        _ if !shows(who, form) => same(false),
        (_, Who::RevokedBefore) => same(false),
        (_, Who::RevokedDuring) => (true, false),
        ("/enroll", _) => same(true),
        (_, Who::ExpiresLive | Who::Migrates) => (true, false),
        (_, Who::Authorised) | ("/peer", Who::OtherScope) => same(true),
        _ => same(false),
    }
}

// ---- the measurement --------------------------------------------------------------------------------

#[derive(Debug, Default)]
struct Sums {
    cells: usize,
    unauthorised: usize,
    wrongly_refused: usize,
    resumed: usize,
    faults: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_identity_gets_exactly_the_answers_that_it_may() {
    let mut rows = Vec::new();
    for who in WHO {
        for form in [Form::Raw, Form::X509] {
            for version in VERSIONS {
                for how in HOW {
                    // Showing nothing has no form.
                    if who != Who::None || form == Form::Raw {
                        rows.push((who, form, version, how));
                    }
                }
            }
        }
    }
    let expected = rows.len() * RULES.len();
    let mut sums = Sums::default();
    let mut done = stream::iter(rows)
        .map(|(who, form, version, how)| tokio::spawn(row(who, form, version, how)))
        .buffer_unordered(ROWS_AT_ONCE);
    while let Some(row) = done.next().await {
        let row = row.expect("a row ends");
        sums.cells += row.cells;
        sums.unauthorised += row.unauthorised;
        sums.wrongly_refused += row.wrongly_refused;
        sums.resumed += row.resumed;
        sums.faults.extend(row.faults);
    }
    println!(
        "acceptance: {} cells over h3, h2 and h1, {} unauthorised, {} wrongly refused ({} resumed)",
        sums.cells, sums.unauthorised, sums.wrongly_refused, sums.resumed
    );
    for fault in &sums.faults {
        println!("{fault}");
    }
    assert_eq!(sums.cells, expected);
    assert_eq!((sums.unauthorised, sums.wrongly_refused, sums.faults.len()), (0, 0, 0));
    assert!(
        sums.resumed > 0,
        "no ticket resumed where one may: the cells with tickets show nothing"
    );
}

/// The five cells of one identity, version and kind of handshake: one server, one connection.
async fn row(who: Who, form: Form, version: Version, how: How) -> Sums {
    let site = Site::start_with(&who.lines(), Limits::default()).await;
    let client = who.client(form, &[], how);
    match how {
        How::Full => {}
        How::Ticket => drop(visit(&client, version, How::Full, site.addr()).await),
        How::Early => {
            let weakness = Weakness {
                server_raw: form == Form::Raw,
                asks: (who != Who::None).then_some(form),
                checks_signature: false,
                tickets: true,
            };
            let generous = Weak::start(weakness).await;
            visit::collect_tickets(&client, version, &generous).await;
        }
    }
    let tickets = client.tickets.received();
    match who {
        Who::Expired => site.clock.advance(120),
        Who::RevokedBefore => drop(site.trust("").await),
        _ => {}
    }
    let mut sums = Sums { cells: RULES.len(), ..Sums::default() };
    let name = format!("{who:?} {form:?} {version:?} {how:?}");
    let calls = site.calls();
    let Visit { connection, early } = visit(&client, version, how, site.addr()).await;
    let full = client.was_full();
    let asked = shows(who, form);
    let mut fault = |wrong: bool, text: &str| {
        if wrong {
            sums.faults.push(format!("{name}: {text}"));
        }
    };
    match how {
        How::Full => fault(!full, "resumed without a ticket"),
        How::Ticket => {
            fault(asked && tickets > 0, "a ticket where a key is asked for");
            fault(asked && !full, "resumed where a key is asked for");
            fault(!asked && full, "did not resume where it may");
        }
        How::Early => {
            fault(early == Early::NotTried, "early data was not tried");
            fault(early == Early::Accepted, "early data was accepted");
            fault(!full, "resumed with a foreign ticket");
        }
    }
    sums.resumed += if full { 0 } else { RULES.len() };
    sums.unauthorised += usize::from(early == Early::Accepted);
    let mut connection = match (connection, who == Who::Stolen && asked) {
        (Err(_), true) => {
            if site.calls() != calls {
                sums.unauthorised += 1;
            }
            return sums;
        }
        (Ok(connection), false) => connection,
        (other, _) => {
            sums.faults.push(format!("{name}: {:?}", other.err()));
            return sums;
        }
    };
    for after in [false, true] {
        if after {
            match who {
                Who::ExpiresLive => site.clock.advance(120),
                Who::RevokedDuring => drop(site.trust("").await),
                Who::Migrates => {
                    connection = match visit::moved(connection, &client, version, site.addr()).await
                    {
                        Ok(connection) => connection,
                        Err(error) => {
                            sums.faults.push(format!("{name}: after the move: {error}"));
                            return sums;
                        }
                    };
                }
                _ => {}
            }
        }
        for rule in RULES {
            let fate = oracle(who, form, rule);
            let served = if after { fate.1 } else { fate.0 };
            let calls = site.calls();
            let answer = connection.send(get("localhost", rule)).await;
            let called = site.calls() - calls;
            sums.unauthorised += usize::from(!served && called > 0);
            sums.wrongly_refused += usize::from(served && called != 1);
            let status = if served { StatusCode::OK } else { StatusCode::FORBIDDEN };
            let told = answer.as_ref().map(|answer| answer.status);
            if told != Ok(status) || called != usize::from(served) {
                sums.faults.push(format!("{name} {rule} after={after}: {told:?}, {called} calls"));
            }
        }
    }
    sums
}

const ROWS_AT_ONCE: usize = 6;
