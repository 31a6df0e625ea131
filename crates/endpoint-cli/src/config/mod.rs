//! What does the configuration file say?
//!
//! TOML in, plain data out. Every fault of the file is found at once, each with file, line, column
//! and the name that was probably meant; what belongs to a later build is refused, never ignored.
//!
//! Always true: reading has no effect but reading. No file at all means every default.

mod access;
mod acme;
mod certificate;
pub mod limits;
mod read;
mod sections;
pub mod value;
pub mod web;
mod web_limits;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use endpoint_core::{
    alpn::Alpn,
    config::{Access, Acme, Limits, StoreConfig, StoreSecret, TlsIdentity},
};

pub use self::web_limits::WebLimits;
use self::{
    limits::Settings,
    web::{Content, LoopbackHttp, Route},
};
use crate::{
    error::{CliError, Result},
    state::State,
};

/// The example file: every field with its default, documented.
pub const EXAMPLE: &str = include_str!("example.toml");

/// What the operator asked for, defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; empty if not said.
    pub listen: Vec<SocketAddr>,
    /// Server names and what is shown under them.
    pub sites: Vec<Site>,
    /// Where plain HTTP redirects to https.
    pub plain_listen: Vec<SocketAddr>,
    /// Where plain HTTP for this machine listens.
    pub loopback_http: LoopbackHttp,
    /// Where qlog files go, if anywhere.
    pub qlog: Option<PathBuf>,
    /// What certificates by ACME have in common: authorities, proofs, time.
    pub acme: Acme,
    /// Where certificates, keys and accounts are kept.
    pub store: StoreConfig,
    /// Which protocols are served and for whom, in order of preference.
    pub handlers: Vec<HandlerEntry>,
    /// The lowest TLS version on TCP.
    pub min_tls: TlsVersion,
    /// Limits for the library.
    pub limits: Limits,
    /// What the file sets of `[limits]`, by name.
    pub settings: Settings,
    /// Limits of the web server.
    pub web: WebLimits,
    /// The limit on connections, which open files are checked against.
    pub connections: usize,
    /// Handshakes of validated addresses at one time, as in `limits`.
    pub handshakes: usize,
    /// TCP connections that wait for a handshake, as in `limits`.
    pub waiting: usize,
    /// How long a drain may take.
    pub drain_deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            sites: vec![Site { names: vec!["localhost".into()], ..Site::default() }],
            plain_listen: Vec::new(),
            loopback_http: LoopbackHttp::Default,
            qlog: None,
            acme: acme::common(),
            store: acme::default_store(),
            handlers: vec![
                HandlerEntry { alpn: Alpn::ECHO_1, access: Access::default() },
                HandlerEntry { alpn: Alpn::PING_1, access: Access::default() },
                HandlerEntry { alpn: Alpn::DISCOVER_1, access: Access::Public },
            ],
            min_tls: TlsVersion::V1_2,
            limits: Limits::default(),
            settings: Settings::new(),
            web: WebLimits::default(),
            connections: DEFAULT_CONNECTIONS,
            handshakes: DEFAULT_HANDSHAKES,
            waiting: DEFAULT_WAITING,
            drain_deadline: Duration::from_secs(10),
        }
    }
}

/// Names that share a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Site {
    /// Host names.
    pub names: Vec<String>,
    /// What is shown under them; `None` where the names are for plain HTTP on loopback only.
    pub certificate: Option<TlsIdentity>,
    /// What requests are answered with.
    pub content: Content,
    /// Fields that every answer carries, in lower case.
    pub headers: Vec<(String, String)>,
    /// Whether requests are logged.
    pub access_log: bool,
    /// Rules for parts of it, the longest path first.
    pub routes: Vec<Route>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            certificate: Some(TlsIdentity::SelfSigned),
            content: Content::Welcome,
            headers: Vec::new(),
            access_log: false,
            routes: Vec::new(),
        }
    }
}

/// A protocol and who may speak it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HandlerEntry {
    /// One of [`HANDLERS`].
    pub alpn: Alpn,
    /// Who may speak it.
    pub access: Access,
}

/// A TLS version that TCP may be held to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// What is wrong with asking this build for qlog files, if anything is.
pub(crate) fn without_qlog(what: &str) -> Option<CliError> {
    let message = format!("{what} is not in this build: it needs feature `qlog`");
    let fault = CliError::usage("not-in-this-build", message)
        .hint("build it in: cargo build --release --features qlog");
    (!crate::qlog::BUILT_IN).then_some(fault)
}

/// The protocols that this build can serve.
pub const HANDLERS: [&str; 3] = ["echo/1", "ping/1", "discover/1"];

/// The secret of the store, if it does not stand in a file. No child of this program inherits it.
pub(crate) const SECRET_VARIABLE: &str = "ENDPOINT_SECRET";
/// The name of a credential of the service manager that holds it.
const CREDENTIAL: &str = "store.secret";
/// `Limits::default()`'s own number of connections.
const DEFAULT_CONNECTIONS: usize = 10_000;
/// `Limits::default()`'s own number of handshakes in flight.
const DEFAULT_HANDSHAKES: usize = 512;
/// `Limits::default()`'s own number of TCP connections that wait for a handshake.
const DEFAULT_WAITING: usize = 4096;

impl Config {
    /// Reads the file that was named, or `endpoint.toml` in the state folder if there is one.
    /// Also gives the file that was read.
    ///
    /// # Errors
    /// The file cannot be read or has faults; all of them are in the error. Exit code 2.
    pub fn load(given: Option<&Path>, state: &State) -> Result<(Self, Option<PathBuf>)> {
        let own = state.file("endpoint.toml");
        let (file, named) = match given {
            Some(file) => (file.to_owned(), true),
            None => (own, false),
        };
        let text = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => {
                let mut config = Self::default();
                config.place(state);
                return Ok((config, None));
            }
            Err(error) => {
                let mut fault = CliError::io("read the configuration", &file, &error);
                fault.exit = crate::error::ExitKind::Usage;
                return Err(fault.hint("leave --config out to run with the defaults"));
            }
        };
        let text = String::from_utf8(text).map_err(|_| {
            CliError::usage("config", format!("{} is not UTF-8 text", file.display()))
                .hint("save it as UTF-8")
        })?;
        let mut config = Self::parse(&text, &file).map_err(|fault| {
            let word = crate::error::shell_word(&file);
            fault.hint(format!("mend it, then check: endpoint config check --config {word}"))
        })?;
        config.place(state);
        Ok((config, Some(file)))
    }

    /// The parts of the file, without `[limits]`, that `after` has differently.
    pub fn other_parts(&self, after: &Self) -> impl Iterator<Item = &'static str> {
        let parts = |config: &Self| {
            [
                ("listen", format!("{:?}", config.listen)),
                ("plain_listen", format!("{:?}", config.plain_listen)),
                ("loopback_http", format!("{:?}", config.loopback_http)),
                ("qlog", format!("{:?}", config.qlog)),
                ("[[site]]", format!("{:?}", config.sites)),
                ("[[handler]]", format!("{:?}", config.handlers)),
                ("[acme]", format!("{:?}", config.acme)),
                ("[store]", format!("{:?}", config.store)),
                ("[tls]", format!("{:?}", config.min_tls)),
                ("[drain]", format!("{:?}", config.drain_deadline)),
            ]
        };
        let both = parts(self).into_iter().zip(parts(after));
        both.filter(|((_, before), (_, after))| before != after).map(|((name, _), _)| name)
    }

    /// Whether the store has been made.
    #[must_use]
    pub fn store_exists(&self) -> bool {
        matches!(&self.store, StoreConfig::Sqlite { path, .. } if path.exists())
    }

    /// Puts the store where it belongs: relative names start at the state folder, and a secret in the
    /// environment or among the credentials of the service manager goes before the file's.
    fn place(&mut self, state: &State) {
        if let StoreConfig::Sqlite { path, secret } = &mut self.store {
            *path = state.folder().join(&*path);
            let name = match secret {
                StoreSecret::File(file) => Some(std::mem::take(file)),
                _ => None,
            };
            let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
                .is_some_and(|folder| Path::new(&folder).join(CREDENTIAL).exists());
            *secret = match (std::env::var_os(SECRET_VARIABLE), credential) {
                (Some(_), _) => StoreSecret::Environment(SECRET_VARIABLE.to_owned()),
                (None, true) => StoreSecret::Credential(CREDENTIAL.to_owned()),
                (None, false) => StoreSecret::File(state.folder().join(name.unwrap_or_default())),
            };
        }
        for site in &mut self.sites {
            if let Some(TlsIdentity::Acme(acme)) = &mut site.certificate {
                acme.store = self.store.clone();
            }
        }
    }

    /// Reads the text of `file`; relative paths in it start at the file's folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let mut reader = read::Reader::new(text, file);
        let config = sections::config(&mut reader);
        match CliError::sum(reader.into_faults(), file) {
            Some(fault) => Err(fault),
            None => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_the_example_file_as_the_defaults() {
        let config = Config::parse(EXAMPLE, Path::new("example.toml")).unwrap();
        let default = Config::default();
        assert_eq!(config.listen, value::default_listen());
        assert_eq!(config.sites, default.sites);
        assert_eq!(config.handlers, default.handlers);
        assert_eq!(config.min_tls, default.min_tls);
        assert_eq!(config.drain_deadline, default.drain_deadline);
        assert_eq!(format!("{:?}", config.limits), format!("{:?}", default.limits));
        assert_eq!(config.web, default.web);
        assert_eq!(config.connections, default.connections);
        assert_eq!(config.acme, default.acme);
        assert_eq!(config.store, default.store);
    }

    #[test]
    fn shows_every_field_in_the_example_file() {
        let names = sections::FIELDS.into_iter().chain(web::SITE_FIELDS).chain(web::ROUTE_FIELDS);
        let names = names.chain(acme::ISSUER_FIELDS);
        for name in names {
            let forms = [format!("{name} = "), format!("[{name}]"), format!("[[{name}]]")];
            let route = name == "route" && EXAMPLE.contains("[[site.route]]");
            assert!(route || forms.iter().any(|form| EXAMPLE.contains(form)), "{name}");
        }
    }

    #[test]
    fn takes_no_file_as_the_defaults_and_creates_nothing() {
        let root = tempfile::tempdir().unwrap();
        let state = State::resolve(Some(&root.path().join("none"))).unwrap();
        let (config, file) = Config::load(None, &state).unwrap();
        assert_eq!(file, None);
        assert_eq!(config.handlers.len(), 3);
        assert!(!state.folder().exists());
    }

    #[test]
    fn names_a_configuration_that_does_not_exist() {
        let root = tempfile::tempdir().unwrap();
        let state = State::resolve(Some(root.path())).unwrap();
        let error = Config::load(Some(Path::new("/none/e.toml")), &state).unwrap_err();
        assert_eq!(error.exit, crate::error::ExitKind::Usage);
        assert!(error.message.contains("/none/e.toml"), "{error}");
    }

    #[test]
    fn resolves_certificate_paths_from_the_file_s_folder() {
        let text = "[[site]]\nnames = [\"a.example\"]\ncertificate = { cert = \"c.pem\", key = \"/k.pem\" }\n";
        let config = Config::parse(text, Path::new("/etc/endpoint/endpoint.toml")).unwrap();
        assert_eq!(
            config.sites.first().unwrap().certificate,
            Some(TlsIdentity::X509 { cert: "/etc/endpoint/c.pem".into(), key: "/k.pem".into() })
        );
    }
}
