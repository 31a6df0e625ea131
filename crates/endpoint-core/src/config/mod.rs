//! What did the operator ask for? Plain cloneable data, checked when the endpoint binds.

mod access;
mod identity;
mod limits;

pub(crate) use self::limits::RequestLimits;
pub use self::{
    access::{Access, Scope, ScopeError},
    identity::TlsIdentity,
    limits::Limits,
};
