//! Key files and public keys of other programs.

use crate::{fingerprint_by_openssl, machine, run};

#[test]
fn openssl_reads_the_identity_file_and_computes_its_fingerprint() {
    let machine = machine();
    let shown = machine.json(&["key", "show"]);
    let file = machine.file("identity.key");
    let file = file.to_str().unwrap();
    assert_eq!(shown["fingerprint"], fingerprint_by_openssl(file).as_str());
    let said = run("openssl", &["pkey", "-in", file, "-noout", "-text"]);
    assert!(said.out.contains("ED25519 Private-Key"), "{said:?}");
}

#[test]
fn a_key_made_by_openssl_is_imported_under_the_same_fingerprint() {
    let machine = machine();
    let file = machine.file("theirs.pem");
    let file = file.to_str().unwrap();
    run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", file]);
    let imported = machine.json(&["key", "import", file]);
    assert_eq!(imported["fingerprint"], fingerprint_by_openssl(file).as_str());
    assert_eq!(machine.fingerprint(), fingerprint_by_openssl(file));
}

#[test]
fn a_public_key_made_by_ssh_keygen_is_authorised_with_its_comment() {
    let machine = machine();
    let file = machine.file("id_ed25519");
    let name = file.to_str().unwrap();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "bob@laptop", "-f", name]);
    let line = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let added = machine.json(&[&["trust", "add"], &words[..]].concat());
    assert!(added["line"].as_str().unwrap().ends_with("bob@laptop"), "{added}");
    let listed = machine.json(&["trust", "ls"]);
    assert_eq!(listed["fingerprint"], added["fingerprint"]);
    assert_eq!(listed["comment"], "bob@laptop");

    // One argument, as a shell gives it in quotes, is the same key.
    let again = machine.run(&["trust", "add", line.trim()]);
    assert_eq!(again.code(), 1, "{again:?}");
    assert!(again.err.contains("already"), "{again:?}");

    // The hash that ssh shows names something else; it is refused with the reason.
    let shown = run("ssh-keygen", &["-l", "-f", name]);
    let hash = shown.out.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
    let refused = machine.run(&["trust", "add", hash]);
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.err.contains("OpenSSH"), "{refused:?}");
}

#[test]
fn ssh_keygen_reads_the_line_that_key_show_prints() {
    let machine = machine();
    let shown = machine.json(&["key", "show"]);
    let file = machine.file("ours.pub");
    std::fs::write(&file, format!("{}\n", shown["ssh"].as_str().unwrap())).unwrap();
    let said = run("ssh-keygen", &["-l", "-f", file.to_str().unwrap()]);
    assert!(said.out.contains("(ED25519)"), "{said:?}");
}
