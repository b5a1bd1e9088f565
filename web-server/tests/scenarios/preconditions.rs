//! RFC 9110 section 13 over the wire.

use testkit::http::Message;
use testkit::wait_until;

use crate::support::{Server, Volume};

/// A server on one page, its tag, and when it was last modified.
fn page() -> (Volume, Server, String, String) {
    let volume = Volume::with(&[("page.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    wait_until("the second is over", || server.get("/page.html").header("last-modified").is_some());
    let answer = server.get("/page.html");
    let header = |name: &str| answer.header(name).unwrap().to_owned();
    let (etag, modified) = (header("etag"), header("last-modified"));
    (volume, server, etag, modified)
}

fn ask(server: &Server, headers: &[(&str, &str)]) -> Message {
    server.request("GET", "/page.html", headers)
}

#[test]
fn if_none_match() {
    let (_volume, server, etag, modified) = page();
    let weak = format!("W/{etag}");
    let list = format!("\"a\", W/\"b,c\", {etag}");
    for value in [&etag, "*", &weak, &list] {
        for method in ["GET", "HEAD"] {
            let answer = server.request(method, "/page.html", &[("If-None-Match", value)]);
            assert_eq!((answer.status(), answer.body.len()), (304, 0), "{method} {value}");
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
            assert_eq!(answer.header("last-modified"), Some(modified.as_str()));
            assert_eq!(answer.header("cache-control"), Some("no-cache"));
            assert_eq!(answer.header("content-type"), None);
        }
    }
    for value in ["\"other\"", "", &etag[1..], "W/\"\""] {
        assert_eq!(ask(&server, &[("If-None-Match", value)]).text(), "hello", "{value}");
    }
    // What is not there has no tag to match.
    assert_eq!(server.request("GET", "/absent", &[("If-None-Match", "*")]).status(), 404);
}

#[test]
fn if_modified_since() {
    let (_volume, server, _, modified) = page();
    assert_eq!(ask(&server, &[("If-Modified-Since", &modified)]).status(), 304);
    assert_eq!(ask(&server, &[("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")]).status(), 304);
    assert_eq!(ask(&server, &[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")]).status(), 200);
    assert_eq!(ask(&server, &[("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT")]).status(), 200);
    assert_eq!(ask(&server, &[("If-Modified-Since", "yesterday")]).status(), 200);
}

#[test]
fn if_match() {
    let (_volume, server, etag, _) = page();
    assert_eq!(ask(&server, &[("If-Match", &etag)]).status(), 200);
    assert_eq!(ask(&server, &[("If-Match", "*")]).status(), 200);
    assert_eq!(ask(&server, &[("If-Match", "\"other\"")]).status(), 412);
    assert_eq!(ask(&server, &[("If-Match", &format!("W/{etag}"))]).status(), 412);
}

#[test]
fn if_unmodified_since() {
    let (_volume, server, _, modified) = page();
    assert_eq!(ask(&server, &[("If-Unmodified-Since", &modified)]).status(), 200);
    assert_eq!(ask(&server, &[("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")]).status(), 412);
    assert_eq!(ask(&server, &[("If-Unmodified-Since", "yesterday")]).status(), 200);
}

#[test]
fn precedence() {
    let (_volume, server, etag, modified) = page();
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    let cases: [(&[(&str, &str)], u16); 5] = [
        (&[("If-None-Match", "\"other\""), ("If-Modified-Since", &modified)], 200),
        (&[("If-None-Match", &etag), ("If-Modified-Since", old)], 304),
        (&[("If-Match", &etag), ("If-Unmodified-Since", old)], 200),
        (&[("If-Match", "\"other\""), ("If-None-Match", &etag)], 412),
        (&[("If-None-Match", &etag), ("Range", "bytes=0-1")], 304),
    ];
    for (headers, status) in cases {
        assert_eq!(ask(&server, headers).status(), status, "{headers:?}");
    }
}

/// Where a URL stands for one file after another, the date of the next may be the older one.
#[test]
fn an_answer_under_another_name_than_its_files_has_a_tag_and_no_date() {
    let files = [
        ("about.html", "page"),
        ("app.html", "app"),
        ("a.css", "plain"),
        ("a.css.br", "br"),
        ("_redirects", "/rule /about.html 200\n"),
    ];
    let volume = Volume::with(&files);
    let server = Server::start(&volume.root(), &["--clean-urls", "--redirects", "--fallback", "/app.html"]);
    wait_until("the second is over", || server.get("/about.html").header("last-modified").is_some());
    let navigation = ("Accept", "text/html");
    let later = ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (path, header) in [
        ("/about", navigation),
        ("/rule", navigation),
        ("/users", navigation),
        ("/a.css", ("Accept-Encoding", "br")),
    ] {
        let answer = server.request("GET", path, &[header, later]);
        assert_eq!((answer.status(), answer.header("last-modified")), (200, None), "{path}");
        let tag = answer.header("etag").unwrap();
        assert_eq!(server.request("GET", path, &[header, ("If-None-Match", tag)]).status(), 304, "{path}");
    }
    for path in ["/about.html", "/a.css", "/a.css.br"] {
        assert_eq!(server.request("GET", path, &[later]).status(), 304, "{path}");
    }
}

#[test]
fn a_rollback_to_older_files_is_newer_to_a_client() {
    let (volume, server, _, modified) = page();
    // Time stamps of the release's own files may be as old as they like, such as those in an archive.
    volume.stage("two", &[("page.html", "other")]);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let file = std::fs::File::options().write(true).open(volume.release("two").join("page.html")).unwrap();
    file.set_modified(long_ago).unwrap();
    volume.swap("two");
    server.wait_for("/page.html", "other");
    assert_eq!(ask(&server, &[("If-Modified-Since", &modified)]).status(), 200);
}
