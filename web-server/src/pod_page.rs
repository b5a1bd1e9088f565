//! The Pod page's data: what the three containers of this Pod are doing, for people who study it.
//!
//! The page itself is content like any other, and arrives as such. What it shows comes from here: `GET /pod` is a snapshot, as
//! JSON or, for browsers without JavaScript, as HTML; `GET /pod/events` sends one whenever something has changed. The
//! neighbours are asked over the shared localhost, and only while somebody watches.
//!
//! In the order in which the data flows:
//!
//! - [`neighbour`]: a container next door, and how to ask it
//! - [`status`]: what it answers
//! - `watched`: what was seen of it so far, and `told`: what the kubelet says of the Pod
//! - [`lag`]: how many lines are on their way
//! - [`rounds`]: all containers, looked at again and again
//! - [`snapshot`]: what was found
//! - [`audience`]: who watches, and what they were told last
//! - [`feed`]: one viewer's stream of snapshots
//! - [`plain`]: a snapshot as HTML
//! - [`action`]: the one thing that can be asked for, from this machine alone

pub(crate) mod action;
pub(crate) mod audience;
pub(crate) mod feed;
pub(crate) mod lag;
pub(crate) mod neighbour;
pub(crate) mod plain;
pub(crate) mod rounds;
pub(crate) mod snapshot;
pub(crate) mod status;
mod told;
mod watched;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use self::audience::{Audience, Viewer, now};
use self::rounds::{Own, Rounds};
use crate::config::Config;
use crate::http::body::Payload;
use crate::http::quality;
use crate::http::response::{plain as sentence, unavailable};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

/// Tells a proxy of nginx's kind to pass events on at once.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What the flags say of the Pod page.
#[derive(Debug, Clone)]
pub(crate) struct Flags {
    /// Whether the page may ask for something.
    pub(crate) actions: Actions,
    /// Where file-puller's admin port is.
    pub(crate) puller: SocketAddr,
    /// Where log-agent's is.
    pub(crate) agent: SocketAddr,
    /// Where the downward API keeps the labels.
    pub(crate) labels: Option<PathBuf>,
    /// And the annotations.
    pub(crate) annotations: Option<PathBuf>,
}

impl Flags {
    /// None where the page is not asked for.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        config.pod_page.then(|| Self {
            actions: if config.pod_page_actions { Actions::On } else { Actions::Off },
            puller: config.pod_page_puller,
            agent: config.pod_page_agent,
            labels: config.pod_labels_file.clone(),
            annotations: config.pod_annotations_file.clone(),
        })
    }
}

/// What there is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// How things are.
    Snapshot,
    /// How they go on.
    Events,
}

impl View {
    /// The view at a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/pod" => Some(Self::Snapshot),
            "/pod/events" => Some(Self::Events),
            _ => None,
        }
    }
}

/// Whether the page may ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actions {
    /// It shows, and no more.
    Off,
    /// It may ask for a sync.
    On,
}

/// Answers for the Pod page.
#[derive(Debug)]
pub(crate) struct PodPage {
    audience: Arc<Audience>,
    actions: Actions,
    puller: SocketAddr,
}

impl PodPage {
    /// Nobody watches yet. `variable` is how the downward API's variables are read.
    pub(crate) fn new(flags: Flags, own: Own, variable: impl Fn(&str) -> Option<String>) -> Self {
        let (actions, puller, shutdown) = (flags.actions, flags.puller, own.shutdown.clone());
        let audience = Audience::new(Rounds::new(flags, own, variable), shutdown);
        Self { audience: Arc::new(audience), actions, puller }
    }

    /// Answers a GET or HEAD request.
    pub(crate) async fn show(&self, view: View, request: &Parts) -> Response<Payload> {
        if request.method == Method::HEAD && view == View::Events {
            return events(Payload::Stream(feed::nothing()));
        }
        let Some(viewer) = Viewer::join(&self.audience) else {
            return unavailable("too many watch the Pod already");
        };
        match view {
            View::Events => events(Payload::Stream(feed::of(viewer))),
            View::Snapshot => snapshot(viewer, request).await,
        }
    }

    /// Answers any request to [`action::PATH`].
    pub(crate) async fn act(&self, request: &Parts, peer: SocketAddr) -> Response<Payload> {
        if request.method != Method::POST {
            let mut refusal = sentence(StatusCode::METHOD_NOT_ALLOWED, "allowed here: POST\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return refusal;
        }
        match action::permit(self.actions, request, peer) {
            Ok(permit) => action::sync(permit, self.puller).await,
            Err(refusal) => refusal.into(),
        }
    }
}

fn events(payload: Payload) -> Response<Payload> {
    let mut response = Response::new(payload);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
    response
}

async fn snapshot(mut viewer: Viewer, request: &Parts) -> Response<Payload> {
    let Some(told) = viewer.news().await else {
        return unavailable("this server is about to end");
    };
    let (content_type, body) = if prefers_html(request) {
        ("text/html; charset=utf-8", plain::page(&told.snapshot).into())
    } else {
        ("application/json", dated(&told.json))
    };
    let mut response = Response::new(Payload::Held(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(plain::POLICY));
    response
}

/// With the time in front, by which the others can be told to be old.
fn dated(json: &Bytes) -> Bytes {
    let mut dated = format!("{{\"at\":\"{}\",", now()).into_bytes();
    dated.extend_from_slice(json.strip_prefix(b"{").unwrap_or(json));
    dated.into()
}

/// Browsers name HTML and not JSON; whoever names neither is a program.
fn prefers_html(request: &Parts) -> bool {
    // A browser names HTML; `*/*` alone is a program.
    quality::names_media_type(&request.headers, "text/html")
        && quality::of_media_type(&request.headers, "text/html")
            >= quality::of_media_type(&request.headers, "application/json")
}
