//! A real certificate authority: Pebble and its DNS server, on free ports of loopback.
//!
//! Every name resolves to 127.0.0.1; proofs are looked for on the ports that the settings name.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::json;
use tokio::net::TcpStream;

use super::ports::free_port;

/// What Pebble is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long its certificates are valid, in seconds.
    pub validity: u32,
    /// External accounts that it demands one of: key identifier and base64url key.
    pub external_accounts: Vec<(String, String)>,
    /// How many of a hundred good nonces it refuses.
    pub nonces_refused: u8,
    /// Where it looks for HTTP-01.
    pub http_port: u16,
    /// Where it looks for TLS-ALPN-01.
    pub tls_port: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            validity: 3600,
            external_accounts: Vec::new(),
            nonces_refused: 0,
            http_port: free_port(),
            tls_port: free_port(),
        }
    }
}

/// A running Pebble; ended when dropped.
#[derive(Debug)]
pub struct Pebble {
    folder: tempfile::TempDir,
    settings: Settings,
    ports: Ports,
    running: Vec<Running>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    acme: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
}

impl Pebble {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not come up, with what it said.
    pub async fn start(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, client) = certificates(folder.path());
        let ports = Ports::free();
        let mut pebble = Self { folder, settings, ports, running: Vec::new(), server, client };
        // A port that was free may be taken by the time that it is used.
        for _ in 0..5 {
            if pebble.comes_up().await {
                return pebble;
            }
            pebble.stop();
            pebble.ports = Ports::free();
        }
        panic!("pebble does not start: {}", pebble.said());
    }

    /// The URL of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.ports.acme)
    }

    /// The port of its ACME server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.acme
    }

    /// The file of the root that its own server's certificate is checked against.
    #[must_use]
    pub fn server_root(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What a server needs to be taken for this one.
    #[must_use]
    pub fn server_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// What a client needs to trust it.
    #[must_use]
    pub fn client_tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// The root that its certificates are issued under, as PEM; another one after each restart.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn issuing_root(&self) -> String {
        let request = Request::get("/roots/0").header("host", "localhost");
        let request = request.body(Full::default()).expect("a request");
        let answer = send(&self.client, self.ports.management, request).await.expect("an answer");
        String::from_utf8(answer.into_body().to_vec()).expect("PEM")
    }

    /// Makes the look-up of `name` fail from now on.
    ///
    /// # Panics
    /// If the DNS server does not answer.
    pub async fn hide(&self, name: &str) {
        let body = json!({ "host": format!("{name}.") }).to_string();
        let stream = TcpStream::connect(("127.0.0.1", self.ports.dns_management)).await;
        let request = Request::post("/set-servfail").header("host", "localhost");
        let request = request.body(Full::from(body)).expect("a request");
        let answer = exchange(stream.expect("the DNS server"), request).await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Ends it; its port is closed then.
    pub fn stop(&mut self) {
        self.running.clear();
    }

    /// Starts it again on the same ports: it has forgotten every account and has new roots.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn restart(&mut self) {
        self.stop();
        assert!(self.comes_up().await, "pebble does not start again: {}", self.said());
    }

    async fn comes_up(&mut self) -> bool {
        self.write_settings();
        let Ports { acme, management, dns, dns_management } = self.ports;
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-http01", "", "-https01", ""]);
        names.args(["-tlsalpn01", "", "-management", &format!("127.0.0.1:{dns_management}")]);
        let mut authority = Command::new("pebble");
        authority.args(["-config", "config.json", "-dnsserver", &format!("127.0.0.1:{dns}")]);
        authority.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        authority.env("PEBBLE_WFE_NONCEREJECT", self.settings.nonces_refused.to_string());
        for program in [names, authority] {
            self.running.push(Running::start(program, self.folder.path()));
        }
        for _ in 0..1000 {
            if self.running.iter_mut().any(Running::has_ended) {
                return false;
            }
            let mut up = true;
            for port in [acme, management, dns_management, dns] {
                up &= TcpStream::connect(("127.0.0.1", port)).await.is_ok();
            }
            if up {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn write_settings(&self) {
        let accounts: serde_json::Map<_, _> = self
            .settings
            .external_accounts
            .iter()
            .map(|(kid, key)| (kid.clone(), key.clone().into()))
            .collect();
        let settings = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.ports.acme),
            "managementListenAddress": format!("127.0.0.1:{}", self.ports.management),
            "certificate": "server.pem",
            "privateKey": "server.key",
            "httpPort": self.settings.http_port,
            "tlsPort": self.settings.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !accounts.is_empty(),
            "externalAccountMACKeys": accounts,
            "certificateValidityPeriod": self.settings.validity,
            "domainBlocklist": ["blocked.example"],
        }});
        fs::write(self.folder.path().join("config.json"), settings.to_string()).expect("a file");
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Ports {
    fn free() -> Self {
        Self {
            acme: free_port(),
            management: free_port(),
            dns: free_port(),
            dns_management: free_port(),
        }
    }
}

/// A process that ends with its owner.
#[derive(Debug)]
struct Running(Child);

impl Running {
    fn start(mut program: Command, folder: &Path) -> Self {
        let log = File::options().create(true).append(true).open(folder.join("log"));
        let log = log.expect("a log");
        program.current_dir(folder).stdin(Stdio::null());
        program.stdout(log.try_clone().expect("a log")).stderr(log);
        let name = program.get_program().to_owned();
        let child = program.spawn();
        Self(child.unwrap_or_else(|why| panic!("{name:?} (Debian package pebble): {why}")))
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks the server on that port of loopback, which is `localhost`, over TLS.
///
/// # Errors
/// What went wrong, in words.
pub async fn send(
    tls: &Arc<ClientConfig>,
    port: u16,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|why| why.to_string())?;
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    exchange(connector.connect(name, stream).await.map_err(|why| why.to_string())?, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let text = |why: hyper::Error| why.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(text)?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(text)?.to_bytes();
    driver.abort();
    Ok(Response::from_parts(parts, body))
}

/// Makes the certificates of Pebble's server in `folder`.
fn certificates(folder: &Path) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let root_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&root_key).expect("a root");
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().expect("a key");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).expect("names").signed_by(&key, &issuer);
    let leaf = leaf.expect("a certificate");
    let write = |name, text: String| fs::write(folder.join(name), text).expect("a file");
    write("ca.pem", root.pem());
    write("server.pem", leaf.pem());
    write("server.key", key.serialize_pem());

    let provider = Arc::new(default_provider());
    let secret = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], secret)
        .expect("a certificate and its key");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.der().to_vec())).expect("a root");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}
