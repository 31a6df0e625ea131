use super::*;

const LIBRARY: &str = "
impl Other {
    pub fn foreign(&mut self, value: u8) -> &mut Self {
    }
}

impl Limits {
    /// Reads.
    pub fn shown(&self) -> u8 {
    }
    pub fn most(&mut self, value: u8) -> &mut Self {
    }
    pub fn made_by<F: Fn() -> u8>(
        &mut self,
        factory: F,
    ) -> &mut Self {
    }
    pub fn new(value: u8) -> Self {
    }
}
";

fn config(chained: bool) -> Config {
    Config {
        name: "CubicConfig",
        package: "p",
        file: "f.rs",
        block: "impl Limits {",
        made: "Limits::new()",
        sites: &[TCP],
        chained,
    }
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn lists_what_changes_a_configuration() {
    assert_eq!(setters(LIBRARY, "impl Limits {"), ["most", "made_by"]);
    assert_eq!(setters(LIBRARY, "impl Other {"), ["foreign"]);
}

#[test]
fn finds_a_setter_that_is_not_called_at_one_of_several_places() {
    let setters = ["most".to_owned(), "initial_window".to_owned()];
    let whole = "let a = Limits::new()\n    .most(1);\nlet b = Limits::new().most(2);\n";
    let found = compare(&config(true), &setters, &[source(TCP, whole)]);
    assert!(found.is_empty(), "{:?}", texts(&found));
    let one = "let a = Limits::new()\n    .most(1);\nlet b = Limits::new();\nc.most(2);\n";
    let found = texts(&compare(&config(true), &setters, &[source(TCP, one)]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`most`") && found[0].contains(TCP), "{found:?}");
}

#[test]
fn reads_on_until_the_configuration_is_used() {
    let text = "let mut a = Limits::new();\na.most(1);\nb(a.build::<_>());\na.least(1);\n";
    let setters = ["most", "least", "initial_window"].map(str::to_owned);
    let found = texts(&compare(&config(true), &setters, &[source(TCP, text)]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`least`"), "{found:?}");
}

#[test]
fn a_call_in_a_comment_or_a_test_does_not_count() {
    let text = "let a = Limits::new();\n// .most(1)\n#[cfg(test)]\nmod tests {\n a.most(1); }\n";
    let setters = ["most".to_owned(), "initial_window".to_owned()];
    let found = texts(&compare(&config(true), &setters, &[source(TCP, text)]));
    assert!(found.iter().any(|text| text.contains("`most`")), "{found:?}");
}

#[test]
fn finds_a_new_place_a_place_that_is_gone_and_an_excuse_that_is() {
    let setters = ["most".to_owned()];
    let elsewhere = source("crates/a/src/b.rs", "Limits::new().most(1);");
    let found = texts(&compare(&config(true), &setters, &[elsewhere]));
    for part in ["made here", "no longer made", "`initial_window` is excused, but called or gone"] {
        assert!(found.iter().any(|text| text.contains(part)), "{part}: {found:?}");
    }
}

#[test]
fn finds_a_frame_that_we_do_not_know() {
    let table: String = (0..25).map(|n| format!("    F{n} = {n:#04x},\n")).collect();
    let theirs = format!(
        "macro_rules! frame_types {{}}\nframe_types! {{\n{table}    // x\n}}\n\
         const STREAM_TYS: R = R::new(0x08, 0x0f);\nconst DATAGRAM_TYS: R = R::new(0x30, 0x31);\n"
    );
    let mut ours: String = (0..25).map(|n| format!("const F{n}: u64 = {n:#04x};\n")).collect();
    ours.push_str("const D: u64 = 0x31;\n");
    assert!(frames(&theirs, &[source(FRAMES, &ours)]).is_empty());
    let short = ours.replace("0x13", "0x99");
    let found = texts(&frames(&theirs, &[source(FRAMES, &short)]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("F19 (0x13)"), "{found:?}");
    assert!(!frames("changed", &[source(FRAMES, &ours)]).is_empty());
}
