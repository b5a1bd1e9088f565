//! What is followed of a registry: [`OciReference`].

use std::fmt;

use crate::content::Digest;

/// Docker Hub's registry does not have the host that its references name.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// `registry/name:tag` or `registry/name@sha256:…` (the distribution specification, "Pulling manifests").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OciReference {
    /// Host and port.
    pub(crate) registry: String,
    /// Path components with slashes.
    pub(crate) name: String,
    pub(crate) version: OciVersion,
}

/// Which of the name's manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OciVersion {
    /// The one that has this tag at the time.
    Tag(String),
    /// This image, which never changes.
    Digest(Digest),
}

impl std::str::FromStr for OciReference {
    type Err = String;

    /// Reads what follows `oci://`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (registry, path) = text
            .split_once('/')
            .filter(|(registry, path)| !registry.is_empty() && !path.is_empty())
            .ok_or("write it like oci://registry.example/team/site:v1")?;
        if registry.contains('@') {
            return Err("a URL shows up in logs and process lists, so it must not carry a user or password"
                .to_owned());
        }
        let (name, version) = match path.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.strip_prefix("sha256:").and_then(Digest::parse);
                let digest =
                    digest.ok_or("what follows @ is not sha256: and 64 lower-case hexadecimal digits")?;
                // `name:tag@digest`: the digest decides.
                (name.split_once(':').map_or(name, |(name, _)| name), OciVersion::Digest(digest))
            }
            None => match path.split_once(':') {
                Some((name, tag)) => (name, OciVersion::Tag(tag.to_owned())),
                None => (path, OciVersion::Tag("latest".to_owned())),
            },
        };
        let component = |text: &str| {
            !text.is_empty()
                && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
        };
        if !name.split('/').all(component) {
            return Err(format!(
                "{name:?} is not a repository's name: lower-case letters, digits, '.', '_', '-' and '/'"
            ));
        }
        if let OciVersion::Tag(tag) = &version {
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.chars().all(legal) {
                return Err(format!("{tag:?} is not a tag: at most 128 letters, digits, '.', '_' and '-'"));
            }
        }
        let registry = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
        Ok(Self { registry: registry.to_owned(), name: name.to_owned(), version })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "oci://{}/{}", self.registry, self.name)?;
        match &self.version {
            OciVersion::Tag(tag) => write!(out, ":{tag}"),
            OciVersion::Digest(digest) => write!(out, "@sha256:{digest}"),
        }
    }
}

impl fmt::Display for OciVersion {
    /// As the last segment of a manifest's URL.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => out.write_str(tag),
            Self::Digest(digest) => write!(out, "sha256:{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = "0".repeat(64);
        for (text, shown) in [
            ("registry.example/team/site:v1", "oci://registry.example/team/site:v1"),
            ("localhost:5000/site", "oci://localhost:5000/site:latest"),
            ("docker.io/library/nginx:1", "oci://registry-1.docker.io/library/nginx:1"),
            (&format!("r/site:v1@sha256:{digest}"), &format!("oci://r/site@sha256:{digest}")),
        ] {
            assert_eq!(text.parse::<OciReference>().unwrap().to_string(), shown);
        }
        for (text, why) in [
            ("site", "write it like"),
            ("/site", "write it like"),
            ("r/Site", "not a repository's name"),
            ("r/../x", "not a repository's name"),
            ("r/site:", "not a tag"),
            ("r/site:a/b", "not a tag"),
            ("r/site@sha256:0", "64 lower-case"),
            ("user:password@r/site", "must not carry"),
        ] {
            let error = text.parse::<OciReference>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
