//! What a registry says an image or an artifact consists of (the image specification, "Image Index" and "Image Manifest").

use serde::Deserialize;

use crate::content::Digest;
use crate::source::Compression;

/// The media types that are asked for.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// The largest manifest: what the distribution specification recommends to registries.
pub(super) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// The operating system, architecture and variant that an index is searched for: `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self { os, architecture, variant })
            }
            _ => Err("write it like linux/amd64 or linux/arm64/v8".to_owned()),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(out, "/{variant}"))
    }
}

impl Platform {
    /// Whether something for `other` is for this one, too. A variant that is not asked for may be any.
    fn accepts(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

/// A layer to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// What a manifest turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// Another manifest is to be fetched.
    Index(Digest),
    /// The layers, lowest first.
    Image(Vec<Layer>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    urls: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    manifests: Option<Vec<Descriptor>>,
    layers: Option<Vec<Descriptor>>,
}

/// Reads an index or a manifest.
pub(super) fn parse(json: &[u8], platform: Option<&Platform>) -> Result<Document, String> {
    let raw: Raw =
        serde_json::from_slice(json).map_err(|error| format!("its manifest is not one: {error}"))?;
    match raw {
        Raw { manifests: Some(manifests), layers: None } => choose(&manifests, platform).map(Document::Index),
        Raw { layers: Some(layers), manifests: None } => {
            let layers = layers.iter().enumerate().map(|(number, layer)| layer_of(number, layer));
            layers.collect::<Result<_, _>>().map(Document::Image)
        }
        _ => Err("its manifest has neither layers nor other manifests".to_owned()),
    }
}

fn choose(manifests: &[Descriptor], platform: Option<&Platform>) -> Result<Digest, String> {
    // Build tools add attestations as entries for a platform "unknown/unknown".
    let is_content =
        |entry: &&Descriptor| entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
    let entries: Vec<_> = manifests.iter().filter(is_content).collect();
    let fits = |entry: &&&Descriptor| {
        platform.is_none_or(|wanted| entry.platform.as_ref().is_some_and(|is| wanted.accepts(is)))
    };
    let fitting: Vec<_> = entries.iter().filter(fits).copied().collect();
    match (&*fitting, platform) {
        ([entry], _) | ([entry, ..], Some(_)) => digest_of(entry),
        _ => {
            let mut has: Vec<_> = entries
                .iter()
                .map(|entry| {
                    entry
                        .platform
                        .as_ref()
                        .map_or("an entry without a platform".to_owned(), ToString::to_string)
                })
                .collect();
            has.sort_unstable();
            let has = if has.is_empty() { "nothing".to_owned() } else { has.join(", ") };
            Err(match platform {
                None => format!("it is an index of several images; choose one with --platform: {has}"),
                Some(platform) => format!("its index has nothing for --platform {platform}, but {has}"),
            })
        }
    }
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest, String> {
    let digest = descriptor.digest.strip_prefix("sha256:").and_then(Digest::parse);
    digest
        .ok_or_else(|| format!("its manifest has the digest {:?}, which is not a sha256", descriptor.digest))
}

fn layer_of(number: usize, layer: &Descriptor) -> Result<Layer, String> {
    let kind = layer.media_type.as_str();
    let is_tar = |suffixes: &[&str]| suffixes.iter().any(|suffix| kind.ends_with(suffix));
    let compression =
        if !layer.urls.is_empty() || kind.contains("nondistributable") || kind.contains("foreign") {
            None
        } else if is_tar(&[".tar", "/tar", "/x-tar"]) {
            Some(Compression::None)
        } else if is_tar(&["tar+gzip", "tar.gzip"]) {
            Some(Compression::Gzip)
        } else if is_tar(&["tar+zstd", "tar.zstd"]) {
            Some(Compression::Zstd)
        } else {
            None
        };
    let compression = compression.ok_or_else(|| {
        format!(
            "layer {} has the media type {kind:?}; layers must be tar, tar+gzip or tar+zstd in the registry itself",
            number + 1
        )
    })?;
    Ok(Layer { digest: digest_of(layer)?, size: layer.size, compression })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        format!("sha256:{}", String::from(digit).repeat(64))
    }

    fn index(platforms: &[&str]) -> String {
        let entries = platforms.iter().zip('1'..).map(|(platform, digit)| {
            let mut parts = platform.split('/');
            let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
            let variant = parts.next().map_or(String::new(), |variant| format!(r#","variant":"{variant}""#));
            format!(
                r#"{{"digest":"{}","platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}}}"#,
                digest(digit)
            )
        });
        format!(r#"{{"manifests":[{}]}}"#, entries.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn an_index_needs_a_platform_or_a_single_entry() {
        let chosen = |platforms: &[&str], platform: Option<&str>| {
            let platform = platform.map(|text| text.parse().unwrap());
            parse(index(platforms).as_bytes(), platform.as_ref())
        };
        let entry = |digit| Ok(Document::Index(Digest::parse(&digest(digit)[7..]).unwrap()));
        assert_eq!(chosen(&["linux/arm64"], None), entry('1'));
        assert_eq!(chosen(&["linux/amd64", "unknown/unknown"], None), entry('1'));
        let both = ["linux/amd64", "linux/arm64/v8"];
        assert_eq!(chosen(&both, Some("linux/arm64")), entry('2'));
        let error = chosen(&both, None).unwrap_err();
        assert!(error.ends_with("with --platform: linux/amd64, linux/arm64/v8"), "{error}");
        let error = chosen(&both, Some("linux/riscv64")).unwrap_err();
        assert!(
            error.contains("nothing for --platform linux/riscv64, but linux/amd64, linux/arm64/v8"),
            "{error}"
        );
        assert!("linux".parse::<Platform>().is_err());
    }

    #[test]
    fn layers_are_tars() {
        let layers = |kind: &str| {
            let digest = digest('1');
            parse(
                format!(r#"{{"layers":[{{"mediaType":"{kind}","digest":"{digest}","size":3}}]}}"#).as_bytes(),
                None,
            )
        };
        for (kind, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        ] {
            let layer = Layer { digest: Digest::parse(&"1".repeat(64)).unwrap(), size: 3, compression };
            assert_eq!(layers(kind), Ok(Document::Image(vec![layer])), "{kind}");
        }
        for kind in
            ["application/octet-stream", "application/vnd.oci.image.layer.nondistributable.v1.tar", ""]
        {
            assert!(layers(kind).unwrap_err().contains("layer 1 has the media type"), "{kind}");
        }
        assert!(parse(b"{}", None).is_err());
        assert!(parse(b"<html>", None).is_err());
    }
}
