//! What did the user ask for?
//!
//! The command line as data. Every sub-command's help ends in examples; values that are not what
//! they should be are refused with a text of our own, not the parser's.

pub mod bundle;
mod cert;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use endpoint_core::alpn::Alpn;

pub use self::cert::{Cert, CertName, Store};
use crate::config::{
    value,
    web::{self, Upstream},
};

/// One port for peers known by their key: serve, dial and decide who may come in.
#[derive(Debug, Parser)]
#[command(
    name = "endpoint",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  endpoint serve                                   run with the defaults, no root needed
  endpoint trust add sha256:1f…c3                  let a peer in
  endpoint ping peer://1f…c3@node.example:4433     reach another endpoint

Exit codes: 0 ok, 1 failure, 2 usage or bad configuration, 3 peer unknown,
4 peer changed, 5 not authorised, 6 unreachable"
)]
pub struct Args {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(ClapArgs, Clone, Debug)]
pub struct Global {
    /// Folder of the identity, the trust and the pins [default: the platform's state folder]
    #[arg(long, global = true, value_name = "DIR", env = "ENDPOINT_STATE",
        value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Configuration file [default: endpoint.toml in the state folder, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "ENDPOINT_CONFIG",
        value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print one JSON object per line on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines on stderr look
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "ENDPOINT_LOG_FORMAT",
        default_value = "text",
        value_enum,
        hide_possible_values = true,
        help = "How log lines on stderr look: text or json"
    )]
    pub log_format: LogFormat,
    /// Say more in the log; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the endpoint: peers by raw key and by certificate, UDP and TCP on one port
    #[command(after_help = "Examples:
  endpoint serve
  endpoint serve --root public
  endpoint serve --proxy http://127.0.0.1:3000
  endpoint serve --listen [::]:4433
  endpoint serve --listen 127.0.0.1:0 --json

SIGHUP reloads peers, certificates and [limits]; SIGTERM drains; a second SIGTERM ends at once.")]
    Serve(Serve),
    /// Show, make, import or replace the identity key
    #[command(
        subcommand,
        after_help = "Examples:
  endpoint key show
  endpoint key import old.pem"
    )]
    Key(Key),
    /// Decide who may come in: edit and check authorized_peers
    #[command(
        subcommand,
        after_help = "Examples:
  endpoint trust add sha256:1f…c3 --option alpn=echo/1 --comment laptop
  endpoint trust rm sha256:1f…c3
  endpoint trust check sha256:1f…c3 --alpn echo/1 --from 192.0.2.7"
    )]
    Trust(Trust),
    /// List or forget the identities of endpoints dialled before
    #[command(
        subcommand,
        after_help = "Examples:
  endpoint known ls
  endpoint known forget node.example:4433"
    )]
    Known(Known),
    /// Measure round trips to another endpoint
    #[command(after_help = "Examples:
  endpoint ping peer://1f…c3@node.example:4433
  endpoint ping node.example:4433 --accept-new
  endpoint ping https://node.example:4433 -c 10 --json")]
    Ping(Ping),
    /// Connect stdin and stdout to a stream of another endpoint
    #[command(after_help = "Examples:
  echo hello | endpoint dial peer://1f…c3@node.example:4433 --alpn echo/1")]
    Dial(Dial),
    /// Send one HTTP request to another endpoint, which learns who asks
    #[command(after_help = "Examples:
  endpoint fetch peer://1f…c3@node.example:4433/admin/
  endpoint fetch https://node.example/ --output page.html
  endpoint fetch node.example:4433/items --data '{\"n\":1}' --header 'content-type: application/json'
  endpoint fetch home/upload --method PUT --data @big.iso

Speaks HTTP/3; with --tcp HTTP/2, with --http1 HTTP/1.1. An answer of 401 or 403 ends with exit
code 5, any other from 400 with 1; its body is printed all the same.")]
    Fetch(Fetch),
    /// List, renew, import and export certificates
    #[command(
        subcommand,
        after_help = "Examples:
  endpoint cert list
  endpoint cert renew example.com
  endpoint cert import --cert example.com.pem --key example.com.key"
    )]
    Cert(Cert),
    /// Work with what keeps certificates, keys and accounts
    #[command(
        subcommand,
        after_help = "Examples:
  endpoint store rekey"
    )]
    Store(Store),
    /// Run a command whose plain HTTP requests reach the sites of the running endpoint
    #[command(after_help = "Examples:
  endpoint run -- curl http://localhost/
  endpoint run -- gh api /

HTTP_PROXY and http_proxy name the loopback listener of the running endpoint; NO_PROXY, no_proxy,
ALL_PROXY and all_proxy are cleared. The command's exit code is passed on; 125 to 127 are ours.")]
    Run(Run),
    /// List every identity and protocol that a port offers
    #[command(after_help = "Examples:
  endpoint probe 127.0.0.1:4433
  endpoint probe node.example:443 --json")]
    Probe(Probe),
    /// Say how the running endpoint is
    #[command(after_help = "Examples:
  endpoint status
  endpoint status --json")]
    Status,
    /// List the live connections of the running endpoint
    #[command(after_help = "Examples:
  endpoint conns
  endpoint conns --json")]
    Conns,
    /// Close the live connections of a key; it may come back unless removed from trust
    #[command(after_help = "Examples:
  endpoint kick sha256:1f…c3")]
    Kick(KeyWords),
    /// Sign or check a shared certificate
    #[command(subcommand, after_help = bundle::EXAMPLES)]
    Bundle(bundle::Bundle),
    /// Work with the configuration file
    #[command(
        subcommand,
        after_help = "Examples:
  endpoint config check --config endpoint.toml"
    )]
    Config(ConfigCommand),
    /// Print a completion script
    #[command(after_help = "Examples:
  endpoint completions bash > /usr/share/bash-completion/completions/endpoint
  endpoint completions zsh > \"${fpath[1]}/_endpoint\"")]
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
}

/// `endpoint serve`.
#[derive(ClapArgs, Debug)]
pub struct Serve {
    /// Address to listen on, UDP and TCP; repeat for more. Default: port 4433 of both loopbacks.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = value::listen,
        help = "Address to listen on, UDP and TCP; repeat for more [default: 127.0.0.1:4433 and [::1]:4433]"
    )]
    pub listen: Vec<SocketAddr>,
    /// Serve the files of a folder under the first site's names; a folder without index.html is listed
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "proxy")]
    pub root: Option<PathBuf>,
    /// Pass requests on to an HTTP server such as http://127.0.0.1:3000; repeat for more
    #[arg(long, value_name = "URL", value_parser = web::upstream)]
    pub proxy: Vec<Upstream>,
    /// Write a qlog file for each QUIC connection into a folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub qlog: Option<PathBuf>,
}

/// `endpoint fetch`.
#[derive(ClapArgs, Debug)]
pub struct Fetch {
    /// Whom to ask, and the path: PEER/path.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// The method [default: GET, with --data POST]
    #[arg(short = 'X', long)]
    pub method: Option<String>,
    /// A header field; repeat for more
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// What to send: text, @FILE, or @- for stdin
    #[arg(short, long, value_name = "TEXT")]
    pub data: Option<String>,
    /// Keep the answer's body in a file, whole or not at all; the body of a refusal is printed
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Print the answer's header too
    #[arg(short, long)]
    pub include: bool,
    /// The site to ask for [default: PEER's host and port]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Speak HTTP/1.1 over TCP
    #[arg(long)]
    pub http1: bool,
}

/// `endpoint run -- CMD…`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<std::ffi::OsString>,
}

/// `endpoint key …`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Print the public key in every form
    #[command(after_help = "Examples:
  endpoint key show
  endpoint key show --json")]
    Show,
    /// Make the identity key; never overwrites one
    #[command(after_help = "Examples:
  endpoint key new")]
    New,
    /// Take an Ed25519 private key from a PKCS#8 PEM file
    #[command(after_help = "Examples:
  openssl genpkey -algorithm ed25519 -out my.pem && endpoint key import my.pem")]
    Import {
        /// The PEM file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Replace the identity key; the old one is kept as identity.key.old
    #[command(after_help = "Examples:
  endpoint key rotate")]
    Rotate,
}

/// `endpoint trust …`.
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Authorise a key
    #[command(after_help = "Examples:
  endpoint trust add sha256:1f…c3
  endpoint trust add ssh-ed25519 AAAA… bob@laptop
  endpoint trust add sha256:1f…c3 --option alpn=echo/1,ping/1 --option from=192.0.2.0/24

Options: alpn, from, expires, scope, tenant, max-connections, name")]
    Add(TrustAdd),
    /// Remove a key; its live connections are closed
    #[command(after_help = "Examples:
  endpoint trust rm sha256:1f…c3")]
    Rm(KeyWords),
    /// List the authorised keys
    #[command(after_help = "Examples:
  endpoint trust ls
  endpoint trust ls --json")]
    Ls,
    /// Say whether a key would be let in, as the server would judge it
    #[command(after_help = "Examples:
  endpoint trust check sha256:1f…c3 --alpn echo/1 --from 192.0.2.7")]
    Check(TrustCheck),
    /// Report every fault of authorized_peers
    #[command(after_help = "Examples:
  endpoint trust lint")]
    Lint,
}

/// `endpoint trust add`.
#[derive(ClapArgs, Debug)]
pub struct TrustAdd {
    /// The key: sha256:HEX, bare hex, sha256//BASE64, ed25519:HEX, a PEM public key or an
    /// ssh-ed25519 line
    #[arg(value_name = "KEY", required = true, num_args = 1..)]
    pub key: Vec<String>,
    /// Restrict the key: alpn, from, expires, scope, tenant, max-connections, name
    #[arg(long = "option", value_name = "k=v", value_parser = value::option)]
    pub options: Vec<(String, String)>,
    /// A note at the end of the line
    #[arg(long)]
    pub comment: Option<String>,
}

/// A key in one argument or, like an ssh line, in several.
#[derive(ClapArgs, Debug)]
pub struct KeyWords {
    /// The key in any form that `trust add` takes
    #[arg(value_name = "KEY", required = true, num_args = 1..)]
    pub key: Vec<String>,
}

/// `endpoint trust check`.
#[derive(ClapArgs, Debug)]
pub struct TrustCheck {
    /// The key in any form that `trust add` takes
    #[arg(value_name = "KEY", required = true, num_args = 1..)]
    pub key: Vec<String>,
    /// The protocol it would speak
    #[arg(long, value_parser = value::alpn)]
    pub alpn: Alpn,
    /// The address it would come from [default: 127.0.0.1]
    #[arg(long, value_name = "IP", value_parser = value::ip)]
    pub from: Option<std::net::IpAddr>,
}

/// `endpoint known …`.
#[derive(Debug, Subcommand)]
pub enum Known {
    /// List them
    #[command(after_help = "Examples:
  endpoint known ls --json")]
    Ls,
    /// Forget one; the file before is kept as known_peers.old
    #[command(after_help = "Examples:
  endpoint known forget node.example:4433")]
    Forget {
        /// HOST:PORT or a name from `known ls`
        peer: String,
    },
}

/// Whom to dial and how.
#[derive(ClapArgs, Clone, Debug)]
pub struct PeerArgs {
    /// peer://HEX@host:port, sha256:HEX@host:port, https://host:port[#sha256:HEX], host:port or a
    /// name from `known ls`
    #[arg(value_name = "PEER")]
    pub peer: String,
    /// Learn the identity of an unknown host:port instead of asking
    #[arg(long)]
    pub accept_new: bool,
    /// Roots to check https:// peers against, instead of the platform's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// Use TCP instead of QUIC
    #[arg(long)]
    pub tcp: bool,
    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = value::duration)]
    pub timeout: Duration,
}

/// `endpoint ping`.
#[derive(ClapArgs, Debug)]
pub struct Ping {
    /// Whom to ping.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// Number of round trips
    #[arg(short, long, default_value = "4", value_parser = value::count)]
    pub count: u32,
    /// Pause between them
    #[arg(short, long, value_name = "TIME", default_value = "200ms",
        value_parser = value::duration)]
    pub interval: Duration,
}

/// `endpoint dial`.
#[derive(ClapArgs, Debug)]
pub struct Dial {
    /// Whom to dial.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// The protocol to speak
    #[arg(long, value_parser = value::alpn)]
    pub alpn: Alpn,
}

/// `endpoint probe`.
#[derive(ClapArgs, Debug)]
pub struct Probe {
    /// The port to look at
    #[arg(value_name = "HOST:PORT")]
    pub port: String,
    /// Protocols to try besides the known ones
    #[arg(long, value_parser = value::alpn)]
    pub alpn: Vec<Alpn>,
    /// Give up on each try after this time
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = value::duration)]
    pub timeout: Duration,
}

/// `endpoint config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Report every fault; writes nothing, binds nothing, calls nobody
    #[command(after_help = "Examples:
  endpoint config check
  endpoint config check --config endpoint.toml --json")]
    Check,
    /// Print every limit as the file or a default sets it, and when a change of it acts
    #[command(after_help = "Examples:
  endpoint config show
  endpoint config show --config endpoint.toml --json")]
    Show,
}
