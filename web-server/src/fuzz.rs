//! What the fuzz targets call: what has to hold whatever a client sends. Each function panics where it does not. An ordinary test
//! holds them to the cases in `fuzz/corpus`. Where a maintained crate answers the same question, the two answers are compared.

use std::ops::RangeInclusive;
use std::time::{Duration, UNIX_EPOCH};

use headers::{HeaderMapExt as _, IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince};
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::content::digest::Digest;
use crate::content::path::{ContentPath, relative};
use crate::content::redirects::{Action, Redirects, When};
use crate::content::representation::{ETag, Modified};
use crate::http::conditional::{Verdict, evaluate};
use crate::http::range::{Part, Range, requested};

/// A path that is accepted has only segments that a release may have, and is what the URL standard says that it is.
///
/// # Panics
/// Where that is not so.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(path) = ContentPath::from_target(text) else { return };
    let well_known = |at: usize, segment: &str| at == 0 && segment == ".well-known";
    for (at, segment) in path.file().split('/').enumerate() {
        assert!(!segment.is_empty() && (!segment.starts_with('.') || well_known(at, segment)), "{text:?}");
        assert!(!segment.contains(['\\', '\0']), "{text:?}");
    }
    assert!(path.file().starts_with(path.requested()), "{text:?}");
    // What HTTP lets through as the path of a request.
    let target = text.parse::<PathAndQuery>().ok().filter(|target| target.as_str() == text);
    if target.is_none_or(|target| target.query().is_some()) || text.starts_with("//") {
        return;
    }
    let url = Url::parse(&format!("http://host{text}")).expect("a path of a request is one of a URL");
    let theirs = percent_decode_str(url.path()).decode_utf8().expect("it is UTF-8, since we took it");
    let theirs: Vec<_> = theirs.split('/').filter(|segment| !segment.is_empty()).collect();
    assert_eq!(theirs.join("/"), path.requested(), "{text:?}");
    if path.may_be_redirected() {
        // Where the redirect leads is the same with a slash.
        let target = url.join(&path.as_directory_target()).expect("it is a relative reference");
        assert_eq!(target.host_str(), Some("host"), "{text:?}");
        let directory = ContentPath::from_target(target.path()).expect("it is as good with a slash");
        assert_eq!(directory.requested(), path.requested(), "{text:?}");
        assert!(!directory.may_be_redirected(), "{text:?}");
    }
}

/// Ranges are within the representation, few, and do not overlap; and where `http-range-header` finds some, we find the same. The
/// first byte decides about the size.
///
/// # Panics
/// Where that is not so.
pub fn range(data: &[u8]) {
    let Some((size, value)) = data.split_first() else { return };
    let (Ok(text), Ok(value)) = (std::str::from_utf8(value), HeaderValue::from_bytes(value)) else { return };
    let size = match size {
        0 => u64::MAX,
        size => u64::from(size - 1),
    };
    let headers = HeaderMap::from_iter([(RANGE, value)]);
    let part = requested(&headers, &ETag::of(Digest::of(b"")), Some(Modified::at(UNIX_EPOCH)), size);
    let ours: Vec<RangeInclusive<u64>> = match &part {
        Part::Whole | Part::Unsatisfiable => Vec::new(),
        Part::One(range) => vec![inclusive(*range)],
        Part::Several(ranges) => ranges.iter().copied().map(inclusive).collect(),
    };
    assert!(ours.len() <= 16 && (ours.len() > 1) == matches!(part, Part::Several(_)), "{text:?}");
    for (at, range) in ours.iter().enumerate() {
        assert!(range.start() <= range.end() && *range.end() < size, "{text:?} of {size}: {range:?}");
        let apart = |other: &RangeInclusive<u64>| other.end() < range.start() || range.end() < other.start();
        assert!(ours[..at].iter().all(apart), "{text:?} of {size}: {ours:?}");
    }
    let theirs = http_range_header::parse_range_header(text).and_then(|ranges| ranges.validate(size));
    // Of nothing it would give the first byte.
    if let Ok(theirs) = theirs
        && size > 0
        && theirs.len() <= 16
    {
        assert_eq!(ours, theirs, "{text:?} of {size}: {part:?}");
    }
}

fn inclusive(range: Range) -> RangeInclusive<u64> {
    range.first..=range.last
}

/// Preconditions come to what `headers` makes of them by the steps of RFC 9110 section 13.2.2. Each line is a header, its first
/// byte says which; `@` stands for our tag, so that there is something to be found.
///
/// # Panics
/// Where that is not so.
pub fn preconditions(data: &[u8]) {
    let digest = Digest::of(b"");
    let (etag, modified) = (ETag::of(digest), UNIX_EPOCH + Duration::from_secs(784_111_777));
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else { continue };
        let name = match name {
            b'm' => IF_MATCH,
            b'n' => IF_NONE_MATCH,
            b's' => IF_MODIFIED_SINCE,
            b'u' => IF_UNMODIFIED_SINCE,
            _ => continue,
        };
        let value = String::from_utf8_lossy(value).replace('@', &digest.to_hex()[..32]);
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }
    let ours = evaluate(&headers, &etag, Some(Modified::at(modified)));
    let lists = [IF_MATCH, IF_NONE_MATCH].into_iter().all(|name| {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        // A `*` stands alone; what is no list at all has no meaning to compare.
        values.iter().all(|value| is_list(value)) || (values.len() == 1 && values[0] == "*")
    });
    let dates = [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    if !lists || dates.into_iter().any(|name| headers.get_all(name).iter().count() > 1) {
        return;
    }
    let tag: headers::ETag = etag.header().to_str().expect("digits").parse().expect("a tag");
    let failed = match headers.typed_get::<IfMatch>() {
        Some(condition) => !condition.precondition_passes(&tag),
        None => headers
            .typed_get::<IfUnmodifiedSince>()
            .is_some_and(|condition| !condition.precondition_passes(modified)),
    };
    let known = match headers.typed_get::<IfNoneMatch>() {
        Some(condition) => !condition.precondition_passes(&tag),
        None => {
            headers.typed_get::<IfModifiedSince>().is_some_and(|condition| !condition.is_modified(modified))
        }
    };
    let theirs = match (failed, known) {
        (true, _) => Verdict::Failed,
        (false, true) => Verdict::NotModified,
        (false, false) => Verdict::Proceed,
    };
    assert_eq!(ours, theirs, "{headers:?}");
}

/// `[W/]"…"`, one or more, with commas between them.
fn is_list(value: &HeaderValue) -> bool {
    let mut rest = value.as_bytes().trim_ascii();
    loop {
        rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(tag) = rest.strip_prefix(b"\"") else { return false };
        let Some(end) = tag.iter().position(|byte| !matches!(byte, b'!' | b'#'..=b'~')) else { return false };
        let Some(after) = tag[end..].strip_prefix(b"\"") else { return false };
        match after.trim_ascii_start() {
            [] => return true,
            [b',', next @ ..] => rest = next.trim_ascii_start(),
            _ => return false,
        }
    }
}

/// A rule of a `_redirects` file leads to this site, or to one whose name is written out in the file; no request can choose
/// another, or begin a line of its own. The data is the file, and in its last line the path of a request.
///
/// # Panics
/// Where that is not so.
pub fn redirects(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, path) = text.trim_end_matches('\n').rsplit_once('\n').unwrap_or(("", text));
    let target = path.parse::<PathAndQuery>().ok().filter(|target| target.as_str() == path);
    if target.is_none_or(|target| target.query().is_some()) || !path.starts_with('/') {
        return;
    }
    let Some(location) = location(file, path) else { return };
    assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location:?}");
    assert!(!location.starts_with('/'), "{location:?}");
    let Ok(base) = Url::parse(&format!("http://this.site{path}")) else { return };
    if let Ok(url) = base.join(&location) {
        let host = url.host_str().unwrap_or_default();
        let written_out = file.to_ascii_lowercase().contains(host);
        assert!(host == "this.site" || written_out, "{location:?} from {path:?}");
    }
}

/// Where a `_redirects` file sends a request for this path, as the Location field has it.
fn location(file: &str, path: &str) -> Option<String> {
    let (redirects, _refused) = Redirects::parse(file);
    match redirects.find(&ContentPath::from_target(path).ok()?, When::NoFile)? {
        Action::Redirect(_, target) if target.starts_with('/') => Some(relative(path, &target)),
        Action::Redirect(_, target) => Some(target),
        Action::Serve(..) => None,
    }
}
