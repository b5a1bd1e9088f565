//! What is said of content by flag, and directories that are listed.

use serde_json::json;

use crate::support::{Server, Volume, write_tree};

#[test]
fn cache_control_by_glob() {
    let volume = Volume::with(&[
        ("index.html", "page"),
        ("site.css", "css"),
        ("deep/er/other.css", "css"),
        ("assets/app.js", "js"),
        ("404.html", "nothing here"),
    ]);
    let args = [
        "--cache-control",
        "assets/*=public, max-age=31536000, immutable",
        "--cache-control",
        "*.css=public, max-age=3600",
        "--cache-control",
        "404.html=max-age=9",
    ];
    let server = Server::start(&volume.root(), &args);
    let cache_control = |path: &str| server.get(path).header("cache-control").unwrap_or_default().to_owned();
    assert_eq!(cache_control("/site.css"), "public, max-age=3600");
    assert_eq!(cache_control("/deep/er/other.css"), "public, max-age=3600");
    assert_eq!(cache_control("/assets/app.js"), "public, max-age=31536000, immutable");
    assert_eq!(cache_control("/"), "no-cache");
    // What is not there may be there in a moment, whatever its page says of itself.
    assert_eq!(cache_control("/absent.css"), "no-cache");
    let etag = server.get("/site.css").header("etag").unwrap().to_owned();
    let unchanged = server.request("GET", "/site.css", &[("If-None-Match", &etag)]);
    assert_eq!(unchanged.header("cache-control"), Some("public, max-age=3600"));
}

#[test]
fn security_headers_by_flag() {
    let volume = Volume::with(&[("index.html", "page")]);
    let variables =
        [("WEB_SERVER_HEADER", "X-Frame-Options: DENY\nContent-Security-Policy: default-src 'self'\n")];
    let server = Server::start_with(&volume.root(), &[], &variables);
    for path in ["/", "/absent", "/..%2f"] {
        let answer = server.get(path);
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("content-security-policy"), Some("default-src 'self'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    // The lesson's endpoints are what the lesson says.
    assert_eq!(server.get("/info").header("x-frame-options"), None);
}

#[test]
fn autoindex_only_when_asked_for() {
    let files = [("index.html", "top"), ("docs/a b.txt", "hello"), ("docs/.hidden", ""), ("docs/deep/x", "")];
    let volume = Volume::with(&files);
    assert_eq!(Server::start(&volume.root(), &[]).get("/docs/").status(), 404);

    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &files);
    for root in [volume.root(), dir.path().to_owned()] {
        let server = Server::start(&root, &["--autoindex"]);
        assert_eq!(server.get("/").text(), "top");
        assert_eq!(server.get("/docs").header("location"), Some("./docs/"));
        let page = server.get("/docs/");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("vary"), Some("accept"));
        let (listed, hidden) = (page.text().contains("href=\"./a%20b.txt\""), page.text().contains("hidden"));
        assert!(listed && !hidden && page.text().contains("href=\"./deep/\""), "{}", page.text());

        let listing = server.request("GET", "/docs/", &[("Accept", "application/json")]);
        assert_eq!(listing.header("content-type"), Some("application/json"));
        let items = listing.json();
        assert_eq!(items[0], json!({"type": "directory", "name": "deep"}));
        assert_eq!((&items[1]["name"], &items[1]["size"]), (&json!("a b.txt"), &json!(5)));
        assert_eq!(items.as_array().unwrap().len(), 2);
        let etag = listing.header("etag").unwrap().to_owned();
        let again = [("Accept", "application/json"), ("If-None-Match", &etag)];
        assert_eq!(server.request("GET", "/docs/", &again).status(), 304);

        for nowhere in ["/absent/", "/docs/a%20b.txt/", "/docs/.hidden/", "/../absent/"] {
            assert_eq!(server.get(nowhere).status(), 404, "{nowhere}");
        }
    }
}
