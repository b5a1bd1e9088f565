//! Rules for the paths that a glob matches, as flags give them: `GLOB=VALUE`.

use std::str::FromStr;

use glob::{MatchOptions, Pattern};

/// Which paths a rule is about. A glob without a slash is about a file's name, in whichever directory; one with a slash is
/// about the whole path, with or without a slash at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathGlob {
    pattern: Pattern,
    whole_path: bool,
}

impl PathGlob {
    /// Whether it matches a path without a slash at its beginning.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        let name = path.rsplit('/').next().unwrap_or(path);
        self.pattern.matches_with(if self.whole_path { path } else { name }, options)
    }
}

impl FromStr for PathGlob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a glob is missing, such as '*.css'".to_owned());
        }
        let pattern = Pattern::new(text.strip_prefix('/').unwrap_or(text));
        Ok(Self {
            pattern: pattern.map_err(|error| format!("{text}: {error}"))?,
            whole_path: text.contains('/'),
        })
    }
}

/// Splits `GLOB=VALUE`.
///
/// # Errors
/// A sentence that shows `example`, where there is no `=`, and what is wrong with the glob.
pub(crate) fn split<'t>(text: &'t str, example: &str) -> Result<(PathGlob, &'t str), String> {
    let (glob, value) =
        text.split_once('=').ok_or_else(|| format!("write GLOB=VALUE, such as '{example}'"))?;
    Ok((glob.parse()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_makes_it_about_the_whole_path() {
        let matches = |glob: &str, path: &str| glob.parse::<PathGlob>().unwrap().matches(path);
        assert!(matches("*.css", "deep/er/a.css"));
        assert!(matches("/health", "health") && !matches("/health", "deep/health"));
        assert!(matches("assets/*", "assets/a.js") && !matches("assets/*", "assets/deep/a.js"));
        assert!(matches("assets/**", "assets/deep/a.js"));
        assert!("[".parse::<PathGlob>().is_err() && "".parse::<PathGlob>().is_err());
    }
}
