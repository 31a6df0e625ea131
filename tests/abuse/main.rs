//! Hostile HTTP: each attack has a bound, and others are served meanwhile.

mod conformance;
mod cors;
mod cut_off;
mod drain;
mod h3_floods;
mod harvest;
mod http2;
mod kill;
mod memory;
mod quic;
mod raw;
mod raw2;
mod smuggling;
mod stalled;
mod untaken;
mod upstream;
mod yard;
