//! Which part of an archive, a repository or an image becomes the release: [`Selection`].
//!
//! A selection is applied to a name before anything is asked of it: what is left out cannot refuse a release, whatever
//! it is, unless an archive's readers would not agree where it ends or what it is, or the whole unpacks to too much. `.git` and
//! everything beneath it is always left out.

use glob::{MatchOptions, Pattern};

/// What `--strip-components`, `--subdir` and `--exclude` leave of a source.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Archives, git and OCI")]
pub(crate) struct Selection {
    /// Leading directories to remove from each path: 1 for the archives that git forges make of a repository
    #[arg(long, value_name = "N", default_value = "0")]
    strip_components: usize,

    /// Publish this directory alone, as the root of the release
    #[arg(long, value_name = "PATH", value_parser = subdir)]
    subdir: Option<String>,

    /// Leave out what matches this pattern: a name at any depth (*.map), or a path with its slashes (docs/*.md);
    /// a directory goes with all that is in it. Repeatable
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<Pattern>,
}

/// `*` stays between two slashes, as in a shell.
const GLOB: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

fn subdir(text: &str) -> Result<String, String> {
    let path = text.trim_start_matches("./").trim_end_matches('/');
    super::ReleasePath::parse(path).map(|path| path.to_string()).map_err(|error| error.to_string())
}

impl Selection {
    /// The path within the release of something with this name in the source, or `None` where it is left out.
    ///
    /// The directory that becomes the release's root is `""`.
    pub(crate) fn select<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let mut rest = name;
        for _ in 0..self.strip_components {
            let slash = rest.iter().position(|byte| *byte == b'/')?;
            rest = &rest[slash + 1..];
        }
        if let Some(subdir) = &self.subdir {
            rest = rest.strip_prefix(subdir.as_bytes())?;
            rest = if rest.is_empty() { rest } else { rest.strip_prefix(b"/")? };
        }
        (!self.excludes(rest)).then_some(rest)
    }

    /// Whether anything beneath the directory with this name can be part of the release.
    pub(crate) fn enters(&self, directory: &[u8]) -> bool {
        match &self.subdir {
            Some(subdir) if self.strip_components == 0 => {
                let subdir = subdir.as_bytes();
                let is_above = subdir.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"));
                is_above || self.select(directory).is_some()
            }
            _ => self.strip_components > 0 || self.select(directory).is_some(),
        }
    }

    /// Whether nothing is left out by name.
    pub(crate) fn is_everything(&self) -> bool {
        self.subdir.is_none() && self.exclude.is_empty()
    }

    /// Whether two selections leave the same of every source.
    pub(crate) fn fingerprint(&self) -> String {
        let exclude: Vec<_> = self.exclude.iter().map(Pattern::as_str).collect();
        format!("{} {:?} {exclude:?}", self.strip_components, self.subdir)
    }

    fn excludes(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            let name = &path[start..end];
            if name == b".git" || self.exclude.iter().any(|pattern| matches(pattern, &path[..end], name)) {
                return true;
            }
            start = end + 1;
        }
        false
    }
}

fn matches(pattern: &Pattern, path: &[u8], name: &[u8]) -> bool {
    let has_slash = pattern.as_str().contains('/');
    let text = String::from_utf8_lossy(if has_slash { path } else { name });
    pattern.matches_with(&text, GLOB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(strip_components: usize, subdir: Option<&str>, exclude: &[&str]) -> Selection {
        let exclude = exclude.iter().map(|glob| Pattern::new(glob).unwrap()).collect();
        Selection { strip_components, subdir: subdir.map(Into::into), exclude }
    }

    #[test]
    fn what_is_selected_has_the_root_of_the_release_taken_off() {
        let all = selection(0, None, &[]);
        assert_eq!(all.select(b"css/site.css"), Some(&b"css/site.css"[..]));
        let forge = selection(1, Some("site/public"), &[]);
        for (name, selected) in [
            ("repo-1a2b/site/public/index.html", Some("index.html")),
            ("repo-1a2b/site/public", Some("")),
            ("repo-1a2b/site/publicity", None),
            ("repo-1a2b/site", None),
            ("pax_global_header", None),
        ] {
            assert_eq!(forge.select(name.as_bytes()), selected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn an_excluded_directory_goes_with_its_files() {
        let some = selection(0, None, &["*.map", "node_modules", "docs/*.md"]);
        for (name, is_selected) in [
            ("index.html", true),
            ("js/app.js.map", false),
            ("js/node_modules/x/y.js", false),
            ("docs/a.md", false),
            ("docs/a/b.md", true),
            ("other/docs/a.md", true),
            (".git/config", false),
            ("module/.git", false),
            (".github/x", true),
        ] {
            assert_eq!(some.select(name.as_bytes()).is_some(), is_selected, "{name}");
        }
    }

    #[test]
    fn a_directory_above_the_subdirectory_is_entered() {
        let sub = selection(0, Some("site/public"), &["drafts"]);
        for (directory, enters) in [
            ("site", true),
            ("site/public", true),
            ("site/public/a", true),
            ("sit", false),
            ("docs", false),
            ("site/public/drafts", false),
        ] {
            assert_eq!(sub.enters(directory.as_bytes()), enters, "{directory}");
        }
    }
}
