//! Content codings: what a file's precompressed siblings are called (RFC 9110 section 8.4.1).
//!
//! `site.css.br`, `site.css.zst` and `site.css.gz` beside `site.css` are the same resource, compressed once by the program that
//! published it and never here. Only releases have them: in a directory that is edited in place, it would be unknown whether a
//! sibling was made before the edit or after it.

/// A content coding; the later, the better it compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coding {
    /// None.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
}

impl Coding {
    /// All that a sibling may have.
    pub(crate) const COMPRESSED: [Self; 3] = [Self::Gzip, Self::Zstd, Self::Brotli];

    /// As Content-Encoding and Accept-Encoding have it.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }

    /// What a sibling's name has after the file's own.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Brotli => ".br",
        }
    }

    /// Whether a client means this coding by `token`.
    pub(crate) fn is_called(self, token: &str) -> bool {
        token.eq_ignore_ascii_case(self.token())
            || (self == Self::Gzip && token.eq_ignore_ascii_case("x-gzip"))
    }
}
