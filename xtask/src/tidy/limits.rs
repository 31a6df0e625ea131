//! Is every limit of the libraries that speak to strangers set on purpose?
//!
//! Reads the sources of the pinned versions, lists each setter of their configurations, and wants each
//! called where that configuration is made, or excused in [`EXCUSED`] with a reason. A configuration that
//! is made elsewhere is a finding too. So an update that brings a new limit does not pass unseen.
//!
//! In the same sources: does our walk over QUIC frames know every frame that quinn-proto knows?

use std::{collections::BTreeMap, path::Path};

use super::{Finding, Source};
use crate::run::cargo;

/// A configuration of a library.
struct Config {
    /// How findings and excuses call it.
    name: &'static str,
    package: &'static str,
    file: &'static str,
    /// The line that opens the block of its setters.
    block: &'static str,
    /// What makes one.
    made: &'static str,
    /// Where it is made.
    sites: &'static [&'static str],
    /// Whether its setters are called between what makes it and what uses it, or anywhere in [`QUIC`].
    chained: bool,
}

const QUIC: [&str; 4] = [
    "crates/endpoint-core/src/transport/quic.rs",
    "crates/endpoint-core/src/transport/keys.rs",
    "crates/endpoint-core/src/transport/qlog.rs",
    "crates/endpoint-core/src/endpoint/dial.rs",
];
const TCP: &str = "crates/endpoint-core/src/http/tcp.rs";
const CLIENT: &str = "crates/endpoint-core/src/http/client/mod.rs";
const CLIENT_HTTP2: &str = "crates/endpoint-core/src/http/client/http2.rs";
const POOL: &str = "crates/endpoint-cli/src/web/proxy/pool.rs";
const FETCH: &str = "crates/endpoint-core/src/transport/fetch.rs";

const fn quic(
    name: &'static str,
    file: &'static str,
    block: &'static str,
    made: &'static str,
    sites: &'static [&'static str],
) -> Config {
    Config { name, package: "quinn-proto", file, block, made, sites, chained: false }
}

const CONFIGS: [Config; 13] = [
    quic(
        "TransportConfig",
        "src/config/transport.rs",
        "impl TransportConfig {",
        "TransportConfig::default()",
        &[QUIC[0]],
    ),
    quic(
        "MtuDiscoveryConfig",
        "src/config/transport.rs",
        "impl MtuDiscoveryConfig {",
        "MtuDiscoveryConfig::default()",
        &[QUIC[0]],
    ),
    quic(
        "EndpointConfig",
        "src/config/mod.rs",
        "impl EndpointConfig {",
        "EndpointConfig::new(",
        &[QUIC[1]],
    ),
    quic(
        "ServerConfig",
        "src/config/mod.rs",
        "impl ServerConfig {",
        " ServerConfig::with_crypto(",
        &[QUIC[0]],
    ),
    quic(
        "ValidationTokenConfig",
        "src/config/mod.rs",
        "impl ValidationTokenConfig {",
        "ValidationTokenConfig::default()",
        &[QUIC[0]],
    ),
    quic(
        "ClientConfig",
        "src/config/mod.rs",
        "impl ClientConfig {",
        "quinn::ClientConfig::new(",
        &[QUIC[3]],
    ),
    quic(
        "CubicConfig",
        "src/congestion/cubic.rs",
        "impl CubicConfig {",
        "CubicConfig::default()",
        &[QUIC[0]],
    ),
    Config {
        name: "server http1",
        package: "hyper",
        file: "src/server/conn/http1.rs",
        block: "impl Builder {",
        made: "conn::http1::Builder::new()",
        sites: &[TCP],
        chained: true,
    },
    Config {
        name: "server http2",
        package: "hyper",
        file: "src/server/conn/http2.rs",
        block: "impl<E> Builder<E> {",
        made: "conn::http2::Builder::new(",
        sites: &[TCP],
        chained: true,
    },
    Config {
        name: "client http1",
        package: "hyper",
        file: "src/client/conn/http1.rs",
        block: "impl Builder {",
        made: " http1::Builder::new()",
        sites: &[CLIENT, POOL, FETCH],
        chained: true,
    },
    Config {
        name: "client http2",
        package: "hyper",
        file: "src/client/conn/http2.rs",
        block: "impl<Ex> Builder<Ex>",
        made: " http2::Builder::new(",
        sites: &[CLIENT_HTTP2],
        chained: true,
    },
    Config {
        name: "server http3",
        package: "h3",
        file: "src/server/builder.rs",
        block: "impl Builder {",
        made: "h3::server::builder()",
        sites: &["crates/endpoint-core/src/http/http3.rs"],
        chained: true,
    },
    Config {
        name: "client http3",
        package: "h3",
        file: "src/client/builder.rs",
        block: "impl Builder {",
        made: "h3::client::builder()",
        sites: &["crates/endpoint-core/src/http/client/http3.rs"],
        chained: true,
    },
];

/// Setters that are not called: of which configuration, which, why.
const EXCUSED: [(&str, &str, &str); 44] = [
    ("EndpointConfig", "reset_key", "the constructor takes it"),
    ("ServerConfig", "preferred_address_v4", "none is offered; no limit"),
    ("ServerConfig", "preferred_address_v6", "none is offered; no limit"),
    ("ServerConfig", "time_source", "the system's, as everywhere; no limit"),
    ("ClientConfig", "initial_dst_cid_provider", "20 random bytes, the most there can be"),
    ("ClientConfig", "version", "1; no limit"),
    ("CubicConfig", "initial_window", "what RFC 9002 §7.2 recommends, from the size of datagrams"),
    ("server http1", "title_case_headers", "how answers look; no limit"),
    (
        "server http1",
        "allow_multiple_spaces_in_request_line_delimiters",
        "strict unless it is called",
    ),
    ("server http1", "ignore_invalid_headers", "strict unless it is called"),
    ("server http1", "preserve_header_case", "how answers look; no limit"),
    (
        "server http1",
        "max_headers",
        "100; to set it costs each request an allocation, 5 % by hyper's own figure",
    ),
    ("server http1", "max_header_size", "max_buf_size bounds it, and trailers have 16 KiB"),
    ("server http1", "writev", "how bytes are written; no limit"),
    ("server http1", "auto_date_header", "how answers look; no limit"),
    ("server http1", "pipeline_flush", "how bytes are written; no limit"),
    ("server http2", "adaptive_window", "would replace the windows that are set"),
    ("server http2", "enable_connect_protocol", "not spoken; no limit"),
    ("server http2", "auto_date_header", "how answers look; no limit"),
    ("client http1", "http09_responses", "refused unless it is called"),
    ("client http1", "allow_spaces_after_header_name_in_responses", "strict unless it is called"),
    ("client http1", "allow_obsolete_multiline_headers_in_responses", "strict unless it is called"),
    ("client http1", "ignore_invalid_headers_in_responses", "strict unless it is called"),
    ("client http1", "max_headers", "in the proxy 100; to set it costs each answer an allocation"),
    ("client http1", "max_header_size", "max_buf_size bounds it, and trailers have 16 KiB"),
    ("client http1", "writev", "how bytes are written; no limit"),
    ("client http1", "title_case_headers", "how requests look; no limit"),
    ("client http1", "preserve_header_case", "how requests look; no limit"),
    ("client http1", "preserve_header_order", "only for its C interface"),
    ("client http1", "read_buf_exact_size", "takes the place of max_buf_size"),
    ("client http2", "adaptive_window", "would replace the windows that are set"),
    ("client http2", "keep_alive_while_idle", "no pings are sent; requests have deadlines"),
    ("client http2", "keep_alive_interval", "no pings are sent; requests have deadlines"),
    ("client http2", "keep_alive_timeout", "no pings are sent; requests have deadlines"),
    ("server http3", "send_settings", "sent unless it is called; no limit"),
    ("server http3", "enable_webtransport", "not spoken; no limit"),
    ("server http3", "enable_extended_connect", "not spoken; no limit"),
    ("server http3", "max_webtransport_sessions", "not spoken; none"),
    ("server http3", "enable_datagram", "not spoken; no limit"),
    ("client http3", "send_settings", "sent unless it is called; no limit"),
    ("client http3", "enable_datagram", "not spoken; no limit"),
    ("client http3", "enable_extended_connect", "not spoken; no limit"),
    ("client http2", "max_concurrent_streams", "hyper turns pushes off: servers open no streams"),
    ("client http2", "max_pending_accept_reset_streams", "hyper turns pushes off"),
];

const FRAMES: &str = "crates/endpoint-core/src/transport/frames.rs";

/// Compares our sources with those of the pinned versions.
///
/// # Errors
/// The libraries' sources cannot be found or read.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>, String> {
    let folders = folders(root)?;
    let read = |package: &str, file: &str| {
        let folder = folders.get(package).ok_or_else(|| format!("no package {package}"))?;
        let path = Path::new(folder).join(file);
        std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let mut findings = Vec::new();
    for config in &CONFIGS {
        let setters = setters(&read(config.package, config.file)?, config.block);
        findings.extend(compare(config, &setters, sources));
    }
    let theirs = read("quinn-proto", "src/frame.rs")?;
    findings.extend(frames(&theirs, sources));
    Ok(findings)
}

/// Where the sources of each package are, by its name.
fn folders(root: &Path) -> Result<BTreeMap<String, String>, String> {
    let ask = |offline: bool| {
        let mut command = cargo(root);
        command.args(["metadata", "--format-version", "1", "--locked"]);
        command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
        if offline {
            command.arg("--offline");
        }
        command.output().map_err(|error| format!("cargo metadata: {error}"))
    };
    let mut output = ask(true)?;
    if !output.status.success() {
        // A fresh clone whose packages were not fetched yet.
        output = ask(false)?;
    }
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata is no JSON: {error}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?).parent()?;
            Some((package["name"].as_str()?.to_owned(), manifest.to_str()?.to_owned()))
        })
        .collect())
}

/// The methods that change their object, of the blocks that open with this line.
fn setters(text: &str, block: &str) -> Vec<String> {
    let mut setters = Vec::new();
    let mut inside = false;
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with(block) {
            inside = true;
        } else if line.starts_with('}') {
            inside = false;
        }
        let Some(rest) = line.strip_prefix("    pub fn ").filter(|_| inside) else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let signature = lines.iter().skip(at).take(8).copied().collect::<Vec<_>>().join(" ");
        let signature = signature.split_once(" {").map_or(signature.as_str(), |(head, _)| head);
        if signature.contains("&mut self") && signature.contains("->") {
            setters.push(name);
        }
    }
    setters
}

fn is_ours(path: &str) -> bool {
    path.starts_with("crates/") && path.contains("/src/") && !path.contains("test")
}

/// The text without the tests at its end and without comments.
fn shipped(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What follows the making of a configuration until it is used; a statement where that is not seen.
fn until_used(rest: &str) -> &str {
    let used = USES.iter().filter_map(|used| rest.find(used)).min();
    let end = used.or_else(|| rest.find(';')).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// What takes a configuration whose setters are called in one place.
const USES: [&str; 3] = [".serve_connection(", ".handshake(", ".build::<"];

/// Calls without spaces and line breaks before their dot.
fn calls(text: &str, setter: &str) -> bool {
    text.contains(&format!(".{setter}("))
}

fn compare(config: &Config, setters: &[String], sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if setters.is_empty() {
        let text = format!("no setter of {} found in {}", config.name, config.file);
        return vec![Finding::error("Cargo.lock", 0, text)];
    }
    let ours: Vec<(&str, String)> = sources
        .iter()
        .filter(|source| is_ours(&source.path))
        .map(|source| (source.path.as_str(), shipped(&source.text)))
        .collect();
    let mut wanting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, text) in &ours {
        let made = text.matches(config.made).count();
        if made == 0 {
            continue;
        }
        if !config.sites.contains(path) {
            let text = format!("{} is made here; name the place in tidy/limits.rs", config.name);
            findings.push(Finding::error(path, 0, text));
        }
        let chains: Vec<String> = match config.chained {
            true => {
                text.split(config.made).skip(1).map(|rest| until_used(rest).to_owned()).collect()
            }
            false => {
                let of_quic = ours.iter().filter(|(path, _)| QUIC.contains(path));
                vec![of_quic.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n")]
            }
        };
        for setter in setters {
            if chains.iter().any(|chain| !calls(chain, setter)) {
                wanting.entry(setter).or_default().push(path);
            }
        }
    }
    for site in config.sites {
        let made = ours.iter().any(|(path, text)| path == site && text.contains(config.made));
        if !made {
            let text = format!("{} is no longer made here; mend tidy/limits.rs", config.name);
            findings.push(Finding::error(site, 0, text));
        }
    }
    let excused = |setter: &str| {
        EXCUSED.iter().any(|(name, excused, _)| *name == config.name && *excused == setter)
    };
    for (setter, paths) in &wanting {
        if excused(setter) {
            continue;
        }
        for path in paths {
            let text = format!(
                "{}: `{setter}` of {} {} is left at its default; set it, or excuse it with a reason",
                config.name, config.package, config.file
            );
            findings.push(Finding::error(path, 0, text));
        }
    }
    for (name, setter, _) in EXCUSED {
        if name == config.name && !wanting.contains_key(setter) {
            let text = format!("{name}: `{setter}` is excused, but called or gone");
            findings.push(Finding::error("xtask/src/tidy/limits.rs", 0, text));
        }
    }
    findings
}

/// Frame types of quinn-proto that our walk does not know.
fn frames(theirs: &str, sources: &[Source]) -> Vec<Finding> {
    let ours = sources.iter().find(|source| source.path == FRAMES);
    let ours = ours.map(|source| shipped(&source.text)).unwrap_or_default();
    let known = |number: u64| {
        ours.lines().any(|line| {
            let value = line.strip_prefix("const ").and_then(|line| line.split_once(": u64 = 0x"));
            value.and_then(|(_, value)| u64::from_str_radix(value.trim_end_matches(';'), 16).ok())
                == Some(number)
        })
    };
    let table = theirs.split("\nframe_types! {").nth(1).and_then(|rest| rest.split('}').next());
    let mut types: Vec<(&str, u64)> = table
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(" = 0x"))
        .filter_map(|(name, value)| Some((name, u64::from_str_radix(value, 16).ok()?)))
        .collect();
    let ranges = ["STREAM_TYS", "DATAGRAM_TYS"].map(|name| {
        let line = theirs.lines().find(|line| line.starts_with(&format!("const {name}:")))?;
        let last = line.rsplit_once("0x")?.1.trim_end_matches(");");
        Some((name, u64::from_str_radix(last, 16).ok()?))
    });
    if types.len() < 20 || ranges.contains(&None) {
        let text = "the frame types of quinn-proto are not where they were; mend tidy/limits.rs";
        return vec![Finding::error(FRAMES, 0, text)];
    }
    types.extend(ranges.into_iter().flatten());
    types
        .into_iter()
        .filter(|(_, number)| !known(*number))
        .map(|(name, number)| {
            Finding::error(FRAMES, 0, format!("{name} ({number:#04x}) of quinn-proto is unknown"))
        })
        .collect()
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
