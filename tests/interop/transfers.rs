//! The same bytes, down and up, over every version, by clients that are not ours.
//!
//! Four HTTP/3 stacks and Debian's curl fetch one file and send another to an upstream behind the proxy,
//! which answers with the hash of what reached it, while `endpoint ping` works on the same port.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use endpoint_tests::{
    count,
    machine::{Machine, Running, Said, Server},
};
use sha2::{Digest as _, Sha256};

use crate::{machine, pypi, run};

/// libcurl with ngtcp2, nghttp3 and BoringSSL.
const CURL_CFFI: &str = "curl_cffi==0.16.3";
/// libcurl with ngtcp2, nghttp3 and OpenSSL.
const PYCURL: &str = "pycurl==7.49.0";

const MIB: usize = 1024 * 1024;
/// Longest time for one client: 1 GiB takes the slowest of them minutes.
const PATIENCE: Duration = Duration::from_secs(1200);

/// A server of a file and of an upstream, and what clients need.
struct Site {
    server: Server,
    machine: Machine,
    peer: Machine,
    _upstream: Running,
    down: String,
    up: String,
    up_file: PathBuf,
    /// A folder with `NAME.pem` for each name: aioquic takes one root of a subject only.
    roots: PathBuf,
    sizes: [usize; 2],
}

/// A file of `length` bytes that repeat nowhere near; its hash.
fn fill(path: &Path, length: usize, seed: u64) -> String {
    let mut file = File::create(path).unwrap();
    let mut state = seed;
    let mut part = vec![0; MIB];
    for _ in 0..length / MIB {
        for bytes in part.chunks_mut(8) {
            // xorshift64: fast, and no block equals another.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&part).unwrap();
    }
    hash(path)
}

fn hash(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut digest, mut part) = (Sha256::new(), vec![0; MIB]);
    while let count @ 1.. = file.read(&mut part).unwrap() {
        digest.update(&part[..count]);
    }
    data_encoding::HEXLOWER.encode(&digest.finalize())
}

impl Site {
    /// The site of this name also answers for `localhost`.
    fn start(localhost: &str) -> Self {
        let (machine, peer) = (machine(), machine());
        let folder = machine.state().parent().unwrap().to_owned();
        let root = folder.join("www");
        fs::create_dir(&root).unwrap();
        let (down_file, up_file) = (root.join("big"), folder.join("up"));
        let sizes = [count(8, 1024), count(4, 256)];
        let down = fill(&down_file, sizes[0] * MIB, 1);
        let up = fill(&up_file, sizes[1] * MIB, 2);
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("foreign/digest.py")]);
        let mut upstream = Running::start(python);
        let port = upstream.line().expect("a port");
        let names = |name: &str| match name == localhost {
            true => format!("[[site]]\nnames = [\"{name}\", \"localhost\"]\n"),
            false => format!("[[site]]\nnames = [\"{name}\"]\n"),
        };
        let config = format!(
            "loopback_http = \"off\"\n{}root = \"www\"\n{}proxy = \"http://127.0.0.1:{port}\"\n",
            names("down.test"),
            names("up.test")
        );
        let file = folder.join("site.toml");
        fs::write(&file, config).unwrap();
        machine.json(&["trust", "add", &peer.fingerprint()]);
        let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
        let roots = folder.join("roots");
        fs::create_dir(&roots).unwrap();
        for name in ["down.test", "up.test"] {
            fs::write(roots.join(format!("{name}.pem")), certificate(&server, name)).unwrap();
        }
        Self {
            server,
            machine,
            peer,
            _upstream: upstream,
            down,
            up: format!("{up} {}", sizes[1] * MIB),
            up_file,
            roots,
            sizes,
        }
    }

    fn port(&self) -> String {
        self.server.port()
    }

    /// A folder of a client's own.
    fn scratch(&self, name: &str) -> PathBuf {
        let folder = self.machine.state().parent().unwrap().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// Runs a client to its end; `endpoint ping` works meanwhile.
    fn watch(&self, command: Command) -> Said {
        let mut client = Running::start(command);
        let ends = Instant::now() + PATIENCE;
        loop {
            let ping = self.peer.json(&["ping", &self.server.peer(), "-c", "3"]);
            assert_eq!(ping["rtt_ms"]["count"], 3, "{ping}");
            if !client.runs() {
                break;
            }
            assert!(Instant::now() < ends, "does not end: {client:?}");
        }
        let said = client.end();
        assert_eq!(said.code(), 0, "{said:?}");
        said
    }

    fn told(&self, who: &str, what: &str) {
        let [down, up] = self.sizes;
        println!(
            "acceptance: {who}: {what}: {down} MiB down, {up} MiB up, hashes right, ping works"
        );
    }

    /// A Python client that says `down STATUS HASH` and `up STATUS HASH LENGTH`.
    fn python(&self, package: &str, script: &str) {
        let (roots, file) = (self.roots.to_str().unwrap(), self.up_file.to_str().unwrap());
        let said = self.watch(pypi::python(package, script, &[&self.port(), roots, file]));
        assert!(said.out.contains(&format!("down 200 {}\n", self.down)), "{package}: {said:?}");
        assert!(said.out.contains(&format!("up 200 {}\n", self.up)), "{package}: {said:?}");
        self.told(package, "HTTP/3");
    }

    /// `curl` as Debian has it: over TCP, the chain checked.
    fn curl(&self, name: &str, more: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"]);
        curl.arg(self.roots.join(format!("{name}.pem")));
        curl.arg("--resolve").arg(format!("{name}:{}:127.0.0.1", self.port()));
        curl.args(["-w", "%{http_version} %{http_code}"]).args(more);
        curl.arg(format!("https://{name}:{}/big", self.port()));
        curl
    }
}

/// The certificate of a name, in PEM.
fn certificate(server: &Server, name: &str) -> String {
    let line = format!(
        "openssl s_client -connect {} -servername {name} </dev/null 2>/dev/null | openssl x509",
        server.address()
    );
    run("sh", &["-c", &line]).out
}

#[test]
fn libcurl_with_openssl_transfers_over_http3() {
    Site::start("down.test").python(PYCURL, include_str!("foreign/pycurl_client.py"));
}

#[test]
fn libcurl_with_boringssl_transfers_over_http3() {
    Site::start("down.test").python(CURL_CFFI, include_str!("foreign/curl_cffi_client.py"));
}

#[test]
fn aioquic_transfers_over_http3() {
    Site::start("down.test").python(pypi::AIOQUIC, include_str!("foreign/aioquic_client.py"));
}

/// The client of ngtcp2 with GnuTLS. It checks no certificate (it has no such option), and asks for
/// `localhost` whenever it is given an address, so each direction has a server of its own.
#[test]
fn gtlsclient_transfers_over_http3() {
    let gtls = |site: &Site, more: &[&str]| {
        let mut client = Command::new("gtlsclient");
        let folder = site.scratch("got");
        client.args([
            "--quiet",
            "--no-quic-dump",
            "--no-http-dump",
            "--exit-on-first-stream-close",
        ]);
        client.arg(format!("--download={}", folder.display())).args(more);
        client.args(["127.0.0.1", &site.port()]);
        client.arg(format!("https://localhost:{}/big", site.port()));
        (site.watch(client), folder.join("big"))
    };
    let site = Site::start("down.test");
    let (said, got) = gtls(&site, &[]);
    assert_eq!(hash(&got), site.down, "{said:?}");
    let site = Site::start("up.test");
    let body = format!("--data={}", site.up_file.display());
    let (said, got) = gtls(&site, &["--http-method=PUT", &body]);
    assert_eq!(fs::read_to_string(&got).unwrap_or_default().trim(), site.up, "{said:?}");
    site.told("gtlsclient", "HTTP/3");
}

#[test]
fn the_curl_of_debian_transfers_over_http2_and_http1() {
    let site = Site::start("down.test");
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let got = site.scratch(version).join("big");
        let words = [flag, "-o", got.to_str().unwrap()];
        let said = site.watch(site.curl("down.test", &words));
        assert_eq!(said.out, format!("{version} 200"), "{said:?}");
        assert_eq!(hash(&got), site.down, "{version}");
        // With a length; and without one, which are chunks in HTTP/1.1.
        let file = site.up_file.to_str().unwrap();
        for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            if version == "2" && !more.is_empty() {
                continue;
            }
            let said = site.watch(site.curl("up.test", &[&[flag, "-T", file], more].concat()));
            assert_eq!(said.out, format!("{}\n{version} 200", site.up), "{more:?}: {said:?}");
        }
        site.told("curl of Debian", &format!("HTTP/{version}"));
    }
}
