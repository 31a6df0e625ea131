//! Which proofs can an authority be given here?

use endpoint_core::config::{ChallengeKind, TlsIdentity};

use crate::{
    config::Config,
    error::{CliError, Result},
};

/// Leaves out what nobody could answer: HTTP-01 comes to plain HTTP, TLS-ALPN-01 to TLS over TCP.
///
/// # Errors
/// No proof is left for a site with `certificate = "auto"`. Exit code 2.
pub(super) fn possible(config: &mut Config, plain: bool) -> Result<()> {
    for site in &mut config.sites {
        let Some(TlsIdentity::Acme(acme)) = &mut site.certificate else { continue };
        acme.challenges.retain(|kind| plain || *kind != ChallengeKind::Http01);
        if acme.challenges.is_empty() {
            let names = site.names.join(", ");
            let message = format!(
                "{names}: `challenges` has http-01 alone, and there is no `plain_listen` to answer it on"
            );
            return Err(CliError::usage("acme-challenges", message).hint(
                "add plain_listen = [\"[::]:80\"], or \"tls-alpn-01\" to [acme] challenges",
            ));
        }
    }
    Ok(())
}
