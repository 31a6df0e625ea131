//! How do the processes talk? Lines on the standard streams of the children.
//!
//! A child says `ready` first, does what each line asks and answers with one line; it ends at the end
//! of its input, so that none outlives the parent.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use tokio::{io::AsyncBufReadExt, runtime::Runtime};

use crate::{
    report::Named,
    subject::{self, CONNECTIONS, Client, Connection, DIALS, IN_FLIGHT, Subject, Work},
    usage,
};

/// The role of a server process.
pub const SERVE: &str = "child-serve";
/// The role of a client process.
pub const DIAL: &str = "child-dial";

/// Time in which a process ends what the last unit of work left to do.
pub const SETTLE: Duration = Duration::from_millis(60);
/// Connections made and ended before memory is first looked at.
const WARM_UP: usize = 100;

/// CPU time per unit of work.
pub struct Cost {
    pub server_us: f64,
    pub client_us: f64,
}

/// Resident memory per connection.
pub struct Growth {
    pub server_bytes: f64,
    pub client_bytes: f64,
}

/// A server and its client.
pub struct Pair {
    server: Process,
    client: Process,
}

impl Pair {
    pub fn start(subject: Subject, work: Work) -> Result<Self, String> {
        let (server, ready) = Process::start(&[SERVE, subject.name(), work.name()])?;
        let (client, _) = Process::start(&[DIAL, subject.name(), work.name(), &ready])?;
        Ok(Self { server, client })
    }

    /// Does `count` units.
    pub fn work(&mut self, count: usize) -> Result<Cost, String> {
        let (server, client) = (self.server.ask("cpu")?, self.client.ask("cpu")?);
        self.client.ask(&format!("work {count}"))?;
        let (server, client) = (self.server.ask("cpu")? - server, self.client.ask("cpu")? - client);
        let per_unit = |nanos: f64| nanos / 1000.0 / count as f64;
        Ok(Cost { server_us: per_unit(server), client_us: per_unit(client) })
    }

    /// Opens `count` connections that stay.
    pub fn hold(&mut self, count: usize) -> Result<Growth, String> {
        self.client.ask(&format!("work {WARM_UP}"))?;
        let (server, client) = (self.server.ask("memory")?, self.client.ask("memory")?);
        self.client.ask(&format!("hold {count}"))?;
        let server = self.server.ask("memory")? - server;
        let client = self.client.ask("memory")? - client;
        let count = count as f64;
        Ok(Growth { server_bytes: server / count, client_bytes: client / count })
    }
}

/// A child that answers lines.
pub struct Process {
    child: Child,
    // Dropped before `child` is waited for: its end is what ends the process.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program again; also gives what the child says when it is ready.
    pub fn start(args: &[&str]) -> Result<(Self, String), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a child: {error}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("the child has no output")?);
        let mut process = Self { child, input, output };
        let line = process.answer()?;
        let ready = line.strip_prefix("ready ").ok_or_else(|| format!("odd answer: {line}"))?;
        let ready = ready.to_owned();
        Ok((process, ready))
    }

    pub fn ask(&mut self, request: &str) -> Result<f64, String> {
        let input = self.input.as_mut().ok_or("the child has no input")?;
        writeln!(input, "{request}").map_err(|error| format!("a child is gone: {error}"))?;
        let answer = self.answer()?;
        answer.parse().map_err(|_| format!("odd answer to `{request}`: {answer}"))
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("a child ended early".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("a child is gone: {error}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// One thread: what is measured is work, not the scheduling of it.
pub fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

/// The server process.
pub fn serve(subject: &str, work: &str) -> Result<(), String> {
    let (subject, work) = (Subject::find(subject)?, Work::find(work)?);
    runtime()?.block_on(async {
        let (_server, address, secret) = subject::serve(subject, work).await?;
        say(format_args!("ready {address},{secret}"))?;
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tokio::time::sleep(SETTLE).await;
            answer(&line)?;
        }
        Ok(())
    })
}

/// The client process.
pub fn dial(subject: &str, work: &str, server: &str) -> Result<(), String> {
    let (subject, work) = (Subject::find(subject)?, Work::find(work)?);
    let (address, secret) = server.split_once(',').ok_or("no address")?;
    let address: SocketAddr = address.parse().map_err(|_| "no address")?;
    runtime()?.block_on(async {
        let client = Client::new(subject, address, secret).await?;
        let mut open = Vec::new();
        if matches!(work, Work::Serial | Work::Concurrent) {
            let count = if work == Work::Serial { 1 } else { CONNECTIONS };
            for _ in 0..count {
                open.push(client.connect().await?);
            }
        }
        say(format_args!("ready -"))?;
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match line.split_once(' ') {
                Some(("work", count)) => {
                    do_work(work, &client, &open, number(count)?).await?;
                    say(format_args!("0"))?;
                }
                Some(("hold", count)) => {
                    for _ in 0..number(count)? {
                        open.push(client.connect().await?);
                    }
                    say(format_args!("0"))?;
                }
                _ => {
                    tokio::time::sleep(SETTLE).await;
                    answer(&line)?;
                }
            }
        }
        Ok(())
    })
}

async fn do_work(
    work: Work,
    client: &Client,
    open: &[Connection],
    count: usize,
) -> Result<(), String> {
    match work {
        Work::Handshake | Work::Idle => {
            let left = Left::new(count);
            let dials = (0..DIALS).map(|_| async {
                while left.take() {
                    client.connect().await?.close();
                }
                Ok::<_, String>(())
            });
            try_join_all(dials).await?;
        }
        Work::Serial => {
            for _ in 0..count {
                open.first().ok_or("no connection")?.request().await?;
            }
        }
        Work::Concurrent => {
            let left = Left::new(count);
            let lanes = open.iter().flat_map(|connection| [connection; IN_FLIGHT]);
            let lanes = lanes.map(|connection| async {
                while left.take() {
                    connection.request().await?;
                }
                Ok::<_, String>(())
            });
            try_join_all(lanes).await?;
        }
    }
    Ok(())
}

/// Units of work that are still to be done.
#[derive(Clone)]
pub struct Left(Arc<AtomicUsize>);

impl Left {
    pub fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    pub fn take(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }
}

pub fn answer(request: &str) -> Result<(), String> {
    match request {
        "cpu" => say(format_args!("{}", usage::cpu().as_nanos())),
        "memory" => say(format_args!("{}", usage::resident_bytes()?)),
        other => Err(format!("`{other}` is no request")),
    }
}

pub fn say(line: std::fmt::Arguments<'_>) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

pub fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}
