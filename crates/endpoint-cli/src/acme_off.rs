//! Does this build obtain certificates itself? Without feature `acme` it does not.

/// Whether it does.
pub(crate) const BUILT_IN: bool = false;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{config::Config, error::ExitKind};

    #[test]
    fn a_name_in_auto_is_refused_with_the_name_of_the_feature() {
        let text = "[acme]\ndirectory = \"https://ca.example/dir\"\n[[site]]\nnames = [\"a.example\"]\ncertificate = \"auto\"\n";
        let refused = Config::parse(text, Path::new("endpoint.toml")).unwrap_err();
        assert_eq!(refused.exit, ExitKind::Usage);
        assert!(refused.message.contains("feature `acme`"), "{refused}");
        assert!(refused.others.is_empty(), "{refused:?}");
    }
}
