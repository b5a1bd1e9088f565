//! Responses, before the server makes them its own.

use std::pin::Pin;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};

/// Pieces that are sent as they come.
pub type Stream = Pin<Box<dyn futures_util::Stream<Item = Bytes> + Send>>;

/// A response's body.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Without an end that is known.
    Stream(Stream),
}

/// A response that is only true now.
pub(crate) fn fresh(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A response for people: one line of text.
pub(crate) fn sentence(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Whole(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
