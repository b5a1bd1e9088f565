//! A representation, in RFC 9110's sense: bytes ready to be sent, with the metadata that belongs to exactly these bytes.

use std::fs::File;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;

use crate::content::coding::Coding;
use crate::content::digest::Digest;
use crate::content::dir::FileState;
use crate::content::header_policy::REVALIDATE;
use crate::content::large_file::LargeFile;

/// Files up to this size are held in memory; larger ones are sent from the volume by the kernel, which costs less than
/// copying this much.
pub(crate) const HELD_MAX: u64 = 256 * 1024;

/// A strong entity tag (RFC 9110 section 8.8.3): 32 hexadecimal digits of the content's SHA-256, in quotes. Equal tags mean equal
/// bytes, in whichever release, Pod or year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ETag(HeaderValue);

impl ETag {
    /// The tag of content with this digest.
    ///
    /// # Panics
    /// Never: hexadecimal digits and quotes are a header value.
    pub(crate) fn of(digest: Digest) -> Self {
        let mut tag = digest.to_hex();
        tag.truncate(32);
        Self(
            HeaderValue::try_from(format!("\"{tag}\""))
                .expect("hexadecimal digits and quotes are a header value"),
        )
    }

    /// As the ETag field has it.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// What stands between the quotes.
    pub(crate) fn opaque(&self) -> &[u8] {
        let quoted = self.0.as_bytes();
        quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(quoted)
    }
}

/// A point in time as Last-Modified tells it: in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Modified(SystemTime);

impl Modified {
    /// Cuts off the fraction, as an HTTP date does.
    pub(crate) fn at(time: SystemTime) -> Self {
        let fraction = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        Self(time - std::time::Duration::from_nanos(fraction.into()))
    }

    /// As manifests and logs have it.
    pub(crate) fn to_rfc3339(self) -> String {
        humantime::format_rfc3339_seconds(self.0).to_string()
    }

    /// Reads an HTTP date in any of its three formats.
    pub(crate) fn parse(value: &HeaderValue) -> Option<Self> {
        Some(Self(httpdate::parse_http_date(value.to_str().ok()?).ok()?))
    }

    /// As the Last-Modified field has it.
    ///
    /// # Panics
    /// Never: a date is a header value.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::try_from(httpdate::fmt_http_date(self.0)).expect("a date is a header value")
    }

    /// Since 1970.
    pub(crate) fn seconds(self) -> i64 {
        self.0
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// The time that is so long after 1970.
    pub(crate) fn from_seconds(seconds: i64) -> Self {
        Self(UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// The next one.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + std::time::Duration::from_secs(1))
    }

    /// Not while that second is not over, because a second change within it would go unseen (RFC 9110 section 8.8.2.2).
    pub(crate) fn may_be_told(self, now: SystemTime) -> bool {
        Self::at(now) > self
    }
}

/// Bytes and what is said of them.
#[derive(Debug, Clone)]
pub(crate) struct Representation {
    /// By content.
    pub(crate) etag: ETag,
    /// When these bytes came to be found under this name, at the latest.
    pub(crate) modified: Modified,
    /// Last-Modified, once it may be told.
    pub(crate) last_modified: HeaderValue,
    /// Cache-Control.
    pub(crate) cache_control: HeaderValue,
    /// Content-Type.
    pub(crate) content_type: HeaderValue,
    /// The bytes.
    pub(crate) source: Source,
    /// How the bytes are coded.
    pub(crate) coding: Coding,
    /// The same, coded otherwise.
    pub(crate) alternatives: Vec<Arc<Representation>>,
}

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// In memory.
    Memory(Bytes),
    /// In a file of a release.
    Large(Arc<LargeFile>),
    /// In a file that is open already, because a plain directory's names may mean something else a moment later.
    Open {
        /// Ready to read.
        file: Arc<File>,
        /// As it was when its digest was taken.
        state: FileState,
    },
}

impl Representation {
    /// Bytes that are not coded, and that caches ask for again each time.
    pub(crate) fn new(digest: Digest, modified: Modified, content_type: HeaderValue, source: Source) -> Self {
        Self {
            etag: ETag::of(digest),
            modified,
            last_modified: modified.header(),
            cache_control: REVALIDATE,
            content_type,
            source,
            coding: Coding::Identity,
            alternatives: Vec::new(),
        }
    }
}

impl Source {
    /// Bytes of it that are in memory.
    pub(crate) fn held(&self) -> u64 {
        if let Self::Memory(bytes) = self { bytes.len() as u64 } else { 0 }
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Large(file) => file.state.size,
            Self::Open { state, .. } => state.size,
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
