//! Is this text an address, a time, a protocol?
//!
//! The parsers that the command line and the configuration file share. Pure. Every refusal says
//! what was expected, in words a user can act on.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use endpoint_core::alpn::Alpn;
use ipnet::IpNet;

/// An address to listen on: IP and port, port 0 for a free one.
///
/// # Errors
/// What was expected.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text.rsplit_once(':') {
        Some(("localhost", port)) if port.parse::<u16>().is_ok() => {
            format!("expected an address, not a name: 127.0.0.1:{port} or [::1]:{port}")
        }
        Some(("", port)) if port.parse::<u16>().is_ok() => {
            format!("expected an address before the port: 127.0.0.1:{port} or [::]:{port}")
        }
        _ => "expected an address such as 127.0.0.1:4433 or [::]:4433".to_owned(),
    })
}

/// Where `serve` listens unless told otherwise.
#[must_use]
pub fn default_listen() -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, 4433).into(), (Ipv6Addr::LOCALHOST, 4433).into()]
}

/// An IP address.
///
/// # Errors
/// What was expected.
pub fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IP address such as 192.0.2.7 or 2001:db8::7".to_owned())
}

/// A network, or an address for itself alone.
///
/// # Errors
/// What was expected.
pub fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(one).ok_or_else(|| {
        "expected a network such as 10.0.0.0/8 or an address such as 192.0.2.7".to_owned()
    })
}

/// A protocol name.
///
/// # Errors
/// What was expected.
pub fn alpn(text: &str) -> Result<Alpn, String> {
    text.parse::<Alpn>().map_err(|error| error.to_string())
}

/// A number of repetitions.
///
/// # Errors
/// What was expected.
pub fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("expected a number from 1 to 1000000".to_owned()),
    }
}

/// A time span: a whole number and `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time such as 500ms, 10s, 5m or 1h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(expected)?;
    let number: u64 = number.parse().map_err(|_| expected())?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    let total = number.checked_mul(milliseconds).ok_or_else(expected)?;
    Ok(Duration::from_millis(total))
}

/// A size: a whole number and `B`, `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// What was expected.
pub fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a size such as 64KiB, 10MiB or 1GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(expected)?;
    let number: u64 = number.parse().map_err(|_| expected())?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    number.checked_mul(bytes).ok_or_else(expected)
}

/// What stands for a time in the words of a fault.
pub const A_TIME: &str = "a time such as \"10s\"";
/// The same for a size.
pub const A_SIZE: &str = "a size such as \"64MiB\"";

/// A time span within `range`.
///
/// # Errors
/// What was expected.
pub fn duration_within(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    within(duration(text)?, &range, "a time", time_text)
}

fn within<T: PartialOrd + Copy>(
    value: T,
    range: &RangeInclusive<T>,
    what: &str,
    text: fn(T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("expected {what} from {} to {}", text(*range.start()), text(*range.end())))
}

/// A time of silence or of waiting: none at all would end everything.
///
/// # Errors
/// What was expected.
pub fn silence(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(1)..=Duration::from_secs(365 * 86_400))
}

/// A size within `range`.
///
/// # Errors
/// What was expected.
pub fn size_within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    within(size(text)?, &range, "a size", size_text)
}

/// A time span as [`duration`] reads it, in the largest unit that leaves a whole number.
#[must_use]
pub fn time_text(time: Duration) -> String {
    let milliseconds = time.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let whole = |length: u128| milliseconds >= length && milliseconds.is_multiple_of(length);
    let unit = units.into_iter().find(|(_, length)| whole(*length));
    let (unit, length) = unit.unwrap_or(("ms", 1));
    format!("{}{unit}", milliseconds / length)
}

/// A size as [`size`] reads it, in the largest unit that leaves a whole number.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = |length: u64| bytes >= length && bytes.is_multiple_of(length);
    let (unit, length) = units.into_iter().find(|(_, length)| whole(*length)).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / length)
}

/// An option of `authorized_peers` as an argument: `NAME=VALUE`.
///
/// # Errors
/// What was expected.
pub fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as alpn=echo/1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_refuses_what_is_none() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "10", "s", "-1s", "1.5s", "10 s", "99999999999999999999s", "10é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_times_and_sizes_as_it_reads_them_and_holds_them_to_a_range() {
        for text in ["0ms", "1ms", "1500ms", "59s", "1m", "90m", "36h", "365d"] {
            assert_eq!(time_text(duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "1025B", "64KiB", "10MiB", "1024GiB"] {
            assert_eq!(size_text(size(text).unwrap()), text);
        }
        let second = Duration::from_secs(1);
        assert_eq!(duration_within("1s", second..=second), Ok(second));
        let refused = duration_within("999ms", second..=second * 60);
        assert_eq!(refused.unwrap_err(), "expected a time from 1s to 1m");
        let refused = size_within("2KiB", 0..=1024);
        assert_eq!(refused.unwrap_err(), "expected a size from 0B to 1KiB");
        assert!(silence("0s").is_err() && silence("1ms").is_ok());
    }

    #[test]
    fn says_what_to_write_in_place_of_a_name() {
        assert!(listen("localhost:4433").unwrap_err().contains("127.0.0.1:4433"));
        assert!(listen(":4433").unwrap_err().contains("[::]:4433"));
        assert_eq!(listen("127.0.0.1:0").unwrap().port(), 0);
    }

    #[test]
    fn keeps_equal_signs_inside_an_option_value() {
        assert_eq!(option("name=a=b"), Ok(("name".into(), "a=b".into())));
        assert!(option("=x").is_err());
    }
}
