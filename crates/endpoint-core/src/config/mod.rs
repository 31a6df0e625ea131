//! What did the operator ask for? Plain cloneable data, checked when the endpoint binds.

/// One limit: a method of [`Limits`] that sets the field of that path.
macro_rules! limit {
    ($(#[$doc:meta])* $name:ident: $kind:ty => $($field:ident).+) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $kind) -> Self {
            self.$($field).+ = $name.into();
            self
        }
    };
}

mod access;
mod acme;
mod admission;
mod bundle;
mod identity;
mod limits;
pub(crate) mod pace;
mod tailscale;

pub use self::{
    access::{Access, Scope, ScopeError},
    acme::{
        Acme, AcmeDirectory, AcmeEngine, AcmeIssuer, CertificateKey, ChallengeKind,
        ExternalAccount, StoreConfig, StoreSecret,
    },
    bundle::{Bundle, BundleLocation},
    identity::TlsIdentity,
    limits::Limits,
    tailscale::Tailscale,
};
pub(crate) use self::{admission::PenaltyLimits, limits::RequestLimits, pace::PaceLimits};
