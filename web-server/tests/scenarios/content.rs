//! What is answered to an ordinary request for content.

use std::io::{Read as _, Write as _};

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
    assert_eq!((answer.status(), answer.header("location")), (308, Some("./c/?x=1&y=%2F")));
    // No path may be turned into the name of another host.
    assert_eq!(server.get("//a%20b/c").header("location"), Some("./c/"));
    for path in ["//example.org", "//example.org/.."] {
        let answer = server.get(path);
        assert_eq!((answer.status(), answer.header("location")), (404, None), "{path}");
    }
}

#[test]
fn a_redirect_has_a_location_whatever_the_query_is() {
    let volume = Volume::with(&[("docs/index.html", "docs")]);
    let server = Server::start(&volume.root(), &[]);
    let answer = server.get("/docs?q=ü%20x");
    assert_eq!((answer.status(), answer.header("location")), (308, Some("./docs/?q=%C3%BC%20x")));
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
            && text.contains("web_server_release_info{release=\"one\"} 1")
            && text.contains("web_server_swaps_total 1")
            && text.contains("web_server_cache_hits_total 1")
            && text.contains("web_server_cache_misses_total 0")
            && text.contains("web_server_http_request_duration_seconds_bucket{le=\"0.001\"}")
            && text.contains("web_server_connections_accepted_total")
            && text.contains("web_server_access_log_dropped_lines_total 0")
            && text.contains("web_server_http_requests_in_flight 0")
            && text.contains("web_server_connections 0")
    });
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    let status = get(server.admin, "/status").json();
    assert_eq!(status["content"]["release"], "one", "{status}");
}

#[test]
fn precompressed() {
    let volume = Volume::with(&[
        ("site.css", "body {}"),
        ("site.css.br", "BR"),
        ("site.css.zst", "ZST+"),
        ("site.css.gz", "GZ"),
        ("only.html", "plain"),
    ]);
    let server = Server::start(&volume.root(), &[]);
    let ask = |accept: &str| server.request("GET", "/site.css", &[("Accept-Encoding", accept)]);
    let cases = [
        ("gzip, deflate, br, zstd", Some("br"), "BR"),
        ("gzip, br;q=0.5", Some("gzip"), "GZ"),
        ("zstd", Some("zstd"), "ZST+"),
        ("identity;q=0, gzip", Some("gzip"), "GZ"),
        ("deflate", None, "body {}"),
        ("br;q=0, gzip;q=0, zstd;q=0", None, "body {}"),
    ];
    let plain = server.get("/site.css");
    assert_eq!((plain.text(), plain.header("content-encoding")), ("body {}", None));
    for (accept, encoding, body) in cases {
        let answer = ask(accept);
        assert_eq!((answer.header("content-encoding"), answer.text()), (encoding, body), "{accept}");
        assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{accept}");
        assert_eq!(answer.header("content-type"), Some("text/css; charset=utf-8"), "{accept}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{accept}");
        // Other bytes, another tag; and each is revalidated by its own.
        assert_eq!(answer.header("etag") == plain.header("etag"), encoding.is_none(), "{accept}");
        let etag = answer.header("etag").unwrap();
        let headers = [("Accept-Encoding", accept), ("If-None-Match", etag)];
        let again = server.request("GET", "/site.css", &headers);
        assert_eq!((again.status(), again.header("vary")), (304, Some("accept-encoding")), "{accept}");
    }
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    assert_eq!(ask("*;q=0").status(), 406);
    let part = server.request("GET", "/site.css", &[("Accept-Encoding", "zstd"), ("Range", "bytes=1-2")]);
    assert_eq!((part.status(), part.text(), part.header("content-range")), (206, "ST", Some("bytes 1-2/4")));

    let only = server.request("GET", "/only.html", &[("Accept-Encoding", "br")]);
    assert_eq!((only.text(), only.header("vary"), only.header("content-encoding")), ("plain", None, None));
    // Asked for by name, it is a file like any other.
    let direct = server.request("GET", "/site.css.gz", &[("Accept-Encoding", "gzip")]);
    assert_eq!((direct.text(), direct.header("content-encoding")), ("GZ", None));
    assert_eq!(direct.header("content-type"), Some("application/gzip"));
}

#[test]
fn a_stale_sibling_of_an_edited_file_is_not_served() {
    let volume = Volume::with(&[("site.css", "old"), ("site.css.gz", "OLD")]);
    let server = Server::start(&volume.release("one"), &[]);
    std::fs::write(volume.release("one").join("site.css"), "new").unwrap();
    let answer = server.request("GET", "/site.css", &[("Accept-Encoding", "gzip")]);
    assert_eq!((answer.text(), answer.header("content-encoding")), ("new", None));
}

#[test]
fn big_file() {
    let volume = Volume::new();
    volume.stage("one", &[("index.html", "top")]);
    let file = std::fs::File::create(volume.release("one").join("big.bin")).unwrap();
    // Sparse: a gibibyte of zeros costs the disk nothing. Its digest is stated, as file-puller's manifest does.
    let size: u64 = 1024 * 1024 * 1024;
    file.set_len(size).unwrap();
    let manifest = format!(
        r#"{{"format": "sidecar-manifest/1", "created": "2026-11-23T18:00:00Z", "files": [{{"path": "big.bin",
            "size": {size}, "mode": "0644", "sha256": "{}"}}]}}"#,
        "ab".repeat(32)
    );
    std::fs::write(volume.release("one.json"), manifest).unwrap();
    volume.swap("one");
    let server = Server::start(&volume.root(), &[]);
    let mut stream = std::net::TcpStream::connect(server.addr).unwrap();
    stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let (mut received, mut most, mut buffer) = (0, 0, vec![0; 1024 * 1024]);
    loop {
        let read = stream.read(&mut buffer).unwrap() as u64;
        if read == 0 {
            break;
        }
        if received / (64 << 20) != (received + read) / (64 << 20) {
            most = most.max(server.process.resident_bytes());
        }
        received += read;
    }
    assert!(received > size && received < size + 1024, "{received}");
    assert!(most < 32 * 1024 * 1024, "{most} bytes resident");
}
