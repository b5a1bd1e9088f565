//! From a request to a response.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, RETRY_AFTER, VARY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::action;
use crate::flags::Flags;
use crate::html;
use crate::hub::{Hub, Subscriber};
use crate::local::LocalServer;
use crate::poller::Poller;
use crate::response::{Body, Stream, fresh, sentence};
use crate::snapshot::now;
use crate::sse;

/// Tells a proxy of nginx's kind to pass events on at once.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a path of the page leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// How things are.
    Snapshot,
    /// How they go on.
    Events,
    /// "Sync now".
    Sync,
}

impl Target {
    /// All of them, and where they are.
    pub const ALL: [(&str, Self); 3] =
        [("/pod", Self::Snapshot), ("/pod/events", Self::Events), (action::PATH, Self::Sync)];
}

/// What a client likes better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A program.
    Json,
    /// A browser.
    Html,
}

/// Answers for the live page.
#[derive(Debug)]
pub struct PodPage {
    hub: Arc<Hub>,
    /// file-puller's admin port, where the page may ask for a sync.
    sync_at: Option<SocketAddr>,
}

impl PodPage {
    /// A page without subscribers; none where the flags leave it off. `variable` reads the downward API's variables, and
    /// `shutdown` is cancelled when the server drains.
    pub fn new(
        flags: &Flags,
        server: Arc<dyn LocalServer>,
        shutdown: CancellationToken,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let poller = Poller::new(flags, server, shutdown.clone(), variable);
        let hub = Arc::new(Hub::new(poller, shutdown));
        let sync_at = flags.pod_page_actions.then_some(flags.pod_page_puller);
        flags.pod_page.then_some(Self { hub, sync_at })
    }

    /// Answers a request to [`Target::Snapshot`] or [`Target::Events`] with GET or HEAD, and one to [`Target::Sync`] with any method.
    pub async fn answer(
        &self,
        target: Target,
        request: &Parts,
        peer: SocketAddr,
        format: Format,
    ) -> Response<Body> {
        match target {
            Target::Sync => self.act(request, peer).await,
            Target::Events if request.method == Method::HEAD => events(sse::nothing()),
            Target::Events => match Subscriber::join(&self.hub) {
                Some(subscriber) => events(sse::of(subscriber)),
                None => unavailable(TOO_MANY),
            },
            Target::Snapshot => match Subscriber::join(&self.hub) {
                Some(subscriber) => snapshot(subscriber, format).await,
                None => unavailable(TOO_MANY),
            },
        }
    }

    async fn act(&self, request: &Parts, peer: SocketAddr) -> Response<Body> {
        if request.method != Method::POST {
            let mut refusal = sentence(StatusCode::METHOD_NOT_ALLOWED, "allowed here: POST\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return refusal;
        }
        let Some(puller) = self.sync_at else {
            return sentence(StatusCode::NOT_FOUND, "off: --pod-page-actions turns it on\n");
        };
        match action::permit(request, peer) {
            Ok(permit) => action::sync(permit, puller).await,
            Err(refusal) => refusal.into(),
        }
    }
}

const TOO_MANY: &str = "too many browsers watch the Pod already\n";

fn unavailable(reason: &'static str) -> Response<Body> {
    let mut response = sentence(StatusCode::SERVICE_UNAVAILABLE, reason);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn events(stream: Stream) -> Response<Body> {
    let mut response = fresh("text/event-stream", Body::Stream(stream));
    response.headers_mut().insert(UNBUFFERED, HeaderValue::from_static("no"));
    response
}

async fn snapshot(mut subscriber: Subscriber, format: Format) -> Response<Body> {
    let Some(frame) = subscriber.next_frame().await else {
        return unavailable("this server is about to end\n");
    };
    let (content_type, body) = match format {
        Format::Html => ("text/html; charset=utf-8", html::page(&frame.snapshot).into()),
        Format::Json => ("application/json", dated(&frame.json)),
    };
    let mut response = fresh(content_type, Body::Whole(body));
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(html::POLICY));
    response
}

/// With the present time in front: a reader tells the age of the other times by it.
fn dated(json: &Bytes) -> Bytes {
    let mut dated = format!("{{\"at\":\"{}\",", now()).into_bytes();
    dated.extend_from_slice(json.strip_prefix(b"{").unwrap_or(json));
    dated.into()
}
