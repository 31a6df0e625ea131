//! What is inside this PEM text? One block of RFC 7468, strictly.
//!
//! Buffers are wiped: the same reader serves private keys.

use zeroize::Zeroizing;

/// One block: its label and the bytes it holds.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    pub(super) der: Result<Zeroizing<Vec<u8>>, PemError>,
}

/// Reads the one block in `text`; white space around it is allowed, other text is not.
///
/// The label is told even when the body is damaged, so that an error can name the kind of file.
pub(super) fn parse(text: &str) -> Result<Block<'_>, PemError> {
    let rest = text.trim_ascii().strip_prefix(BEGIN).ok_or(PemError::NotPem)?;
    let (label, rest) = rest.split_once("-----").ok_or(PemError::Cut)?;
    Ok(Block { label, der: body(label, rest) })
}

fn body(label: &str, rest: &str) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let (body, end) = rest.split_once("-----").ok_or(PemError::Cut)?;
    let last = format!("END {label}-----");
    let after = match end.strip_prefix(&last) {
        Some(after) => after,
        None if last.starts_with(end.trim_ascii_end()) => return Err(PemError::Cut),
        None => return Err(PemError::Damaged),
    };
    if !after.trim_ascii().is_empty() {
        return Err(PemError::TextAfter);
    }
    let text: Zeroizing<Vec<u8>> =
        Zeroizing::new(body.bytes().filter(|b| !b.is_ascii_whitespace()).collect());
    let longest = data_encoding::BASE64.decode_len(text.len()).map_err(|_| PemError::Damaged)?;
    let mut der = Zeroizing::new(vec![0; longest]);
    let length =
        data_encoding::BASE64.decode_mut(&text, &mut der).map_err(|_| PemError::Damaged)?;
    der.truncate(length);
    Ok(der)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PemError {
    /// The end line is missing or cut.
    Cut,
    /// The body is not base64, or the lines do not fit together.
    Damaged,
    /// The text does not begin with a PEM line.
    NotPem,
    /// Something follows the block.
    TextAfter,
}

pub(super) const BEGIN: &str = "-----BEGIN ";

#[cfg(test)]
mod tests {
    use super::*;

    fn der(text: &str) -> Result<Vec<u8>, PemError> {
        parse(text).and_then(|block| block.der).map(|der| der.to_vec())
    }

    #[test]
    fn reads_one_block_whatever_its_line_ends() {
        assert_eq!(der("-----BEGIN A-----\nAAEC\n-----END A-----\n"), Ok(vec![0, 1, 2]));
        assert_eq!(der("\n-----BEGIN A-----\r\nAA\r\nEC\r\n-----END A-----"), Ok(vec![0, 1, 2]));
    }

    #[test]
    fn tells_a_cut_text_from_a_damaged_one() {
        let whole = "-----BEGIN A B-----\nAAEC\n-----END A B-----";
        for length in 12..whole.len() {
            let got = der(&whole[..length]).unwrap_err();
            assert!(matches!(got, PemError::Cut | PemError::Damaged), "{length}: {got:?}");
        }
        assert_eq!(der(&whole[..25]), Err(PemError::Cut));
        assert_eq!(der("-----BEGIN A-----\nAA*C\n-----END A-----"), Err(PemError::Damaged));
        assert_eq!(der("-----BEGIN A-----\nAAEC\n-----END B-----"), Err(PemError::Damaged));
        assert_eq!(der("A"), Err(PemError::NotPem));
        assert_eq!(der(&format!("{whole}\n{whole}")), Err(PemError::TextAfter));
    }
}
