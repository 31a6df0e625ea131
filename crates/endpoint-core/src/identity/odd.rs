//! Which character in a copied text does not belong there?
//!
//! Copying from chat windows and web pages brings along characters that nobody can see. Errors name
//! them, because a person cannot.

/// The first character of `text` that `legal` refuses: its place (from 1, in characters) and its name.
pub(crate) fn first(text: &str, legal: impl Fn(char) -> bool) -> Option<(usize, String)> {
    text.chars().zip(1..).find(|(c, _)| !legal(*c)).map(|(c, place)| (place, name(c)))
}

/// Whether `c` is invisible or moves the text around it: never wanted in a file of this project.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{a0}' | '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}')
        || matches!(c, '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}')
        || matches!(c, '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}')
}

/// A name that is safe to print: the character itself only if it is visible.
pub(crate) fn name(c: char) -> String {
    let known = match c {
        '\0' => "NUL",
        '\t' => "tab",
        '\n' => "line feed",
        '\r' => "carriage return",
        '\u{1b}' => "escape",
        ' ' => "space",
        '\u{a0}' => "no-break space",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero-width space",
        '\u{200c}' => "zero-width non-joiner",
        '\u{200d}' => "zero-width joiner",
        '\u{200e}' => "left-to-right mark",
        '\u{200f}' => "right-to-left mark",
        '\u{2010}'..='\u{2015}' => "typographic dash",
        '\u{2018}'..='\u{201f}' => "typographic quote",
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => "text direction mark",
        '\u{202f}' => "narrow no-break space",
        '\u{2060}' => "word joiner",
        '\u{feff}' => "byte-order mark",
        c if c.is_control() => "control character",
        c if is_hidden(c) => "invisible character",
        c if c.is_ascii() => return format!("`{c}`"),
        c => return format!("`{c}` U+{:04X}", u32::from(c)),
    };
    format!("U+{:04X} ({known})", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_cannot_be_seen_and_shows_what_can() {
        let table = [
            ('\u{feff}', "U+FEFF (byte-order mark)"),
            ('\u{200b}', "U+200B (zero-width space)"),
            ('\u{a0}', "U+00A0 (no-break space)"),
            ('\u{202e}', "U+202E (text direction mark)"),
            ('\u{2013}', "U+2013 (typographic dash)"),
            ('\u{7}', "U+0007 (control character)"),
            ('\u{fe0f}', "U+FE0F (invisible character)"),
            ('g', "`g`"),
            ('ä', "`ä` U+00E4"),
        ];
        for (c, want) in table {
            assert_eq!(name(c), want);
        }
    }

    #[test]
    fn counts_places_in_characters_from_one() {
        assert_eq!(first("ää b", char::is_alphabetic), Some((3, "U+0020 (space)".into())));
        assert_eq!(first("abc", char::is_alphabetic), None);
    }
}
