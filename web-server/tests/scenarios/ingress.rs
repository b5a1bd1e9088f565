//! What people behind an ingress need: each is one flag, and off without it.

use std::net::SocketAddr;
use std::path::Path;

use testkit::http::{Connection, Message};

use crate::access_log::{Logged, wait_for_lines};
use crate::support::{Server, Volume, write_tree};

const NAVIGATION: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");

/// A request whose path is sent as it is written here.
fn raw(addr: SocketAddr, target: &str) -> Message {
    let mut connection = Connection::open(addr);
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).unwrap();
    connection.receive("GET").unwrap()
}

/// A release and a plain directory of the same files, each behind a server with these flags.
fn both(files: &[(&str, &str)], args: &[&str], check: impl Fn(&Server)) {
    let volume = Volume::with(files);
    check(&Server::start(&volume.root(), args));
    let directory = tempfile::tempdir().unwrap();
    write_tree(directory.path(), files);
    check(&Server::start(directory.path(), args));
}

#[test]
fn a_path_is_normalised_before_it_is_confined() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("site");
    write_tree(outer.path(), &[("secret", "s"), ("site/docs/index.html", "docs"), ("site/a.html", "a")]);
    let server = Server::start(&root, &[]);
    for path in
        ["/docs/../a.html", "//a.html", "/docs/%2e%2e/a.html", "/./a.html", "/../../a.html", "/x//..//a.html"]
    {
        assert_eq!(raw(server.addr, path).text(), "a", "{path}");
    }
    for path in ["/../secret", "/%2e%2e/secret", "/docs/../../secret"] {
        assert_eq!(raw(server.addr, path).status(), 404, "{path}");
    }
    for path in ["/..%2fsecret", "/docs/..%2F..%2Fsecret", "/..%5csecret"] {
        assert_eq!(raw(server.addr, path).status(), 400, "{path}");
    }
}

#[test]
fn no_redirect_leads_to_another_site() {
    let files = [("evil.example/index.html", "x"), ("_redirects", "/r/* /:splat 301\n")];
    both(&files, &["--redirects"], |server| {
        for path in [
            "//evil.example",
            "///evil.example",
            "/.//evil.example",
            "/r//evil.example",
            "/r/%2e//evil.example",
        ] {
            let answer = raw(server.addr, path);
            let location = answer.header("location").unwrap().to_owned();
            assert!(location.starts_with("./") || location.starts_with("../"), "{path}: {location}");
        }
    });
}

#[test]
fn a_redirect_survives_a_stripped_prefix() {
    let files = [("a/docs/index.html", "docs"), ("_redirects", "/old/page /new/page 302\n")];
    both(&files, &["--redirects"], |server| {
        assert_eq!(server.get("/a/docs?x=1").header("location"), Some("./docs/?x=1"));
        assert_eq!(server.get("/old/page").header("location"), Some("../new/page"));
    });
}

#[test]
fn accept_encoding_and_accept_know_q_0() {
    let volume = Volume::with(&[("a.css", "plain"), ("a.css.br", "br"), ("docs/x", "x")]);
    let server = Server::start(&volume.root(), &["--autoindex"]);
    let css = |accepted| server.request("GET", "/a.css", &[("Accept-Encoding", accepted)]);
    assert_eq!(css("br").text(), "br");
    assert_eq!(css("br;q=0").text(), "plain");
    assert_eq!(css("br; q=0.0, *;q=0").status(), 406);
    let listing = |accepted| {
        let answer = server.request("GET", "/docs/", &[("Accept", accepted)]);
        answer.header("content-type").unwrap().to_owned()
    };
    assert_eq!(listing("application/json"), "application/json");
    assert_eq!(listing("text/html;q=0, application/json"), "application/json");
    assert_eq!(listing("application/json;q=0, */*"), "text/html; charset=utf-8");
    assert_eq!(listing("application/json, text/html;q=0.9"), "application/json");
}

#[test]
fn the_client_behind_trusted_proxies() {
    let forwarded = [("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.1.2.3")];
    let trusting = Logged::start(&["--trusted-proxies", "127.0.0.0/8,10.0.0.0/8"]);
    let info = trusting.server.request("GET", "/info", &forwarded).json();
    assert_eq!(info["from"], "192.0.2.1");
    trusting.server.request("GET", "/", &[("Forwarded", "for=\"[2001:db8::7]:1\";proto=https")]);
    trusting.server.get("/");
    let lines = wait_for_lines(&trusting.path(), 3);
    assert_eq!(lines[0]["client.address"], "192.0.2.1");
    assert_eq!(lines[0]["network.peer.address"], "127.0.0.1");
    assert_eq!(lines[1]["client.address"], "2001:db8::7");
    assert_eq!(lines[2]["client.address"], "127.0.0.1");
    assert_eq!(lines[2].get("network.peer.address"), None);

    // Without the flag nobody is believed, and what was said is a field of its own.
    let plain = Logged::start(&[]);
    assert_eq!(plain.server.request("GET", "/info", &forwarded).json()["from"], "127.0.0.1");
    // A proxy may append a line of its own.
    plain.server.request("GET", "/", &[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "192.0.2.1")]);
    let lines = wait_for_lines(&plain.path(), 2);
    assert_eq!(lines[0]["client.address"], "127.0.0.1");
    assert_eq!(lines[0]["http.request.header.x-forwarded-for"], "6.6.6.6, 192.0.2.1, 10.1.2.3");
    assert_eq!(lines[1]["http.request.header.x-forwarded-for"], "6.6.6.6, 192.0.2.1");

    // A peer that is no proxy of ours could say anything.
    let other = Logged::start(&["--trusted-proxies", "10.0.0.0/8", "--access-log-format", "common"]);
    other.server.request("GET", "/", &forwarded);
    testkit::wait_until("the line is there", || {
        std::fs::read_to_string(other.path()).unwrap().starts_with("127.0.0.1 - - [")
    });
}

#[test]
fn single_page_applications() {
    let files =
        [("index.html", "app"), ("app.js", "js"), ("about/index.html", "about"), ("404.html", "gone")];
    both(&files, &["--fallback", "/index.html"], |server| {
        let navigated = server.request("GET", "/users/7", &[NAVIGATION]);
        assert_eq!((navigated.status(), navigated.text()), (200, "app"));
        assert!(navigated.header("vary").unwrap().contains("accept"), "{navigated:?}");
        assert_eq!(server.request("GET", "/about/", &[NAVIGATION]).text(), "about");
        // An asset that is not there is not there, and neither is what a script or an image asks for.
        assert_eq!(server.request("GET", "/assets/app.123.js", &[NAVIGATION]).status(), 404);
        assert_eq!(server.request("GET", "/users/7", &[("Accept", "*/*")]).status(), 404);
        assert_eq!(server.request("GET", "/users/7", &[("Accept", "application/json")]).status(), 404);
        let script = [NAVIGATION, ("Sec-Fetch-Mode", "no-cors")];
        assert_eq!(server.request("GET", "/users/7", &script).status(), 404);
        assert_eq!(server.get("/users/7").text(), "gone");
    });
    both(&files, &[], |server| assert_eq!(server.request("GET", "/users/7", &[NAVIGATION]).status(), 404));
}

#[test]
fn pages_without_their_extension() {
    let files =
        [("about.html", "about"), ("docs.html", "page"), ("docs/index.html", "directory"), ("x", "x")];
    both(&files, &["--clean-urls"], |server| {
        assert_eq!(server.get("/about").text(), "about");
        assert_eq!(server.get("/about.html").text(), "about");
        assert_eq!(server.get("/docs").text(), "page");
        assert_eq!(server.get("/docs/").text(), "directory");
        assert_eq!(server.get("/about/").status(), 404);
        assert_eq!(server.get("/absent").status(), 404);
    });
    both(&files, &[], |server| {
        assert_eq!(server.get("/about").status(), 404);
        assert_eq!(server.get("/docs").status(), 308);
    });
}

#[test]
fn content_types_by_glob() {
    let files = [
        ("a.x", ""),
        ("api/data", ""),
        ("list.m3u8", ""),
        ("apple-app-site-association", ""),
        ("b.jsonld", ""),
    ];
    let rules =
        ["--content-type", "*.x=text/x-own; charset=utf-8", "--content-type", "api/*=application/json"];
    both(&files, &rules, |server| {
        let of = |path: &str| server.get(path).header("content-type").unwrap().to_owned();
        assert_eq!(of("/a.x"), "text/x-own; charset=utf-8");
        assert_eq!(of("/api/data"), "application/json");
        assert_eq!(of("/list.m3u8"), "application/vnd.apple.mpegurl");
        assert_eq!(of("/apple-app-site-association"), "application/json");
        assert_eq!(of("/b.jsonld"), "application/ld+json");
    });
}

#[test]
fn scripts_of_other_sites() {
    let files = [("data.json", "{}")];
    both(&files, &["--cors", "https://app.example,http://localhost:3000"], |server| {
        let ask = |origin| server.request("GET", "/data.json", &[("Origin", origin)]);
        let allowed = ask("https://app.example");
        assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
        assert!(allowed.header("access-control-expose-headers").unwrap().contains("etag"));
        let refused = ask("https://evil.example");
        assert_eq!((refused.status(), refused.header("access-control-allow-origin")), (200, None));
        for answer in [allowed, refused, server.get("/data.json"), server.get("/absent")] {
            assert!(
                answer.headers.iter().any(|(name, value)| name == "vary" && value == "origin"),
                "{answer:?}"
            );
        }
        let preflight = |origin| {
            let headers = [
                ("Origin", origin),
                ("Access-Control-Request-Method", "GET"),
                ("Access-Control-Request-Headers", "if-none-match, x-own"),
            ];
            server.request("OPTIONS", "/data.json", &headers)
        };
        let allowed = preflight("http://localhost:3000");
        assert_eq!(allowed.status(), 204);
        assert_eq!(allowed.header("access-control-allow-origin"), Some("http://localhost:3000"));
        assert_eq!(allowed.header("access-control-allow-methods"), Some("GET, HEAD"));
        assert_eq!(allowed.header("access-control-allow-headers"), Some("if-none-match, x-own"));
        assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), None);
        // The lesson's endpoints are what the lesson says.
        let info = server.request("GET", "/info", &[("Origin", "https://app.example")]);
        assert_eq!(info.header("access-control-allow-origin"), None);
    });
    both(&files, &["--cors", "*"], |server| {
        let answer = server.request("GET", "/data.json", &[("Origin", "https://any.example")]);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("vary"), None);
    });
    both(&files, &[], |server| {
        let answer = server.request("GET", "/data.json", &[("Origin", "https://any.example")]);
        assert_eq!(answer.header("access-control-allow-origin"), None);
    });
}

const REDIRECTS: &str = "\
# As Netlify writes it.
/old            /new
/gone           /elsewhere.html?from=gone   302
/index.html     /never                      301
/forced.html    /target.html                307!
/news/*         /blog/:splat                308
/away/*         https://other.example/:splat 303
/app/*          /app.html                   200
/en/*           /en/404.html                404
/geo            /us                         302  Country=us
/api/*          https://api.example/:splat  200
";

#[test]
fn redirects_as_netlify_writes_them() {
    let files = [
        ("_redirects", REDIRECTS),
        ("index.html", "index"),
        ("forced.html", "shadowed"),
        ("target.html", "target"),
        ("app.html", "app"),
        ("app/asset.js", "js"),
        ("en/404.html", "no such page"),
    ];
    both(&files, &["--redirects"], |server| {
        let goes = |path: &str| {
            let answer = server.get(path);
            (answer.status(), answer.header("location").unwrap_or_default().to_owned())
        };
        assert_eq!(goes("/old"), (301, "./new".to_owned()));
        assert_eq!(goes("/old/?q=1"), (301, "../new?q=1".to_owned()));
        assert_eq!(goes("/gone?q=1"), (302, "./elsewhere.html?from=gone".to_owned()));
        assert_eq!(goes("/news/2004/a%20b"), (308, "../../blog/2004/a%20b".to_owned()));
        assert_eq!(goes("/away/x?q=1"), (303, "https://other.example/x?q=1".to_owned()));
        assert_eq!(goes("/forced.html"), (307, "./target.html".to_owned()));
        // Files win.
        assert_eq!(server.get("/index.html").text(), "index");
        assert_eq!(server.get("/app/asset.js").text(), "js");
        let rewritten = server.get("/app/deep/er");
        assert_eq!((rewritten.status(), rewritten.text()), (200, "app"));
        let missing = server.get("/en/absent");
        assert_eq!((missing.status(), missing.text()), (404, "no such page"));
        // Refused lines do nothing, and the file is not content.
        assert_eq!(server.get("/geo").status(), 404);
        assert_eq!(server.get("/_redirects").status(), 404);
        server
            .process
            .event("a refused line is named", |event| event["line"] == 10 && event["level"] == "WARN");
        server.process.event("and the other", |event| event["line"] == 11);
    });
    both(&files, &[], |server| {
        assert_eq!(server.get("/old").status(), 404);
        assert_eq!(server.get("/_redirects").text(), REDIRECTS);
    });
    // A content manager gives the files out as they are.
    let manager = ["--manifest", "--redirects", "--clean-urls", "--fallback", "/index.html"];
    both(&files, &manager, |server| {
        assert_eq!(server.get("/old").status(), 404);
        assert_eq!(server.get("/_redirects").text(), REDIRECTS);
        assert_eq!(server.get("/forced.html").text(), "shadowed");
        assert_eq!(server.get("/target").status(), 404);
        assert_eq!(server.request("GET", "/users", &[NAVIGATION]).status(), 404);
    });
}

#[test]
fn the_first_rule_that_matches_counts_and_an_unforced_one_matches_where_nothing_is() {
    let files =
        [("_redirects", "/a /b 302\n/dir /b 302\n/* /x 302!\n"), ("file", "f"), ("dir/index.html", "d")];
    both(&files, &["--redirects"], |server| {
        assert_eq!(server.get("/a").header("location"), Some("./b"));
        for there in ["/file", "/dir", "/other"] {
            assert_eq!(server.get(there).header("location"), Some("./x"), "{there}");
        }
    });
}

#[test]
fn a_rule_answers_with_what_a_request_for_its_target_would_get() {
    let rules = "/old /docs 200\n/x /about 200\n/y /about 404\n/both /page 200\n/r/* /:splat 200\n";
    let files = [
        ("_redirects", rules),
        ("docs/index.html", "docs"),
        ("about.html", "about"),
        ("page.html", "page"),
        ("page/index.html", "directory"),
    ];
    both(&files, &["--redirects", "--clean-urls"], |server| {
        for (path, status, text) in [
            ("/old", 200, "docs"),
            ("/x", 200, "about"),
            ("/y", 404, "about"),
            ("/both", 200, "page"),
            ("/r/docs", 200, "docs"),
            ("/r/_redirects", 404, "not found\n"),
        ] {
            let answer = server.get(path);
            assert_eq!((answer.status(), answer.text()), (status, text), "{path}");
        }
    });
}

#[test]
fn redirects_follow_the_release() {
    let volume = Volume::with(&[("_redirects", "/a /b\n"), ("same", "")]);
    let server = Server::start(&volume.root(), &["--redirects"]);
    assert_eq!(server.get("/a").header("location"), Some("./b"));
    volume.publish("two", &[("_redirects", "/a /c\n"), ("same", ""), ("new", "new")]);
    server.wait_for("/new", "new");
    assert_eq!(server.get("/a").header("location"), Some("./c"));
    volume.publish("three", &[("same", ""), ("newer", "newer")]);
    server.wait_for("/newer", "newer");
    assert_eq!(server.get("/a").status(), 404);
}

#[test]
fn health_checks_out_of_the_log() {
    let logged = Logged::start(&["--log-exclude", "/health", "--log-exclude", "*.png"]);
    logged.server.get("/health");
    logged.server.get("/deep/health");
    // What went wrong is in the log, whatever its name.
    logged.server.get("/absent.png");
    logged.server.get("/");
    let lines = wait_for_lines(&logged.path(), 3);
    let paths: Vec<_> = lines.iter().map(|line| line["url.path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/deep/health", "/absent.png", "/"]);
}

#[test]
fn the_log_shows_no_control_character() {
    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }
    for format in ["json", "common", "combined"] {
        let logged = Logged::start(&["--access-log-format", format]);
        let agent = "a\u{9b}2J\u{2028}b\u{2029}\u{202e}gpj\u{85}";
        logged.server.request(
            "GET",
            "/",
            &[("User-Agent", agent), ("Referer", agent), ("X-Forwarded-For", agent)],
        );
        testkit::wait_until("the line is there", || text(&logged.path()).ends_with('\n'));
        let line = text(&logged.path());
        let harmful = |c: char| c != '\n' && (c.is_control() || "\u{2028}\u{2029}\u{202e}".contains(c));
        assert!(!line.contains(harmful) && line.lines().count() == 1, "{line:?}");
        if format == "json" {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["user_agent.original"], agent);
        }
    }
}

#[test]
fn diagnostics_show_no_control_character() {
    let root = tempfile::tempdir().unwrap();
    let name = "a\u{9b}2J\u{202e}gpj\\";
    write_tree(root.path(), &[(name, "left out of a manifest"), ("a", "a")]);
    let server = Server::start(root.path(), &["--manifest"]);
    server.process.event("the name is told as it is", |event| event["path"] == name);
    let text = server.process.stderr();
    assert!(!text.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
}

#[test]
fn the_live_page_under_a_foreign_name() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--pod-page", "--allowed-host", "pod.example"]);
    let ask = |host: &str, path: &str| {
        let mut connection = Connection::open(server.addr);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).unwrap();
        connection.receive("GET").unwrap().status()
    };
    for host in
        ["localhost:9876", "127.0.0.1:1", "[::1]:9876", "web-server", "web.default.svc", "pod.example"]
    {
        assert_eq!(ask(host, "/pod"), 200, "{host}");
    }
    // DNS rebinding: a page's own name leads to this machine.
    for path in ["/pod", "/pod/events", "//pod", "/%70od"] {
        assert_eq!(ask("evil.example:9876", path), 403, "{path}");
    }
    assert_eq!(ask("evil.example:9876", "/"), 200);
}

#[test]
fn a_wrong_flag_is_one_line() {
    let volume = Volume::new();
    let root = volume.root();
    for (flag, value, says) in [
        ("--trusted-proxies", "10.0.0.0/33", "10.0.0.0/8"),
        ("--fallback", "index.html", "/index.html"),
        ("--fallback", "/.hidden", "--fallback"),
        ("--content-type", "*.x", "GLOB=VALUE"),
        ("--content-type", "*.x=plain", "media type"),
        ("--cors", "app.example", "https://app.example"),
        ("--log-exclude", "[", "--log-exclude"),
        ("--max-wait", "long", "--max-wait"),
    ] {
        let args = ["--root", root.to_str().unwrap(), flag, value];
        let (code, _, stderr) = testkit::process::run(crate::support::BINARY, args);
        let last = stderr.lines().last().unwrap_or_default();
        assert!(code == 64 && last.contains(says), "{flag} {value}: {code} {last}");
    }
}
