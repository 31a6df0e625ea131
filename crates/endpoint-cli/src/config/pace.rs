//! The times of `[limits]`: how long strangers may be silent, and how slow a request may be.

use std::time::Duration;

use endpoint_core::config::Limits;
use toml::de::DeTable;

use super::{read::Reader, value};

type Set = fn(Limits, Duration) -> Limits;

/// Each time, and what it sets.
const TIMES: [(&str, Set); 7] = [
    ("first_byte_deadline", Limits::first_byte_deadline),
    ("crowded_first_byte_deadline", Limits::crowded_first_byte_deadline),
    ("first_request_deadline", Limits::first_request_deadline),
    ("stranger_idle", Limits::stranger_idle),
    ("crowded_stranger_idle", Limits::crowded_stranger_idle),
    ("request_body_idle", Limits::request_body_idle),
    ("request_body_grace", Limits::request_body_grace),
];

/// Bytes a second.
const RATE: &str = "request_body_rate";
const FASTEST: usize = 1 << 30;

/// The names of all of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TIMES.iter().map(|(name, _)| *name).chain([RATE])
}

/// Sets those that the table has.
pub(super) fn read<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>, limits: Limits) -> Limits {
    let mut limits = limits;
    for (name, set) in TIMES {
        let Some(value) = table.get(name) else { continue };
        let time = reader.parsed(value, "a time such as \"10s\"", |text| {
            value::duration(text).and_then(|time| match time.is_zero() {
                true => Err("expected a time longer than nothing".to_owned()),
                false => Ok(time),
            })
        });
        if let Some(time) = time {
            limits = set(limits, time);
        }
    }
    if let Some(rate) = table.get(RATE).and_then(|value| reader.number(value, FASTEST)) {
        limits = limits.request_body_rate(u32::try_from(rate).unwrap_or(u32::MAX));
    }
    limits
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, EXAMPLE};

    #[test]
    fn takes_each_time_and_refuses_none_at_all() {
        for name in names() {
            assert!(EXAMPLE.contains(&format!("\n{name} = ")), "{name}");
        }
        let times: String = TIMES.iter().map(|(name, _)| format!("{name} = \"77m\"\n")).collect();
        let text = format!("[limits]\n{times}{RATE} = 78\n");
        let config = Config::parse(&text, Path::new("e.toml")).unwrap();
        let told = format!("{:?}", config.limits);
        assert_eq!(told.matches("4620s").count(), TIMES.len(), "{told}");
        assert!(told.contains("least_rate: 78"), "{told}");
        let limits = config.limits;
        assert_ne!(format!("{limits:?}"), format!("{:?}", Config::default().limits));
        for bad in ["first_byte_deadline = \"0s\"", "stranger_idle = 60", "request_body_rate = 0"] {
            assert!(Config::parse(&format!("[limits]\n{bad}"), Path::new("e.toml")).is_err());
        }
    }
}
