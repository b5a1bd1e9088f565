//! Who answers what: the protocol's own questions first, then the lesson's endpoints, then the Pod page's data and the manifest, then
//! content.
//!
//! Content can shadow none of the others: a file called `info` is not what the contract says `/info` is.

pub(crate) mod autoindex;
pub(crate) mod faults;
pub(crate) mod files;
pub(crate) mod lesson;
pub(crate) mod manifest;

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use self::faults::Faults;
use self::files::{Files, sent};
use self::lesson::{Endpoint, Lesson};
use self::manifest::LiveManifest;
use crate::content::root::{Content, ContentRoot};
use crate::http::body::Payload;
use crate::http::host::host;
use crate::http::response::{Reply, plain, unavailable};
use crate::pod_page::{PodPage, View, action};

const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// Longest path and query together that is looked at; no link comes near it.
const TARGET_MAX: usize = 8 * 1024;

/// Everything that answers.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Content.
    pub(crate) root: Arc<ContentRoot>,
    /// The lesson's endpoints.
    pub(crate) lesson: Option<Lesson>,
    /// Where the server plays the content manager.
    pub(crate) manifest: Option<LiveManifest>,
    pub(crate) files: Files,
    /// Where faults may be asked for.
    pub(crate) faults: Option<Faults>,
    /// Where the Pod page is on.
    pub(crate) pod_page: Option<PodPage>,
}

impl Routes {
    /// Answers one request.
    pub(crate) async fn answer(&self, request: &Parts, peer: SocketAddr) -> Reply {
        let host = match host(request) {
            Ok(host) => host,
            Err(reason) => return refused(StatusCode::BAD_REQUEST, reason).into(),
        };
        if let Some(page) = self.pod_page.as_ref().filter(|_| request.uri.path() == action::PATH) {
            return page.act(request, peer).await.into();
        }
        match request.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => {
                let mut response = Response::new(Payload::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(ALLOW, ALLOWED);
                return response.into();
            }
            _ => {
                let text = "this server only gives: GET, HEAD, OPTIONS\n";
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
                response.headers_mut().insert(ALLOW, ALLOWED);
                return response.into();
            }
        }
        // SECURITY: whoever frames a body for a request that has no use for one may be after how others frame it.
        if request.headers.contains_key(TRANSFER_ENCODING) {
            return refused(
                StatusCode::BAD_REQUEST,
                "a GET request with a Transfer-Encoding makes no sense\n",
            )
            .into();
        }
        let path = request.uri.path();
        if path.len() + request.uri.query().map_or(0, str::len) > TARGET_MAX {
            return refused(StatusCode::URI_TOO_LONG, "the request target is too long\n").into();
        }
        // Before the faults, so that they can be watched.
        if let (Some(page), Some(view)) = (&self.pod_page, View::at(path)) {
            return page.show(view, request).await.into();
        }
        if let Some(faults) = &self.faults
            && let Some(response) = faults.apply().await
        {
            return response.into();
        }
        if let Some(lesson) = &self.lesson
            && let Some(endpoint) = Endpoint::at(path)
        {
            return lesson.answer(endpoint, host, peer).await.into();
        }
        let site = self.root.content_after_first_load().await;
        if let Some(manifest) = self.manifest.as_ref().filter(|_| path == LiveManifest::PATH) {
            let listed = match &*site {
                Content::Waiting(reason) => return unavailable(reason).into(),
                Content::Live(_) | Content::Release(_) => manifest.current(site).await,
            };
            return sent(request, listed).await.into();
        }
        self.files.answer(request, &site).await
    }
}

/// Refused, and the connection ends: what follows on it cannot be trusted to be what it seems.
fn refused(status: StatusCode, reason: &str) -> Response<Payload> {
    let mut response = plain(status, reason);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
