//! The scenarios of the QUIC interop runner, against the endpoint, through a path that treats datagrams badly.
//!
//! The clients are not the endpoint's own: rustls, quinn and h3 used directly, or bytes. What this endpoint does
//! not do (early data, version 2) is shown as what happens instead.

mod amplification;
mod loss;
mod moves;
mod plain;
mod site;
mod versions;
