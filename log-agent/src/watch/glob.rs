//! Patterns for paths: `--include` and `--exclude`.

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
        let pattern = Pattern::new(&text).map_err(|error| format!("{error}; write it like /logs/*.log"))?;
        Ok(Self { text, pattern })
    }

    /// Whether it matches this path.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.pattern.matches_path_with(path, MATCH)
    }

    /// The directory before the first wildcard.
    pub(super) fn base(&self) -> PathBuf {
        let literal = self.text.find(['*', '?', '[']).map_or(self.text.as_str(), |at| &self.text[..at]);
        match literal.rfind('/') {
            Some(0) | None => PathBuf::from("/"),
            Some(end) => PathBuf::from(&literal[..end]),
        }
    }

    fn expand(text: &str) -> Vec<PathBuf> {
        // The pattern was parsed before. A directory that cannot be read is said by whoever opens what is in it.
        glob::glob_with(text, MATCH).map(|paths| paths.filter_map(Result::ok).collect()).unwrap_or_default()
    }

    /// The paths that match now.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        Self::expand(&self.text)
    }

    /// Directories in which a match may appear: those that exist, or the nearest ancestor that does.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let base = self.base();
        let mut found = match base.ancestors().find(|ancestor| ancestor.is_dir()) {
            Some(nearest) if nearest == base => vec![base],
            Some(nearest) => return vec![nearest.to_owned()],
            None => Vec::new(),
        };
        if let Some(parent) = Path::new(&self.text).parent().and_then(Path::to_str) {
            found.extend(Self::expand(parent).into_iter().filter(|path| path.is_dir()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
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
    }
}
