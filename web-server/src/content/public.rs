//! Which names of the content are for the public: what is served, listed and named by a manifest. `file-puller manifest` keeps to
//! the same rule (`docs/contract.md`, section 2).

/// Where in a path a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Directly beneath the root.
    Top,
    /// Deeper.
    Below,
}

/// Whether a name in the content may be asked for. Hidden files are version control's, editors' and the kubelet's; the one
/// that exists to be asked for is `/.well-known/` (RFC 8615). What ends in `~`, and `#*#`, is what editors leave behind.
pub(crate) fn is_public(name: &str, place: Depth) -> bool {
    let is_backup = name.ends_with('~') || name.len() > 1 && name.starts_with('#') && name.ends_with('#');
    !name.is_empty()
        && !is_backup
        && (!name.starts_with('.') || (place == Depth::Top && name == ".well-known"))
}

/// Whether every name of a path may be asked for.
pub(crate) fn is_public_path(path: &str) -> bool {
    let mut depth = Depth::Top;
    path.split('/').all(|name| is_public(name, std::mem::replace(&mut depth, Depth::Below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_backups_are_not_public() {
        for path in ["index.html", "~user", "#", ".well-known/x", "a/#b"] {
            assert!(is_public_path(path), "{path}");
        }
        for path in [".git/config", "a/.well-known", ".a.swp", "a~", "b~/a", "a/#b#", "", "a//b"] {
            assert!(!is_public_path(path), "{path}");
        }
    }
}
