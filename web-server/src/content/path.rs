//! From a request target to a path that content may be looked up by.
//!
//! A [`ContentPath`] can only be made here, so that nothing else has to wonder whether a path was checked. This is the
//! first of two walls: the second is the kernel's ([`crate::content::dir`]), which holds even if this one had a hole.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Longest path that a release may have (docs/contract.md); a longer one names nothing.
const MAX_BYTES: usize = 1024;

/// What a directory answers with.
const INDEX: &str = "index.html";

/// What stays as it is in a path that we write ourselves: everything but what RFC 3986 keeps out of path segments.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A relative path, decoded, of segments that are neither empty nor `.` nor `..` nor hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentPath {
    file: String,
    /// How much of it was requested; the rest is the index of a directory.
    requested: usize,
    form: Form,
}

/// Whether the path was written as a directory's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    File,
    Directory,
}

/// Why a request target names no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It is not well-formed, or tries what no browser writes: 400.
    Malformed,
    /// It is well-formed, and nothing can be there: 404.
    NotFound,
}

impl ContentPath {
    /// Checks the path of a request target, which begins with `/`.
    ///
    /// # Errors
    /// [`Rejected::Malformed`] for bad percent-encoding, an encoded slash, NUL, or a backslash; [`Rejected::NotFound`]
    /// for dot segments, empty segments, hidden names and whatever is not UTF-8.
    pub fn from_target(path: &str) -> Result<Self, Rejected> {
        if path == "/" {
            return Ok(Self { file: INDEX.to_owned(), requested: 0, form: Form::Directory });
        }
        let path = path.strip_prefix('/').ok_or(Rejected::Malformed)?;
        let (path, form) = match path.strip_suffix('/') {
            Some(directory) => (directory, Form::Directory),
            None => (path, Form::File),
        };
        check_encoding(path)?;
        let mut decoded = String::with_capacity(path.len() + INDEX.len() + 1);
        let mut place = Depth::Top;
        let mut visible = true;
        // Every segment is decoded by itself and once, so that `%252e` stays a name and never becomes a dot.
        for segment in path.split('/') {
            let segment = percent_decode_str(segment).decode_utf8().map_err(|_| Rejected::NotFound)?;
            if segment.contains(['/', '\\', '\0']) {
                return Err(Rejected::Malformed);
            }
            visible &= is_public(&segment, place);
            if place == Depth::Below {
                decoded.push('/');
            }
            decoded.push_str(&segment);
            place = Depth::Below;
        }
        if !visible || decoded.len() > MAX_BYTES {
            return Err(Rejected::NotFound);
        }
        let requested = decoded.len();
        if form == Form::Directory {
            decoded.push('/');
            decoded.push_str(INDEX);
        }
        Ok(Self { file: decoded, requested, form })
    }

    /// The file that this path stands for: itself, or the index of the directory that it names.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What was requested: the file, or the directory.
    pub fn requested(&self) -> &str {
        &self.file[..self.requested]
    }

    /// Whether a slash at the end would make this a directory's path.
    pub fn may_be_redirected(&self) -> bool {
        self.form == Form::File
    }

    /// The same path as a directory's, percent-encoded, for a Location header.
    pub fn as_directory_target(&self) -> String {
        format!("/{}/", encoded(self.requested()))
    }
}

/// A content path percent-encoded for a URL, slashes kept.
pub(crate) fn encoded(path: &str) -> String {
    utf8_percent_encode(path, ENCODED).to_string()
}

/// Where in a path a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Directly beneath the root.
    Top,
    /// Deeper.
    Below,
}

/// Whether a name in the content may be asked for. Hidden files are version control's, editors' and the kubelet's; the one
/// that exists to be asked for is `/.well-known/` (RFC 8615).
pub(crate) fn is_public(name: &str, place: Depth) -> bool {
    !name.is_empty() && (!name.starts_with('.') || (place == Depth::Top && name == ".well-known"))
}

fn check_encoding(path: &str) -> Result<(), Rejected> {
    let bytes = path.as_bytes();
    let bad =
        |at: usize| !bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && bad(at)) {
        return Err(Rejected::Malformed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(target: &str) -> Result<String, Rejected> {
        ContentPath::from_target(target).map(|path| path.file)
    }

    #[test]
    fn names_are_decoded_once() {
        assert_eq!(file("/a%20b/%C3%A9.html").as_deref(), Ok("a b/é.html"));
        assert_eq!(file("/%252e%252e/x").as_deref(), Ok("%2e%2e/x"));
    }

    #[test]
    fn directories_stand_for_their_index() {
        assert_eq!(file("/").as_deref(), Ok("index.html"));
        assert_eq!(file("/docs/").as_deref(), Ok("docs/index.html"));
        assert_eq!(ContentPath::from_target("/a b").unwrap().as_directory_target(), "/a%20b/");
    }

    #[test]
    fn what_leads_elsewhere_leads_nowhere() {
        for target in [
            "/../x",
            "/a/../x",
            "/%2e%2e/x",
            "/a/%2E%2e",
            "/./a",
            "/a//b",
            "//a",
            "//",
            "/a//",
            "/.git/config",
            "/a/.b",
            "/%ff",
        ] {
            assert_eq!(file(target), Err(Rejected::NotFound), "{target}");
        }
        for target in ["", "x", "*", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a%", "/a%2", "/a%zz"] {
            assert_eq!(file(target), Err(Rejected::Malformed), "{target}");
        }
        assert_eq!(file(&format!("/{}", "a".repeat(1025))), Err(Rejected::NotFound));
    }

    #[test]
    fn well_known_is_public_at_the_top_only() {
        assert!(file("/.well-known/security.txt").is_ok());
        assert!(file("/a/.well-known/security.txt").is_err());
    }
}
