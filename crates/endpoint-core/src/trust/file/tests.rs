use std::{
    convert::Infallible,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    thread,
};

use super::*;

/// A state folder with a trust file in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorized_peers");
    fs::write(&path, "# hello\n").unwrap();
    chmod(&path, 0o600);
    (folder, path)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

/// The error of reading, after showing that editing fails alike and changes nothing.
fn refusal(path: &Path) -> String {
    let error = read_trust_file(path).unwrap_err().to_string();
    let edited = edit(path, |_| Ok::<_, Infallible>((b"edited".to_vec(), ())));
    assert_eq!(edited.unwrap_err().to_string(), error);
    if path.symlink_metadata().is_ok_and(|facts| facts.is_file()) {
        assert_ne!(fs::read(path).unwrap(), b"edited");
    }
    error
}

#[test]
fn reads_a_file_and_tells_a_missing_one() {
    let (folder, path) = folder();
    assert_eq!(read_trust_file(&path).unwrap().unwrap(), b"# hello\n");
    for tight in [0o400, 0o600, 0o640, 0o644, 0o755] {
        chmod(&path, tight);
        assert!(read_trust_file(&path).unwrap().is_some(), "{tight:o}");
    }
    assert!(read_trust_file(&folder.path().join("none")).unwrap().is_none());
    assert!(read_trust_file(&folder.path().join("no/folder/none")).unwrap().is_none());
}

#[test]
fn refuses_a_file_that_others_can_write() {
    let (_folder, path) = folder();
    for loose in [0o620, 0o602, 0o666, 0o660] {
        chmod(&path, loose);
        let error = refusal(&path);
        assert!(error.contains(&format!("has mode {loose:04o}")), "{error}");
        assert!(error.contains(&format!("`chmod go-w '{}'`", path.display())), "{error}");
    }
}

#[test]
fn refuses_a_folder_that_others_can_write() {
    let (folder, path) = folder();
    for loose in [0o770, 0o707, 0o1777] {
        chmod(folder.path(), loose);
        for path in [&path, &folder.path().join("missing")] {
            let error = refusal(path);
            let command = format!("`chmod go-w '{}'`", folder.path().display());
            assert!(error.contains(&command), "{error}");
        }
    }
    chmod(folder.path(), 0o755);
    assert!(read_trust_file(&path).is_ok());
}

#[test]
fn refuses_a_foreign_owner_of_file_or_folder() {
    let (folder, path) = folder();
    if !geteuid().is_root() {
        // Only root can give files away; to another user this one is foreign.
        let facts = path.metadata().unwrap();
        let error = check_for(facts.uid() + 1, &path, &facts).unwrap_err().to_string();
        assert!(error.contains("belongs to user") && error.contains("`chown "), "{error}");
        return;
    }
    chown(&path, Some(4321), None).unwrap();
    let error = refusal(&path);
    assert!(error.contains("belongs to user 4321") && error.contains("`chown 0 '"), "{error}");
    chown(&path, Some(0), None).unwrap();
    chown(folder.path(), Some(4321), None).unwrap();
    let error = refusal(&path);
    assert!(error.contains(&format!("`chown 0 '{}'`", folder.path().display())), "{error}");
}

#[test]
fn refuses_links_folders_pipes_and_sockets() {
    let (folder, path) = folder();
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    let dangling = folder.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    for path in [link, dangling] {
        let error = refusal(&path);
        assert!(error.contains("is a link") && error.contains("`mv "), "{error}");
    }
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, OWNER_ONLY, 0).unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    for path in [pipe, socket, inner] {
        let error = refusal(&path);
        assert!(error.contains("is not a regular file") && error.contains("`mv "), "{error}");
    }
}

#[test]
fn refuses_a_file_of_more_than_16_mebibytes() {
    let (_folder, path) = folder();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(LONGEST_BYTES).unwrap();
    assert!(read_trust_file(&path).is_ok());
    file.set_len(LONGEST_BYTES + 1).unwrap();
    assert!(refusal(&path).contains("is longer than 16 MiB"));
}

#[test]
fn names_the_file_when_the_system_refuses() {
    let (_folder, path) = folder();
    let error = refusal_of_reading(&path.join("below-a-file"));
    assert!(error.starts_with("cannot open `") && error.contains("authorized_peers"), "{error}");
    chmod(&path, 0o000);
    match read_trust_file(&path) {
        // Root reads everything.
        Ok(bytes) => assert!(geteuid().is_root() && bytes.is_some()),
        Err(error) => assert!(error.to_string().contains("`chmod u+r '"), "{error}"),
    }
}

fn refusal_of_reading(path: &Path) -> String {
    read_trust_file(path).unwrap_err().to_string()
}

#[test]
fn edits_in_one_step_and_keeps_the_mode() {
    let (folder, path) = folder();
    chmod(&path, 0o640);
    let before = path.metadata().unwrap().ino();
    let length = edit(&path, |text| Ok::<_, Infallible>(([text, b"x\n"].concat(), text.len())));
    assert_eq!(length.unwrap(), 8);
    assert_eq!(fs::read(&path).unwrap(), b"# hello\nx\n");
    assert_eq!(mode(&path), 0o640);
    assert_ne!(path.metadata().unwrap().ino(), before, "replaced, not written over");
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["authorized_peers", "authorized_peers.lock"]);
    assert_eq!(mode(&folder.path().join("authorized_peers.lock")), 0o600);
}

#[test]
fn makes_a_missing_file_and_folder_for_the_owner_alone() {
    let (folder, _) = folder();
    let path = folder.path().join("a/b/known_peers");
    edit(&path, |text| Ok::<_, Infallible>(([text, b"x"].concat(), ()))).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(read_trust_file(&path).unwrap().unwrap(), b"x");
}

#[test]
fn leaves_the_file_alone_when_nothing_changes_or_the_change_is_refused() {
    let (_folder, path) = folder();
    let before = path.metadata().unwrap().ino();
    edit(&path, |text| Ok::<_, Infallible>((text.to_vec(), ()))).unwrap();
    let error = edit::<(), _>(&path, |_| Err("no")).unwrap_err();
    assert_eq!(error.to_string(), "no");
    assert_eq!(path.metadata().unwrap().ino(), before);
}

#[test]
fn loses_no_edit_of_many_at_once() {
    let (_folder, path) = folder();
    thread::scope(|scope| {
        for n in 0..8_u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..5 {
                    let add = |text: &[u8]| Ok::<_, Infallible>(([text, &[b'0' + n]].concat(), ()));
                    edit(path, add).unwrap();
                }
            });
        }
    });
    let mut bytes = fs::read(&path).unwrap().split_off(8);
    bytes.sort_unstable();
    assert_eq!(bytes, b"00000111112222233333444445555566666777777".get(..40).unwrap());
}
