//! From a request target to a path that content may be looked up by.
//!
//! A [`ContentPath`] can only be made here, so that nothing else has to wonder whether a path was checked. This is the
//! first of two walls: the second is the kernel's ([`crate::content::dir`]), which holds even if this one had a hole.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::public::is_public_path;

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

/// A relative path, normalised and decoded, of segments that are neither empty nor `.` nor `..` nor hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentPath {
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
pub(crate) enum Rejected {
    /// It is not well-formed, or tries what no browser writes: 400.
    Malformed,
    /// It is well-formed, and nothing can be there: 404.
    NotFound,
}

impl ContentPath {
    /// Normalises and checks the path of a request target, which begins with `/`: empty segments are merged with their
    /// neighbours (as nginx's `merge_slashes` does) and dot segments are resolved (RFC 3986 section 6.2.2.3), also where the
    /// dots are percent-encoded. An encoded slash is never a separator.
    ///
    /// # Errors
    /// [`Rejected::Malformed`] for bad percent-encoding, an encoded slash, NUL, or a backslash; [`Rejected::NotFound`]
    /// for hidden names and whatever is not UTF-8.
    pub(crate) fn from_target(path: &str) -> Result<Self, Rejected> {
        let path = path.strip_prefix('/').ok_or(Rejected::Malformed)?;
        let mut decoded = String::with_capacity(path.len() + INDEX.len() + 1);
        if is_normal(path) {
            decoded.push_str(path);
            return Self::of(decoded, Form::File);
        }
        check_encoding(path)?;
        let mut form = Form::Directory;
        // Every segment is decoded by itself and once, so that `%252e` stays a name and never becomes a dot.
        for segment in path.split('/') {
            let segment = percent_decode_str(segment).decode_utf8().map_err(|_| Rejected::NotFound)?;
            if segment.contains(['/', '\\', '\0']) {
                return Err(Rejected::Malformed);
            }
            form = Form::Directory;
            match &*segment {
                "" | "." => {}
                ".." => decoded.truncate(decoded.rfind('/').unwrap_or(0)),
                name => {
                    if !decoded.is_empty() {
                        decoded.push('/');
                    }
                    decoded.push_str(name);
                    form = Form::File;
                }
            }
        }
        if !(decoded.is_empty() || is_public_path(&decoded)) {
            return Err(Rejected::NotFound);
        }
        Self::of(decoded, form)
    }

    /// Of a path that is normalised, decoded and public.
    fn of(mut decoded: String, form: Form) -> Result<Self, Rejected> {
        if decoded.len() > MAX_BYTES {
            return Err(Rejected::NotFound);
        }
        let requested = decoded.len();
        if form == Form::Directory {
            if requested > 0 {
                decoded.push('/');
            }
            decoded.push_str(INDEX);
        }
        Ok(Self { file: decoded, requested, form })
    }

    /// The same path with `.html` at its end, for `--clean-urls`. None where the path is a directory's.
    pub(crate) fn as_page(&self) -> Option<Self> {
        let page = || format!("{}.html", self.file);
        (self.form == Form::File).then(page).map(|file| Self {
            requested: file.len(),
            file,
            form: Form::File,
        })
    }

    /// The same path as a directory's, which stands for the directory's index.
    pub(crate) fn as_directory(&self) -> Self {
        let file = format!("{}/{INDEX}", self.requested());
        Self { file, requested: self.requested, form: Form::Directory }
    }

    /// Whether the last segment has an extension, as assets have and the pages of an application have not.
    pub(crate) fn has_extension(&self) -> bool {
        self.requested().rsplit('/').next().is_some_and(|name| name.contains('.'))
    }

    /// The file that this path stands for: itself, or the index of the directory that it names.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// What was requested: the file, or the directory.
    pub(crate) fn requested(&self) -> &str {
        &self.file[..self.requested]
    }

    /// Whether this is the normalised form of an absolute path that ends in no slash.
    pub(crate) fn is_at(&self, absolute: &str) -> bool {
        self.form == Form::File && absolute.strip_prefix('/') == Some(self.file())
    }

    /// Whether a slash at the end would make this a directory's path.
    pub(crate) fn may_be_redirected(&self) -> bool {
        self.form == Form::File
    }

    /// From this path to the same as a directory's: relative, because a proxy before this server may have stripped a
    /// prefix of the path that the browser knows.
    pub(crate) fn as_directory_target(&self) -> String {
        let name = self.requested().rsplit('/').next().unwrap_or_default();
        format!("./{}/", encoded(name))
    }
}

/// How a browser gets from the path of its request to an absolute path of this site, as a relative reference: a proxy
/// before this server may have stripped a prefix of the path that the browser knows.
pub(crate) fn relative(requested: &str, to: &str) -> String {
    let mut depth = 0_usize;
    let mut segments = requested.strip_prefix('/').unwrap_or(requested).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment.replace("%2e", ".").replace("%2E", ".").as_str() {
            "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ if segments.peek().is_some() => depth += 1,
            _ => {}
        }
    }
    let up = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
    format!("{up}{}", to.trim_start_matches('/'))
}

/// A content path percent-encoded for a URL, slashes kept.
pub(crate) fn encoded(path: &str) -> String {
    utf8_percent_encode(path, ENCODED).to_string()
}

/// Whether a file's path is as nearly all are: of segments that stand for themselves and begin with neither a dot nor another
/// slash, so that there is nothing to decode, to resolve or to hide.
fn is_normal(path: &str) -> bool {
    let mut before = b'/';
    path.bytes().all(|byte| {
        let is_plain = match byte {
            b'/' | b'.' => before != b'/',
            b'-' | b'_' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        before = byte;
        is_plain
    }) && before != b'/'
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
        let directory = ContentPath::from_target("/a b").unwrap();
        assert_eq!(directory.as_directory_target(), "./a%20b/");
        assert_eq!(Ok(directory.as_directory()), ContentPath::from_target("/a b/"));
        assert!(directory.is_at("/a b") && !directory.as_directory().is_at("/a b"));
    }

    #[test]
    fn a_path_is_normalised_before_it_is_confined() {
        for (target, normal) in [
            ("/../x", "x"),
            ("/a/../x", "x"),
            ("/%2e%2e/x", "x"),
            ("/a/b/%2E./x", "a/x"),
            ("/./a", "a"),
            ("/a//b", "a/b"),
            ("//a", "a"),
            ("/.git/../a", "a"),
            ("//", "index.html"),
            ("/a//", "a/index.html"),
            ("/a/.", "a/index.html"),
            ("/a/b/..", "a/index.html"),
            ("/..", "index.html"),
        ] {
            assert_eq!(file(target).as_deref(), Ok(normal), "{target}");
        }
    }

    #[test]
    fn what_no_content_is_called_is_nowhere() {
        for target in ["/~user", "/%23", "/%23a"] {
            assert!(file(target).is_ok(), "{target}");
        }
        for target in ["/.git/config", "/a/.b", "/a/../.b", "/...", "/%ff", "/a~", "/b~/a", "/a/%23b%23"] {
            assert_eq!(file(target), Err(Rejected::NotFound), "{target}");
        }
        for target in
            ["", "x", "*", "/a%2fb", "/a%2Fb", "/..%2fx", "/a%5cb", "/a\\b", "/a%00", "/a%", "/a%2", "/a%zz"]
        {
            assert_eq!(file(target), Err(Rejected::Malformed), "{target}");
        }
        assert_eq!(file(&format!("/{}", "a".repeat(1025))), Err(Rejected::NotFound));
    }

    #[test]
    fn a_relative_reference_leads_where_the_absolute_one_would() {
        for requested in
            ["/", "/a", "/a/", "/a/b", "/a//b", "/a/../b", "/a/b/..", "/a/b/.", "/a/%2e%2e/b/c", "//a"]
        {
            for to in ["/", "/x", "/x/y/?q#f"] {
                let base =
                    url::Url::parse("http://h/").unwrap().join(&format!("http://h{requested}")).unwrap();
                let reference = relative(requested, to);
                assert!(!reference.starts_with('/'), "{reference}");
                let found = base.join(&reference).unwrap();
                assert_eq!(found.as_str(), format!("http://h{to}"), "{requested} {to} {reference}");
            }
        }
        // Behind a proxy that strips `/prefix`.
        let seen_by_the_browser = url::Url::parse("http://h/prefix/a/b").unwrap();
        assert_eq!(seen_by_the_browser.join(&relative("/a/b", "/x")).unwrap().path(), "/prefix/x");
    }

    #[test]
    fn well_known_is_public_at_the_top_only() {
        assert!(file("/.well-known/security.txt").is_ok());
        assert!(file("/a/.well-known/security.txt").is_err());
    }
}
