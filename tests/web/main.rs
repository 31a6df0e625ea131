//! The web server and the HTTP of the library, against clients of their own.

mod access;
mod basics;
mod client;
mod compressions;
mod early;
mod ends;
mod fetch;
mod log;
mod matrix;
mod moves;
mod names;
mod plain;
mod program;
mod rules;
mod silences;
mod site;
mod sites;
mod trailers;
mod uploads;
mod upstream;
