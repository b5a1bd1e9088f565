//! Where content lies: the manifest's URL, and each file's beneath it.
//!
//! SECURITY: a URL may carry a secret (`user:password@`, `?token=`). [`SourceUrl`] refuses the first and shows no query, so that
//! what is logged, reported or written into an error can be read by anyone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use lifecycle::Ignore as _;
use lifecycle::escape::escaped;
use reqwest::Url;

use super::kind::Kind;
use super::oci_reference::OciReference;
use crate::content::{Manifest, ManifestFile};

/// What is appended to a manifest's name for that of its signature.
pub(crate) const SIGNATURE_EXTENSION: &str = ".sig";

/// Archives that other programs unpack.
const UNREADABLE: [&str; 7] = [".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z", ".rar"];

/// What is followed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SourceUrl {
    url: Url,
    scheme: Scheme,
}

/// How it is spoken to, besides HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    /// Not at all: a manifest or an archive.
    File,
    /// As a git server.
    Git,
    /// As a registry, whose URL this is; and the image there.
    Oci(OciReference),
}

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
        if let Some(reference) = text.strip_prefix("oci://") {
            return Self::of_image(reference.parse()?);
        }
        if let Some(address) = text.strip_prefix("git+") {
            return Self::of_repository(address);
        }
        let mut url = Url::parse(text)
            .map_err(|error| format!("{error}; write it like https://content.example/site/manifest.json"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "{}:// is not a scheme that is pulled from; use https://, http://, git+https:// or oci://",
                url.scheme()
            ));
        }
        without_login(&url)?;
        let path = url.path().to_ascii_lowercase();
        if let Some(ending) = UNREADABLE.into_iter().find(|ending| path.ends_with(ending)) {
            return Err(format!(
                "{ending} cannot be unpacked; an archive is a .tar, .tar.gz, .tgz or .tar.zst"
            ));
        }
        url.set_fragment(None);
        Ok(Self { url, scheme: Scheme::File })
    }
}

fn without_login(url: &Url) -> Result<(), String> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    Err("a URL shows up in logs and process lists, so it must not carry a user or password".to_owned())
}

impl SourceUrl {
    /// A repository at this address, which has no `git+` any more.
    fn of_repository(address: &str) -> Result<Self, String> {
        let mut url = Url::parse(address)
            .map_err(|error| format!("{error}; write it like git+https://host/owner/repo.git"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "git+{}:// is not followed, because it would need a git program or an SSH client; use git+https:// with a deploy token",
                url.scheme()
            ));
        }
        without_login(&url)?;
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { url, scheme: Scheme::Git })
    }

    fn of_image(image: OciReference) -> Result<Self, String> {
        let url = Url::parse(&format!("https://{}/", image.registry))
            .map_err(|error| format!("{:?} is not a registry's host: {error}", image.registry))?;
        let mut source = Self { url, scheme: Scheme::Oci(image) };
        if is_loopback(&source.url) {
            source.use_plain_http();
        }
        Ok(source)
    }

    pub(crate) fn image(&self) -> Option<&OciReference> {
        match &self.scheme {
            Scheme::Oci(image) => Some(image),
            Scheme::File | Scheme::Git => None,
        }
    }

    /// Speaks to a registry without TLS.
    pub(crate) fn use_plain_http(&mut self) {
        // Between the two schemes of HTTP a change always succeeds.
        self.url.set_scheme("http").ignore();
    }

    /// Whether a repository would be asked without TLS, in a network where others could change the answers.
    pub(crate) fn is_exposed(&self) -> bool {
        self.scheme == Scheme::Git && self.url.scheme() == "http" && !is_loopback(&self.url)
    }

    /// The manifest's, the archive's or the repository's own URL, or that of the image's registry.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// What its scheme or the ending of its path says that lies there.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.scheme {
            Scheme::File => Kind::of_path(self.url.path()),
            Scheme::Git => Some(Kind::Repository),
            Scheme::Oci(_) => Some(Kind::Image),
        }
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

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.ends_with(".localhost");
    is_local || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
        match &self.scheme {
            Scheme::File => out.write_str(&display(&self.url)),
            Scheme::Git => write!(out, "git+{}", display(&self.url)),
            Scheme::Oci(image) => fmt::Display::fmt(image, out),
        }
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
            ("git+https://user:pw@x/repo.git", "password"),
            ("git+ssh://git@x/repo.git", "deploy token"),
            ("oci://x", "oci://registry.example/team/site:v1"),
        ] {
            let error = url.parse::<SourceUrl>().unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("pw@"), "{error}");
        }
    }

    #[test]
    fn repositories_and_images() {
        let parse = |text: &str| text.parse::<SourceUrl>().unwrap();
        let repository = parse("git+https://host/owner/repo.git");
        assert_eq!(
            (repository.kind(), repository.url().as_str()),
            (Some(Kind::Repository), "https://host/owner/repo.git")
        );
        assert_eq!(repository.to_string(), "git+https://host/owner/repo.git");
        assert!(parse("git+http://host/repo.git").is_exposed());
        assert!(!parse("git+http://127.0.0.1:80/repo.git").is_exposed());
        let image = parse("oci://registry.example/team/site:v1");
        assert_eq!((image.kind(), image.url().as_str()), (Some(Kind::Image), "https://registry.example/"));
        assert_eq!(image.to_string(), "oci://registry.example/team/site:v1");
        for local in ["oci://localhost:5000/site", "oci://[::1]:5000/site"] {
            assert_eq!(parse(local).url().scheme(), "http", "{local}");
        }
    }

    #[test]
    fn a_query_is_sent_and_never_shown() {
        assert!(source().url().as_str().contains("token=secret"));
        assert_eq!(format!("{} {:?} {:?}", source(), source(), base()).matches("secret").count(), 0);
    }
}
