//! From a representation and a request to a response: preconditions first, then ranges, then the bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    LAST_MODIFIED, LOCATION, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use lifecycle::blocking;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::content::coding::Coding;
use crate::content::dir::FileState;
use crate::content::header_policy::REVALIDATE;
use crate::content::release::ReleaseId;
use crate::content::representation::{Representation, Source};
use crate::http::accept::negotiate;
use crate::http::body::{Mutability, Payload};
use crate::http::conditional::{Verdict, evaluate};
use crate::http::range::{Part, Range, requested};

/// A cache has to keep the codings apart.
const VARIES: HeaderValue = HeaderValue::from_static("accept-encoding");
/// As many as a response usually has, so that there is room for them at once.
const HEADERS: usize = 12;
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A response, and the release that it was answered from.
pub(crate) struct Reply {
    /// Not sent yet.
    pub(crate) response: Response<Payload>,
    /// None where no release had a part in it.
    pub(crate) release: Option<ReleaseId>,
}

impl From<Response<Payload>> for Reply {
    fn from(response: Response<Payload>) -> Self {
        Self { response, release: None }
    }
}

/// Under which name a representation is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// That of its file. The representation's date says since when its bytes are found there, and never goes back.
    Own,
    /// One that may have stood for another file before, with a later date: to a client that has the other file, an earlier date would
    /// say that nothing has changed. So there is no date, and the entity tag says all.
    Other,
}

/// Answers a GET or HEAD request with a representation, or with the part of it that is wanted.
///
/// # Errors
/// Where its file cannot be opened.
pub(crate) async fn represent(
    request: &Parts,
    representation: &Representation,
    name: Name,
) -> io::Result<Response<Payload>> {
    let negotiated = !representation.alternatives.is_empty();
    let Some(representation) = negotiate(&request.headers, representation) else {
        let mut refusal = plain(StatusCode::NOT_ACCEPTABLE, "there is no coding that you accept\n");
        refusal.headers_mut().insert(VARY, VARIES);
        return Ok(refusal);
    };
    let Representation { etag, modified, last_modified, cache_control, content_type, source, coding, .. } =
        representation;
    // A precompressed sibling has a name of its own.
    let modified = (name == Name::Own && *coding == Coding::Identity).then_some(*modified);
    let mut response = Response::new(Payload::Empty);
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    if negotiated {
        headers.insert(VARY, VARIES);
    }
    headers.insert(ETAG, etag.header());
    headers.insert(CACHE_CONTROL, cache_control.clone());
    if modified.is_some_and(|modified| modified.may_be_told(SystemTime::now())) {
        headers.insert(LAST_MODIFIED, last_modified.clone());
    }
    match evaluate(&request.headers, etag, modified) {
        Verdict::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Verdict::Failed => {
            *response.status_mut() = StatusCode::PRECONDITION_FAILED;
            return Ok(response);
        }
        Verdict::Proceed => {}
    }
    describe(headers, content_type);
    if *coding != Coding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));

    let size = source.size();
    // Ranges are defined for GET alone (RFC 9110 section 14.2).
    let part = if request.method == Method::GET {
        requested(&request.headers, etag, modified, size)
    } else {
        Part::Whole
    };
    match part {
        Part::Whole => *response.body_mut() = Opened::open(source).await?.part(0, size)?,
        Part::One(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            insert_text(response.headers_mut(), CONTENT_RANGE, &range.content_range(size));
            *response.body_mut() = Opened::open(source).await?.part(range.first, range.length())?;
        }
        Part::Several(ranges) => {
            let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let multipart = format!("multipart/byteranges; boundary={boundary}");
            insert_text(response.headers_mut(), CONTENT_TYPE, &multipart);
            let source = Opened::open(source).await?;
            *response.body_mut() = byteranges(&source, &ranges, size, content_type, &boundary)?;
        }
        Part::Unsatisfiable => {
            let mut refusal = plain(StatusCode::RANGE_NOT_SATISFIABLE, format!("there are {size} bytes\n"));
            insert_text(refusal.headers_mut(), CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(refusal);
        }
    }
    Ok(response)
}

/// A body of several ranges (RFC 9110 section 14.6): each with its own header, between boundaries.
fn byteranges(
    source: &Opened,
    ranges: &[Range],
    size: u64,
    content_type: &HeaderValue,
    boundary: &str,
) -> io::Result<Payload> {
    let mut chain = VecDeque::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let mut head = format!("\r\n--{boundary}\r\nContent-Type: ").into_bytes();
        head.extend_from_slice(content_type.as_bytes());
        head.extend_from_slice(
            format!("\r\nContent-Range: {}\r\n\r\n", range.content_range(size)).as_bytes(),
        );
        chain.push_back(Payload::Held(head.into()));
        chain.push_back(source.part(range.first, range.length())?);
    }
    chain.push_back(Payload::Held(format!("\r\n--{boundary}--\r\n").into()));
    Ok(Payload::Chain(chain))
}

/// Answers with a representation under another status than 200, as a page that explains it: no validators, no ranges.
///
/// # Errors
/// Where its file cannot be opened.
pub(crate) async fn explain(status: StatusCode, page: &Representation) -> io::Result<Response<Payload>> {
    let source = Opened::open(&page.source).await?;
    let mut response = Response::new(source.part(0, page.source.size())?);
    *response.status_mut() = status;
    describe(response.headers_mut(), &page.content_type);
    response.headers_mut().insert(CACHE_CONTROL, REVALIDATE);
    Ok(response)
}

/// A sentence for people.
pub(crate) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Payload> {
    let mut response = Response::new(Payload::Held(text.into().into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    describe(headers, &HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 503, and when to try again.
pub(crate) fn unavailable(reason: &str) -> Response<Payload> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Sends the client elsewhere, with the query that it asked with, unless the target has one of its own.
pub(crate) fn redirect(status: StatusCode, target: &str, query: Option<&str>) -> Response<Payload> {
    let (target, fragment) = target.find('#').map_or((target, ""), |at| target.split_at(at));
    let location = match query.filter(|_| !target.contains('?')) {
        Some(query) => format!("{target}?{query}{fragment}"),
        None => format!("{target}{fragment}"),
    };
    // HTTP lets a query through that is not ASCII, and a Location field has to be.
    let location = utf8_percent_encode(&location, CONTROLS).to_string();
    let mut response = plain(status, format!("{location}\n"));
    response.headers_mut().insert(CACHE_CONTROL, REVALIDATE);
    insert_text(response.headers_mut(), LOCATION, &location);
    response
}

fn describe(headers: &mut HeaderMap, content_type: &HeaderValue) {
    headers.insert(CONTENT_TYPE, content_type.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
}

fn insert_text(headers: &mut HeaderMap, name: http::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// A source whose file is open.
enum Opened {
    Held(Bytes),
    File(Arc<File>, FileState, Mutability),
}

impl Opened {
    async fn open(content: &Source) -> io::Result<Self> {
        match content {
            Source::Memory(bytes) => Ok(Self::Held(bytes.clone())),
            Source::Open { file, state } => Ok(Self::File(Arc::clone(file), *state, Mutability::Mutable)),
            Source::Large(stored) => {
                let file = if let Some(file) = stored.opened() {
                    file
                } else {
                    let stored = Arc::clone(stored);
                    blocking(move || stored.open()).await?
                };
                Ok(Self::File(file, stored.state, Mutability::Immutable))
            }
        }
    }

    /// `length` bytes from `first` on, all of which exist.
    fn part(&self, first: u64, length: u64) -> io::Result<Payload> {
        match self {
            Self::Held(bytes) => {
                let first = usize::try_from(first).map_err(io::Error::other)?;
                let length = usize::try_from(length).map_err(io::Error::other)?;
                Ok(Payload::Held(bytes.slice(first..first + length)))
            }
            Self::File(file, stamp, keeper) => {
                Ok(Payload::from_file(Arc::clone(file), *stamp, *keeper, first, length))
            }
        }
    }
}
