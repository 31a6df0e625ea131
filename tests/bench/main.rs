//! What does a unit of work cost, ours beside raw quinn, in one run on one machine?
//!
//! Server and client are processes of their own: this program started again with a role. The unit is
//! CPU time, user and system, of the whole process ([`usage`]): it repeats within a few percent on a
//! busy machine, which wall time does not. Subjects take turns, so that a disturbance meets them all,
//! and figures are medians of rounds; compare ratios of one run, not numbers of two.
//!
//! [`store`] measures records and starts. [`http`] does the same for requests: ours beside h3, hyper, Caddy and nginx.
//!
//! One JSON object a line on standard output; progress goes to standard error.

mod child;
mod hello;
mod http;
mod ours;
mod raw;
mod report;
mod store;
mod subject;
mod usage;

use std::process::ExitCode;

use crate::{
    child::Pair,
    report::Figure,
    subject::{Subject, Work},
};

/// The program's allocator, for all subjects that are this program started again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is measured.
struct Plan {
    rounds: usize,
    handshakes: usize,
    requests: usize,
    idle_rounds: usize,
    idle: usize,
    certificates: usize,
    only: Option<String>,
    http: http::Plan,
}

const FULL: Plan = Plan {
    rounds: 41,
    handshakes: 120,
    requests: 1500,
    idle_rounds: 3,
    idle: 1000,
    certificates: 10_000,
    only: None,
    http: http::FULL,
};
const QUICK: Plan = Plan {
    rounds: 5,
    handshakes: 60,
    requests: 600,
    idle_rounds: 1,
    idle: 300,
    certificates: 1000,
    only: None,
    http: http::QUICK,
};

const USAGE: &str = "\
usage: bench [http] [--quick] [--only FIGURE]
  http           only the figures of HTTP, whose names begin so
  --quick        seconds instead of minutes
  --only FIGURE  handshake_full, handshake_names, request_response, requests_concurrent, idle_memory, choose,
                 store_write, store_read, store_start, or the beginning of a name, such as http_h3";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [child::SERVE, subject, work] => child::serve(subject, work),
        [child::DIAL, subject, work, address] => child::dial(subject, work, address),
        [http::SERVE, subject, files] => http::serve(subject, files),
        [http::LOAD, figure, address] => http::load(figure, address),
        words => plan(words).and_then(|plan| run(&plan)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(words: &[&str]) -> Result<Plan, String> {
    let mut plan = if words.contains(&"--quick") { QUICK } else { FULL };
    let mut rest = words.iter().filter(|word| **word != "--quick");
    while let Some(word) = rest.next() {
        match (*word, rest.next()) {
            ("http", None) => plan.only = Some("http".to_owned()),
            ("--only", Some(figure)) => plan.only = Some((*figure).to_owned()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(plan)
}

fn run(plan: &Plan) -> Result<(), String> {
    let wanted = |figure: &str| plan.only.as_deref().is_none_or(|only| figure.starts_with(only));
    let main = &Subject::MAIN;
    for (figure, subjects, work, count) in [
        ("handshake_full", Subject::ALL.as_slice(), Work::Handshake, plan.handshakes),
        ("handshake_names", Subject::NAMES.as_slice(), Work::Handshake, plan.handshakes),
        ("request_response", main, Work::Serial, plan.requests),
        ("requests_concurrent", main, Work::Concurrent, 4 * plan.requests),
    ] {
        if wanted(figure) {
            eprintln!("measuring {figure}");
            rounds(plan, figure, subjects, work, count)?;
        }
    }
    if wanted("idle_memory") {
        eprintln!("measuring idle_memory");
        idle(plan)?;
    }
    if wanted("choose") {
        eprintln!("measuring choose");
        hello::measure(plan.rounds)?.print();
    }
    store::run(plan.rounds, plan.certificates, wanted)?;
    http::run(&plan.http, wanted)
}

/// Subjects take turns doing `count` units; the first turn of each warms it up and is not counted.
fn rounds(
    plan: &Plan,
    figure: &'static str,
    subjects: &[Subject],
    work: Work,
    count: usize,
) -> Result<(), String> {
    let mut pairs = Vec::new();
    for subject in subjects {
        pairs.push(Pair::start(*subject, work)?);
    }
    let (mut server, mut client) = (blank(subjects), blank(subjects));
    for round in 0..=plan.rounds {
        for (n, pair) in pairs.iter_mut().enumerate() {
            let cost = pair.work(count)?;
            if round > 0 {
                server[n].1.push(cost.server_us);
                client[n].1.push(cost.client_us);
            }
        }
    }
    Figure::all(figure, "us_cpu_server", count, &server);
    Figure::all(figure, "us_cpu_client", count, &client);
    Ok(())
}

/// Growth of resident memory by connections that do nothing, in fresh processes each time.
fn idle(plan: &Plan) -> Result<(), String> {
    let subjects = &Subject::MAIN;
    let (mut server, mut client) = (blank(subjects), blank(subjects));
    for _ in 0..plan.idle_rounds {
        for (n, subject) in subjects.iter().enumerate() {
            let mut pair = Pair::start(*subject, Work::Idle)?;
            let growth = pair.hold(plan.idle)?;
            server[n].1.push(growth.server_bytes);
            client[n].1.push(growth.client_bytes);
        }
    }
    Figure::all("idle_memory", "bytes_server", plan.idle, &server);
    Figure::all("idle_memory", "bytes_client", plan.idle, &client);
    Ok(())
}

fn blank(subjects: &[Subject]) -> Vec<(Subject, Vec<f64>)> {
    subjects.iter().map(|subject| (*subject, Vec::new())).collect()
}
