//! What is answered to an ordinary request for content.

use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Server, Volume, lasting_headers};

#[test]
fn get_head_options() {
    let volume = Volume::with(&[("page.html", "<p>hello")]);
    let server = Server::start(&volume.root(), &[]);
    // Last-Modified appears when the second in which the release was published is over.
    wait_until("the second is over", || server.get("/page.html").header("last-modified").is_some());
    let whole = server.get("/page.html");
    assert_eq!((whole.status(), whole.text()), (200, "<p>hello"));
    assert_eq!(whole.header("content-length"), Some("8"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("cache-control"), Some("no-cache"));

    let head = server.request("HEAD", "/page.html", &[]);
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert_eq!(lasting_headers(&head), lasting_headers(&whole));
    for path in ["/info", "/absent"] {
        let (get, head) = (server.get(path), server.request("HEAD", path, &[]));
        assert_eq!((head.status(), lasting_headers(&head)), (get.status(), lasting_headers(&get)), "{path}");
    }

    let options = server.request("OPTIONS", "/page.html", &[]);
    assert_eq!((options.status(), options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!(server.request("OPTIONS", "*", &[]).status(), 204);
}

#[test]
fn head_is_followed_by_the_next_response() {
    let volume = Volume::with(&[("page.html", "<p>hello")]);
    let server = Server::start(&volume.root(), &[]);
    let mut connection = Connection::open(server.addr);
    let request = |method: &str| format!("{method} /page.html HTTP/1.1\r\nHost: h\r\n\r\n");
    connection.send(request("HEAD") + &request("GET")).unwrap();
    assert_eq!(connection.receive("HEAD").unwrap().header("content-length"), Some("8"));
    assert_eq!(connection.receive("GET").unwrap().text(), "<p>hello");
}

#[test]
fn method_not_allowed() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        for path in ["/", "/info", "/absent"] {
            let answer = server.request(method, path, &[]);
            let got = (answer.status(), answer.header("allow"));
            assert_eq!(got, (405, Some("GET, HEAD, OPTIONS")), "{method} {path}");
        }
    }
}

#[test]
fn directory_index() {
    let volume = Volume::with(&[("index.html", "top"), ("docs/index.html", "docs")]);
    let server = Server::start(&volume.root(), &[]);
    assert_eq!(server.get("/").text(), "top");
    assert_eq!(server.get("/docs/").text(), "docs");
    assert_eq!(server.get("/docs/index.html").text(), "docs");
    assert_eq!(server.get("/index.html/").status(), 404);
}

#[test]
fn directory_redirect() {
    let volume = Volume::with(&[("a b/c/index.html", "c")]);
    let server = Server::start(&volume.root(), &[]);
    let answer = server.get("/a%20b/c?x=1&y=%2F");
    assert_eq!((answer.status(), answer.header("location")), (308, Some("/a%20b/c/?x=1&y=%2F")));
    // No path may be turned into the name of another host.
    for path in ["//a%20b/c", "//example.org", "//example.org/.."] {
        let answer = server.get(path);
        assert_eq!((answer.status(), answer.header("location")), (404, None), "{path}");
    }
}

#[test]
fn directory_without_index() {
    let volume = Volume::with(&[("docs/page.html", "page")]);
    let server = Server::start(&volume.root(), &[]);
    assert_eq!(server.get("/docs/").status(), 404);
    assert_eq!(server.get("/").status(), 404);
}

#[test]
fn not_found() {
    let volume = Volume::with(&[("index.html", "top")]);
    let server = Server::start(&volume.root(), &[]);
    for path in ["/absent", "/absent/", "/index.html/x", "/INDEX.html"] {
        let answer = server.get(path);
        assert_eq!((answer.status(), answer.text()), (404, "not found\n"), "{path}");
        assert_eq!(answer.header("etag"), None, "{path}");
    }
}

#[test]
fn custom_404() {
    let volume = Volume::with(&[("404.html", "<h1>gone one")]);
    let server = Server::start(&volume.root(), &[]);
    let answer = server.request("GET", "/absent", &[("Range", "bytes=0-1"), ("If-None-Match", "*")]);
    assert_eq!((answer.status(), answer.text()), (404, "<h1>gone one"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    volume.publish("two", &[("404.html", "<h1>gone two")]);
    server.wait_for("/absent", "<h1>gone two");
    assert_eq!(server.get("/404.html").status(), 200);
}

#[test]
fn content_types() {
    let types = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.PNG", "image/png"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.unknown", "application/octet-stream"),
        ("LICENSE", "application/octet-stream"),
    ];
    let files: Vec<_> = types.iter().map(|(name, _)| (*name, "x")).collect();
    let volume = Volume::with(&files);
    let server = Server::start(&volume.root(), &[]);
    for (name, content_type) in types {
        let answer = server.get(&format!("/{name}"));
        assert_eq!(answer.header("content-type"), Some(content_type), "{name}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{name}");
    }
}

#[test]
fn request_id_is_echoed_if_it_is_sane() {
    let volume = Volume::with(&[("index.html", "top")]);
    let server = Server::start(&volume.root(), &[]);
    let id = |given: &str| {
        let answer = server.request("GET", "/", &[("X-Request-Id", given)]);
        answer.header("x-request-id").unwrap_or_default().to_owned()
    };
    assert_eq!(id("abc-123"), "abc-123");
    for strange in ["two words", "\"quoted\"", &"a".repeat(200)] {
        let own = id(strange);
        assert!(own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
    }
    assert_ne!(id(""), id(""));
}

#[test]
fn probes_and_metrics() {
    let volume = Volume::with(&[("index.html", "top")]);
    let server = Server::start(&volume.root(), &[]);
    server.get("/");
    server.get("/absent");
    wait_until("both are counted", || {
        let metrics = get(server.admin, "/metrics");
        let text = metrics.text();
        text.contains("web_server_http_requests_total{method=\"GET\",status=\"2xx\"} 1")
            && text.contains("web_server_http_requests_total{method=\"GET\",status=\"4xx\"} 1")
            && text.contains("web_server_release{release=\"one\"} 1")
            && text.contains("web_server_http_requests_in_flight 0")
            && text.contains("web_server_connections 0")
    });
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    let status = get(server.admin, "/status").json();
    assert_eq!(status["content"]["release"], "one", "{status}");
}
