//! What would `serve` refuse, beyond what the file's text shows?
//!
//! Always true: writes nothing, listens nowhere, calls nobody.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use endpoint_core::{
    config::TlsIdentity,
    endpoint::{Builder, Endpoint},
    identity::Identity,
};

use super::{ports, proofs};
use crate::{
    config::{
        Config, Site, value,
        web::{Content, Upstream},
    },
    error::{CliError, ExitKind, Result},
    web::Web,
};

/// Judges a configuration as `serve` does.
///
/// # Errors
/// What `serve` would refuse. Exit code 2.
///
/// Gives what it would take, and serve with something else: certificates in files that have ended, say.
pub(in super::super) async fn all(config: &Config) -> Result<Vec<String>> {
    let listen = match config.listen.as_slice() {
        [] => &value::default_listen(),
        listen => listen,
    };
    ports::clashes(listen, config)?;
    proofs::possible(&mut config.clone(), !config.plain_listen.is_empty())?;
    let doubtful = certificates(config).await?;
    authorities(config)?;
    let loopback = ports::loopback(config);
    let own: Vec<SocketAddr> =
        listen.iter().chain(&config.plain_listen).chain(&loopback).copied().collect();
    let sites: Vec<Site> = config.sites.iter().map(without_look_ups).collect();
    Web::prepare(&sites, &ports::own(own, &sites), 1, &config.web)?;
    Ok(doubtful)
}

/// Loads the certificates that are files.
///
/// # Errors
/// One that is not there or cannot be read. Exit code 2.
///
/// Gives what is wrong with those that can be read and not be served.
pub(super) async fn certificates(config: &Config) -> Result<Vec<String>> {
    let files: Vec<(&Site, TlsIdentity)> = config
        .sites
        .iter()
        .filter_map(|site| match &site.certificate {
            Some(files @ TlsIdentity::X509 { .. }) => Some((site, files.clone())),
            _ => None,
        })
        .collect();
    if files.is_empty() {
        return Ok(Vec::new());
    }
    // An endpoint that listens nowhere and has a key of the moment.
    let identity = Identity::generate()
        .map_err(|error| CliError::failure("randomness", format!("no key can be made: {error}")))?;
    let builder = files.into_iter().fold(Endpoint::builder(identity), |builder, (site, files)| {
        builder.server_names(&site.names, files)
    });
    let endpoint = builder.bind().await.map_err(|error| {
        CliError::told("certificate", ExitKind::Usage, &error).hint("name PEM files that belong together: certificate = { cert = \"FILE\", key = \"FILE\" }")
    })?;
    let doubtful = endpoint.certificates().into_iter().filter_map(|info| info.last_error).collect();
    endpoint.close_now();
    Ok(doubtful)
}

/// Reads the files that authorities are known by.
///
/// # Errors
/// Roots or the key of an account that cannot be used. Exit code 2.
fn authorities(config: &Config) -> Result<()> {
    for site in &config.sites {
        let Some(TlsIdentity::Acme(acme)) = &site.certificate else { continue };
        Builder::check_acme(acme).map_err(|error| {
            CliError::told("certificate", ExitKind::Usage, &error)
                .hint("name files that can be read: [acme] ca_root, eab")
        })?;
    }
    Ok(())
}

/// The site without the upstreams whose names only a look-up could tell.
fn without_look_ups(site: &Site) -> Site {
    let mut site = site.clone();
    if let Content::Proxy(upstreams) = &mut site.content {
        *upstreams = upstreams.iter().flat_map(known).collect();
    }
    site
}

/// The upstream by its addresses; none if those are not known.
fn known(upstream: &Upstream) -> Vec<Upstream> {
    let Upstream::Tcp { authority, http2 } = upstream else { return vec![upstream.clone()] };
    let port = authority.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let addresses: Vec<SocketAddr> = match (authority.parse(), port) {
        (Ok(address), _) => vec![address],
        (_, Some(port)) => {
            vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
        }
        _ => Vec::new(),
    };
    let upstream =
        |address: SocketAddr| Upstream::Tcp { authority: address.to_string(), http2: *http2 };
    addresses.into_iter().map(upstream).collect()
}
