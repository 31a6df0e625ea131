//! Run the endpoint.
//!
//! Everything that can be wrong is checked before the endpoint is bound: folder, claim, configuration,
//! trust, key, sites, limits. Then it listens, tells how to reach it, and waits for signals: SIGHUP
//! reloads, SIGTERM and SIGINT drain, a second one ends at once.

#[cfg(feature = "tcp")]
mod carriers;
#[cfg(not(feature = "tcp"))]
#[path = "carriers_off.rs"]
mod carriers;
mod desk;
mod files;
mod given;
pub(super) mod judge;
#[cfg(feature = "http3")]
mod local;
#[cfg(not(feature = "http3"))]
#[path = "local_off.rs"]
mod local;
mod manager;
mod ports;
mod proofs;
mod ready;
mod refusals;
mod reloading;

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
};

use endpoint_core::{
    alpn::Alpn,
    endpoint::{BindError, Builder, Endpoint},
    handler::{Echo, Ping},
    store::StoreError,
    trust::AuthorizedPeers,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

pub use self::given::Given;
use self::{
    desk::FrontDesk,
    files::{OpenFiles, Room},
    local::{Facts, Local},
    manager::Manager,
    ready::Listeners,
    reloading::Reloading,
};
use super::Context;
use crate::{
    args::Serve,
    config::{self, Config, Site, TlsVersion, value, web::Content},
    control::{self, Claim},
    error::{CliError, ExitKind, Result, io_cause},
    web::Web,
};

pub(super) async fn run(args: Serve, context: &Context) -> Result<()> {
    let state = &context.state;
    state.check()?;
    let (mut config, _) = Config::load(context.config.as_deref(), state)?;
    let read = config.clone();
    content(&args, &mut config)?;
    if let Some(fault) = args.qlog.as_ref().and_then(|_| config::without_qlog("`--qlog`")) {
        return Err(fault);
    }
    judge::certificates(&config).await?;
    super::trust::check_file(state)?;
    state.make()?;
    let claim = Claim::take(state)?;
    let identity = super::identity(state)?;
    let peers = AuthorizedPeers::watch(state.authorized())
        .map_err(|error| super::trust::start_fault(&error, state))?;
    let given = std::mem::take(&mut *context.given.lock().unwrap_or_else(PoisonError::into_inner));
    let listen = match given.ports.is_empty() {
        true => addresses(&args, &config, context),
        false => given.ports.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect(),
    };
    if given.is_empty() {
        ports::clashes(&listen, &config)?;
    } else {
        tracing::info!(ports = given.ports.len(), plain = given.plain.len(), "sockets were given");
    }
    let udp_alone = given.udp_alone();
    // Bound before the sites are judged: an upstream must be none of these.
    let local = Local::bind(&config, given.plain, &listen)?;
    proofs::possible(&mut config, !local.listeners().redirects.is_empty())?;
    let listeners = Listeners { udp_alone, ..local.listeners() };
    let plain = listeners.loopback.iter().chain(&listeners.redirects);
    let own = listen.iter().chain(plain).copied().collect();
    let open_files = OpenFiles { plain: local.count() };
    let Room { limits, files, warning } = open_files.room(&config);
    if let Some((message, hint)) = warning {
        context.output.warning(&message, &[hint]);
    }
    let web = Web::prepare(&config.sites, &ports::own(own, &config.sites), files, &config.web)?;
    let mut signals = Signals::new()?;
    let builder = Endpoint::builder(identity)
        .authorized(peers.clone())
        .state_dir(state.folder())
        .known_peers(state.known())
        .limits(limits)
        .drain_deadline(config.drain_deadline);
    let builder = match given.ports.is_empty() {
        true => listen.iter().fold(builder, |builder, address| builder.listen(*address)),
        false => given.ports.into_iter().fold(builder, |b, (udp, tcp)| b.listen_on(udp, tcp)),
    };
    let builder = match args.qlog.or(config.qlog.clone()) {
        Some(folder) => builder.qlog_dir(folder),
        None => builder,
    };
    let builder = config
        .sites
        .iter()
        .filter_map(|site| Some((&site.names, site.certificate.clone()?)))
        .fold(builder, |builder, (names, certificate)| builder.server_names(names, certificate));
    // Certificates that were imported, or that another process obtained, under names of no site.
    let builder = match crate::kept::BUILT_IN && config.store_exists() {
        true => builder.store(config.store.clone()),
        false => builder,
    };
    let builder = match config.min_tls {
        TlsVersion::V1_2 => builder,
        TlsVersion::V1_3 => builder.tls13_only(),
    };
    // A store that somebody holds, or a disk that hangs, keeps nobody from ending the start.
    let endpoint = tokio::select! {
        bound = web.attach(handlers(builder, &config)).bind() => {
            bound.map_err(|error| bind_fault(&error, context))?
        }
        () = signals.end() => return Ok(()),
    };
    let desk = Arc::new(FrontDesk::new(endpoint.clone(), peers, state.clone(), listeners.clone()));
    let facts = Facts::new(endpoint.clone(), Arc::clone(&desk));
    let port = ready::port_of_tcp(&endpoint, &listeners).unwrap_or(443);
    let mut local = local.start(&web, port, facts, &config.limits)?;
    let mut control = tokio::spawn(control::serve(claim.socket(), desk)?);
    ready::tell(&endpoint, &web, &listeners, context)?;
    let manager = Manager::ready(&format!("serving {}", endpoint.fingerprint()));
    let reloading =
        Reloading::new(endpoint.clone(), context.config.clone(), state.clone(), open_files, read);
    let fault = tokio::select! {
        () = wait(&reloading, &mut signals) => None,
        () = refusals::tell(&endpoint, state) => None,
        failure = endpoint.failed() => Some(died(&failure.to_string())),
        part = local.died() => Some(died(&part)),
        ended = &mut control => Some(died(&format!("the control socket ended: {ended:?}"))),
    };
    Manager::stopping();
    let ended = match (drain(&endpoint, &mut signals).await, fault) {
        (_, Some(fault)) => Err(fault),
        (ended, None) => ended,
    };
    drop(manager);
    local.end();
    control.abort();
    drop(claim);
    ended
}

/// `--root` and `--proxy` give the first site its content.
fn content(args: &Serve, config: &mut Config) -> Result<()> {
    let asked = match (&args.root, args.proxy.as_slice()) {
        (None, []) => return Ok(()),
        (Some(folder), _) => Content::Root { folder: folder.clone(), listing: true },
        (None, upstreams) => Content::Proxy(upstreams.to_vec()),
    };
    if !crate::web::BUILT_IN {
        let message = "`--root` and `--proxy` are not in this build: they need feature `http3`";
        return Err(CliError::usage("not-in-this-build", message)
            .hint("leave it out: endpoint serve, or run a build that has it"));
    }
    match config.sites.first_mut() {
        Some(site) => site.content = asked,
        None => config.sites.push(Site {
            names: vec!["localhost".into()],
            content: asked,
            ..Site::default()
        }),
    }
    Ok(())
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
    for asked in [&args.listen, &config.listen] {
        if !asked.is_empty() {
            return asked.clone();
        }
    }
    let mut addresses = value::default_listen().to_vec();
    if std::net::UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_err() {
        context.output.say("this machine has no IPv6: listening on IPv4 alone");
        addresses.retain(SocketAddr::is_ipv4);
    }
    addresses
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

/// Why a program ends of which a part died.
fn died(what: &str) -> CliError {
    CliError::failure("part-died", what)
        .hint("a service manager starts it again: Restart=on-failure")
}

/// Serves until a signal to end, reloading at each hangup. A reload waits for the disk, signals do not.
async fn wait(reloading: &Arc<Reloading>, signals: &mut Signals) {
    let mut reloads = JoinSet::new();
    let mut again = false;
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                tracing::info!("reload asked for by SIGHUP");
                Manager::reloading();
                if reloads.is_empty() {
                    reloads.spawn(Arc::clone(reloading).reload());
                } else {
                    // That one may have looked before the change that is meant.
                    again = true;
                }
            }
            Some(_ended) = reloads.join_next() => {
                if std::mem::take(&mut again) {
                    reloads.spawn(Arc::clone(reloading).reload());
                } else {
                    Manager::reloaded();
                }
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
        // A secret that does not fit is the operator's to mend; a disk that is full is nobody's fault.
        BindError::Store(StoreError::Unusable { .. } | StoreError::Unwritable { .. }) => {
            told("store")
        }
        BindError::Store(_) => CliError { exit: ExitKind::Usage, ..told("store") },
        BindError::Qlog { .. } => CliError { exit: ExitKind::Usage, ..told("qlog") }
            .hint("name a folder that can be written to: endpoint serve --qlog DIR"),
        BindError::Socket { .. } => {
            told("addr").hint("see this machine's addresses: ip -brief address")
        }
        _ => told("bind"),
    }
}
