//! What in a Rust file is code? Comments and the insides of literals are blanked, lines stay.
//!
//! Not a parser: it knows just enough of the lexical grammar that a word in a comment or a string
//! is never taken for code.

/// `text` with comments, string and character literals replaced by spaces; line breaks stay.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => until_line_end(&chars, at),
            ('/', Some('*')) => after_block(&chars, at),
            ('"', _) => after_string(&chars, at),
            ('r', Some('"' | '#')) if !is_word(before(&chars, at)) => after_raw(&chars, at),
            ('b', Some('r')) if !is_word(before(&chars, at)) => after_raw(&chars, at + 1),
            ('\'', _) => after_char(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// For each line of `code` (from [`code_only`]): does it stand inside a `#[cfg(test)]` item?
pub fn test_lines(code: &str) -> Vec<bool> {
    let lines: Vec<&str> = code.lines().collect();
    let mut inside = vec![false; lines.len()];
    let mut line = 0;
    while line < lines.len() {
        if !lines[line].trim_start().starts_with("#[cfg(test)]")
            && !lines[line].trim_start().starts_with("#[cfg(all(test")
        {
            line += 1;
            continue;
        }
        let mut depth = 0_usize;
        let mut opened = false;
        while line < lines.len() {
            inside[line] = true;
            for c in lines[line].chars() {
                match c {
                    '{' => {
                        depth += 1;
                        opened = true;
                    }
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let ended = if opened { depth == 0 } else { lines[line].trim_end().ends_with(';') };
            line += 1;
            if ended {
                break;
            }
        }
    }
    inside
}

fn before(chars: &[char], at: usize) -> char {
    if at == 0 { ' ' } else { chars[at - 1] }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn until_line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

fn after_block(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut at = at;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn after_string(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A raw string that begins with the `r` at `at`; `at` itself if there is none (`r#type`).
fn after_raw(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let mut at = open + 1;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take(hashes).all(|c| *c == '#') {
            return (at + 1 + hashes).min(chars.len());
        }
        at += 1;
    }
    chars.len()
}

/// A character literal at `at`; `at` itself if it is a lifetime.
fn after_char(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let rest = chars.get(at + 3..).unwrap_or_default();
            rest.iter().position(|c| *c == '\'').map_or(chars.len(), |n| at + 3 + n + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_comments_and_literals_and_keeps_lines() {
        let text = "let a = \"todo!()\"; // dbg!\n/* x\n/* y */ */ b('\"', '\\'', r#\"q\"q\"#);\n";
        let code = code_only(text);
        assert_eq!(code.lines().count(), 3);
        for word in ["todo", "dbg", "x", "y", "q"] {
            assert!(!code.contains(word), "{word} in {code}");
        }
        assert!(code.contains("let a =") && code.contains("b("));
    }

    #[test]
    fn keeps_lifetimes_and_raw_identifiers() {
        let code = code_only("fn f<'a>(r#type: &'a str, c: char) -> &'a str { r#type }");
        assert_eq!(code, "fn f<'a>(r#type: &'a str, c: char) -> &'a str { r#type }");
    }

    #[test]
    fn finds_the_lines_of_test_modules() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod far;\nfn d() {}\n";
        let inside = test_lines(code);
        assert_eq!(inside, [false, true, true, true, true, false, true, true, false]);
    }
}
