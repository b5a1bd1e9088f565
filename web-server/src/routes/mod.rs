//! Who answers what: the protocol's own questions first, then the lesson's endpoints, then the Pod page's data and the manifest, then
//! content.
//!
//! Content can shadow none of the others, however their paths are written: a file called `info` is not what the contract says `/info`
//! is, and neither is `//info`.

pub(crate) mod autoindex;
pub(crate) mod faults;
pub(crate) mod files;
pub(crate) mod lesson;
pub(crate) mod manifest;
pub(crate) mod redirects;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use lifecycle::admin::AllowedHosts;
use lifecycle::blocking;
use pod_page::{PodPage, Target};

use self::faults::Faults;
use self::files::{Files, sent};
use self::lesson::{Endpoint, Lesson};
use self::manifest::ManifestRoutes;
use crate::content::path::{ContentPath, Rejected};
use crate::content::root::{Content, ContentRoot};
use crate::http::body::Payload;
use crate::http::host::host;
use crate::http::response::{Reply, plain};
use crate::live_page;

const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// Longest path and query together that is looked at; no link comes near it.
const TARGET_MAX: usize = 8 * 1024;

/// What a client on this machine is told that asks for the Pod page's data under another name.
const FOREIGN_HOST: &str = "not under this name: ask on localhost, or allow the name with --allowed-host\n";

/// Everything that answers.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Content.
    pub(crate) root: Arc<ContentRoot>,
    /// The lesson's endpoints.
    pub(crate) lesson: Option<Lesson>,
    /// Where the server plays the content manager.
    pub(crate) manifest: Option<ManifestRoutes>,
    pub(crate) files: Files,
    /// Where faults may be asked for.
    pub(crate) faults: Option<Faults>,
    /// Names under which clients on this machine may read the Pod page's data.
    pub(crate) allowed_hosts: AllowedHosts,
    /// Where the Pod page is on.
    pub(crate) pod_page: Option<PodPage>,
}

impl Routes {
    /// Answers one request. `client` is the peer, or the client that trusted proxies name.
    pub(crate) async fn answer(&self, request: &Parts, peer: SocketAddr, client: IpAddr) -> Reply {
        let host = match host(request) {
            Ok(host) => host,
            Err(reason) => return refused(StatusCode::BAD_REQUEST, reason),
        };
        // SECURITY: what one takes for one coding and another for two ends in different places (RFC 9112 section 7).
        let mut codings = request.headers.get_all(TRANSFER_ENCODING).iter();
        let coding = codings.next();
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
            || codings.next().is_some()
        {
            return refused(StatusCode::BAD_REQUEST, "the Transfer-Encoding is not chunked, once\n");
        }
        let path = ContentPath::from_target(request.uri.path());
        let path = path.as_ref().map_err(|rejected| *rejected);
        let target = || Target::ALL.into_iter().find(|(known, _)| path.is_ok_and(|path| path.is_at(known)));
        let page = self.pod_page.as_ref().and_then(|page| Some((page, target()?.1)));
        let remote = nearest_remote(peer, client);
        if let Some((page, target @ Target::Sync)) = page {
            return live_page::answer(page, target, request, remote).await.into();
        }
        match request.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => {
                let mut response = Response::new(Payload::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(ALLOW, ALLOWED);
                self.files.cors.apply_preflight(request, response.headers_mut());
                return response.into();
            }
            _ => {
                let text = "this server only gives: GET, HEAD, OPTIONS\n";
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
                response.headers_mut().insert(ALLOW, ALLOWED);
                return response.into();
            }
        }
        // SECURITY: a client that frames a body for a request that has no use for one may be probing how others frame it.
        if coding.is_some() {
            let reason = "a GET request with a Transfer-Encoding makes no sense\n";
            return refused(StatusCode::BAD_REQUEST, reason);
        }
        if request.uri.path().len() + request.uri.query().map_or(0, str::len) > TARGET_MAX {
            return refused(StatusCode::URI_TOO_LONG, "the request target is too long\n");
        }
        // Before the faults, so that they can be watched.
        if let Some((page, target)) = page {
            // SECURITY: a browser on this machine must not read it for a page whose own name leads here.
            if remote.ip().is_loopback() && !self.allowed_hosts.allows(host) {
                return plain(StatusCode::FORBIDDEN, FOREIGN_HOST).into();
            }
            return live_page::answer(page, target, request, remote).await.into();
        }
        if let Some(faults) = &self.faults
            && let Some(response) = faults.apply().await
        {
            return response.into();
        }
        if let Some(lesson) = &self.lesson
            && let Some(endpoint) = path.ok().and_then(Endpoint::at)
        {
            return lesson.answer(endpoint, host, client).await.into();
        }
        let site = self.root.content_after_first_load().await;
        if let Some(manifest) = &self.manifest {
            return self.answer_puller(manifest, request, path, &site).await;
        }
        self.files.answer(request, path, &site).await
    }

    /// The manifest, or a file that it names.
    async fn answer_puller(
        &self,
        manifest: &ManifestRoutes,
        request: &Parts,
        path: Result<&ContentPath, Rejected>,
        site: &Arc<Content>,
    ) -> Reply {
        let is_at = |known| path.is_ok_and(|path| path.is_at(known));
        if is_at(ManifestRoutes::PATH) {
            return manifest.answer(request).await.into();
        }
        if is_at(ManifestRoutes::SIGNATURE_PATH)
            && let Some(signature) = manifest.signature(request).await
        {
            return signature.into();
        }
        let Some(edition) = manifest.edition(&request.headers) else {
            return self.files.answer(request, path, site).await;
        };
        if let Some(target) =
            request.uri.path_and_query().filter(|target| edition.has_elsewhere(target.as_str()))
        {
            let (of, target) = (Arc::clone(&edition), target.clone());
            let found = blocking(move || of.elsewhere(target.as_str())).await;
            if let Some(found) = found.transpose() {
                return sent(request, found.map(Arc::new)).await.into();
            }
        }
        self.files.answer(request, path, &edition.content).await
    }
}

/// Who a request counts as where only this machine is answered. A proxy on this machine does not make its clients local, and
/// a client that a proxy elsewhere calls local is local there.
fn nearest_remote(peer: SocketAddr, client: IpAddr) -> SocketAddr {
    if peer.ip().to_canonical().is_loopback() { SocketAddr::new(client, peer.port()) } else { peer }
}

/// Refused, and the connection ends: what follows on it cannot be trusted to be what it seems.
fn refused(status: StatusCode, reason: &str) -> Reply {
    let mut response = plain(status, reason);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.into()
}
