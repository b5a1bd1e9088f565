//! Who answers what: the protocol's own questions first, then the lesson's endpoints, then the Pod page's data and the manifest, then
//! content.
//!
//! Content can shadow none of the others: a file called `info` is not what the contract says `/info` is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, TRANSFER_ENCODING, VARY};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use tokio::task::spawn_blocking;

use crate::autoindex;
use crate::body::Payload;
use crate::fault::Faults;
use crate::generation::Found;
use crate::host::host;
use crate::lesson::{Endpoint, Lesson};
use crate::manifest::LiveManifest;
use crate::pod_page::{PodPage, View, action};
use crate::presentation::Presentation;
use crate::published::ReleaseId;
use crate::representation::Representation;
use crate::respond::{explain, plain, redirect, represent, unavailable};
use crate::site::{Root, Site};
use crate::target::{ContentPath, Rejected};

const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// Longest path and query together that is looked at; no link comes near it.
const TARGET_MAX: usize = 8 * 1024;
/// The page for what is not there, from the same content.
const NOT_FOUND_PAGE: &str = "/404.html";

/// Everything that answers.
#[derive(Debug)]
pub struct Routes {
    /// Content.
    pub root: Arc<Root>,
    /// The lesson's endpoints.
    pub lesson: Option<Lesson>,
    /// Where the server plays the content manager.
    pub manifest: Option<LiveManifest>,
    /// What a directory without an index is answered with.
    pub listings: Listings,
    /// What is said of content.
    pub presentation: Arc<Presentation>,
    /// Where faults may be asked for.
    pub faults: Option<Faults>,
    /// Where the Pod page is on.
    pub pod_page: Option<PodPage>,
}

/// Whether directories are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listings {
    /// Nobody learns what there is but by being told.
    Off,
    /// A directory without an index shows what is in it.
    On,
}

/// A response, and the release that it was answered from.
#[derive(Debug)]
pub struct Reply {
    /// Not sent yet.
    pub response: Response<Payload>,
    /// None where no release had a part in it.
    pub release: Option<ReleaseId>,
}

impl From<Response<Payload>> for Reply {
    fn from(response: Response<Payload>) -> Self {
        Self { response, release: None }
    }
}

impl Routes {
    /// Answers one request.
    pub async fn answer(&self, request: &Parts, peer: SocketAddr) -> Reply {
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
            && let Some(response) = faults.befall().await
        {
            return response.into();
        }
        if let Some(lesson) = &self.lesson
            && let Some(endpoint) = Endpoint::at(path)
        {
            return lesson.answer(endpoint, host, peer).await.into();
        }
        let site = self.root.site_looked_at().await;
        if let Some(manifest) = self.manifest.as_ref().filter(|_| path == LiveManifest::PATH) {
            let listed = match &*site {
                Site::Waiting(reason) => return unavailable(reason).into(),
                Site::Live(_) | Site::Release(_) => manifest.current(site).await,
            };
            return sent(request, listed).await.into();
        }
        let mut reply = self.content(request, &site).await;
        if reply.response.status().is_success() {
            self.root.sends(reply.response.body().origin());
        }
        self.presentation.decorate(reply.response.headers_mut());
        reply
    }

    async fn content(&self, request: &Parts, site: &Arc<Site>) -> Reply {
        let path = match ContentPath::from_target(request.uri.path()) {
            Ok(path) => path,
            Err(Rejected::Malformed) => {
                return plain(StatusCode::BAD_REQUEST, "the path is not well-formed\n").into();
            }
            Err(Rejected::Nowhere) => return not_found(site).await,
        };
        if let Site::Waiting(reason) = &**site {
            return unavailable(reason).into();
        }
        let release = site.release();
        let response = match find(site, &path).await {
            Ok(Found::File(representation)) => sent(request, Ok(representation)).await,
            Ok(Found::Directory) => redirect(&path.as_directory_target(), request.uri.query()),
            Ok(Found::Nothing) => return self.missing(request, site, &path).await,
            Err(error) => failed(request.uri.path(), &error),
        };
        Reply { response, release }
    }

    /// Nothing has this name: a directory may be listed, and a page that was loaded a moment ago may mean an asset that was
    /// there then.
    async fn missing(&self, request: &Parts, site: &Arc<Site>, path: &ContentPath) -> Reply {
        if let Site::Release(generation) = &**site
            && path.may_be_redirected()
            && let Some((release, representation)) = generation.leftovers.find(path.file())
        {
            // Its release may be gone from the volume by now, which is no failure.
            if let Ok(response) = represent(request, &representation).await {
                return Reply { response, release: Some(release) };
            }
        }
        if self.listings == Listings::On && !path.may_be_redirected() {
            let (of, directory) = (Arc::clone(site), path.named().to_owned());
            let form = autoindex::Form::wanted(&request.headers);
            let listed = spawn_blocking(move || autoindex::list(&of, &directory, form)).await;
            match listed.map_err(io::Error::other).and_then(|listed| listed) {
                Ok(Some(listing)) => {
                    let mut response = sent(request, Ok(Arc::new(listing))).await;
                    response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
                    return Reply { response, release: site.release() };
                }
                Ok(None) => {}
                Err(error) => return failed(request.uri.path(), &error).into(),
            }
        }
        not_found(site).await
    }
}

async fn find(site: &Arc<Site>, path: &ContentPath) -> io::Result<Found> {
    match &**site {
        Site::Waiting(_) => Ok(Found::Nothing),
        // From memory: no system call, no other thread.
        Site::Release(generation) => Ok(generation.find(path)),
        Site::Live(_) => {
            let (site, path) = (Arc::clone(site), path.clone());
            spawn_blocking(move || match &*site {
                Site::Live(live) => live.find(&path),
                Site::Waiting(_) | Site::Release(_) => Ok(Found::Nothing),
            })
            .await?
        }
    }
}

async fn sent(request: &Parts, found: io::Result<Arc<Representation>>) -> Response<Payload> {
    let response = match found {
        Ok(representation) => represent(request, &representation).await,
        Err(error) => Err(error),
    };
    response.unwrap_or_else(|error| failed(request.uri.path(), &error))
}

/// 404, with the content's own page for it where there is one.
async fn not_found(site: &Arc<Site>) -> Reply {
    let release = match &**site {
        Site::Waiting(reason) => return unavailable(reason).into(),
        Site::Release(generation) => Some(generation.release.clone()),
        Site::Live(_) => None,
    };
    let page = match ContentPath::from_target(NOT_FOUND_PAGE) {
        Ok(page) => find(site, &page).await,
        Err(_) => Ok(Found::Nothing),
    };
    let response = match page {
        Ok(Found::File(page)) => explain(StatusCode::NOT_FOUND, &page).await,
        Ok(Found::Directory | Found::Nothing) => Ok(plain(StatusCode::NOT_FOUND, "not found\n")),
        Err(error) => Err(error),
    };
    Reply { response: response.unwrap_or_else(|error| failed(NOT_FOUND_PAGE, &error)), release }
}

/// The volume let us down. The file may be back in a moment, and says nothing about the rest of the site.
fn failed(path: &str, error: &io::Error) -> Response<Payload> {
    tracing::error!(path, %error, "cannot read content");
    unavailable("the content cannot be read right now")
}

/// Refused, and the connection ends: what follows on it cannot be trusted to be what it seems.
fn refused(status: StatusCode, reason: &str) -> Response<Payload> {
    let mut response = plain(status, reason);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
