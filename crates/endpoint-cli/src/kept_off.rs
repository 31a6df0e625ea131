//! Can this build keep certificates in a file? Without feature `sqlite` it cannot.

/// Whether it can.
pub(crate) const BUILT_IN: bool = false;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{config::Config, error::ExitKind};

    #[test]
    fn a_store_in_a_file_is_refused_with_the_name_of_the_feature() {
        let text = "[store]\nurl = \"sqlite:certs.db\"\n";
        let refused = Config::parse(text, Path::new("endpoint.toml")).unwrap_err();
        assert_eq!(refused.exit, ExitKind::Usage);
        assert!(refused.message.contains("feature `sqlite`"), "{refused}");
        assert!(refused.others.is_empty(), "{refused:?}");
    }
}
