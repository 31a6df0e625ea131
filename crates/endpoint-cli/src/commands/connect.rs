//! How does a command reach another endpoint?
//!
//! Reads PEER, settles whose key to expect, dials, and turns every refusal into an error with the
//! right exit code and the command that mends it. Used by `ping`, `dial` and `probe`.
//!
//! Always true: an unknown identity is accepted only by an explicit yes, the fingerprint itself, or
//! `--accept-new`; a changed one never is.

use std::{fs, future::Future, time::Duration};

use endpoint_core::{
    alpn::Alpn,
    config::Limits,
    endpoint::{ConnectError, DialOptions, Endpoint, GivenRoots, Roots},
    error::LinkError,
    handler::Connection,
    identity::Fingerprint,
    target::{HostPort, Target},
};
use tokio::time::timeout;

use super::{
    Context,
    ask::{self, Answer},
    known,
};
use crate::{
    args::PeerArgs,
    error::{CliError, ExitKind, Result},
    output::Output,
};

/// A connection, and what errors and results say about it.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) endpoint: Endpoint,
    pub(super) connection: Connection,
    /// Where it goes.
    pub(super) host: String,
}

impl Dialled {
    /// Ends the connection in good order.
    pub(super) async fn end(self) {
        self.connection.close();
        self.endpoint.shutdown_within(FAREWELL).await;
    }

    /// What the end of the connection means for the command.
    pub(super) async fn fault(&self, error: LinkError, alpn: &Alpn) -> CliError {
        let host = &self.host;
        let error = match error {
            // A stream can end before the close arrives that says why.
            LinkError::StreamReset(_) | LinkError::Lost(_) => {
                timeout(PATIENCE, self.connection.closed()).await.unwrap_or(error)
            }
            known => known,
        };
        if error.is_not_authorized() {
            let message = match &error {
                LinkError::Closed(code) if code.to_string() != "not authorised" => {
                    format!("{host} ended the connection: our key was {code}")
                }
                _ => format!("{host} does not let this endpoint speak {alpn}"),
            };
            return not_authorized(message, self.endpoint.fingerprint());
        }
        match error {
            LinkError::TimedOut => {
                CliError::new("timeout", ExitKind::Unreachable, format!("{host} fell silent"))
                    .hint(format!("look whether it still answers: endpoint ping {host}"))
            }
            other => CliError::failure("connection", format!("connection to {host}: {other}"))
                .hint(format!("dial again, or look what it offers: endpoint probe {host}")),
        }
    }
}

/// Dials the peer and speaks `alpn`.
pub(super) async fn connect(args: &PeerArgs, alpn: &Alpn, context: &Context) -> Result<Dialled> {
    let target = target(&args.peer)?;
    let roots = roots(args)?;
    let endpoint = dialler(args.timeout, context).await?;
    let target = settle(target, args, &endpoint, context).await?;
    let host = host_of(&target);
    let mut options = DialOptions::default().roots(roots);
    if args.tcp {
        options = options.tcp();
    }
    let dial = endpoint.connect_with(&target, alpn.clone(), options);
    let dialled = patiently(dial, &host, args.tcp, args.timeout, context.output).await?;
    let connection =
        dialled.map_err(|error| connect_fault(&error, alpn, endpoint.fingerprint(), context))?;
    Ok(Dialled { endpoint, connection, host })
}

/// An endpoint that only dials.
pub(super) async fn dialler(deadline: Duration, context: &Context) -> Result<Endpoint> {
    let identity = super::identity(&context.state)?;
    Endpoint::builder(identity)
        .known_peers(context.state.known())
        .limits(Limits::default().handshake_deadline(deadline))
        .bind()
        .await
        .map_err(|error| CliError::told("bind", ExitKind::Failure, &error))
}

/// PEER as data.
pub(super) fn target(peer: &str) -> Result<Target> {
    peer.parse().map_err(|error| {
        let fault = CliError::told("peer-text", ExitKind::Usage, &error);
        match fault.hints.is_empty() {
            true => fault.hint("the other side prints its PEER when it starts: endpoint serve"),
            false => fault,
        }
    })
}

/// Where the target is: HOST:PORT, or the name by which it is known.
fn host_of(target: &Target) -> String {
    match target {
        Target::Pinned { host, .. }
        | Target::Name { host }
        | Target::NamePinned { host, .. }
        | Target::Unpinned { host } => host.to_string(),
        Target::Known { name } => name.clone(),
    }
}

fn roots(args: &PeerArgs) -> Result<Roots> {
    let Some(file) = &args.ca else { return Ok(Roots::default()) };
    let pem = fs::read(file).map_err(|error| CliError::io("read", file, &error))?;
    let given = GivenRoots::from_pem(&pem).map_err(|error| {
        CliError::usage("ca", format!("{}: {error}", file.display()))
            .hint("give the root certificates as PEM: --ca FILE")
    })?;
    Ok(Roots::Given(given))
}

/// Makes sure that the target says whose key to expect.
async fn settle(
    target: Target,
    args: &PeerArgs,
    endpoint: &Endpoint,
    context: &Context,
) -> Result<Target> {
    let Target::Unpinned { host } = &target else { return Ok(target) };
    if known::holds(host, context)? {
        return Ok(target);
    }
    let output = context.output;
    if !args.accept_new && !output.can_ask() {
        return Err(unknown(&host.to_string()));
    }
    let learning = endpoint.learn(host);
    let learnt =
        patiently(learning, &host.to_string(), false, args.timeout, output).await?.map_err(
            |error| connect_fault(&error, &Alpn::DISCOVER_1, endpoint.fingerprint(), context),
        )?;
    if !args.accept_new && !agreed(host, learnt, output)? {
        return Err(CliError::new(
            "peer-unknown",
            ExitKind::PeerUnknown,
            format!("the identity of {host} was not accepted"),
        )
        .hint("ask its operator what it prints there: endpoint key show"));
    }
    known::learn(host, learnt, context)?;
    output.say(&format!("learnt {learnt} for {host}"));
    Ok(target)
}

fn agreed(host: &HostPort, shown: Fingerprint, output: Output) -> Result<bool> {
    output.say(&format!("The identity of {host} is not known here. It shows {shown}."));
    output.ask("Are you sure you want to continue connecting (yes/no/[fingerprint])? ");
    loop {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        if !matches!(read, Ok(count) if count > 0) {
            return Ok(false);
        }
        match ask::answer(&line, shown) {
            Answer::Yes => return Ok(true),
            Answer::No => return Ok(false),
            Answer::Other => {
                return Err(CliError::new(
                    "peer-changed",
                    ExitKind::PeerChanged,
                    format!("{host} shows {shown}, which is not the fingerprint that you gave"),
                )
                .hint("ask its operator what it prints there: endpoint key show"));
            }
            Answer::Unclear => output.ask("Please type 'yes', 'no' or the fingerprint: "),
        }
    }
}

/// Waits for `work`, and after a second says so.
pub(super) async fn patiently<T>(
    work: impl Future<Output = T>,
    host: &str,
    tcp: bool,
    deadline: Duration,
    output: Output,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = timeout(PATIENCE, &mut work).await {
        return Ok(done);
    }
    let carrier = if tcp { "TCP" } else { "UDP" };
    output.say(&format!("waiting for {host} (no answer yet; {carrier} may be blocked)"));
    // The library keeps the deadline; a little more lets its own, better text through.
    match timeout(deadline.saturating_add(PATIENCE), work).await {
        Ok(done) => Ok(done),
        Err(_) => Err(timed_out(host)),
    }
}

fn timed_out(host: &str) -> CliError {
    let message = format!("{host} did not answer in time");
    CliError::new("timeout", ExitKind::Unreachable, message)
        .hint("UDP may be blocked on the way; try TCP: endpoint ping --tcp PEER")
        .hint("look whether it runs, on its machine: endpoint status")
}

fn unknown(host: &str) -> CliError {
    if !host.contains(':') {
        // Without a port it is looked for among the names of known_peers.
        let message = format!("no known endpoint has the name `{host}`");
        return CliError::new("peer-unknown", ExitKind::PeerUnknown, message)
            .hint("see the names: endpoint known ls")
            .hint(format!("or name host and port: endpoint ping {host}:4433"));
    }
    let message = format!("the identity of {host} is not known here");
    CliError::new("peer-unknown", ExitKind::PeerUnknown, message)
        .hint(format!("accept whatever it shows this time: endpoint ping {host} --accept-new"))
        .hint(format!(
            "or name its key, which it prints at its start: endpoint ping sha256:HEX@{host}"
        ))
}

fn not_authorized(message: String, own: Fingerprint) -> CliError {
    CliError::new("not-authorized", ExitKind::NotAuthorized, message)
        .hint(format!("let it in, on the other side: endpoint trust add {own}"))
}

/// A refused dial with its exit code and remedy.
pub(super) fn connect_fault(
    error: &ConnectError,
    alpn: &Alpn,
    own: Fingerprint,
    context: &Context,
) -> CliError {
    use ExitKind::{Failure, PeerUnknown, Unreachable, Usage};
    let told = |code, exit| CliError::told(code, exit, error);
    match error {
        ConnectError::NotAuthorized { host } => {
            not_authorized(format!("{host} does not let this endpoint speak {alpn}"), own)
        }
        ConnectError::PeerUnknown { host } => unknown(host),
        ConnectError::PeerChanged { host, expected, got } => {
            known::changed(host, *expected, *got, context)
        }
        ConnectError::NoCommonAlpn { host } => {
            CliError::failure("no-common-alpn", format!("{host} does not speak {alpn} with us"))
                .hint(format!("look what it offers: endpoint probe {host}"))
        }
        ConnectError::CertificateTypeMismatch { host } => told("certificate-type", Failure)
            .hint(format!("look what it offers: endpoint probe {host}")),
        ConnectError::Timeout { host } => timed_out(host),
        ConnectError::Lookup { host, .. } => told("lookup", Unreachable)
            .hint(format!("check the name: getent hosts {}", host_name(host))),
        ConnectError::Unreachable { host, .. } => told("unreachable", Unreachable)
            .hint(format!("check the route: ip route get {}", host_name(host))),
        ConnectError::Overloaded { host } => {
            told("overloaded", Unreachable).hint(format!("try again later: endpoint ping {host}"))
        }
        ConnectError::TooManyConnections { .. } => told("too-many-connections", Unreachable)
            .hint("end one of them, or wait a moment: dead ones give way within a second"),
        ConnectError::ShuttingDown { host } => told("shutting-down", Unreachable)
            .hint(format!("try again when it is back: endpoint ping {host}")),
        ConnectError::RecentlyFailed { .. } => {
            told("recently-failed", Unreachable).hint("try again in a moment")
        }
        ConnectError::Untrusted { host, .. } => told("untrusted", PeerUnknown)
            .hint("name the roots to trust: --ca FILE")
            .hint(format!("or pin its key, which it shows here: endpoint probe {host}")),
        ConnectError::NoKeyShown { host } => told("no-key-shown", Failure)
            .hint(format!("look what it offers: endpoint probe {host}")),
        ConnectError::KnownPeers { .. } => told("known-line", Usage)
            .hint(format!("see where: {}", context.state.command("known ls"))),
        ConnectError::FeatureMissing(_) => {
            told("not-in-this-build", Usage).hint("run a build that has it: endpoint --version")
        }
        ConnectError::BadAlpn => told("usage", Usage).hint("name one: --alpn echo/1"),
        _ => told("handshake", Failure).hint("see more: endpoint -v ping PEER"),
    }
}

fn host_name(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']'])
}

/// How long nothing is said while an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the last packets may take.
const FAREWELL: Duration = Duration::from_millis(500);
