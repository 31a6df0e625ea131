//! Peers on one port: identity, dispatch, trust, revocation, life cycle.

mod attacks;
mod binding;
mod containment;
mod credit;
mod lifecycle;
mod matrix;
mod moves;
mod one_port;
mod places;
mod places_tcp;
mod process;
mod refusals;
mod revocation;
mod smoke;
mod trust_file;
