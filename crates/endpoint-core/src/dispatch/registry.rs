//! The ordered list of handlers.

use std::{fmt, sync::Arc};

use crate::{
    alpn::Alpn,
    config::Access,
    handler::{DynHandler, Handler},
    tls::{AlpnClass, Offer},
};

/// One handler with the rule for who may reach it.
#[derive(Clone)]
pub(crate) struct Route {
    alpn: Alpn,
    access: Access,
    handler: Arc<dyn DynHandler>,
}

impl Route {
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn handler(&self) -> &Arc<dyn DynHandler> {
        &self.handler
    }
}

/// Handlers in the order of registration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Vec<Route>);

impl Registry {
    /// Adds a handler at the end.
    pub(crate) fn add(
        &mut self,
        alpn: Alpn,
        access: Access,
        handler: impl Handler,
    ) -> Result<(), RegisterError> {
        //= https://www.rfc-editor.org/rfc/rfc8737#section-4
        //# The acme-tls/1 protocol does not carry application data.
        if alpn == Alpn::ACME_TLS_1 {
            return Err(RegisterError::Reserved { alpn });
        }
        if access == Access::Enroll && alpn != Alpn::ENROLL_1 {
            return Err(RegisterError::EnrollOnly { alpn });
        }
        if self.find(&alpn).is_some() {
            return Err(RegisterError::Duplicate { alpn });
        }
        self.0.push(Route { alpn, access, handler: Arc::new(handler) });
        Ok(())
    }

    /// Takes a handler out; `false` if there was none.
    pub(crate) fn remove(&mut self, alpn: &Alpn) -> bool {
        let before = self.0.len();
        self.0.retain(|route| route.alpn != *alpn);
        self.0.len() < before
    }

    pub(crate) fn find(&self, alpn: &Alpn) -> Option<&Route> {
        self.0.iter().find(|route| route.alpn == *alpn)
    }

    /// What the TLS step may negotiate, in order of preference.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        let offer = |route: &Route| Offer {
            alpn: route.alpn.clone(),
            class: match route.access {
                _ if route.alpn.is_http() => AlpnClass::Http,
                Access::Public | Access::Loopback => AlpnClass::Public,
                Access::Peer(_) | Access::Enroll => AlpnClass::Peer,
            },
            tcp: route.handler.takes_tcp(),
        };
        self.0.iter().map(offer).collect()
    }

    /// The protocols and rules, in order.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&Alpn, &Access)> {
        self.0.iter().map(|route| (&route.alpn, &route.access))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.alpn, self.access)
    }
}

/// Why a handler cannot be registered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The protocol has a handler.
    #[error("`{alpn}` is registered already; remove it first or register one handler for both")]
    Duplicate {
        /// The protocol.
        alpn: Alpn,
    },
    /// The rule is `enroll/1`'s alone.
    #[error("access `enroll` is for `enroll/1` only, not for `{alpn}`")]
    EnrollOnly {
        /// The protocol.
        alpn: Alpn,
    },
    /// The protocol is answered during the handshake.
    #[error("`{alpn}` is answered during the handshake and has no handler")]
    Reserved {
        /// The protocol.
        alpn: Alpn,
    },
    /// The protocols cannot be offered.
    #[error("the protocols cannot be offered: {0}")]
    Tls(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Echo;

    #[test]
    fn keeps_the_order_and_refuses_duplicates_and_reserved_names() {
        let mut registry = Registry::default();
        registry.add(Alpn::PING_1, Access::default(), Echo).unwrap();
        registry.add(Alpn::ECHO_1, Access::Public, Echo).unwrap();
        let names: Vec<_> = registry.list().map(|(alpn, _)| alpn.clone()).collect();
        assert_eq!(names, [Alpn::PING_1, Alpn::ECHO_1]);
        assert!(matches!(
            registry.add(Alpn::ECHO_1, Access::Public, Echo),
            Err(RegisterError::Duplicate { .. })
        ));
        assert!(matches!(
            registry.add(Alpn::ACME_TLS_1, Access::Public, Echo),
            Err(RegisterError::Reserved { .. })
        ));
        assert!(matches!(
            registry.add(Alpn::H3, Access::Enroll, Echo),
            Err(RegisterError::EnrollOnly { .. })
        ));
        assert!(registry.remove(&Alpn::ECHO_1));
        assert!(!registry.remove(&Alpn::ECHO_1));
    }
}
