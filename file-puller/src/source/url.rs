//! Where content lies: the manifest's URL, and each file's beneath it.
//!
//! SECURITY: a URL may carry a secret (`user:password@`, `?token=`). [`SourceUrl`] refuses the first and shows no query, so that
//! what is logged, reported or written into an error can be read by anyone.

use std::fmt;
use std::str::FromStr;

use lifecycle::escape::escaped;
use reqwest::Url;

use super::kind::Kind;
use crate::content::{Manifest, ManifestFile};

/// What is appended to a manifest's name for that of its signature.
pub(crate) const SIGNATURE_EXTENSION: &str = ".sig";

/// Archives that other programs unpack.
const UNREADABLE: [&str; 7] = [".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z", ".rar"];

/// What is followed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SourceUrl(Url);

/// Where a manifest was found, after all redirects: what it names lies beneath its directory (RFC 3986, section 5.1.3).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Base(Url);

/// A file's `url` that does not lie where the manifest's base is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "manifest refused: url \"{}\" of {path} does not lie beneath the manifest's own directory",
    escaped(url)
)]
pub(crate) struct OutsideBase {
    path: String,
    url: String,
}

impl FromStr for SourceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text)
            .map_err(|error| format!("{error}; write it like https://content.example/site/manifest.json"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "{}:// is not a scheme that is pulled from; use http:// or https://",
                url.scheme()
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL shows up in logs and process lists, so it must not carry a user or password"
                .to_owned());
        }
        let path = url.path().to_ascii_lowercase();
        if let Some(ending) = UNREADABLE.into_iter().find(|ending| path.ends_with(ending)) {
            return Err(format!(
                "{ending} cannot be unpacked; an archive is a .tar, .tar.gz, .tgz or .tar.zst"
            ));
        }
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl SourceUrl {
    /// The manifest's or the archive's own URL.
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// What the ending of its path says that lies there.
    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::of_path(self.0.path())
    }
}

impl Base {
    pub(crate) fn new(manifest: Url) -> Self {
        Self(manifest)
    }

    /// Where the manifest's signature lies: beside it.
    pub(crate) fn signature(&self) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{SIGNATURE_EXTENSION}", self.0.path()));
        url
    }

    /// Where a file of the manifest is fetched from: its `url` if it has one, else its path, percent-encoded.
    pub(crate) fn file(&self, file: &ManifestFile) -> Result<Url, OutsideBase> {
        match &file.url {
            None => Ok(self.at_path(file.path.segments())),
            Some(relative) => self
                .beneath_base(relative)
                .ok_or_else(|| OutsideBase { path: file.path.to_string(), url: relative.to_string() }),
        }
    }

    /// Checks every file's URL before anything is fetched, so that a manifest is refused whole.
    pub(crate) fn covers(&self, manifest: &Manifest) -> Result<(), OutsideBase> {
        manifest.files.iter().filter(|file| file.url.is_some()).try_for_each(|file| self.file(file).map(drop))
    }

    fn at_path<'s>(&self, segments: impl Iterator<Item = &'s str>) -> Url {
        let mut url = self.0.clone();
        url.set_query(None);
        // http and https URLs always have path segments; `Err` is for the likes of mailto:.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop().extend(segments);
        }
        url
    }

    fn beneath_base(&self, relative: &str) -> Option<Url> {
        let base = self.at_path(std::iter::once(""));
        // Joining resolves `..`, also as `%2e%2e`, and lets an absolute URL replace the base: so the result is judged.
        let url = base.join(relative).ok()?;
        let inside = url.origin() == base.origin()
            && url.username().is_empty()
            && url.path().len() > base.path().len()
            && url.path().starts_with(base.path());
        inside.then_some(url)
    }
}

/// Shows a URL without what may be secret in it.
pub(crate) fn display(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&display(&self.0))
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&display(&self.0))
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, FileMode, ReleasePath};

    fn source() -> SourceUrl {
        "https://cm.example/site/manifest.json?token=secret".parse().unwrap()
    }

    fn base() -> Base {
        Base::new(source().url().clone())
    }

    fn file(path: &str, url: Option<&str>) -> ManifestFile {
        ManifestFile {
            path: ReleasePath::parse(path).unwrap(),
            size: 0,
            digest: Digest::parse(&"0".repeat(64)).unwrap(),
            mode: FileMode::PLAIN,
            url: url.map(Into::into),
        }
    }

    #[test]
    fn paths_are_percent_encoded_beneath_the_manifest() {
        for (path, url) in [
            ("css/site.css", "https://cm.example/site/css/site.css"),
            ("a b/ü?#.html", "https://cm.example/site/a%20b/%C3%BC%3F%23.html"),
            ("100%2e%2e/x", "https://cm.example/site/100%252e%252e/x"),
            ("a/%2e%2e/b", "https://cm.example/site/a/%252e%252e/b"),
        ] {
            assert_eq!(base().file(&file(path, None)).unwrap().as_str(), url);
        }
    }

    #[test]
    fn a_url_of_its_own_stays_beneath_the_manifest() {
        let at = |url| base().file(&file("a", Some(url))).map(String::from);
        assert_eq!(at("blobs/9f86").unwrap(), "https://cm.example/site/blobs/9f86");
        assert_eq!(at("/site/blobs/9f86?v=1").unwrap(), "https://cm.example/site/blobs/9f86?v=1");
        for url in [
            "../other",
            "/other",
            "//evil.example/site/x",
            "http://cm.example/site/x",
            "%2e%2e/other",
            "",
            ".",
            "https://u:p@cm.example/site/x",
            "\\\\evil.example\\x",
            "/sitex/y",
        ] {
            assert!(at(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_pulled_from_is_refused_and_told_why() {
        for (url, why) in [
            ("content", "https://content.example"),
            ("ftp://x/manifest.json", "ftp"),
            ("http://x/site.zip", ".tar.zst"),
            ("http://user:pw@x/manifest.json", "password"),
        ] {
            let error = url.parse::<SourceUrl>().unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("pw@"), "{error}");
        }
    }

    #[test]
    fn a_query_is_sent_and_never_shown() {
        assert!(source().url().as_str().contains("token=secret"));
        assert_eq!(format!("{} {:?} {:?}", source(), source(), base()).matches("secret").count(), 0);
    }
}
