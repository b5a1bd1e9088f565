//! The admin server: what a kubelet, a scraper, a person and a neighbour may ask a container.
//!
//! - `GET /livez`: 200 as long as the event loop turns. The server runs on the same single-threaded runtime as the
//!   container's work, so answering at all is the proof; it says nothing about upstreams, because a restart mends none.
//! - `GET /readyz`: 200 when the container can do its job now, else 503 with the reason. 503 from the moment a drain begins.
//! - `GET /metrics`: OpenMetrics for scrapers that accept it, Prometheus' text format for all others.
//! - `GET /status`: JSON for people. A loopback peer must ask under a name that means this machine.
//! - `POST` to an action: only from loopback, that is, from inside the Pod, and not from another site's page.

mod access;
mod connections;
mod exposition;
mod probes;
mod process;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Container;
pub use access::{AllowedHosts, is_cross_site};
pub use connections::AdminHandle;
use exposition::Format;
pub use probes::{Probed, Probes};

/// What a loopback peer is told that asks under another name.
const FOREIGN_HOST: &str = "not under this name: ask on localhost, or allow the name with --allowed-host\n";

/// A response of the admin server: small, and complete in memory.
pub type Answer = Response<Full<Bytes>>;
type ActionFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Action = Box<dyn Fn() -> ActionFuture + Send + Sync>;

/// What a container says of itself.
pub trait Report: Send + Sync + 'static {
    /// Whether it can do its job now.
    ///
    /// # Errors
    /// Why not, in a sentence for `kubectl describe pod`.
    fn readiness(&self) -> Result<(), String>;

    /// What a person would want to know, as a JSON object. `/status` adds name, version, process id and start time.
    fn status(&self) -> Value;
}

/// The admin server's routes.
pub struct Admin {
    container: Container,
    started: SystemTime,
    report: Arc<dyn Report>,
    registry: Registry,
    process: Registry,
    actions: Vec<(&'static str, Action)>,
    allowed_hosts: AllowedHosts,
    probes: Probes,
    shutdown: CancellationToken,
}

/// A registry whose metric names start with the container's prefix, holding its `_build_info`.
pub fn registry(container: &Container) -> Registry {
    let mut registry = Registry::with_prefix(container.metric_prefix());
    registry.register("build", "What is running", Info::new(vec![("version", container.version)]));
    registry
}

impl Admin {
    /// The four routes that every container answers. `shutdown` makes `/readyz` say so as soon as it is cancelled.
    pub fn new(
        container: Container,
        report: Arc<dyn Report>,
        registry: Registry,
        shutdown: CancellationToken,
    ) -> Self {
        let started = SystemTime::now();
        Self {
            container,
            started,
            report,
            registry,
            process: process::registry(started),
            actions: Vec::new(),
            allowed_hosts: AllowedHosts::default(),
            probes: Probes::default(),
            shutdown,
        }
    }

    /// Names from `--allowed-host`, under which loopback peers are answered besides the usual ones.
    #[must_use]
    pub fn allowed_hosts(mut self, allowed_hosts: AllowedHosts) -> Self {
        self.allowed_hosts = allowed_hosts;
        self
    }

    /// Counts probes where another part of the program can read the count.
    #[must_use]
    pub fn probes(mut self, probes: Probes) -> Self {
        self.probes = probes;
        self
    }

    /// Adds a route that changes state: `POST` only, answered only to loopback peers.
    #[must_use]
    pub fn action<F, A>(mut self, path: &'static str, action: A) -> Self
    where
        A: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        self.actions.push((path, Box::new(move || Box::pin(action()))));
        self
    }

    /// Serves until the handle is dropped: it answers through the whole drain, as the contract says.
    pub fn serve(self, listener: TcpListener) -> AdminHandle {
        AdminHandle::start(Arc::new(self), listener)
    }

    async fn answer<B>(&self, peer: SocketAddr, request: Request<B>) -> Answer {
        let path = request.uri().path();
        let local = peer.ip().to_canonical().is_loopback();
        if let Some((_, action)) = self.actions.iter().find(|(route, _)| *route == path) {
            if request.method() != Method::POST {
                return not_allowed("POST");
            }
            // SECURITY: the port is open to the cluster because probes come from outside the Pod; what changes
            // state is for neighbours on the shared localhost only.
            if !local {
                return text(StatusCode::FORBIDDEN, "only from inside the Pod: ask on localhost\n");
            }
            if !self.is_meant(request.headers()) {
                return text(StatusCode::FORBIDDEN, FOREIGN_HOST);
            }
            if is_cross_site(request.headers()) {
                return text(StatusCode::FORBIDDEN, "not from another site's page\n");
            }
            return action().await;
        }
        if !matches!(path, "/livez" | "/readyz" | "/metrics" | "/status") {
            return self.not_found();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed("GET, HEAD");
        }
        match path {
            "/livez" => {
                self.probes.count();
                text(StatusCode::OK, "ok\n")
            }
            "/readyz" => {
                self.probes.count();
                self.readyz()
            }
            "/metrics" => self.metrics(Format::negotiate(request.headers())),
            // SECURITY: a browser on this machine must not read it for a page whose own name leads here.
            _ if local && !self.is_meant(request.headers()) => text(StatusCode::FORBIDDEN, FOREIGN_HOST),
            _ => answer(StatusCode::OK, "application/json", format!("{:#}\n", self.status())),
        }
    }

    /// Says who answers: on a port that another container should have, that is what a client needs to know.
    fn not_found(&self) -> Answer {
        let actions: String = self.actions.iter().flat_map(|(path, _)| [", POST ", path]).collect();
        let name = self.container.name;
        let routes = format!("this is {name}: try /livez, /readyz, /metrics, /status{actions}\n");
        text(StatusCode::NOT_FOUND, routes)
    }

    /// Whether the request names this machine, this Pod or this cluster. A request without `Host` comes from no browser.
    fn is_meant(&self, headers: &HeaderMap) -> bool {
        access::host(headers).is_none_or(|host| self.allowed_hosts.allows(host))
    }

    fn readyz(&self) -> Answer {
        if self.shutdown.is_cancelled() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        match self.report.readiness() {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }

    fn metrics(&self, format: Format) -> Answer {
        let mut body = String::new();
        let encoded = encode_registry(&mut body, &self.registry)
            .and_then(|()| encode_registry(&mut body, &self.process))
            .and_then(|()| encode_eof(&mut body));
        match encoded {
            Ok(()) => answer(StatusCode::OK, format.content_type(), format.write(body)),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn status(&self) -> Value {
        let readiness = self.report.readiness();
        let mut status = json!({
            "name": self.container.name,
            "version": self.container.version,
            "started": humantime::format_rfc3339_millis(self.started).to_string(),
            "ready": readiness.is_ok() && !self.shutdown.is_cancelled(),
            "draining": self.shutdown.is_cancelled(),
            "pid": std::process::id(),
            "probes": self.probes.so_far().to_json(),
        });
        if let (Value::Object(all), Value::Object(own)) = (&mut status, self.report.status()) {
            all.extend(own);
        }
        status
    }
}

/// A JSON answer, for actions.
pub fn json(status: StatusCode, value: &Value) -> Answer {
    answer(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("allowed here: {allow}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A probe that is answered from a cache probes nothing.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    struct Waiting;

    impl Report for Waiting {
        fn readiness(&self) -> Result<(), String> {
            Err("no release yet".to_owned())
        }
        fn status(&self) -> Value {
            json!({"release": null})
        }
    }

    const CONTAINER: Container = Container { name: "file-puller", admin_port: 9878, version: "1.2.3" };

    fn admin() -> Admin {
        Admin::new(CONTAINER, Arc::new(Waiting), registry(&CONTAINER), CancellationToken::new())
            .action("/sync", || async { json(StatusCode::OK, &json!({"synced": true})) })
    }

    async fn ask(admin: &Admin, peer: &str, method: Method, path: &str) -> (StatusCode, String) {
        ask_with(admin, peer, method, path, &[]).await
    }

    async fn ask_with(
        admin: &Admin,
        peer: &str,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let answer = admin.answer(peer.parse().unwrap(), request).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn alive_is_not_ready_and_the_reason_is_said() {
        let admin = admin();
        assert_eq!(ask(&admin, "10.0.0.9:1", Method::GET, "/livez").await.0, StatusCode::OK);
        let (status, body) = ask(&admin, "10.0.0.9:1", Method::GET, "/readyz").await;
        assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no release yet\n"));
    }

    #[tokio::test]
    async fn a_drain_shows_at_once() {
        let admin = admin();
        admin.shutdown.cancel();
        assert_eq!(ask(&admin, "127.0.0.1:1", Method::GET, "/readyz").await.1, "draining\n");
        assert_eq!(ask(&admin, "127.0.0.1:1", Method::GET, "/livez").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_carry_the_prefix_and_the_version() {
        let (_, body) = ask(&admin(), "127.0.0.1:1", Method::GET, "/metrics").await;
        assert!(body.contains("# TYPE file_puller_build_info gauge\n"), "{body}");
        assert!(body.contains("\nprocess_start_time_seconds "), "{body}");
        assert!(body.contains("file_puller_build_info{version=\"1.2.3\"} 1"), "{body}");

        let accept = [("accept", "application/openmetrics-text")];
        let (_, body) = ask_with(&admin(), "127.0.0.1:1", Method::GET, "/metrics", &accept).await;
        assert!(body.contains("# TYPE file_puller_build info\n"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }

    #[tokio::test]
    async fn what_changes_state_is_a_post_from_inside_the_pod() {
        let admin = admin();
        assert_eq!(ask(&admin, "127.0.0.1:1", Method::POST, "/sync").await.0, StatusCode::OK);
        assert_eq!(ask(&admin, "[::ffff:127.0.0.1]:1", Method::POST, "/sync").await.0, StatusCode::OK);
        assert_eq!(ask(&admin, "10.0.0.9:1", Method::POST, "/sync").await.0, StatusCode::FORBIDDEN);
        assert_eq!(ask(&admin, "127.0.0.1:1", Method::GET, "/sync").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(
            ask(&admin, "127.0.0.1:1", Method::POST, "/livez").await.0,
            StatusCode::METHOD_NOT_ALLOWED
        );
    }

    #[tokio::test]
    async fn an_unknown_path_is_told_who_answers_and_what_there_is() {
        let (status, body) = ask(&admin(), "127.0.0.1:1", Method::POST, "/snyc").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(body, "this is file-puller: try /livez, /readyz, /metrics, /status, POST /sync\n");
    }

    #[tokio::test]
    async fn another_sites_page_changes_nothing_and_reads_nothing() {
        let admin = admin().allowed_hosts(AllowedHosts::new(["pod.example".to_owned()]));
        let here = "127.0.0.1:1";
        let status = async |method, path, fields: &[_]| ask_with(&admin, here, method, path, fields).await.0;
        let ours = ("host", "localhost:9878");
        assert_eq!(status(Method::POST, "/sync", &[ours]).await, StatusCode::OK);
        assert_eq!(status(Method::POST, "/sync", &[("host", "pod.example")]).await, StatusCode::OK);
        for fields in [
            &[ours, ("origin", "http://evil.example")][..],
            &[ours, ("sec-fetch-site", "cross-site")],
            &[("host", "evil.example:9878")],
        ] {
            assert_eq!(status(Method::POST, "/sync", fields).await, StatusCode::FORBIDDEN, "{fields:?}");
        }
        assert_eq!(status(Method::GET, "/status", &[ours]).await, StatusCode::OK);
        assert_eq!(status(Method::GET, "/status", &[("host", "evil.example")]).await, StatusCode::FORBIDDEN);
        // Probes and scrapers come under whatever name their configuration has.
        assert_eq!(
            status(Method::GET, "/readyz", &[("host", "evil.example")]).await,
            StatusCode::SERVICE_UNAVAILABLE
        );
        let far = ask_with(&admin, "10.0.0.9:1", Method::GET, "/status", &[("host", "pods.example")]).await;
        assert_eq!(far.0, StatusCode::OK);
    }
}
