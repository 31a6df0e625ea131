//! Whatever a writer can have meant as a restriction never admits from everywhere.

use proptest::prelude::*;

use super::{
    tests::{fill, key, read},
    *,
};

/// Spellings of a line that was meant to restrict `<A>`, or to name two keys.
const MISTYPED: [&str; 111] = [
    "<A> ip:10.0.0.0/8",
    "<A> host:192.0.2.1",
    "<A> ip:2001:db8::/32",
    "<A> from10.0.0.0/8",
    "<A> from'10.0.0.0/8'",
    "<A> from(10.0.0.0/8)",
    "<A> from[2001:db8::/32]",
    "<A> from-10.0.0.0/8",
    "<A> from.10.0.0.0/8",
    "<A> from\u{ff1a}10.0.0.0/8",
    "<A> \u{ff46}\u{ff52}\u{ff4f}\u{ff4d}\u{ff1a}x",
    "<A> \u{ff11}\u{ff10}.0.0.1",
    "<A> 10\u{3002}0\u{3002}0\u{3002}1",
    "<A> until:20261201",
    "<A> expiry:20261201",
    "<A> expire-20261201",
    "<A> expires20261201",
    "<A> expires on 2026-12-01",
    "<A> protocol:echo/1",
    "<A> alpn(echo/1)",
    "<A> alpn-echo/1",
    "<A> 192.168.*",
    "<A> 192.168.x.x",
    "<A> bob,192.168/16",
    "<A> net 10/8",
    "<A> only 10/8",
    "<A> 10.0.0.0 255.0.0.0",
    "<A> lab@10.0.0.0/8",
    "<A> from@10.0.0.1",
    "<A> net=10.0.0.1",
    "<A> host:2001:db8::1",
    "<A> node-10.0.0.1-lab",
    "<A> valid 20261201",
    "<A> until20261201",
    "<A> max 3 connections",
    "<A> max-connections4",
    "<A> connections: 3",
    "<A> from=\"192.0.2.0/24\"",
    "<A> bob  expires=20200101",
    "alpn=echo/1 <A> From=\"192.0.2.1\"",
    "<C> bob alpn=\"echo/1\"",
    "<A>\tmax-connections=1,from=192.0.2.1",
    "<A> from = \"10.0.0.0/8\"",
    "<A> form=\"10.0.0.0/8\"",
    "<A> (from=\"10.0.0.0/8\")",
    "<A> ,from=\"10.0.0.0/8\"",
    "<A> \"from=10.0.0.0/8\"",
    "<A> from \"10.0.0.0/8\"",
    "<A> from '10.0.0.0/8'",
    "<A> from: 10.0.0.0/8",
    "<A> from:10.0.0.0/8",
    "<A> from 10.0.0.0/8",
    "<A> from 10.0.0.1",
    "<A> from 10.0.0.*",
    "<A> from !10.0.0.1",
    "<A> 10.0.0.0/8",
    "<A> 010.0.0.1",
    "<A> [2001:db8::1]",
    "<A> only 2001:db8::/32",
    "<A> 10.0.0.1-10.0.0.9",
    "<A> 10.0.0.1:4433",
    "<A> from \u{201c}10.0.0.0/8\u{201d}",
    "<A> from\u{ff1d}10.0.0.0",
    "<A> from\u{a0}=\u{a0}\"10.0.0.0/8\"",
    "<A>\u{3000}from=\"10.0.0.0/8\"",
    "<A>,from=\"10.0.0.0/8\"",
    "<A>from=\"10.0.0.0/8\"",
    "<A>;from=\"10.0.0.0/8\"",
    "<A> # from=\"10.0.0.0/8\"",
    "<A> expires: 20261231",
    "<A> expires 2026-12-31",
    "<A> until 2026-12-31",
    "<A> max-connections: 1",
    "<A> max-connections 1",
    "<A> alpn echo/1",
    "<A> revoked",
    "<A> bob (revoked)",
    "<A> restrict",
    "<A> \\",
    "<A> bob \\",
    "From=\"10.0.0.0/8\" <A>",
    "from = \"10.0.0.0/8\" <A>",
    "from= \"10.0.0.0/8\" <A>",
    "from =\"10.0.0.0/8\" <A>",
    "from: 10.0.0.0/8 <A>",
    "from:\"10.0.0.0/8\" <A>",
    "from \"10.0.0.0/8\" <A>",
    "from=\u{201c}10.0.0.0/8\u{201d} <A>",
    "from=\"10.0.0.0/8\"<A>",
    "from=\"10.0.0.0/8\",<A>",
    "from=\"10.0.0.0/8\", <A>",
    "from=\"\" <A>",
    "from= <A>",
    "from=\"10.0.0.0/8,\" <A>",
    "from=\"!10.0.0.1\" <A>",
    "from=\"10.0.0.1/8\" <A>",
    "from=\"010.0.0.1\" <A>",
    "from=\"010.0.0.0/8\" <A>",
    "from=\"10.0.0.0/08\" <A>",
    "from=\"10.0.0.0/+8\" <A>",
    "from=\"10.0.0.0/8\" alpn=\"echo/1\" <A>",
    "from=\"10.0.0.0/8\",from=\"10.0.0.0/8\" <A>",
    "alpn=\"echo/1,from=10.0.0.0/8\" <A>",
    "name=\"bob,from=10.0.0.0/8\" <A>",
    "max-connections=010 <A>",
    "(from=\"10.0.0.0/8\") <A>",
    "\u{feff}from=\"10.0.0.0/8\" <A>",
    "<A> <B>",
    "<A> <C>",
    "<A> was:<B>",
    "<A>, <B>",
];

#[test]
fn admits_nobody_by_a_line_that_was_meant_to_restrict() {
    for text in MISTYPED {
        let parsed = read(text);
        assert!(parsed.grants.is_empty(), "{text}: {parsed:?}");
        let [fault] = parsed.faults.as_slice() else { panic!("{text}: {parsed:?}") };
        assert!(!fault.to_string().chars().any(char::is_control), "{fault:?}");
        let width = fill(text).chars().count();
        assert!(fault.column + fault.length <= width + 2, "{text}: {fault}");
    }
}

/// The twin: a reader that takes all that follows the key for words.
#[test]
fn a_reader_that_asks_nothing_of_comments_admits_many_of_them_from_everywhere() {
    let weak = |text: &str| {
        let parts = line::split(text).ok()?;
        let options = options::read(&parts.options).ok()?;
        KeyText::parse(parts.key).ok()?;
        Some(options.from.is_none())
    };
    let open = MISTYPED.iter().filter(|text| weak(&fill(text)) == Some(true)).count();
    assert!(open > 70, "{open}");
}

#[test]
fn says_how_the_line_was_meant() {
    let table = [
        ("<A> from = \"10.0.0.0/8\"", "write `from=\"10.0.0.0/8\" <A>`"),
        ("<A> bob form=\"10.0.0.0/8\"", "write `from=\"10.0.0.0/8\" <A> bob`"),
        ("<A> (from=\"10.0.0.0/8\")", "write `from=\"10.0.0.0/8\" <A>`"),
        ("<A> ,from=\"10.0.0.0/8\"", "write `from=\"10.0.0.0/8\" <A>`"),
        ("<A> \"from=10.0.0.0/8\"", "write `from=\"10.0.0.0/8\" <A>`"),
        ("<A> from \u{201c}10.0.0.0/8\u{201d}", "write `from=\"10.0.0.0/8\" <A>`"),
        ("<A> only 10.0.0.0/8", "write `from=\"10.0.0.0/8\" <A> only`"),
        ("<A>,from=10.0.0.0/8", "write `from=\"10.0.0.0/8\" <A>`"),
        ("From=\"10.0.0.0/8\" <A> bob", "write `from=\"10.0.0.0/8\" <A> bob`"),
        ("from=\"010.0.0.0/8\" <A>", "write `from=\"10.0.0.0/8\" <A>`"),
        (
            "from=\"10.0.0.0/8\" alpn=\"echo/1\" <A>",
            "write `from=\"10.0.0.0/8\",alpn=\"echo/1\" <A>`",
        ),
        ("from=\"10.0.0.0/8\"<A>", "write `from=\"10.0.0.0/8\" <A>`"),
        ("<C> expires: 20261231", "write `expires=\"20261231\" <C>`"),
        ("<A> ip:10.0.0.0/8", "write `from=\"10.0.0.0/8\" <A>`"),
        ("<A> until:20261201", "write `expires=\"20261201\" <A>`"),
        ("<A> mood=fine", "`# mood=fine` on a line of its own, above `<A>`"),
        ("<A> <B>", "write `<A>` and `<B>` on a line each"),
        (
            "alpn=echo/1 <A> <B>",
            "write `alpn=\"echo/1\" <A>` and `alpn=\"echo/1\" <B>` on a line each",
        ),
    ];
    for (text, want) in table {
        let parsed = read(text);
        let help = parsed.faults[0].help.clone().unwrap_or_default();
        assert!(help.ends_with(&fill(want)), "{text}: {help}");
        // What is offered between the quotes reads without a fault.
        let line = help.rsplit('`').nth(1).unwrap();
        assert_eq!(parse(line.as_bytes()).faults, [], "{line}");
    }
}

#[test]
fn leaves_plain_words_alone() {
    for comment in [
        "laptop of the lab",
        "from home, expires soon",
        "bob's laptop (2nd)",
        "root@192.0.2.1",
        "alice@example.com",
        "added 2026-01-05, see ticket 17",
        "build 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "at commit 0123456789abcdef0123456789abcdef01234567",
        "# 17: std::fs, v1.2.3",
        "for 10 days",
        "back from 3 weeks off",
        "node-7.example.org",
        "alice@laptop",
        "build server, 2nd floor",
        "ip-10-0-0-1.internal",
        "from-scratch, ip6, from.alice, valid since 2026-01-05",
        "on call 24/7, 12:30:45, 00:1b:63:84:45:e6",
        "caf\u{e9} \u{2013} zo\u{eb}\u{2019}s",
    ] {
        let parsed = read(&format!("<A> {comment}"));
        assert_eq!(parsed.faults, [], "{comment}");
        assert_eq!(parsed.grants.lookup(&key(1)).unwrap().comment(), comment);
    }
}

#[test]
fn takes_no_line_for_the_rest_of_another_and_no_key_from_one_that_may_be() {
    let table = [
        ("from=\"10.0.0.0/8\" \\\n<A>", 2),
        ("from=\"10.0.0.0/8\",\n<A>", 2),
        ("from=\"10.0.0.0/8\",\n<A> bob", 2),
        ("from=\"10.0.0.0/8\n<A>", 2),
        ("from=\"10.0.0.0/8\"\n<A>", 2),
        ("from=\"10.0.0.0/8\"\ntenant=acme <A>", 2),
        ("from=\"10.0.0.0/8\"\nname=\"bob\",scope=ops <A>", 2),
        ("from=\"10.0.0.0/8\"  \r\n\r\n# the key\n<A>", 2),
        ("from=10.0.0.0/8 sha256:\n<HEX>", 2),
        ("from=10.0.0.0/8 sha256\n<HEX>", 2),
        ("<A> \\\nfrom=\"10.0.0.0/8\"", 2),
        ("# bob\r<A>", 1),
        ("# bob\rfrom=\"10.0.0.0/8\" <A>\r", 1),
    ];
    for (text, faults) in table {
        let text = text.replace("<HEX>", &key(1).hex());
        let parsed = read(&text);
        assert!(parsed.grants.is_empty(), "{text}: {parsed:?}");
        assert_eq!(parsed.faults.len(), faults, "{text}: {parsed:?}");
    }
    // A line that is restricted itself, or follows one that has an end, is right.
    for text in ["alpn=echo/1\nfrom=10.0.0.1 <A>", "bob\n<A>", "alpm=1 <B>\n<A>", "<B> bob,\n<A>"] {
        assert!(read(text).grants.lookup(&key(1)).is_some(), "{text}");
    }
    let fault = read("alpn=echo/1\n<A>").faults[1].to_string();
    assert!(fault.contains("line 1 has no end, so this key may belong to it"), "{fault}");
}

#[test]
fn writes_a_comment_of_more_than_words_on_a_line_of_its_own() {
    let key = KeyText::parse(&key(1).to_string()).unwrap();
    for comment in ["mood=fine", "from 10.0.0.1", "was sha256:00", "a \"b\""] {
        let (text, line) = add_line(b"", &key, &[], comment).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, format!("# {comment}\n{line}\n"));
        assert_eq!(parse(text.as_bytes()).grants.len(), 1);
    }
    let refused = add_line(b"from=10.0.0.1\n", &key, &[], "").unwrap_err();
    assert_eq!(refused, EditError::Unfinished { line: 1 });
}

#[test]
fn tells_a_thousand_faults_and_counts_the_rest() {
    let parsed = parse(&b"x\n".repeat(2_500));
    assert_eq!(parsed.faults.len(), 1_000);
    assert!(parsed.faults[999].message.ends_with("and 1500 more lines are faulty"));
}

/// What a slip of the finger makes of a text.
#[derive(Clone, Debug)]
enum Slip {
    Delete,
    Insert(char),
    Replace(char),
    Swap,
    Twice,
}

fn slip() -> impl Strategy<Value = Slip> {
    let signs = prop::sample::select(vec![
        ' ', '\t', '"', '=', ',', '\\', '\n', '\r', ':', ';', '#', '/', '.', '!', '*', '0', 'x',
        '\'', '\u{a0}', '\u{201c}', '\u{201d}', '\u{ff1d}', '\u{feff}', '\u{200b}', '\u{2028}',
        '\u{3000}',
    ]);
    let any = prop_oneof![3 => signs, 1 => prop::char::range(' ', '~')];
    prop_oneof![
        Just(Slip::Delete),
        any.clone().prop_map(Slip::Insert),
        any.prop_map(Slip::Replace),
        Just(Slip::Swap),
        Just(Slip::Twice),
    ]
}

fn slipped(text: &str, at: usize, slip: &Slip) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let at = at % chars.len();
    match slip {
        Slip::Delete => drop(chars.remove(at)),
        Slip::Insert(c) => chars.insert(at, *c),
        Slip::Replace(c) => chars[at] = *c,
        Slip::Swap => chars.swap(at, (at + 1) % text.chars().count()),
        Slip::Twice => chars.insert(at, chars[at]),
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("ENDPOINT_TEST_LONG").is_some() { 200_000 } else { 4_000 }))]

    #[test]
    fn never_makes_an_open_grant_of_a_restricted_one_by_one_slip(
        option in prop::sample::select(vec![
            "from=\"192.0.2.0/24\"", "from=192.0.2.7", "from=\"192.0.2.0/24,2001:db8::/32\"",
            "from=\"2001:db8::1\"", "alpn=\"echo/1\"", "alpn=echo/1", "alpn=\"echo/1,ping/1\"",
            "expires=\"20261231\"", "expires=2026-12-31", "expires=\"2026-12-31T18:00:00Z\"",
            "max-connections=4",
        ]),
        more in prop::sample::select(vec!["", ",name=\"bob\"", ",scope=\"lab,ops\"", ",tenant=acme"]),
        first in any::<bool>(),
        form in prop::sample::select(vec!["<A>", "<C>", "<HEX>"]),
        comment in prop::sample::select(vec!["", " bob", "  bob at home "]),
        at in any::<usize>(),
        slip in slip(),
    ) {
        let options = match (first, more) {
            (false, more) if !more.is_empty() => format!("{},{option}", &more[1..]),
            _ => format!("{option}{more}"),
        };
        let line = format!("{options} {form}{comment}");
        let line = fill(&line).replace("<HEX>", &key(1).hex());
        prop_assert_eq!(parse(line.as_bytes()).grants.len(), 1);
        let text = slipped(&line, at, &slip);
        let name = option.split('=').next().unwrap();
        for grant in parse(text.as_bytes()).grants.iter() {
            let holds = match name {
                "from" => grant.from().is_some(),
                "alpn" => grant.alpns().is_some(),
                "expires" => grant.expires().is_some(),
                _ => grant.max_connections().is_some(),
            };
            prop_assert!(holds, "{:?} gives {:?}", text, grant);
        }
    }
}
