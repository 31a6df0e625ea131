//! Is this a SETTINGS payload? (RFC 9114 §7.2.4)

use super::Violation;
use crate::transport::varint;

/// Settings in one frame; the registry has fewer than twenty.
const SETTINGS: usize = 64;

const MAX_FIELD_SECTION_SIZE: u64 = 0x06;

/// Checks the payload of a SETTINGS frame; gives SETTINGS_MAX_FIELD_SECTION_SIZE, if it is there.
///
/// # Errors
/// [`Violation::FRAME`] if it is cut; [`Violation::SETTINGS`] if an identifier stands twice or is one of
/// HTTP/2 without a meaning here (RFC 9114 §7.2.4.1).
pub(super) fn check(mut payload: &[u8]) -> Result<Option<u64>, Violation> {
    let mut seen = Vec::new();
    let mut most_fields = None;
    while !payload.is_empty() {
        let (id, rest) = varint(payload).ok_or(Violation::FRAME)?;
        let (value, rest) = varint(rest).ok_or(Violation::FRAME)?;
        payload = rest;
        if matches!(id, 0x00 | 0x02..=0x05) || seen.contains(&id) {
            return Err(Violation::SETTINGS);
        }
        if seen.len() >= SETTINGS {
            return Err(Violation::EXCESSIVE_LOAD);
        }
        seen.push(id);
        if id == MAX_FIELD_SECTION_SIZE {
            most_fields = Some(value);
        }
    }
    Ok(most_fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_cut_repeated_and_reserved_settings() {
        type Judged = Result<Option<u64>, Violation>;
        let rows: &[(&[u8], Judged)] = &[
            (&[], Ok(None)),
            (&[0x01, 0x00, 0x07, 0x00], Ok(None)),
            (&[0x06, 0x80, 0, 0x40, 0], Ok(Some(0x4000))),
            (&[0x01], Err(Violation::FRAME)),
            (&[0x06, 0x80, 0], Err(Violation::FRAME)),
            (&[0x01, 0, 0x01, 0], Err(Violation::SETTINGS)),
            (&[0x00, 1], Err(Violation::SETTINGS)),
            (&[0x02, 1], Err(Violation::SETTINGS)),
            (&[0x05, 1], Err(Violation::SETTINGS)),
        ];
        for (payload, expected) in rows {
            assert_eq!(check(payload), *expected, "{payload:?}");
        }
    }
}
