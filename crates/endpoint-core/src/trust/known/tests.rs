use std::fs;

use proptest::prelude::*;

use super::*;
use crate::identity::Identity;

fn key(n: u8) -> Fingerprint {
    Identity::from_seed(&[n; 32]).fingerprint()
}

fn host(text: &str) -> HostPort {
    text.parse().unwrap()
}

fn fill(text: &str) -> String {
    text.replace("<A>", &key(1).to_string())
        .replace("<B>", &key(2).to_string())
        .replace("<C>", &Identity::from_seed(&[3; 32]).public_key().to_ssh(""))
}

fn read(text: &str) -> Result<KnownPeers, KnownError> {
    KnownPeers::parse(Path::new("known_peers"), fill(text).as_bytes())
}

fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_peers");
    (folder, path)
}

const TEXT: &str =
    "# mine\r\n\nNode.Example:4433,[2001:DB8::1]:1,bob <A> at home\r\n \tA:1\t<B>\nb:1 <C> c d";

#[test]
fn answers_match_unknown_and_changed() {
    let known = read(TEXT).unwrap();
    assert_eq!(known.lookup(&host("node.example:4433"), &key(1)), Known::Match);
    assert_eq!(known.lookup(&host("[2001:db8::1]:1"), &key(1)), Known::Match);
    assert_eq!(known.lookup(&host("b:1"), &key(3)), Known::Match);
    assert_eq!(known.lookup(&host("node.example:4434"), &key(1)), Known::Unknown);
    let changed = Known::Changed { expected: key(2), file: "known_peers".into(), line: 4 };
    assert_eq!(known.lookup(&host("a:1"), &key(1)), changed);
    assert_eq!(read("").unwrap().lookup(&host("a:1"), &key(1)), Known::Unknown);
}

#[test]
fn finds_a_peer_by_alias_and_by_address() {
    let known = read(TEXT).unwrap();
    assert_eq!(known.find("bob"), Some((key(1), host("node.example:4433"))));
    assert_eq!(known.find("[2001:db8:0::1]:1"), Some((key(1), host("[2001:db8::1]:1"))));
    assert_eq!(known.find("B:1"), Some((key(3), host("b:1"))));
    for unknown in ["Bob", "node.example", "a:2", "", "a b", ","] {
        assert_eq!(known.find(unknown), None, "{unknown}");
    }
    let comments: Vec<_> = known.iter().map(KnownPeer::comment).collect();
    assert_eq!(comments, ["at home", "", "c d"]);
    assert_eq!(
        known.iter().next().unwrap().to_string(),
        fill("node.example:4433,[2001:db8::1]:1,bob <A> at home")
    );
}

#[test]
fn takes_every_line_that_is_not_in_order_as_an_error() {
    let table = [
        ("x", 1, "there is no address among the names"),
        ("a:1", 4, "there is no key after the names"),
        ("a:1 ", 5, "there is no key after the names"),
        ("bob <A>", 1, "there is no address among the names"),
        ("a:0 <A>", 1, "`0` is not a port"),
        ("a:1,b:x <A>", 5, "`x` is not a port"),
        ("a:1, <A>", 5, "the list of names has an empty item"),
        ("::1:1 <A>", 1, "needs brackets"),
        ("b/ob,a:1 <A>", 1, "has no port"),
        ("a:1 bob", 5, "`bob` begins no key"),
        ("a:1 ssh-rsa AAAA", 5, "RSA key: only Ed25519"),
        ("a:1 ssh-ed25519", 5, "has 0 characters, expected 68"),
        ("a:1 sha256:00 <A>", 5, "has 2 characters, expected 64"),
        ("<A> a:1", 1, "is not a port"),
        ("\u{feff}a:1 <A>", 1, "U+FEFF (byte-order mark) has no place here"),
        ("a:1 <A>\0", 76, "U+0000 (NUL) has no place here"),
        ("K:1 <A>", 1, "`K:1` stands on line 1 with another key; `endpoint known forget K:1`"),
        ("c:1,kin <A>", 5, "`kin` stands on line 1 with another key"),
    ];
    for (line, column, want) in table {
        let error = match read(&format!("k:1,kin <B>\n{line}\n")) {
            Err(error @ KnownError::Line { .. }) => error.to_string(),
            other => panic!("{line}: {other:?}"),
        };
        let want_start = format!("known_peers:2:{column}: ");
        assert!(error.starts_with(&want_start) && error.contains(want), "{line}: {error}");
    }
    assert!(KnownPeers::parse(Path::new("k"), b"a:1 \xff").is_err());
    assert!(read("k:1 <A>\nk:1,kin <A>\n").is_ok(), "the same key twice harms nobody");
}

#[test]
fn learns_a_key_once_and_never_another_for_the_same_address() {
    let (_folder, path) = in_folder();
    learn(&path, &host("A:1"), &key(1)).unwrap();
    learn(&path, &host("a:1"), &key(1)).unwrap();
    learn(&path, &host("[::1]:1"), &key(2)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, fill("a:1 <A>\n[::1]:1 <B>\n"));
    let error = learn(&path, &host("a:1"), &key(2)).unwrap_err();
    let want = format!("another key is known for a:1: {}, {}:1;", key(1), path.display());
    assert!(error.to_string().starts_with(&want), "{error}");
    assert!(error.to_string().contains("`endpoint known forget a:1`"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(KnownPeers::load(&path).unwrap().iter().len(), 2);
}

#[test]
fn learns_nothing_into_a_file_that_is_not_in_order() {
    let (_folder, path) = in_folder();
    learn(&path, &host("a:1"), &key(1)).unwrap();
    fs::write(&path, "garbage\n").unwrap();
    assert!(matches!(learn(&path, &host("b:1"), &key(1)), Err(KnownError::Line { .. })));
    assert!(matches!(KnownPeers::load(&path), Err(KnownError::Line { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "garbage\n");
}

#[test]
fn forgets_every_line_of_a_name_and_keeps_the_former_file() {
    let (folder, path) = in_folder();
    let text = fill("# a:1\na:1,bob <A>\nx:1 <B>\r\nx:1,A:1 garbage\ngarbage\nb:1,bob2 <A>");
    learn(&path, &host("z:1"), &key(9)).unwrap();
    fs::write(&path, &text).unwrap();
    assert_eq!(forget(&path, "nobody").unwrap(), 0);
    let old = folder.path().join("known_peers.old");
    assert!(!old.exists());
    assert_eq!(forget(&path, "a:1").unwrap(), 2);
    let after = fill("# a:1\nx:1 <B>\r\ngarbage\nb:1,bob2 <A>");
    assert_eq!(fs::read_to_string(&path).unwrap(), after);
    assert_eq!(fs::read_to_string(&old).unwrap(), text);
    assert_eq!(forget(&path, "bob2").unwrap(), 1);
    assert_eq!(forget(&path, "garbage").unwrap(), 1);
    assert_eq!(fs::read_to_string(&path).unwrap(), fill("# a:1\nx:1 <B>\r\n"));
    assert_eq!(forget(&folder.path().join("none"), "a:1").unwrap(), 0);
}

proptest! {
    #[test]
    fn reads_back_what_it_writes(
        names in prop::collection::vec("[a-z][a-z0-9-]{0,8}[a-z](:[1-9][0-9]{0,3})?", 1..5),
        n: u8,
        comment in "([!-~]([ -~]{0,20}[!-~])?)?",
    ) {
        let text = format!("a:1,{} {} {comment}", names.join(","), key(n));
        let known = KnownPeers::parse(Path::new("k"), text.as_bytes()).unwrap();
        let again = known.iter().next().unwrap().to_string();
        prop_assert_eq!(KnownPeers::parse(Path::new("k"), again.as_bytes()).unwrap(), known);
    }

    #[test]
    fn answers_any_text_without_a_panic(text in "([a-z0-9:,\\[\\]]{0,12} ?(<A>|<B>|<C>)?[ -~\n]{0,9}){0,4}") {
        let _ = read(&text);
    }
}
