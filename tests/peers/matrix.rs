//! Who reaches which handler: every identity × access rule × kind of handshake × carrier, measured by
//! what the handlers saw and by what the client was told, against an oracle of a few lines.

mod visit;

use std::time::Duration;

use endpoint_core::Limits;
use endpoint_tests::{
    node::{self, Counting, Server},
    weak::{Form, Weak, Weakness},
    who::{HOW, How, WHO, Who},
    wire::Client,
};
use futures_util::{StreamExt, future::join_all, stream};

use self::visit::{Early, Told, connect, echo, moves, visit};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rule {
    Public,
    Enroll,
    Peer,
    Scoped,
    Loopback,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Carrier {
    Quic,
    Tcp,
}

const RULES: [Rule; 5] = [Rule::Public, Rule::Enroll, Rule::Peer, Rule::Scoped, Rule::Loopback];
const CARRIERS: [Carrier; 2] = [Carrier::Quic, Carrier::Tcp];

// ---- the oracle -------------------------------------------------------------------------------------

/// What must happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// The handshake fails: the client cannot prove what it shows.
    Unproven,
    /// Told that it is not authorised; no handler runs.
    Refused,
    /// Served, and still served after whatever changes.
    Served,
    /// Served, then ended with this code.
    Ended(u64),
}

fn oracle(who: Who, form: Form, rule: Rule) -> Fate {
    let for_peers = matches!(rule, Rule::Enroll | Rule::Peer | Rule::Scoped);
    // A certificate is asked for where a peer's protocol is offered only, a raw key wherever it is offered.
    let shows = who != Who::None && (form == Form::Raw || for_peers);
    if shows && who == Who::Stolen {
        return Fate::Unproven;
    }
    match (rule, who) {
        (Rule::Public | Rule::Loopback, _) => Fate::Served,
        (_, Who::None | Who::RevokedBefore) => Fate::Refused,
        (_, Who::RevokedDuring) => Fate::Ended(REVOKED),
        (Rule::Enroll, _) => Fate::Served,
        (_, Who::ExpiresLive) => Fate::Ended(EXPIRED),
        (_, Who::Migrates) => Fate::Ended(REVOKED),
        (_, Who::Authorised) | (Rule::Peer, Who::OtherScope) => Fate::Served,
        _ => Fate::Refused,
    }
}

/// Whether the server asks for a key: then there are no tickets.
fn asks(who: Who, form: Form, rule: Rule) -> bool {
    let for_peers = matches!(rule, Rule::Enroll | Rule::Peer | Rule::Scoped);
    for_peers || (who != Who::None && form == Form::Raw)
}

const NOT_AUTHORISED: u64 = 1;
const REVOKED: u64 = 2;
const EXPIRED: u64 = 3;

// ---- the measurement --------------------------------------------------------------------------------

#[derive(Debug)]
struct Cell {
    name: String,
    fate: Fate,
    calls: usize,
    faults: Vec<String>,
    unauthorised: bool,
    wrongly_refused: bool,
    resumed: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_identity_reaches_exactly_the_handlers_that_it_may() {
    let mut rows = Vec::new();
    for who in WHO {
        for form in [Form::Raw, Form::X509] {
            for carrier in CARRIERS {
                for how in HOW {
                    // Showing nothing has no form.
                    if who != Who::None || form == Form::Raw {
                        rows.push((who, form, carrier, how));
                    }
                }
            }
        }
    }
    let cells: Vec<Cell> = stream::iter(rows)
        .map(|(who, form, carrier, how)| tokio::spawn(row(who, form, carrier, how)))
        .buffer_unordered(ROWS_AT_ONCE)
        .flat_map(|cells| stream::iter(cells.expect("a row ends")))
        .collect()
        .await;
    let unauthorised = cells.iter().filter(|cell| cell.unauthorised).count();
    let refused = cells.iter().filter(|cell| cell.wrongly_refused).count();
    let resumed = cells.iter().filter(|cell| cell.resumed).count();
    println!(
        "acceptance: {} cells, {unauthorised} unauthorised, {refused} wrongly refused ({resumed} resumed)",
        cells.len()
    );
    let faulty: Vec<_> = cells.iter().filter(|cell| !cell.faults.is_empty()).collect();
    for cell in &faulty {
        println!(
            "{}: expected {:?}, {} calls: {:?}",
            cell.name, cell.fate, cell.calls, cell.faults
        );
    }
    assert_eq!(cells.len(), (1 + 10 * 2) * RULES.len() * HOW.len() * CARRIERS.len());
    assert_eq!((unauthorised, refused, faulty.len()), (0, 0, 0));
    assert!(resumed > 0, "no ticket resumed where one may: the cells with tickets show nothing");
}

/// The five cells of one identity, carrier and kind of handshake: one server, one handler each.
async fn row(who: Who, form: Form, carrier: Carrier, how: How) -> Vec<Cell> {
    let limits = Limits::default().connections_per_peer(64);
    let server = Server::start_with(&who.lines(), limits).await;
    let clients = RULES.map(|rule| who.client(form, &[protocol(rule)], how));
    match how {
        How::Full => {}
        How::Ticket => {
            join_all(clients.iter().map(|c| visit(c, carrier, server.addr()))).await.clear()
        }
        How::Early => {
            let weakness = Weakness {
                server_raw: form == Form::Raw,
                asks: (who != Who::None).then_some(form),
                checks_signature: false,
                tickets: true,
            };
            let generous = Weak::start(weakness).await;
            let address = if carrier == Carrier::Quic { generous.addr() } else { generous.tcp() };
            join_all(clients.iter().map(|c| visit(c, carrier, address))).await.clear();
        }
    }
    let tickets = clients.each_ref().map(|client| client.tickets.received());
    match who {
        Who::Expired => server.clock.advance(120),
        Who::RevokedBefore => drop(server.trust("").await),
        _ => {}
    }
    let before = RULES.map(|rule| counter(&server, rule).calls());

    let mut links =
        join_all(clients.iter().map(|client| connect(client, carrier, how, server.addr()))).await;
    let full = clients.each_ref().map(Client::was_full);

    match who {
        Who::ExpiresLive => {
            server.clock.advance(120);
            if carrier == Carrier::Tcp {
                // A TCP link has no second stream to be judged at: the look once a second finds it.
                tokio::time::sleep(TICK * 2).await;
            }
        }
        Who::RevokedDuring => drop(server.trust("").await),
        Who::Migrates => {
            for (link, client) in links.iter_mut().zip(&clients) {
                moves(link, client, server.addr()).await;
            }
        }
        _ => {}
    }
    let mut again = Vec::new();
    for link in &mut links {
        again.push(match &mut link.0 {
            Some(link) => Some(echo(link).await),
            None => None,
        });
    }
    let alive: Vec<_> = server.endpoint.connections().into_iter().map(|c| c.alpn).collect();

    let cells = RULES.iter().enumerate().map(|(i, rule)| {
        let fate = oracle(who, form, *rule);
        let calls = counter(&server, *rule).calls() - before[i];
        let (link, first, early) = &links[i];
        let again = again[i].as_ref();
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, text: String| {
            if wrong {
                faults.push(text);
            }
        };
        // On TCP moving is a second connection, served or not.
        let second = carrier == Carrier::Tcp && who == Who::Migrates && fate == Fate::Served;
        let expected = usize::from(matches!(fate, Fate::Served | Fate::Ended(_)));
        fault(calls != expected + usize::from(second), format!("handler called {calls} times"));
        fault(!tells(fate, first, carrier), format!("told {first:?}"));
        let after = match (fate, again) {
            (Fate::Served, Some(told)) => *told == Told::Echoed,
            (Fate::Ended(code), Some(told)) => match carrier {
                Carrier::Quic => *told == Told::Code(code),
                Carrier::Tcp => *told != Told::Echoed,
            },
            (Fate::Refused | Fate::Unproven, None) => true,
            // A TCP peer that moved is refused anew.
            (Fate::Ended(_), None) => carrier == Carrier::Tcp && who == Who::Migrates,
            _ => false,
        };
        fault(!after, format!("afterwards told {again:?}"));
        let over = carrier == Carrier::Quic || who != Who::Migrates;
        let ghost = over
            && matches!(fate, Fate::Ended(_))
            && alive.iter().any(|alpn| alpn.as_bytes() == protocol(*rule));
        fault(ghost, "still alive on the server".to_owned());
        let asked = asks(who, form, *rule);
        match how {
            How::Full => fault(!full[i], "resumed without a ticket".to_owned()),
            How::Ticket => {
                fault(asked && tickets[i] > 0, "a ticket where a key is asked for".to_owned());
                fault(asked && !full[i], "resumed where a key is asked for".to_owned());
                fault(!asked && full[i], "did not resume where it may".to_owned());
            }
            How::Early => {
                fault(*early == Early::NotTried, "early data was not tried".to_owned());
                fault(*early == Early::Accepted, "early data was accepted".to_owned());
                fault(!full[i], "resumed with a foreign ticket".to_owned());
            }
        }
        let served_again = again == Some(&Told::Echoed);
        let wanted = matches!(fate, Fate::Served | Fate::Ended(_));
        Cell {
            name: format!("{who:?} {form:?} {rule:?} {how:?} {carrier:?}"),
            unauthorised: calls > expected + usize::from(second)
                || (fate != Fate::Served && served_again)
                || ghost
                || *early == Early::Accepted,
            wrongly_refused: (wanted && *first != Told::Echoed)
                || (fate == Fate::Served && (!served_again || link.is_none())),
            resumed: !full[i],
            fate,
            calls,
            faults,
        }
    });
    cells.collect()
}

/// Whether the first answer is the one that the fate has.
fn tells(fate: Fate, told: &Told, carrier: Carrier) -> bool {
    match (fate, carrier) {
        (Fate::Served | Fate::Ended(_), _) => *told == Told::Echoed,
        (Fate::Refused, Carrier::Quic) => *told == Told::Code(NOT_AUTHORISED),
        (Fate::Unproven, Carrier::Quic) => matches!(told, Told::Alert(_)),
        (Fate::Refused | Fate::Unproven, Carrier::Tcp) => *told == Told::Cut,
    }
}

fn protocol(rule: Rule) -> &'static [u8] {
    match rule {
        Rule::Public => node::PUBLIC,
        Rule::Enroll => b"enroll/1",
        Rule::Peer => node::PEER,
        Rule::Scoped => node::SCOPED,
        Rule::Loopback => node::LOOPBACK,
    }
}

fn counter(server: &Server, rule: Rule) -> &Counting {
    match rule {
        Rule::Public => &server.public,
        Rule::Enroll => &server.enroll,
        Rule::Peer => &server.peer,
        Rule::Scoped => &server.scoped,
        Rule::Loopback => &server.loopback,
    }
}

const PHRASE: &[u8; 5] = b"hello";
const PATIENCE: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_secs(1);
const ROWS_AT_ONCE: usize = 6;
