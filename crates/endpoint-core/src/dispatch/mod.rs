//! Which handler serves this protocol? Step 4 of 6.
//!
//! Takes the negotiated ALPN; gives the route. Handlers can be added and removed while the endpoint runs.
//! Not here: which protocol may be negotiated on which profile (`tls::choose`), who may use it (`trust`).
//!
//! Always true: the order of registration is the server's order of preference; a protocol is registered
//! once; `acme-tls/1` is answered during the handshake and never reaches a handler (RFC 8737 §4).

mod registry;

pub use self::registry::RegisterError;
pub(crate) use self::registry::{Registry, Route};
