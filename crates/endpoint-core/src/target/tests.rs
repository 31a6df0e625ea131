use proptest::prelude::*;

use super::*;

const HEX: &str = "a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5";

#[test]
fn reads_every_form_and_writes_its_one_spelling() {
    let table = [
        (format!("peer://{HEX}@127.0.0.1:4433"), format!("peer://{HEX}@127.0.0.1:4433")),
        (format!("PEER://{}@[::1]:4433", HEX.to_uppercase()), format!("peer://{HEX}@[::1]:4433")),
        (format!("peer://sha256:{HEX}@a.b:1"), format!("peer://{HEX}@a.b:1")),
        (format!("sha256:{HEX}@Node.Example.:65535"), format!("peer://{HEX}@node.example:65535")),
        ("https://example.com".into(), "https://example.com:443".into()),
        ("https://example.com:8443".into(), "https://example.com:8443".into()),
        ("https://[2001:DB8::1]".into(), "https://[2001:db8::1]:443".into()),
        ("https://bücher.example".into(), "https://xn--bcher-kva.example:443".into()),
        (format!("https://127.0.0.1:1#sha256:{HEX}"), format!("https://127.0.0.1:1#sha256:{HEX}")),
        (format!("https://a#sha256:{HEX}"), format!("https://a:443#sha256:{HEX}")),
        ("localhost:4433".into(), "localhost:4433".into()),
        ("[::1]:4433".into(), "[::1]:4433".into()),
        ("bobs-laptop".into(), "bobs-laptop".into()),
        ("Node.example".into(), "Node.example".into()),
    ];
    for (text, want) in table {
        let target: Target = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(target.to_string(), want);
        assert_eq!(want.parse(), Ok(target));
    }
}

#[test]
fn tells_the_forms_apart() {
    let host: HostPort = "a:1".parse().unwrap();
    let fingerprint: Fingerprint = format!("sha256:{HEX}").parse().unwrap();
    let table = [
        (format!("peer://{HEX}@a:1"), Target::Pinned { fingerprint, host: host.clone() }),
        ("https://a:1".into(), Target::Name { host: host.clone() }),
        (
            format!("https://a:1#sha256:{HEX}"),
            Target::NamePinned { fingerprint, host: host.clone() },
        ),
        ("a:1".into(), Target::Unpinned { host }),
        ("a".into(), Target::Known { name: "a".into() }),
    ];
    for (text, want) in table {
        assert_eq!(text.parse(), Ok(want));
    }
}

#[test]
fn refuses_every_other_text_and_says_what_to_write() {
    let table = [
        (String::new(), "found nothing"),
        ("a b:1".into(), "has U+0020 (space) at character 2"),
        ("a\n:1".into(), "has U+000A (line feed) at character 2"),
        ("a:1\u{200b}".into(), "has U+200B (zero-width space) at character 4"),
        (format!("peer://{HEX}"), "a fingerprint alone cannot be dialled; add its address"),
        (format!("sha256:{HEX}"), "a fingerprint alone cannot be dialled"),
        (HEX.into(), "a fingerprint alone cannot be dialled"),
        ("peer://a:1".into(), "there is no fingerprint before the host"),
        ("peer://@a:1".into(), "there is no fingerprint before the host"),
        ("peer://".into(), "there is no fingerprint"),
        ("sha256:ab".into(), "there is no fingerprint"),
        (
            format!("peer://{}@a:1", &HEX[..60]),
            "the peer's fingerprint: the hex after `sha256:` has 60 characters",
        ),
        (format!("peer://{}g@a:1", &HEX[..63]), "has `g` at character"),
        (format!("peer://{HEX}@"), "there is no host"),
        (format!("peer://{HEX}@a"), "`a` has no port after it, as in"),
        (format!("peer://{HEX}@:1"), "there is no host"),
        (format!("peer://{HEX}@a:0"), "`0` is not a port: expected a number from 1 to 65535"),
        (format!("peer://{HEX}@a:65536"), "`65536` is not a port"),
        (format!("peer://{HEX}@a:+1"), "`+1` is not a port"),
        (format!("peer://{HEX}@a:"), "`` is not a port"),
        (format!("peer://{HEX}@a:1/x"), "leave out `/x`: a connection has no path"),
        (format!("peer://{HEX}@a:1?x"), "leave out everything from `?`"),
        (format!("peer://{HEX}@a:1#x"), "after `#` only a pin"),
        (format!("peer://{HEX}@b@a:1"), "leave out what stands before `@`"),
        (format!("sha256:{HEX}@::1:1"), "needs brackets"),
        ("https://".into(), "there is no host"),
        ("https://a/".into(), "leave out `/`"),
        ("https://a:1/b?c#d".into(), "leave out `/b?c`"),
        ("https://a?x".into(), "leave out everything from `?`"),
        ("https://u:secret@a".into(), "leave out what stands before `@`"),
        ("https://a#x".into(), "after `#` only a pin"),
        (format!("https://a#sha256:{}", &HEX[1..]), "has 63 characters, expected 64"),
        ("https://a#".into(), "after `#` only a pin"),
        ("https://:443".into(), "there is no host"),
        ("https://::1".into(), "needs brackets"),
        ("https://[::1".into(), "expected an IPv6 address in brackets"),
        ("https://[::1]443".into(), "expected an IPv6 address in brackets"),
        ("https://[127.0.0.1]:1".into(), "expected an IPv6 address in brackets"),
        ("https://[fe80::1%eth0]:1".into(), "with a zone"),
        ("https://127.1:1".into(), "ends in a number"),
        ("http://a".into(), "unknown scheme `http://`; expected `peer://` or `https://`"),
        ("ssh://a".into(), "unknown scheme `ssh://`"),
        ("bob@a:1".into(), "leave out what stands before `@`"),
        ("a:1/x".into(), "leave out `/x`"),
        ("a:1#x".into(), "after `#` only a pin may stand, with `https://`"),
        ("127.0.0.1".into(), "`127.0.0.1` has no port after it"),
        ("::1".into(), "needs brackets"),
        ("[::1]".into(), "has no port after it"),
        ("-a".into(), "has no port after it"),
        ("a..b:1".into(), "nothing between two dots"),
    ];
    for (text, want) in table {
        let got = text.parse::<Target>().unwrap_err().to_string();
        assert!(got.contains(want), "{text:?}: {got}");
        assert!(!got.contains("secret"), "{got}");
    }
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        any::<IpAddr>().prop_map(Host::Ip),
        "[a-z0-9_]{1,9}(\\.[a-z]{1,9}){0,3}"
            .prop_filter_map("a name", |name| name.parse().ok().map(Host::Name)),
    ]
}

proptest! {
    #[test]
    fn reads_back_what_it_writes(
        digest: [u8; 32], host in host(), port in 1_u16.., kind in 0..5, name in "[a-zA-Z][a-zA-Z0-9._-]{0,40}",
    ) {
        let host = HostPort { host, port };
        let fingerprint = Fingerprint::from_bytes(digest);
        let target = match kind {
            0 => Target::Pinned { fingerprint, host: host.clone() },
            1 => Target::Name { host: host.clone() },
            2 => Target::NamePinned { host: host.clone(), fingerprint },
            3 => Target::Unpinned { host: host.clone() },
            _ => Target::Known { name },
        };
        prop_assert_eq!(target.to_string().parse(), Ok(target));
        prop_assert_eq!(host.to_string().parse(), Ok(host));
    }

    #[test]
    fn answers_any_text_without_a_panic(text in "(peer://|https://|sha256:)?[a-f0-9@:/?#%.\\[\\]]{0,90}|\\PC{0,60}") {
        if let Ok(target) = text.parse::<Target>() {
            prop_assert_eq!(target.to_string().parse(), Ok(target));
        }
    }
}
