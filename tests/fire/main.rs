//! Strangers do their worst; who else comes in meanwhile?

mod crowd;
mod honest;
mod strangers;
