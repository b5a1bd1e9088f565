//! Which names of a directory are for the public, when it becomes a release as it lies there.
//!
//! The rule is that of web-server (`docs/contract.md`, section 2): hidden files are not, but for `.well-known` at the top (RFC 8615), and
//! neither is what editors leave behind: `*~`, `#*#`, and `.*.sw?`, which is hidden.

/// Whether a file or directory with this name is public. `is_at_top` says that it lies in the directory itself.
pub(crate) fn is_public(name: &str, is_at_top: bool) -> bool {
    let is_hidden = name.starts_with('.') && !(is_at_top && name == ".well-known");
    let is_backup = name.ends_with('~') || name.len() > 1 && name.starts_with('#') && name.ends_with('#');
    !is_hidden && !is_backup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_backups_are_not_public() {
        for (name, is_at_top, public) in [
            ("index.html", true, true),
            ("~user", true, true),
            ("#", true, true),
            (".well-known", true, true),
            (".well-known", false, false),
            (".git", true, false),
            (".index.html.swp", true, false),
            ("index.html~", false, false),
            ("#index.html#", false, false),
        ] {
            assert_eq!(is_public(name, is_at_top), public, "{name}");
        }
    }
}
