//! From when until when is a certificate valid?
//!
//! Reads the two times out of the DER of a certificate (RFC 5280 §4.1.2.5), which rustls checks but
//! does not tell. Only for certificates of our own: nothing here judges a peer.

use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::TimeZone,
};

/// The first and the last second of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Validity {
    /// Reads the validity of a certificate in DER; `None` if it has not the form of one.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let (mut certificate, _) = field(certificate, SEQUENCE)?;
        let mut body = take(&mut certificate, SEQUENCE)?;
        let _version = take(&mut body, VERSION);
        take(&mut body, INTEGER)?; // serial number
        take(&mut body, SEQUENCE)?; // signature algorithm
        take(&mut body, SEQUENCE)?; // issuer
        let mut validity = take(&mut body, SEQUENCE)?;
        let from = time(&mut validity)?;
        let until = time(&mut validity)?;
        Some(Self { from, until })
    }
}

/// UTCTime or GeneralizedTime, in the one form that RFC 5280 allows: to the second, in UTC.
fn time(rest: &mut &[u8]) -> Option<Timestamp> {
    let (year, digits) = if let Some(text) = take(rest, UTC_TIME) {
        let (year, digits) = number(text, 2)?;
        (if year < 50 { 2000 + year } else { 1900 + year }, digits)
    } else {
        let text = take(rest, GENERALIZED_TIME)?;
        number(text, 4)?
    };
    let (month, digits) = number(digits, 2)?;
    let (day, digits) = number(digits, 2)?;
    let (hour, digits) = number(digits, 2)?;
    let (minute, digits) = number(digits, 2)?;
    let (second, digits) = number(digits, 2)?;
    if digits != b"Z" {
        return None;
    }
    let small = |n: i16| i8::try_from(n).ok();
    let day = Date::new(year, small(month)?, small(day)?).ok()?;
    let time = Time::new(small(hour)?, small(minute)?, small(second)?, 0).ok()?;
    day.to_datetime(time).to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// A number of `count` decimal digits and what follows it.
fn number(text: &[u8], count: usize) -> Option<(i16, &[u8])> {
    let (digits, rest) = text.split_at_checked(count)?;
    let mut value = 0_i16;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i16::from(digit - b'0'))?;
    }
    Some((value, rest))
}

/// Takes one field off `rest`.
pub(super) fn take<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (content, after) = field(rest, tag)?;
    *rest = after;
    Some(content)
}

/// The content of the field that `bytes` begins with, and what follows it.
pub(super) fn field(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 3))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use super::*;

    fn made(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_both_forms_of_time() {
        let validity = Validity::of(&made((1999, 12, 31), (2051, 2, 28))).unwrap();
        assert_eq!(validity.from, "1999-12-31T00:00:00Z".parse().unwrap());
        assert_eq!(validity.until, "2051-02-28T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn survives_every_cut_and_every_flipped_byte() {
        let good = made((2026, 1, 1), (2027, 1, 1));
        for cut in 0..good.len() {
            let _ = Validity::of(&good[..cut]);
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[cut] = value;
                let _ = Validity::of(&bad);
            }
        }
        assert_eq!(Validity::of(b""), None);
    }
}
