use proptest::prelude::*;

use super::*;
use crate::identity::Identity;

pub(super) fn key(n: u8) -> Fingerprint {
    Identity::from_seed(&[n; 32]).fingerprint()
}

/// Reads `text`, in which `A`, `B` and `C` between `<>` stand for keys.
pub(super) fn read(text: &str) -> Parsed {
    parse(fill(text).as_bytes())
}

pub(super) fn fill(text: &str) -> String {
    text.replace("<A>", &key(1).to_string())
        .replace("<B>", &key(2).to_string())
        .replace("<C>", &Identity::from_seed(&[3; 32]).public_key().to_ssh(""))
}

fn only(text: &str) -> Grant {
    let parsed = read(text);
    assert_eq!(parsed.faults, [], "{text}");
    assert_eq!(parsed.grants.len(), 1, "{text}");
    parsed.grants.iter().next().unwrap().as_ref().clone()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn admits_nobody_from_an_empty_file() {
    for text in ["", "\n", "\r\n\r\n", "# all\n  # nobody", " \t \n#\n", "# \u{1b}[1m\0\u{feff}"] {
        let parsed = read(text);
        assert!(parsed.grants.is_empty() && parsed.faults.is_empty(), "{text:?}");
    }
    assert_eq!(parse(b"# caf\xe9\n"), Parsed::default());
    assert!(Grants::default().lookup(&key(1)).is_none());
}

#[test]
fn reads_every_option() {
    let grant = only(
        "alpn=\"echo/1, ping/1\",from=\"192.0.2.0/24,2001:db8::1\",expires=\"20261231\",\
         scope=\"lab,ops\",tenant=acme,max-connections=4,name=\"bob's \\\"laptop\\\"\" <A>  bob at home \r\n",
    );
    assert_eq!(grant.fingerprint(), key(1));
    assert_eq!(grant.alpns(), Some([Alpn::ECHO_1, Alpn::PING_1].as_slice()));
    assert_eq!(grant.from().unwrap().len(), 2);
    assert_eq!(grant.expires(), Some(time("2026-12-31T00:00:00Z")));
    assert_eq!(grant.scopes(), [Scope::new("lab").unwrap(), Scope::new("ops").unwrap()]);
    assert_eq!(grant.tenant(), Some("acme"));
    assert_eq!(grant.max_connections(), Some(4));
    assert_eq!(grant.name(), Some("bob's \"laptop\""));
    assert_eq!(grant.comment(), "bob at home");
    assert_eq!(grant.line(), 1);
    assert!(grant.allows_alpn(&Alpn::ECHO_1) && !grant.allows_alpn(&Alpn::H3));
    assert!(grant.has_scope(&Scope::new("ops").unwrap()) && grant.has_scope(&Scope::ANY));
    assert!(!grant.has_scope(&Scope::new("op").unwrap()));
}

#[test]
fn leaves_open_what_no_option_closes() {
    let grant = only("<A>");
    assert_eq!((grant.alpns(), grant.from(), grant.expires()), (None, None, None));
    assert_eq!((grant.tenant(), grant.max_connections(), grant.name()), (None, None, None));
    assert!(grant.scopes().is_empty() && grant.comment().is_empty());
    assert!(grant.allows_alpn(&Alpn::H3) && !grant.is_expired(Timestamp::MAX));
    assert!(grant.allows_from("198.51.100.1".parse().unwrap()));
    assert!(grant.has_scope(&Scope::ANY) && !grant.has_scope(&Scope::new("lab").unwrap()));
}

#[test]
fn takes_the_key_in_every_form_that_fits_on_a_line() {
    let identity = Identity::from_seed(&[1; 32]);
    let public = identity.public_key();
    let hex = public.fingerprint().hex();
    let pairs: Vec<_> = hex.as_bytes().chunks(2).map(|p| str::from_utf8(p).unwrap()).collect();
    let forms = [
        hex.clone(),
        hex.to_uppercase(),
        pairs.join(":"),
        public.fingerprint().to_string(),
        public.fingerprint().curl_pin(),
        public.to_string(),
        public.to_ssh(""),
        public.to_ssh("").replace(' ', " \t "),
    ];
    for form in forms {
        for text in [form.clone(), format!("{form} c  d"), format!("alpn=echo/1\t{form} c  d")] {
            let grant = only(&text);
            assert_eq!(grant.fingerprint(), key(1), "{text}");
            assert_eq!(grant.comment(), if text == form { "" } else { "c  d" }, "{text}");
        }
    }
}

#[test]
fn reads_every_form_of_time_as_utc() {
    let table = [
        ("20261231", "2026-12-31T00:00:00Z"),
        ("20261231Z", "2026-12-31T00:00:00Z"),
        ("202612311830", "2026-12-31T18:30:00Z"),
        ("202612311830Z", "2026-12-31T18:30:00Z"),
        ("20261231183059", "2026-12-31T18:30:59Z"),
        ("20261231183059Z", "2026-12-31T18:30:59Z"),
        ("2026-12-31", "2026-12-31T00:00:00Z"),
        ("2026-12-31T18:30:59Z", "2026-12-31T18:30:59Z"),
        ("2026-12-31T18:30:59+02:00", "2026-12-31T16:30:59Z"),
        ("20280229", "2028-02-29T00:00:00Z"),
    ];
    for (text, want) in table {
        let grant = only(&format!("expires=\"{text}\" <A>"));
        let end = time(want);
        assert_eq!(grant.expires(), Some(end), "{text}");
        assert!(grant.is_expired(end));
        assert!(!grant.is_expired(Timestamp::from_second(end.as_second() - 1).unwrap()));
    }
}

#[test]
fn judges_ipv4_in_ipv6_form_as_ipv4_both_ways() {
    let table = [
        ("192.0.2.0/24", "192.0.2.7", true),
        ("192.0.2.0/24", "::ffff:192.0.2.7", true),
        ("192.0.2.0/24", "192.0.3.7", false),
        ("192.0.2.0/24", "2001:db8::1", false),
        ("192.0.2.7", "::ffff:192.0.2.7", true),
        ("192.0.2.7", "192.0.2.8", false),
        ("::ffff:192.0.2.0/120", "192.0.2.7", true),
        ("::ffff:192.0.2.7", "192.0.2.7", true),
        ("::ffff:0:0/96", "203.0.113.1", true),
        ("0.0.0.0/0", "::ffff:203.0.113.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "2001:db8::1", true),
        ("::/0", "203.0.113.1", false),
        ("2001:db8::/32,127.0.0.1", "127.0.0.1", true),
        ("2001:db8::/32,127.0.0.1", "2001:db8:ffff::1", true),
        ("2001:db8::/32,127.0.0.1", "::1", false),
    ];
    for (from, remote, want) in table {
        let grant = only(&format!("from=\"{from}\" <A>"));
        assert_eq!(grant.allows_from(remote.parse().unwrap()), want, "{from} {remote}");
    }
}

/// Column, length and text of each fault; every one of them admits nobody.
#[test]
fn names_every_fault_with_its_place() {
    let b = key(2).to_string();
    let table: Vec<(String, usize, usize, &str, &str)> = vec![
        ("alpm=\"echo/1\" <B>".into(), 1, 4, "unknown option `alpm`", "did you mean `alpn`?"),
        ("ALPN=\"echo/1\" <B>".into(), 1, 4, "unknown option `ALPN`", "did you mean `alpn`?"),
        ("expiry-time=\"20260101\" <B>".into(), 1, 11, "unknown option", "did you mean `expires`?"),
        ("scope=a,max-connection=1 <B>".into(), 9, 14, "unknown option", "`max-connections`?"),
        (
            "command=\"sh -c x\" <B>".into(),
            1,
            7,
            "unknown option `command`",
            "the options are alpn, expires",
        ),
        ("restrict <B>".into(), 1, 8, "unknown option `restrict`", "the options are alpn"),
        ("no-pty,alpn=echo/1 <B>".into(), 1, 6, "unknown option `no-pty`", "the options are"),
        (
            "alpn=echo/1,alpn=ping/1 <B>".into(),
            13,
            4,
            "option `alpn` stands here twice",
            "join both",
        ),
        ("alpn <B>".into(), 1, 4, "option `alpn` has no value", "write alpn=\"echo/1,ping/1\""),
        ("alpn= <B>".into(), 6, 1, "the list has an empty item", "write alpn="),
        ("alpn=\"\" <B>".into(), 6, 2, "the list has an empty item", "write alpn="),
        ("alpn=\"echo/1,\" <B>".into(), 6, 9, "the list has an empty item", "write alpn="),
        ("alpn=\"ech o\" <B>".into(), 6, 7, "`ech o` is not the name of a protocol", "write alpn="),
        ("alpn=echo/1,ping/1 <B>".into(), 17, 1, "`/` was not expected here", "needs quotes"),
        (
            "alpn=\"echo/1\"x <B>".into(),
            14,
            1,
            "`x` was not expected here",
            "one comma and no space",
        ),
        ("alpn=\"echo/1\", <B>".into(), 15, 1, "there is no option after the comma", "no space"),
        ("alpn=echo/1,,scope=a <B>".into(), 13, 1, "`,` was not expected here", "one comma"),
        (
            "from=\"10.0.0.1/8\" <B>".into(),
            6,
            12,
            "`10.0.0.1/8` has bits after its prefix",
            "`10.0.0.0/8`, or the one address `10.0.0.1`?",
        ),
        (
            "from=\"10.0.0.0/33\" <B>".into(),
            6,
            13,
            "neither an address nor a network",
            "write from=",
        ),
        ("from=\"host.example\" <B>".into(), 6, 14, "`host.example` is neither", "write from="),
        ("from=\"10.0.0.*\" <B>".into(), 6, 10, "`10.0.0.*` is neither", "write from="),
        ("from=\"!10.0.0.1\" <B>".into(), 6, 11, "`from` knows no `!`", "that are allowed"),
        ("from=\"\" <B>".into(), 6, 2, "the list has an empty item", "write from="),
        ("expires=soon <B>".into(), 9, 4, "`soon` is not a time", "write expires=\"20261231\""),
        ("expires=\"\" <B>".into(), 9, 2, "`` is not a time", "write expires="),
        ("expires=20260231 <B>".into(), 9, 8, "`20260231` is not a time", "write expires="),
        ("expires=2026123118 <B>".into(), 9, 10, "is not a time", "write expires="),
        ("expires=\"2026-2-31\" <B>".into(), 9, 11, "is not a time", "write expires="),
        ("expires=\"2026-12-31T18:00:00\" <B>".into(), 9, 21, "is not a time", "write expires="),
        ("expires=\"2026-12-31T18:00:00[Europe/Berlin]\" <B>".into(), 9, 36, "is not a time", "Z"),
        ("scope=\"a b\" <B>".into(), 7, 5, "`a b` is not a scope", "write scope="),
        ("scope= <B>".into(), 7, 1, "the list has an empty item", "write scope="),
        ("tenant=\"a/b\" <B>".into(), 8, 5, "`a/b` is not a tenant", "write tenant="),
        ("tenant=\"\" <B>".into(), 8, 2, "`` is not a tenant", "write tenant="),
        ("max-connections=0 <B>".into(), 17, 1, "no connections", "a number from 1"),
        (
            "max-connections=-1 <B>".into(),
            17,
            2,
            "`-1` is not a number of connections: expected 1 to 4294967295",
            "write max-connections=4",
        ),
        ("max-connections=many <B>".into(), 17, 4, "`many` is not a number", "max-connections=4"),
        ("max-connections=4294967296 <B>".into(), 17, 10, "is not a number", "="),
        ("name=\" \" <B>".into(), 6, 3, "` ` is not a name", "write name="),
        ("name=zoë <B>".into(), 6, 3, "expected 1 to 64 printable ASCII", "write name="),
        ("  bob".into(), 3, 3, "`bob` begins no key", ""),
        ("alpn=echo/1 bob".into(), 13, 3, "`bob` begins no key", ""),
        ("ü".into(), 1, 1, "has `ü` U+00FC at character 1", ""),
        (b[..70].into(), 1, 70, "has 63 characters, expected 64; was it cut", ""),
        (format!("{}bob", b), 1, 74, "has `o` at character 73", ""),
        (b[7..40].into(), 1, 33, "the hex fingerprint has 33 characters, expected 64", ""),
        (format!("{} bob", &b[7..40]), 1, 33, "has 33 characters", ""),
        (
            "SHA256:oFCDfYUHBYLM9zlLCYiEfMMSy4glm4lImfbyOc8XkaU".into(),
            1,
            50,
            "OpenSSH's `SHA256:…`",
            "",
        ),
        ("ssh-rsa AAAAB3NzaC1yc2E bob".into(), 1, 23, "RSA key: only Ed25519", ""),
        ("alpn=echo/1 ssh-rsa AAAAB3 bob".into(), 13, 14, "RSA key: only Ed25519", ""),
        ("ssh-ed25519".into(), 1, 11, "has 0 characters, expected 68", ""),
        ("-----BEGIN PUBLIC KEY-----".into(), 1, 10, "a key stands on one line here", "trust add"),
        ("\u{feff}<B>".into(), 1, 1, "U+FEFF (byte-order mark) has no place here", ""),
        ("<B>\u{a0}bob".into(), 72, 1, "U+00A0 (no-break space) has no place here", ""),
        ("<B> b\u{202e}ob".into(), 74, 1, "U+202E (text direction mark) has no place here", ""),
        ("<B> \u{1b}[1m".into(), 73, 1, "U+001B (escape) has no place here", ""),
        ("<B>\0".into(), 72, 1, "U+0000 (NUL) has no place here", ""),
        ("<B>\rx".into(), 72, 1, "U+000D (carriage return) has no place here", ""),
        (
            format!("<B> {}", "x".repeat(4096)),
            1,
            1,
            "the line has 4168 bytes, allowed are 4096",
            "",
        ),
        ("<A> again".into(), 1, 71, "this key stands on line 2 already", "or remove line 3"),
    ];
    for (line, column, length, message, help) in table {
        let parsed = read(&format!("# first\n<A>\n{line}\n<C>\n"));
        let [fault] = parsed.faults.as_slice() else { panic!("{line}: {:?}", parsed.faults) };
        assert_eq!(
            (fault.line, fault.column, fault.length),
            (3, column, length),
            "{line}: {fault}"
        );
        assert!(fault.message.contains(message), "{line}: {fault}");
        assert!(fault.help.as_deref().unwrap_or_default().contains(help), "{line}: {fault}");
        assert!(fault.to_string().starts_with(&format!("line 3, column {column}: ")), "{fault}");
        assert!(!fault.to_string().chars().any(char::is_control), "{fault:?}");
        // The lines around it stand, and nobody else does.
        assert_eq!(parsed.grants.len(), 2, "{line}");
        assert!(parsed.grants.lookup(&key(1)).is_some() && parsed.grants.lookup(&key(3)).is_some());
        assert!(parsed.grants.lookup(&key(2)).is_none(), "{line}");
    }
}

#[test]
fn finds_bytes_that_are_no_text() {
    let line = [b"ok \xc3\xa4 ".as_slice(), b"\xff", key(2).to_string().as_bytes(), b"\n"].concat();
    let parsed = parse(&[line.as_slice(), key(1).to_string().as_bytes()].concat());
    assert_eq!(parsed.grants.len(), 1);
    let fault = &parsed.faults[0];
    assert_eq!((fault.line, fault.column, fault.length), (1, 6, 1));
    assert_eq!(fault.message, "this is not UTF-8 text");
}

#[test]
fn keeps_the_first_good_line_of_a_key() {
    let parsed = read("alpm=x <A>\nalpn=echo/1 <A>\n<A>\nalpn=ping/1 <A>\n");
    assert_eq!(parsed.grants.len(), 1);
    assert_eq!(parsed.grants.lookup(&key(1)).unwrap().line(), 2);
    let lines: Vec<_> = parsed.faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [1, 3, 4]);
    assert!(parsed.faults[2].message.contains("line 2 already"));
}

#[test]
fn lists_grants_in_the_order_of_their_lines() {
    let parsed = read("<B>\n\n<A>\r\n# x\n<C>");
    let lines: Vec<_> = parsed.grants.iter().map(|grant| grant.line()).collect();
    assert_eq!(lines, [1, 3, 5]);
}

fn key_text(n: u8) -> KeyText {
    KeyText::parse(&key(n).to_string()).unwrap()
}

#[test]
fn adds_a_line_and_leaves_the_rest_byte_for_byte() {
    let options = [
        ("alpn".to_owned(), "echo/1,ping/1".to_owned()),
        ("name".to_owned(), "a \"b\"".to_owned()),
    ];
    for before in [b"".as_slice(), b"# x\r\nalpm=1 bad\n", b"# caf\xe9 no end", b"\n\n"] {
        let (text, line) = add_line(before, &key_text(1), &options, " bob ").unwrap();
        assert_eq!(line, format!("alpn=\"echo/1,ping/1\",name=\"a \\\"b\\\"\" {} bob", key(1)));
        assert!(text.starts_with(before));
        assert!(
            text.ends_with(format!("\n{line}\n").as_bytes())
                || text == format!("{line}\n").as_bytes()
        );
        assert_eq!(parse(&text).grants.lookup(&key(1)).unwrap().name(), Some("a \"b\""));
    }
    let (_, line) = add_line(b"", &key_text(1), &[], "").unwrap();
    assert_eq!(line, key(1).to_string());
}

#[test]
fn refuses_to_add_what_could_not_be_read_back() {
    let option = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let table = [
        (option("alpm", "x"), "", "unknown option `alpm`; did you mean `alpn`?"),
        (option("alpn", ""), "", "the list has an empty item"),
        (option("name", "a\\"), "", "the quote is never closed"),
        (option("#", "a"), "", "would be read as something else"),
        (option("a b", "a"), "", "unknown option `a`"),
        (vec![], "bob\nsha256:00", "U+000A (line feed) has no place here"),
        (vec![], "\u{1b}[1m", "U+001B (escape) has no place here"),
    ];
    for (options, comment, want) in table {
        let got = add_line(b"", &key_text(1), &options, comment).unwrap_err().to_string();
        assert!(got.contains(want), "{got}");
        assert!(!got.chars().any(char::is_control), "{got:?}");
    }
    let text = fill("\n<A>\n");
    let got = add_line(text.as_bytes(), &key_text(1), &[], "").unwrap_err();
    assert_eq!(got, EditError::Duplicate { key: key(1), line: 2 });
    assert!(got.to_string().contains("authorised already, on line 2; `endpoint trust rm sha256:"));
}

#[test]
fn removes_every_line_of_a_key_and_no_other() {
    let ssh = Identity::from_seed(&[1; 32]).public_key().to_ssh("bob");
    let kept =
        ["# <A>\r\n", "<B> after bob\n", "\u{feff}<B>\n", "alpm=1 <B>\n", "<C>\n", "\n", "x"];
    let gone =
        ["<A>\r\n", "alpn=echo/1 <A> again\n", "alpm=1 <A>\n", "\u{feff}<A>\n", "a=\"b <A>\n"];
    let mut text = kept[..3].concat() + &gone.concat() + &kept[3..6].concat();
    text += &format!("alpm=\"1\" {ssh}\n");
    text += kept[6];
    let (after, removed) = remove_key(fill(&text).as_bytes(), &key(1));
    assert_eq!(String::from_utf8(after).unwrap(), fill(&kept.concat()));
    assert_eq!(removed, 6);
    assert_eq!(remove_key(b"", &key(1)), (vec![], 0));
}

proptest! {
    #[test]
    fn answers_any_bytes_and_admits_only_keys_that_stand_in_them(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(parse(&bytes).grants.is_empty());
    }

    #[test]
    fn answers_any_near_miss_without_a_panic(
        lines in prop::collection::vec(
            "((alpn|from|expires|scope|name|max-connections)=\"?[ -~äé]{0,12}\"?[, ]?){0,3}(<A>|<B>|<C>)?[ -~\u{200b}]{0,9}",
            0..6,
        ),
    ) {
        let parsed = read(&lines.join("\n"));
        prop_assert!(parsed.grants.len() + parsed.faults.len() <= lines.len().max(1));
        for fault in &parsed.faults {
            let line = fill(&lines[fault.line - 1]);
            prop_assert!(fault.column >= 1 && fault.column <= line.chars().count() + 1, "{}", fault);
            prop_assert!(fault.length >= 1);
        }
    }

    #[test]
    fn reads_back_what_it_adds_and_takes_it_away_again(
        before in prop::collection::vec("[ -~\t\räé]{0,40}", 0..5),
        scope in "[a-zA-Z0-9._:/-]{1,20}",
        name in "[!-~]([ -~]{0,20}[!-~])?",
        comment in "([!-~]([ -~ä]{0,20}[!-~])?)?",
        n in 1_u8..,
    ) {
        let before = before.concat() + "\n";
        let options = [("scope".to_owned(), scope.clone()), ("name".to_owned(), name.clone())];
        if name.ends_with('\\') || name.contains('=') {
            return Ok(());
        }
        let (text, _) = match add_line(before.as_bytes(), &key_text(n), &options, &comment) {
            Err(EditError::Unfinished { .. }) => return Ok(()),
            added => added.unwrap(),
        };
        let parsed = parse(&text);
        let grant = parsed.grants.lookup(&key(n)).unwrap();
        prop_assert_eq!(grant.scopes(), [Scope::new(&scope).unwrap()]);
        prop_assert_eq!(grant.name(), Some(name.as_str()));
        let plain = grant.comment() == comment;
        prop_assert!(plain || grant.comment().is_empty());
        let left = if plain { before } else { format!("{before}# {comment}\n") };
        prop_assert_eq!(remove_key(&text, &key(n)), (left.into_bytes(), 1));
    }
}
