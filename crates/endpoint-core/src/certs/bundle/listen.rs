//! May the names of a bundle be served at these addresses?
//!
//! The first of two checks: when the endpoint binds, and then for each connection
//! ([`Reach`](crate::facts::Reach)).

use std::{fmt::Display, net::SocketAddr};

use crate::facts::is_loopback;

/// Refuses to listen beyond loopback when names are served from a shared bundle.
pub(crate) fn check_listen(
    names: &[String],
    bundle: &impl Display,
    listen: &[SocketAddr],
) -> Result<(), String> {
    match listen.iter().find(|address| !is_loopback(address.ip())) {
        None => Ok(()),
        Some(address) => Err(format!(
            "{} is served from the bundle {bundle}, whose key others have too, so it may be served on \
             loopback only, and {address} is not; listen on 127.0.0.1 and [::1], or give the site another \
             certificate",
            names.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_bundle_and_the_address_that_do_not_go_together() {
        let names = ["a.example".to_owned()];
        let check = |listen: &[&str]| {
            let listen: Vec<_> = listen.iter().map(|text| text.parse().unwrap()).collect();
            check_listen(&names, &"/etc/a.bundle", &listen)
        };
        assert!(check(&["127.0.0.1:443", "[::1]:443", "127.0.0.2:0"]).is_ok());
        for other in ["0.0.0.0:443", "[::]:443", "192.0.2.1:1", "[::ffff:0.0.0.0]:1"] {
            let text = check(&["127.0.0.1:443", other]).unwrap_err();
            for part in ["a.example", "/etc/a.bundle"] {
                assert!(text.contains(part), "{text}");
            }
            assert!(text.contains(&other.parse::<SocketAddr>().unwrap().to_string()), "{text}");
        }
    }
}
