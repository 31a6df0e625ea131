use clap::CommandFactory;

use super::*;

#[test]
fn is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn shows_examples_in_the_help_of_every_sub_command() {
    fn visit(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n"), "{path} has no examples");
            visit(sub, &path);
        }
    }
    visit(&Args::command(), "endpoint");
}

#[test]
fn takes_an_ssh_line_in_several_words_and_options_after_it() {
    let args = Args::try_parse_from([
        "endpoint",
        "trust",
        "add",
        "ssh-ed25519",
        "AAAA",
        "bob",
        "--option",
        "alpn=echo/1,ping/1",
    ])
    .unwrap();
    let Command::Trust(Trust::Add(add)) = args.command else { panic!("not trust add") };
    assert_eq!(add.key, ["ssh-ed25519", "AAAA", "bob"]);
    assert_eq!(add.options, [("alpn".to_owned(), "echo/1,ping/1".to_owned())]);
}

#[test]
fn refuses_values_in_words_of_its_own() {
    let cases: [(&[&str], &str); 5] = [
        (&["serve", "--listen", "4433"], "expected an address such as 127.0.0.1:4433"),
        (&["ping", "x:1", "-c", "0"], "expected a number from 1 to 1000000"),
        (&["ping", "x:1", "--timeout", "soon"], "expected a time such as 500ms, 10s, 5m or 1h"),
        (&["dial", "x:1", "--alpn", ""], "expected 1 to 255"),
        (&["trust", "add", "k", "--option", "alpm"], "expected NAME=VALUE, such as alpn=echo/1"),
    ];
    for (words, expected) in cases {
        let all = std::iter::once(&"endpoint").chain(words);
        let error = Args::try_parse_from(all).unwrap_err().to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
}

#[test]
fn takes_global_options_after_the_command() {
    let args = Args::try_parse_from(["endpoint", "status", "--json", "--state", "/s"]).unwrap();
    assert!(args.global.json);
    assert_eq!(args.global.state, Some(PathBuf::from("/s")));
}
