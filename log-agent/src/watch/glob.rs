//! Patterns for paths: `--include` and `--exclude`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// In a pattern `*` stays within a directory, as in a shell.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A pattern for paths, made absolute so that it can be compared with what the kernel says.
#[derive(Debug, Clone)]
pub(crate) struct Glob {
    text: String,
    pattern: Pattern,
    components: Vec<Component>,
}

/// What a name has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Component {
    /// Exactly this.
    Literal(String),
    /// Like this.
    Pattern(Pattern),
    /// `**`: any number of directories.
    AnyDepth,
}

impl Component {
    /// Whether a name is what it has to be. A name that is not UTF-8 is compared with what a reader would see of it.
    pub(super) fn matches(&self, name: &OsStr) -> bool {
        match self {
            Self::Literal(literal) => name.to_str() == Some(literal),
            Self::Pattern(pattern) => pattern.matches_with(&name.to_string_lossy(), MATCH),
            Self::AnyDepth => true,
        }
    }
}

impl Glob {
    /// Reads a pattern; a relative one is relative to the working directory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let path =
            std::path::absolute(text).map_err(|error| format!("{error}; write it like /logs/*.log"))?;
        let text = path.to_str().ok_or("a pattern has to be UTF-8")?.to_owned();
        let invalid = |error| format!("{error}; write it like /logs/*.log");
        let pattern = Pattern::new(&text).map_err(invalid)?;
        let mut glob = Self { text, pattern, components: Vec::new() };
        let base = glob.base();
        let rest = path.strip_prefix(&base).unwrap_or(&path);
        for component in rest.components() {
            let component = component.as_os_str().to_str().unwrap_or_default();
            glob.components.push(match component {
                "**" => Component::AnyDepth,
                text if text.contains(['*', '?', '[']) => {
                    Component::Pattern(Pattern::new(text).map_err(invalid)?)
                }
                text => Component::Literal(text.to_owned()),
            });
        }
        Ok(glob)
    }

    /// As it was given, made absolute.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.pattern.matches_with(&path.to_string_lossy(), MATCH)
    }

    /// The fixed part: the directory before the first wildcard.
    pub(crate) fn base(&self) -> PathBuf {
        let literal = self.text.find(['*', '?', '[']).map_or(self.text.as_str(), |at| &self.text[..at]);
        match literal.rfind('/') {
            Some(0) | None => PathBuf::from("/"),
            Some(end) => PathBuf::from(&literal[..end]),
        }
    }

    /// What the names behind the fixed part have to be.
    pub(super) fn components(&self) -> &[Component] {
        &self.components
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_star_stays_within_its_directory() {
        let glob = Glob::new("/logs/*/access.log*").unwrap();
        assert!(glob.matches(Path::new("/logs/a/access.log.1")));
        assert!(!glob.matches(Path::new("/logs/a/b/access.log")));
        assert_eq!(glob.base(), Path::new("/logs"));
        assert_eq!(Glob::new("/logs/access.log").unwrap().base(), Path::new("/logs"));
        assert_eq!(Glob::new("/*.log").unwrap().base(), Path::new("/"));
        assert!(Glob::new("/logs/[").is_err());
        assert!(
            glob.matches(Path::new(OsStr::from_bytes(b"/logs/caf\xe9/access.log"))),
            "a name that is not UTF-8"
        );
    }
}
