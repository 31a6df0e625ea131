//! Run the endpoint.
//!
//! Everything that can be wrong is checked before anything is bound: folder, claim, configuration,
//! trust, key, limits. Then it listens, tells how to reach it, and waits for signals: SIGHUP
//! reloads, SIGTERM and SIGINT drain, a second one ends at once.

#[cfg(feature = "tcp")]
mod carriers;
#[cfg(not(feature = "tcp"))]
#[path = "carriers_off.rs"]
mod carriers;
mod desk;
mod refusals;

use std::{net::SocketAddr, sync::Arc};

use endpoint_core::{
    alpn::Alpn,
    config::Limits,
    endpoint::{BindError, Builder, Endpoint},
    handler::{Echo, Ping},
    identity::Fingerprint,
    trust::AuthorizedPeers,
};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::desk::FrontDesk;
use super::Context;
use crate::{
    args::Serve,
    config::{Config, TlsVersion, value},
    control::{self, Claim},
    error::{CliError, ExitKind, Result, io_cause},
};

pub(super) async fn run(args: Serve, context: &Context) -> Result<()> {
    if args.root.is_some() {
        let message = "`--root` is not in this build: it needs the web server";
        return Err(CliError::usage("not-in-this-build", message)
            .hint("leave it out: endpoint serve, or run a build that has it"));
    }
    let state = &context.state;
    state.check()?;
    let (config, _) = Config::load(context.config.as_deref(), state)?;
    config.check_files()?;
    super::trust::check_file(state)?;
    state.make()?;
    let claim = Claim::take(state)?;
    let identity = super::identity(state)?;
    let peers = AuthorizedPeers::watch(state.authorized())
        .map_err(|error| super::trust::start_fault(&error, state))?;
    let listen = addresses(&args, &config, context);
    let limits = limits(&config, context);
    let mut signals = Signals::new()?;
    let builder = Endpoint::builder(identity)
        .authorized(peers.clone())
        .state_dir(state.folder())
        .known_peers(state.known())
        .limits(limits)
        .drain_deadline(config.drain_deadline);
    let builder = listen.iter().fold(builder, |builder, address| builder.listen(*address));
    let builder = config
        .sites
        .iter()
        .fold(builder, |builder, site| builder.server_names(&site.names, site.certificate.clone()));
    let builder = match config.min_tls {
        TlsVersion::V1_2 => builder,
        TlsVersion::V1_3 => builder.tls13_only(),
    };
    let endpoint =
        handlers(builder, &config).bind().await.map_err(|error| bind_fault(&error, context))?;
    let desk = Arc::new(FrontDesk::new(endpoint.clone(), peers, state.clone()));
    let control = tokio::spawn(control::serve(claim.socket(), desk)?);
    tell_ready(&endpoint, context)?;
    tokio::select! {
        () = wait(&endpoint, &mut signals) => {}
        () = refusals::tell(&endpoint, state) => {}
    }
    let ended = drain(&endpoint, &mut signals).await;
    control.abort();
    drop(claim);
    ended
}

fn handlers(builder: Builder, config: &Config) -> Builder {
    config.handlers.iter().fold(builder, |builder, entry| {
        let (alpn, access) = (entry.alpn.clone(), entry.access.clone());
        if alpn == Alpn::ECHO_1 {
            builder.handle(alpn, access, Echo)
        } else if alpn == Alpn::PING_1 {
            builder.handle(alpn, access, Ping)
        } else {
            // The configuration knows these three names only.
            builder.discover()
        }
    })
}

/// Flag, else file, else loopback; a machine without IPv6 gets loopback on IPv4 alone.
fn addresses(args: &Serve, config: &Config, context: &Context) -> Vec<SocketAddr> {
    if !args.listen.is_empty() {
        return args.listen.clone();
    }
    if !config.listen.is_empty() {
        return config.listen.clone();
    }
    let mut addresses = value::default_listen().to_vec();
    if std::net::UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_err() {
        context.output.say("this machine has no IPv6: listening on IPv4 alone");
        addresses.retain(SocketAddr::is_ipv4);
    }
    addresses
}

/// Raises the limit on open files and holds the connections to what it allows: each over TCP
/// takes one.
fn limits(config: &Config, context: &Context) -> Limits {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    let (room, handshakes) =
        shares(usize::try_from(files).unwrap_or(usize::MAX), config.handshakes);
    if room >= config.connections {
        return config.limits.clone();
    }
    let message = format!(
        "{files} open files do not suffice for {} connections: taking at most {room}",
        config.connections
    );
    let wanted =
        config.connections.saturating_add(config.handshakes).saturating_add(FILES_KEPT_BACK);
    context.output.warning(
        &message,
        &[format!("raise it: ulimit -n {wanted}, or LimitNOFILE={wanted} in the unit")],
    );
    config.limits.clone().connections(room).handshakes_in_flight(handshakes)
}

/// Connections and handshakes that may hold a file each. Without files left over, the trust file could
/// not be read when it changes, and then nobody is let in.
fn shares(files: usize, handshakes: usize) -> (usize, usize) {
    let handshakes = handshakes.min(files / 4).max(1);
    (files.saturating_sub(FILES_KEPT_BACK).saturating_sub(handshakes).max(1), handshakes)
}

/// Files for everything but connections: listeners, key and trust files, the control socket.
const FILES_KEPT_BACK: usize = 128;

fn tell_ready(endpoint: &Endpoint, context: &Context) -> Result<()> {
    let fingerprint = endpoint.fingerprint();
    let addresses: Vec<String> = endpoint.local_addrs().iter().map(ToString::to_string).collect();
    let peer = peer_uri(fingerprint, endpoint.local_addrs());
    let output = context.output;
    if output.is_json() {
        output.object(&json!({
            "event": "ready",
            "listen": addresses,
            "fingerprint": fingerprint.to_string(),
            "peer": peer,
            "urls": [],
            "pid": std::process::id(),
        }))?;
    }
    output.say(&format!("listening    {} ({})", addresses.join(" "), carriers::LISTENING));
    output.say(&format!("peer         {peer}"));
    output.say(&format!("fingerprint  {fingerprint}"));
    output.say(&format!("state        {}", context.state.folder().display()));
    output.say(&format!("next         elsewhere: endpoint ping {peer}"));
    tracing::debug!(listen = %addresses.join(" "), "ready");
    Ok(())
}

/// How a peer on this machine names this endpoint; others put a name of this machine in.
fn peer_uri(fingerprint: Fingerprint, addresses: &[SocketAddr]) -> String {
    let text = fingerprint.to_string();
    let hex = text.strip_prefix("sha256:").unwrap_or(&text);
    let Some(mut address) = addresses.first().copied() else { return String::new() };
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        }
    }
    format!("peer://{hex}@{address}")
}

/// The signals that concern the endpoint. Caught before it is ready, so that none is lost.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let catch = |kind| {
            signal(kind).map_err(|error| {
                CliError::failure("signals", format!("cannot catch signals: {}", io_cause(&error)))
            })
        };
        Ok(Self {
            hangup: catch(SignalKind::hangup())?,
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// A signal to end; asks to reload do not count.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Serves until a signal to end, reloading at each hangup.
async fn wait(endpoint: &Endpoint, signals: &mut Signals) {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                tracing::info!("reload asked for by SIGHUP");
                // The library logs what came of it.
                let _reload = endpoint.reload().await;
            }
            _ = signals.interrupt.recv() => return,
            _ = signals.terminate.recv() => return,
        }
    }
}

async fn drain(endpoint: &Endpoint, signals: &mut Signals) -> Result<()> {
    tokio::select! {
        _report = endpoint.shutdown() => Ok(()),
        () = signals.end() => {
            endpoint.close_now();
            Err(CliError::failure("cut-off", "ended at once by a second signal")
                .hint("a single signal waits for connections; `[drain] deadline` says how long: \
                       endpoint config check"))
        }
    }
}

fn bind_fault(error: &BindError, context: &Context) -> CliError {
    let told = |code| CliError::told(code, ExitKind::Failure, error);
    match error {
        BindError::AddressInUse { address, carrier } => {
            let mut other = *address;
            other.set_port(address.port().checked_add(1).unwrap_or(4433));
            let table = if *carrier == "UDP" { "ss -lnup" } else { "ss -lntp" };
            let serve = context.state.command(&format!("serve --listen {other}"));
            told("addr-in-use")
                .hint(format!("see which program has it: {table} 'sport = :{}'", address.port()))
                .hint(format!("choose another port: {serve}"))
        }
        BindError::NotPermitted { address, .. } => {
            let mut high = *address;
            high.set_port(if address.port() < 1024 { 4433 } else { address.port() });
            let serve = context.state.command(&format!("serve --listen {high}"));
            told("addr-denied")
                .hint(format!("choose a port from 1024 on: {serve}"))
                .hint(
                    "or allow low ports: sudo setcap cap_net_bind_service=+ep \"$(command -v endpoint)\"",
                )
                .hint("or in a systemd unit: AmbientCapabilities=CAP_NET_BIND_SERVICE")
        }
        BindError::Certificate { .. } => {
            let fault = told("certificate");
            let check = context.state.command("config check");
            CliError { exit: ExitKind::Usage, ..fault }.hint(format!("check the files: {check}"))
        }
        BindError::Socket { .. } => {
            told("addr").hint("see this machine's addresses: ip -brief address")
        }
        _ => told("bind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_files_for_trust_whatever_connections_and_handshakes_take() {
        for files in [64, 256, 1024, 4096, 65_536] {
            let (connections, handshakes) = shares(files, 512);
            assert!(connections >= 1 && handshakes >= 1);
            if files > 2 * FILES_KEPT_BACK {
                assert!(connections + handshakes + FILES_KEPT_BACK <= files, "{files}");
            }
        }
        assert_eq!(shares(65_536, 512), (65_536 - 512 - FILES_KEPT_BACK, 512));
    }

    #[test]
    fn names_itself_by_an_address_that_can_be_dialled() {
        let key = Fingerprint::from_bytes([0xab; 32]);
        let hex = "ab".repeat(32);
        let uri = |address: &str| peer_uri(key, &[address.parse().unwrap()]);
        assert_eq!(uri("0.0.0.0:4433"), format!("peer://{hex}@127.0.0.1:4433"));
        assert_eq!(uri("[::]:4433"), format!("peer://{hex}@[::1]:4433"));
        assert_eq!(uri("192.0.2.7:1"), format!("peer://{hex}@192.0.2.7:1"));
    }
}
