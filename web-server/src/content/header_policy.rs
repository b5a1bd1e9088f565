//! What is said of content beyond what the content says of itself: how long caches may keep it, and headers for browsers.

use std::str::FromStr;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    DATE, ETAG, LAST_MODIFIED, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::content::media_type::{self, TypeRule};
use crate::content::path_glob::{self, PathGlob};

/// Names a request across the log lines of several programs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Caches may keep what they have, and ask each time whether it is still so: with a tag by content the answer is a cheap 304,
/// and a new release is seen at once.
pub(crate) const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// What the server works out itself, and no configuration could get right.
const RESERVED: [HeaderName; 17] = [
    ACCEPT_RANGES,
    CACHE_CONTROL,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    ETAG,
    LAST_MODIFIED,
    LOCATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    VARY,
    REQUEST_ID,
];

/// The rules, as the command line gives them.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeaderPolicy {
    /// The first that matches counts.
    pub(crate) cache_control: Vec<CacheRule>,
    /// The first that matches counts; the table of types holds for other files.
    pub(crate) content_types: Vec<TypeRule>,
    /// On every answer that is content, or would have been.
    pub(crate) headers: Vec<ExtraHeader>,
}

impl HeaderPolicy {
    /// Cache-Control of the file at a path.
    pub(crate) fn cache_control(&self, path: &str) -> HeaderValue {
        let rule = self.cache_control.iter().find(|rule| rule.glob.matches(path));
        rule.map_or(REVALIDATE, |rule| rule.value.clone())
    }

    /// Content-Type of the file at a path.
    pub(crate) fn content_type(&self, path: &str) -> HeaderValue {
        let ruled = self.content_types.iter().find_map(|rule| rule.media_type(path));
        ruled.cloned().unwrap_or_else(|| media_type::of(path))
    }

    /// Adds the headers for browsers. They win over what is there; a name that was given twice is there twice.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for ExtraHeader { name, .. } in &self.headers {
            headers.remove(name);
        }
        for ExtraHeader { name, value } in &self.headers {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// `GLOB=VALUE`: Cache-Control of the files that the glob matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheRule {
    glob: PathGlob,
    value: HeaderValue,
}

impl FromStr for CacheRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (glob, value) = path_glob::split(text, "*.css=public, max-age=3600")?;
        Ok(Self { glob, value: header_value(value)? })
    }
}

/// `NAME: VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtraHeader {
    name: HeaderName,
    value: HeaderValue,
}

impl FromStr for ExtraHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once(':').ok_or("write NAME: VALUE, such as 'Referrer-Policy: no-referrer'")?;
        let name: HeaderName = name.trim().parse().map_err(|_| format!("{name} is no header name"))?;
        if RESERVED.contains(&name) {
            return Err(format!("{name} is worked out for each response and cannot be set"));
        }
        Ok(Self { name, value: header_value(value)? })
    }
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text.trim()).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| format!("{text:?} is no header value"))
}

/// One rule a line, as a block of text in a Pod's environment has them; blank lines count for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineList<T>(pub(crate) Vec<T>);

impl<T> LineList<T> {
    /// All lines of all blocks.
    pub(crate) fn all(blocks: Vec<Self>) -> Vec<T> {
        blocks.into_iter().flat_map(|Self(lines)| lines).collect()
    }
}

impl<T: FromStr> FromStr for LineList<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = ["assets/*=immutable", "*.css=public, max-age=3600"].map(|rule| rule.parse().unwrap());
        let header_policy = HeaderPolicy { cache_control: rules.into(), ..HeaderPolicy::default() };
        for (path, value) in [
            ("a.css", "public, max-age=3600"),
            ("deep/er/a.css", "public, max-age=3600"),
            ("assets/a.css", "immutable"),
            ("assets/deep/a.js", "no-cache"),
            ("index.html", "no-cache"),
        ] {
            assert_eq!(header_policy.cache_control(path), value, "{path}");
        }
    }

    #[test]
    fn what_is_ours_stays_ours() {
        assert!("Referrer-Policy: no-referrer".parse::<ExtraHeader>().is_ok());
        for bad in ["content-length: 3", "ETag: \"x\"", "no colon", "a b: c", "a: b\nc"] {
            assert!(bad.parse::<ExtraHeader>().is_err(), "{bad}");
        }
        for bad in ["*.css", "[=x", "*=a\nb", "*=", "*= "] {
            assert!(bad.parse::<CacheRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_block_of_lines_ends_with_a_line_feed() {
        let block = "A: b\n\n  C: d\n".parse::<LineList<ExtraHeader>>().unwrap();
        assert_eq!(block.0, ["A: b", "C: d"].map(|line| line.parse().unwrap()));
        assert_eq!(LineList::all(vec![block.clone(), block]).len(), 4);
        assert!("A: b\nC".parse::<LineList<ExtraHeader>>().is_err());
    }

    #[test]
    fn a_header_wins_over_what_is_there_and_may_be_there_twice() {
        let headers = ["X-Frame-Options: DENY", "Link: a", "Link: b"].map(|line| line.parse().unwrap());
        let header_policy = HeaderPolicy { headers: headers.into(), ..HeaderPolicy::default() };
        let mut map = HeaderMap::new();
        map.insert("x-frame-options", HeaderValue::from_static("SAMEORIGIN"));
        header_policy.apply(&mut map);
        assert_eq!(map.get_all("x-frame-options").iter().collect::<Vec<_>>(), ["DENY"]);
        assert_eq!(map.get_all("link").iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
