//! What did the operator ask for? Plain cloneable data, checked when the endpoint binds.

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
pub(crate) use self::{limits::RequestLimits, pace::PaceLimits};
