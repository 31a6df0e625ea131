use std::fs;

use super::*;

fn key(n: u8) -> Fingerprint {
    Fingerprint::from_bytes([n; 32])
}

fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn listing(keys: &[u8]) -> String {
    keys.iter().map(|n| format!("{}\n", key(*n))).collect()
}

/// What a look gives that has read `text`.
fn text(peers: &AuthorizedPeers, text: &str) -> Found {
    let parsed = authorized::parse(text.as_bytes());
    let before = peers.grants();
    let gone = peers.state().gone(&parsed.grants);
    Found::Text { grants: parsed.grants, faults: parsed.faults, before, gone }
}

fn unusable() -> Found {
    Found::Unusable("it is missing".to_owned())
}

/// A list, and the moment at which the test begins.
fn list(keys: &[u8]) -> (AuthorizedPeers, Instant) {
    (AuthorizedPeers::from_text(&listing(keys)).unwrap(), Instant::now())
}

fn admits(peers: &AuthorizedPeers, n: u8) -> bool {
    peers.policy().grants().lookup(&key(n)).is_some()
}

#[test]
fn a_file_in_doubt_keeps_its_set_for_two_seconds_then_admits_nobody() {
    let (peers, start) = list(&[1, 2]);
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(peers.grace_ends(None), None);
    let taken = peers.take(1, at(0), unusable(), noon(), at(0)).unwrap();
    assert_eq!((taken.reload.grants, taken.removed), (2, None));
    assert_eq!(taken.reload.unusable.as_deref(), Some("it is missing"));
    assert_eq!(peers.grace_ends(None), Some(at(2_000)));
    let again = peers.take(2, at(1_900), unusable(), noon(), at(1_999)).unwrap();
    assert_eq!(again.reload.grants, 2, "looking does not prolong it, nor shorten");
    assert!(peers.overdue(None, at(1_999)).is_none());
    let over = peers.overdue(None, at(2_000)).unwrap();
    assert_eq!((over.grants, over.unusable.is_some()), (0, true));
    assert_eq!(peers.grace_ends(None), None, "nothing is left to end");
    assert!(peers.overdue(None, at(9_000)).is_none(), "told once");

    let back = peers.take(3, at(9_000), text(&peers, &listing(&[1])), noon(), at(9_000)).unwrap();
    assert_eq!((back.reload.grants, back.reload.unusable), (1, None));
    assert!(!peers.in_doubt());
}

#[test]
fn a_doubt_that_ends_in_time_starts_a_new_grace_when_it_comes_again() {
    let (peers, start) = list(&[1]);
    for round in 0..3 {
        let began = start + Duration::from_millis(1_500 * round);
        let number = round * 2 + 1;
        assert_eq!(peers.take(number, began, unusable(), noon(), began).unwrap().reload.grants, 1);
        let end = began + Duration::from_millis(1_499);
        let taken = peers.take(number + 1, began, Found::Same, noon(), end).unwrap();
        assert_eq!((taken.reload.grants, taken.reload.unusable), (1, None));
    }
}

#[test]
fn a_disk_that_does_not_answer_is_a_doubt_that_any_good_look_ends() {
    let (peers, start) = list(&[1]);
    let busy = Some(start);
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(peers.grace_ends(busy), Some(at(2_000)));
    assert!(peers.overdue(busy, at(1_999)).is_none());
    let over = peers.overdue(busy, at(2_000)).unwrap();
    assert_eq!(over.grants, 0);
    assert!(over.unusable.unwrap().contains("the disk does not answer"));
    assert!(peers.problems().len() == 1 && peers.in_doubt());
    // The same bytes as before: without this, the set stayed wrong until the file changed again.
    let back = peers.take(1, start, Found::Same, noon(), at(60_000)).unwrap();
    assert_eq!((back.reload.grants, back.reload.unusable), (1, None));
    assert!(peers.problems().is_empty());
    // An answer that comes late and is bad leaves no new grace.
    peers.take(2, at(70_000), unusable(), noon(), at(73_000)).unwrap();
    assert!(!admits(&peers, 1));
}

#[test]
fn a_disk_that_answers_every_time_is_no_doubt_however_often_it_is_called() {
    let (peers, start) = list(&[1]);
    for second in 0..10 {
        let began = start + Duration::from_secs(second);
        // Seen in the middle of a call, and looked for again when the grace would end.
        let end = peers.grace_ends(Some(began)).unwrap();
        assert!(peers.overdue(Some(end), end).is_none());
    }
}

#[test]
fn an_older_look_never_overwrites_a_newer_one() {
    let (peers, start) = list(&[1]);
    let late = text(&peers, &listing(&[1]));
    peers.take(5, start, text(&peers, &listing(&[2])), noon(), start).unwrap();
    assert!(peers.take(4, start, late, noon(), start).is_none());
    assert!(peers.take(5, start, unusable(), noon(), start).is_none());
    assert!(admits(&peers, 2) && !admits(&peers, 1) && !peers.in_doubt());
}

#[test]
fn good_lines_are_taken_and_the_bad_one_is_named() {
    let (peers, start) = list(&[1, 2]);
    let lines = format!("{}\nsha256:half\n{}\n", key(1), key(3));
    let taken = peers.take(1, start, text(&peers, &lines), noon(), start).unwrap();
    assert_eq!((taken.reload.grants, taken.reload.faults.len()), (2, 1));
    assert_eq!(taken.reload.faults[0].line, 2);
    assert!(admits(&peers, 1) && admits(&peers, 3));
    assert!(!admits(&peers, 2), "a typo keeps no former entry alive");
    let [problem] = &*peers.problems() else { panic!("{:?}", peers.problems()) };
    assert!(problem.starts_with("authorized_peers:2:1: "), "{problem}");
}

#[test]
fn a_revoked_key_stays_out_until_the_file_is_seen_without_it_or_it_is_added_anew() {
    let (peers, start) = list(&[1, 2]);
    let take = |number, keys: &[u8]| {
        peers.take(number, start, text(&peers, &listing(keys)), noon(), start).unwrap().reload
    };
    assert_eq!(peers.revoke(&key(9), noon()), None, "it was not in");
    let written = peers.revoke(&key(1), noon()).unwrap();
    assert!(written.starts_with(&key(1).to_string()));
    assert!(!admits(&peers, 1) && admits(&peers, 2));
    // The edit hangs, or has not come yet: whatever the file says, the key is out.
    assert_eq!(take(1, &[1, 2, 3]).grants, 2);
    assert_eq!(peers.take(2, start, Found::Same, noon(), start).unwrap().reload.grants, 2);
    assert!(!admits(&peers, 1));
    assert!(peers.problems()[0].contains("was revoked and still stands in"));
    assert!(peers.state().removed.is_recent(&key(1), noon()));
    // Seen without it: from now on the file decides again.
    assert_eq!(take(3, &[2]).grants, 1);
    assert_eq!(take(4, &[1, 2]).grants, 2);
    assert!(admits(&peers, 1) && peers.problems().is_empty());

    peers.revoke(&key(1), noon());
    peers.restore(&key(1));
    assert!(admits(&peers, 1));
    assert!(!peers.state().removed.is_recent(&key(1), noon()));
}

#[test]
fn a_key_that_is_added_anew_never_has_the_grant_of_the_line_that_was_removed() {
    let (_folder, _, peers) = file();
    let start = Instant::now();
    let take = |found| {
        drop(peers.take(peers.numbers().load(Ordering::Acquire), start, found, noon(), start))
    };
    let look = || peers.numbers().fetch_add(1, Ordering::AcqRel);
    let of = |peers: &AuthorizedPeers| peers.policy().grants().lookup(&key(1)).cloned();
    peers.revoke(&key(1), noon()).unwrap();
    // This look begins before the line is added, and knows the old one.
    look();
    peers.restore(&key(1));
    assert!(of(&peers).is_none(), "nothing has seen the new line");
    take(Found::Same);
    assert!(of(&peers).is_none(), "this look is older than the new line");
    // The disk hangs: still nothing has seen it.
    look();
    take(Found::Unusable("hangs".to_owned()));
    assert!(of(&peers).is_none());
    look();
    take(text(&peers, &format!("from=10.0.0.1 {}\n", key(1))));
    assert!(of(&peers).is_some_and(|grant| grant.from().is_some()));
    // Revoked once more before a look came: the last word counts.
    peers.revoke(&key(1), noon()).unwrap();
    peers.restore(&key(1));
    peers.revoke(&key(1), noon()).unwrap();
    look();
    take(Found::Same);
    assert!(of(&peers).is_none());
    // The line was added as it had been.
    peers.restore(&key(1));
    look();
    take(Found::Same);
    assert!(of(&peers).is_some() && !peers.state().removed.is_recent(&key(1), noon()));
}

#[test]
fn nobody_is_let_in_for_good_when_nobody_looks_any_more() {
    let (peers, start) = list(&[1]);
    let reload = peers.blind("the watch ended".to_owned(), start);
    assert_eq!((reload.grants, reload.unusable.as_deref()), (0, Some("the watch ended")));
    assert!(peers.take(1, start, Found::Same, noon(), start).is_none());
    assert!(!admits(&peers, 1));
    assert_eq!(peers.grace_ends(Some(start)), None);
}

#[test]
fn a_list_that_is_no_file_changes_as_a_whole_or_not_at_all() {
    let peers = AuthorizedPeers::from_text(&listing(&[1])).unwrap();
    assert!(peers.replace("not a key\n", noon()).is_err());
    assert_eq!(peers.policy().grants().len(), 1);
    peers.replace("", noon()).unwrap();
    assert_eq!(peers.policy().grants().len(), 0);
    assert!(AuthorizedPeers::from_text("not a key\n").is_err());
    assert_eq!(AuthorizedPeers::nobody().policy().grants().len(), 0);
}

/// A file that two keys may use.
fn file() -> (tempfile::TempDir, PathBuf, AuthorizedPeers) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorized_peers");
    fs::write(&path, listing(&[1, 2])).unwrap();
    let peers = AuthorizedPeers::watch(&path).unwrap();
    (folder, path, peers)
}

#[test]
fn a_faulty_line_or_a_list_of_removed_keys_that_cannot_be_believed_stops_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path, peers) = file();
    let written = peers.revoke(&key(1), noon()).unwrap();
    peers.disk().unwrap().write_removed(&written).unwrap();
    let loose = fs::Permissions::from_mode(0o666);
    fs::set_permissions(removed_path(&path), loose).unwrap();
    let error = AuthorizedPeers::watch(&path).unwrap_err().to_string();
    assert!(error.contains("authorized_peers.removed` has mode 0666"), "{error}");
    fs::write(&path, "x\n").unwrap();
    let error = AuthorizedPeers::watch(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:1:1: ", path.display())), "{error}");
}

#[test]
fn keys_that_fell_out_are_written_down_and_read_again() {
    let (_folder, path, peers) = file();
    let start = Instant::now();
    let taken = peers.take(1, start, text(&peers, ""), noon(), start).unwrap();
    let written = taken.removed.unwrap();
    assert_eq!(written.lines().count(), 2, "{written}");
    peers.disk().unwrap().write_removed(&written).unwrap();
    fs::write(&path, listing(&[2])).unwrap();
    let later = AuthorizedPeers::watch(&path).unwrap();
    let removed = &later.state().removed;
    assert!(removed.is_recent(&key(1), noon()));
    assert!(!removed.is_recent(&key(2), noon()), "added again by hand");
}
