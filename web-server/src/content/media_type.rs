//! Which media type a file name stands for. Everything that is text says that it is UTF-8, since a release's files are
//! taken to be; what is not known is bytes, and `nosniff` keeps browsers from guessing otherwise.
//!
//! The table is `mime_guess`'s. Ours comes first, for what the table lacks or has by a name that browsers do not expect.

use std::str::FromStr;

use http::HeaderValue;

use crate::content::path_glob::{self, PathGlob};

/// By lower-case extension.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("xml", "application/xml; charset=utf-8"),
    ("atom", "application/atom+xml; charset=utf-8"),
    ("rss", "application/rss+xml; charset=utf-8"),
    ("xhtml", "application/xhtml+xml; charset=utf-8"),
    // JSON is UTF-8 by definition and its media type has no charset parameter (RFC 8259 section 11).
    ("json", "application/json"),
    ("map", "application/json"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("svg", "image/svg+xml; charset=utf-8"),
    ("ico", "image/vnd.microsoft.icon"),
    ("woff", "font/woff"),
    ("otf", "font/otf"),
    // HTTP Live Streaming (RFC 8216): playlists, and the segments that they name.
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("ts", "video/mp2t"),
    ("m4s", "video/iso.segment"),
    ("tgz", "application/gzip"),
    ("zst", "application/zstd"),
];

/// Files that have no extension and still have a type, by name.
const NAMES: &[(&str, &str)] = &[
    // Apple's servers take it as nothing else.
    ("apple-app-site-association", "application/json"),
];

/// The Content-Type for a path: by its last segment's name, else by the segment's extension in any case.
pub(crate) fn of(path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let known = NAMES.iter().find(|(known, _)| *known == name);
    let known = known.or_else(|| TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension)));
    match known {
        Some((_, media_type)) => HeaderValue::from_static(media_type),
        None => guessed(extension),
    }
}

fn guessed(extension: &str) -> HeaderValue {
    match mime_guess::from_ext(extension).first_raw() {
        Some(text) if text.starts_with("text/") => {
            let text = format!("{text}; charset=utf-8");
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"))
        }
        Some(media_type) => HeaderValue::from_static(media_type),
        None => HeaderValue::from_static("application/octet-stream"),
    }
}

/// `GLOB=TYPE`: Content-Type of the files that the glob matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeRule {
    glob: PathGlob,
    media_type: HeaderValue,
}

impl TypeRule {
    /// The type, if the rule is about this path.
    pub(crate) fn media_type(&self, path: &str) -> Option<&HeaderValue> {
        self.glob.matches(path).then_some(&self.media_type)
    }
}

impl FromStr for TypeRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (glob, media_type) = path_glob::split(text, "*.geojson=application/geo+json")?;
        let media_type = media_type.trim();
        let essence = media_type.split(';').next().unwrap_or_default();
        let token = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        let valid = essence.trim_end().split_once('/').is_some_and(|(top, sub)| token(top) && token(sub));
        let value = HeaderValue::from_str(media_type).ok().filter(|_| valid);
        let media_type = value.ok_or_else(|| {
            format!("{media_type:?} is no media type; write it like text/html; charset=utf-8")
        })?;
        Ok(Self { glob, media_type })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_extension_counts_in_any_case() {
        assert_eq!(of("a/b.HTML"), "text/html; charset=utf-8");
        assert_eq!(of("a.js/b.min.mjs"), "text/javascript; charset=utf-8");
        assert_eq!(of("a.html/LICENSE"), "application/octet-stream");
        assert_eq!(of("data.json"), "application/json");
    }

    #[test]
    fn the_table_is_a_kept_one() {
        for (path, media_type) in [
            ("a.css", "text/css; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.jpeg", "image/jpeg"),
            ("a.webp", "image/webp"),
            ("a.mp4", "video/mp4"),
            ("a.webm", "video/webm"),
            ("a.mp3", "audio/mpeg"),
            ("a.flac", "audio/flac"),
            ("a.pdf", "application/pdf"),
            ("a.zip", "application/zip"),
            ("a.tar", "application/x-tar"),
            ("list.m3u8", "application/vnd.apple.mpegurl"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.geojson", "application/geo+json"),
            ("a.svgz", "image/svg+xml"),
            ("a.avif", "image/avif"),
            ("a.jxl", "image/jxl"),
            ("a.woff2", "font/woff2"),
            ("a.ttf", "font/ttf"),
            ("a.mpd", "application/dash+xml"),
            ("a.wasm", "application/wasm"),
            ("a.tar.gz", "application/gzip"),
            ("a.bz2", "application/x-bzip2"),
            ("a.xz", "application/x-xz"),
            ("a.7z", "application/x-7z-compressed"),
            ("a.jsonld", "application/ld+json"),
            (".well-known/apple-app-site-association", "application/json"),
            ("a.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(of(path), media_type, "{path}");
        }
    }

    #[test]
    fn a_rule_has_a_glob_and_a_type() {
        let rule: TypeRule = "*.x=text/x-it; charset=utf-8".parse().unwrap();
        assert_eq!(rule.media_type("a/b.x").unwrap(), "text/x-it; charset=utf-8");
        assert_eq!(rule.media_type("a/b.y"), None);
        for wrong in ["*.x", "*.x=", "*.x=text", "*.x=text/", "*.x=a/b\nc", "[=text/plain"] {
            assert!(wrong.parse::<TypeRule>().is_err(), "{wrong}");
        }
    }
}
