//! A representation, in RFC 9110's sense: bytes ready to be sent, with the metadata that belongs to exactly these bytes.

use std::fs::File;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use crate::confine::Stamp;
use crate::digest::Digest;
use crate::encoding::{Coding, preferred};
use crate::stored::Stored;

/// Files up to this size are held in memory; larger ones are sent from the volume by the kernel, which costs less than
/// copying this much.
pub const HELD_MAX: u64 = 256 * 1024;

/// A strong entity tag (RFC 9110 section 8.8.3): 32 hexadecimal digits of the content's SHA-256, in quotes. Equal tags mean equal
/// bytes, in whichever release, Pod or year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(HeaderValue);

impl ETag {
    /// The tag of content with this digest.
    ///
    /// # Panics
    /// Never: hexadecimal digits and quotes are a header value.
    pub fn of(digest: Digest) -> Self {
        let mut tag = digest.to_hex();
        tag.truncate(32);
        Self(
            HeaderValue::try_from(format!("\"{tag}\""))
                .expect("hexadecimal digits and quotes are a header value"),
        )
    }

    /// As the ETag field has it.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// What stands between the quotes.
    pub fn opaque(&self) -> &[u8] {
        let quoted = self.0.as_bytes();
        quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(quoted)
    }
}

/// A point in time as Last-Modified tells it: in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Modified(SystemTime);

impl Modified {
    /// Cuts off the fraction, as an HTTP date does.
    pub fn at(time: SystemTime) -> Self {
        let fraction = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        Self(time - std::time::Duration::from_nanos(fraction.into()))
    }

    /// As manifests and logs have it.
    pub fn to_rfc3339(self) -> String {
        humantime::format_rfc3339_seconds(self.0).to_string()
    }

    /// Reads an HTTP date in any of its three formats.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        Some(Self(httpdate::parse_http_date(value.to_str().ok()?).ok()?))
    }

    /// As the Last-Modified field has it.
    ///
    /// # Panics
    /// Never: a date is a header value.
    pub fn header(self) -> HeaderValue {
        HeaderValue::try_from(httpdate::fmt_http_date(self.0)).expect("a date is a header value")
    }

    /// Not while that second is not over, because a second change within it would go unseen (RFC 9110 section 8.8.2.2).
    pub fn may_be_told(self, now: SystemTime) -> bool {
        Self::at(now) > self
    }
}

/// Bytes and what is said of them.
#[derive(Debug, Clone)]
pub struct Representation {
    /// By content.
    pub etag: ETag,
    /// When these bytes came to be found under this name, at the latest.
    pub modified: Modified,
    /// Last-Modified, once it may be told.
    pub last_modified: HeaderValue,
    /// Cache-Control.
    pub cache_control: HeaderValue,
    /// Content-Type.
    pub content_type: HeaderValue,
    /// The bytes.
    pub content: Content,
    /// How the bytes are coded.
    pub coding: Coding,
    /// The same, coded otherwise.
    pub alternatives: Vec<Arc<Representation>>,
}

impl Representation {
    /// The one among this and its alternatives that suits a client best.
    pub fn preferred(&self, headers: &HeaderMap) -> Option<&Self> {
        if self.alternatives.is_empty() && !headers.contains_key(ACCEPT_ENCODING) {
            return Some(self);
        }
        let all = || std::iter::once(self).chain(self.alternatives.iter().map(AsRef::as_ref));
        let coding = preferred(headers, all().map(|one| one.coding))?;
        all().find(|one| one.coding == coding)
    }
}

/// Where the bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Held(Bytes),
    /// In a file of a release.
    Stored(Arc<Stored>),
    /// In a file that is open already, because a plain directory's names may mean something else a moment later.
    Open {
        /// Ready to read.
        file: Arc<File>,
        /// As it was when its digest was taken.
        stamp: Stamp,
    },
}

impl Content {
    /// In bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.stamp.size,
            Self::Open { stamp, .. } => stamp.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_tag_is_32_digits_in_quotes() {
        let tag = ETag::of(Digest::of(b""));
        assert_eq!(tag.header(), "\"e3b0c44298fc1c149afbf4c8996fb924\"");
        assert_eq!(tag.opaque(), b"e3b0c44298fc1c149afbf4c8996fb924");
    }

    #[test]
    fn a_second_that_is_not_over_is_not_told() {
        let time = UNIX_EPOCH + Duration::from_millis(784_111_777_400);
        let modified = Modified::at(time);
        assert!(!modified.may_be_told(time + Duration::from_millis(500)));
        assert!(modified.may_be_told(time + Duration::from_millis(600)));
        assert_eq!(modified.header(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(Modified::parse(&modified.header()), Some(modified));
    }
}
