//! What does a request over HTTP cost a server, ours beside others?
//!
//! Every server gets the same load from the same client ([`load()`]), which is another process. Figures are
//! named `http_CARRIER_WORK`, those of a folder of files `http_files_CARRIER_WORK`. A peer that is not
//! installed has a line that says so.

mod load;
mod other;
mod serve;

use std::{collections::BTreeMap, path::Path};

use serde_json::json;

pub use self::{load::run as load, serve::run as serve};
use crate::{
    child::Process,
    report::{Figure, Named},
};

/// The role of a server process.
pub const SERVE: &str = "child-http-serve";
/// The role of a client process.
pub const LOAD: &str = "child-http-load";

/// The name that all servers answer to.
const NAME: &str = "localhost";

/// How much is measured.
pub struct Plan {
    rounds: usize,
    /// Units of work are divided by this.
    less: usize,
}

pub const FULL: Plan = Plan { rounds: 9, less: 1 };
pub const QUICK: Plan = Plan { rounds: 5, less: 4 };

/// Who serves.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Subject {
    /// An axum router behind the library's `Builder::http`.
    Endpoint,
    /// h3 with h3-quinn, or hyper with tokio-rustls, answering by themselves: nothing between.
    Bare,
    /// The program's `serve --root`.
    Program,
    Caddy,
    Nginx,
}

impl Subject {
    const ALL: [Self; 5] = [Self::Endpoint, Self::Bare, Self::Program, Self::Caddy, Self::Nginx];
}

impl Named for Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Bare => "bare",
            Self::Program => "program",
            Self::Caddy => "caddy",
            Self::Nginx => "nginx",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Endpoint | Self::Program)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Carrier {
    H3,
    H2,
    H1,
}

impl Carrier {
    const ALL: [Self; 3] = [Self::H3, Self::H2, Self::H1];

    fn name(self) -> &'static str {
        match self {
            Self::H3 => "h3",
            Self::H2 => "h2",
            Self::H1 => "h1",
        }
    }
}

/// What a unit of work is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Work {
    /// `GET` of a body.
    Get { path: &'static str, bytes: usize },
    /// A connection of its own for one `GET` of the small body.
    Connect,
}

const SMALL: Work = Work::Get { path: "/13b", bytes: 13 };
const MEDIUM: Work = Work::Get { path: "/64k", bytes: 64 * 1024 };
const LARGE: Work = Work::Get { path: "/10m", bytes: 10 * 1024 * 1024 };

impl Work {
    const ALL: [Self; 4] = [SMALL, Self::Connect, MEDIUM, LARGE];

    fn name(self) -> &'static str {
        match self {
            Self::Get { path, .. } => path.trim_start_matches('/'),
            Self::Connect => "connect",
        }
    }

    /// Units in a round.
    fn count(self) -> usize {
        match self {
            Self::Get { bytes: 0..1024, .. } => 12_000,
            Self::Get { bytes: 1024..1_000_000, .. } => 1_200,
            Self::Get { .. } => 16,
            Self::Connect => 160,
        }
    }

    /// Connections, and requests under way on each where the version allows more than one.
    fn lanes(self) -> (usize, usize) {
        match self {
            Self::Get { bytes: 0..1024, .. } => (8, 16),
            Self::Get { bytes: 1024..1_000_000, .. } => (8, 4),
            Self::Get { .. } => (2, 2),
            Self::Connect => (8, 1),
        }
    }
}

fn find(name: &str) -> Result<(Carrier, Work), String> {
    let all = Carrier::ALL.into_iter().flat_map(|carrier| Work::ALL.map(|work| (carrier, work)));
    let mut named =
        all.filter(|(carrier, work)| name == format!("{}_{}", carrier.name(), work.name()));
    named.next().ok_or_else(|| format!("no work `{name}`"))
}

/// A server that runs; ended when it is dropped.
enum Server {
    Child(Process, String),
    Other(other::Running),
}

impl Server {
    fn address(&self) -> &str {
        match self {
            Self::Child(_, address) => address,
            Self::Other(running) => running.address(),
        }
    }

    /// Nanoseconds of CPU time that it has used.
    fn cpu(&mut self) -> Result<f64, String> {
        match self {
            Self::Child(process, _) => process.ask("cpu"),
            Self::Other(running) => running.cpu(),
        }
    }

    fn start(subject: Subject, files: &Path) -> Result<Self, String> {
        match subject {
            Subject::Endpoint | Subject::Bare => {
                let folder = files.to_str().ok_or("an odd folder")?;
                let (process, address) = Process::start(&[SERVE, subject.name(), folder])?;
                Ok(Self::Child(process, address))
            }
            Subject::Program => other::program(files).map(Self::Other),
            Subject::Caddy => other::caddy(files).map(Self::Other),
            Subject::Nginx => other::nginx(files).map(Self::Other),
        }
    }
}

/// Measures what is `wanted` by name.
pub fn run(plan: &Plan, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    use Subject::{Bare, Caddy, Endpoint, Nginx, Program};
    let mut figures = Vec::new();
    for work in Work::ALL {
        for carrier in Carrier::ALL {
            if work == Work::Connect && carrier != Carrier::H3 {
                continue;
            }
            let plain = format!("http_{}_{}", carrier.name(), work.name());
            figures.push((plain, carrier, work, vec![Endpoint, Bare, Caddy]));
            if work != Work::Connect {
                let peers = match carrier {
                    Carrier::H3 => vec![Program, Caddy],
                    _ => vec![Program, Nginx, Caddy],
                };
                let files = format!("http_files_{}_{}", carrier.name(), work.name());
                figures.push((files, carrier, work, peers));
            }
        }
    }
    figures.retain(|(name, ..)| wanted(name));
    if figures.is_empty() {
        return Ok(());
    }
    let files = folder()?;
    let mut servers = BTreeMap::new();
    for subject in Subject::ALL {
        if figures.iter().any(|(.., subjects)| subjects.contains(&subject)) {
            match Server::start(subject, files.path()) {
                Ok(server) => {
                    servers.insert(subject, server);
                }
                Err(why) if subject.is_ours() || subject == Bare => return Err(why),
                Err(why) => missing(subject, &why),
            }
        }
    }
    for (name, carrier, work, subjects) in &figures {
        eprintln!("measuring {name}");
        if let Err(why) = rounds(plan, name, (*carrier, *work), subjects, &mut servers) {
            println!("{}", json!({ "figure": name, "failed": why }));
        }
    }
    Ok(())
}

fn missing(subject: Subject, why: &str) {
    eprintln!("NOT MEASURED: {}: {why}", subject.name());
    println!("{}", json!({ "figure": "http", "subject": subject.name(), "missing": why }));
}

/// Subjects take turns; the first turn of each warms it up and is not counted.
fn rounds(
    plan: &Plan,
    name: &str,
    (carrier, work): (Carrier, Work),
    subjects: &[Subject],
    servers: &mut BTreeMap<Subject, Server>,
) -> Result<(), String> {
    let count = (work.count() / plan.less).max(4);
    let mut taking_part = Vec::new();
    for subject in subjects {
        let Some(server) = servers.get(subject) else { continue };
        let asked = format!("{}_{}", carrier.name(), work.name());
        let (load, _) = Process::start(&[LOAD, &asked, server.address()])?;
        taking_part.push((*subject, load, [Vec::new(), Vec::new(), Vec::new()]));
    }
    for round in 0..=plan.rounds {
        for (subject, load, [server_us, client_us, rate]) in &mut taking_part {
            let server = servers.get_mut(subject).ok_or("the server is gone")?;
            let (served, asked) = (server.cpu()?, load.ask("cpu")?);
            let nanos = load.ask(&format!("work {count}"))?;
            let (served, asked) = (server.cpu()? - served, load.ask("cpu")? - asked);
            if round > 0 {
                let count = count as f64;
                server_us.push(served / 1000.0 / count);
                client_us.push(asked / 1000.0 / count);
                rate.push(count * 1e9 / nanos);
            }
        }
    }
    for (n, unit) in ["us_cpu_server", "us_cpu_client", "per_second"].into_iter().enumerate() {
        let of: Vec<_> =
            taking_part.iter().map(|(subject, _, values)| (*subject, values[n].clone())).collect();
        Figure::all(name, unit, count, &of);
    }
    Ok(())
}

/// A folder with a file for each body.
fn folder() -> Result<tempfile::TempDir, String> {
    let text = |error: std::io::Error| error.to_string();
    let folder = tempfile::tempdir().map_err(text)?;
    for work in Work::ALL {
        if let Work::Get { path, bytes } = work {
            let name = path.trim_start_matches('/');
            std::fs::write(folder.path().join(name), body(bytes)).map_err(text)?;
        }
    }
    Ok(folder)
}

fn body(bytes: usize) -> Vec<u8> {
    b"Hello, World!".iter().copied().cycle().take(bytes).collect()
}
