//! A source that sends us elsewhere: what is followed, and what goes along.

use std::fs;

use testkit::http::Message;
use testkit::{Answer, Upstream};

use crate::content::{ContentManager, Site};
use crate::puller::{Volume, once, publishes, start, start_in_step, sync, try_sync};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

fn to(location: &str) -> Answer {
    Answer::new(302, "").with("Location", location)
}

/// On another port, which is another origin, and under another name.
fn elsewhere(upstream: &Upstream, path: &str) -> String {
    format!("http://localhost:{}{path}", upstream.addr().port())
}

fn file(volume: &Volume, name: &str, text: &str) -> String {
    let path = volume.above().join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn redirect_to_a_host_that_is_named() {
    let (other, manager, volume) = (ContentManager::start(SITE), ContentManager::start(SITE), Volume::new());
    let target = elsewhere(&other.upstream, "/site/manifest.json?token=hidden");
    manager.fault(move |request, _| request.target().ends_with("manifest.json").then(|| to(&target)));
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(stderr.contains("add --redirect-to localhost") && !stderr.contains("hidden"), "{stderr}");
    assert_eq!(other.asked(), [] as [&str; 0]);
    // The very flag that was named.
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--redirect-to", "localhost"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), other.site().files);
    // The manifest's files are beside where it was found (RFC 3986, section 5.1.3), not where it was asked for.
    assert_eq!(manager.asked(), ["/site/manifest.json"; 2]);
    assert_eq!(other.asked().len(), 3);
    for (flags, host) in [
        (["--redirect-to", "127.0.0.1"], "localhost"),
        (["--redirect-to", "example.org"], "localhost"),
        (["--redirect-to", ".example.org"], "localhost"),
    ] {
        let (code, stderr) = once(&manager.url(), &Volume::new().path(), &flags);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(&format!("--redirect-to {host}")), "{stderr}");
    }
    for wrong in ["", "https://a.example", ".com", "a.example/x"] {
        let (code, stderr) = once(&manager.url(), &Volume::new().path(), &["--redirect-to", wrong]);
        assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
    }
}

#[test]
fn a_redirect_of_the_manifest_moves_its_base() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let moved = |prefix: &'static str| {
        move |request: &Message, site: &Site| {
            if request.target() == "/latest/manifest.json" {
                return Some(to(&format!("{prefix}manifest.json")));
            }
            let path = request.target().strip_prefix(prefix)?;
            let mut direct = request.clone();
            direct.start = format!("GET /site/{path} HTTP/1.1");
            Some(site.answer(&direct))
        }
    };
    manager.fault(moved("/releases/1/"));
    let process =
        crate::puller::start_when_asked(&manager.upstream.url("/latest/manifest.json"), &volume, &[]);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(volume.tree(), manager.site().files);
    assert!(
        manager
            .asked()
            .iter()
            .all(|path| path.starts_with("/releases/1/") || path == "/latest/manifest.json")
    );
    // The same content at the next place, and then other content there.
    manager.fault(moved("/releases/2/"));
    assert_eq!(sync(&process)["result"], "unchanged");
    manager.upstream.forget();
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
    assert_eq!(
        manager.asked(),
        ["/latest/manifest.json", "/releases/2/manifest.json", "/releases/2/index.html"]
    );
}

/// SECURITY: who we are is for the origin that `--source` names, and for nobody that it names.
#[test]
fn credentials_stay_with_the_origin() {
    let (other, manager, volume) = (ContentManager::start(SITE), ContentManager::start(SITE), Volume::new());
    let target = elsewhere(&other.upstream, "/site/manifest.json");
    manager.fault(move |request, _| match request.target() {
        "/site/manifest.json" => Some(to("/moved/manifest.json")),
        _ => Some(to(&target)),
    });
    // And back again: what is sent there is what is sent to anyone.
    let back = manager.upstream.url("/back");
    other.fault(move |request, _| request.target().ends_with("site.css").then(|| to(&back)));
    let token = file(&volume, "token", "s3cr3t-token");
    let headers = file(&volume, "headers", "PRIVATE-TOKEN: s3cr3t-header\nAccept: application/x-site");
    let flags = ["--bearer-token-file", &token, "--header-file", &headers, "--redirect-to", "localhost"];
    let (code, stderr) =
        once(&manager.url(), &volume.path(), &[&flags[..], &["--log-level", "trace"]].concat());
    assert_eq!(code, 78, "what /back leads to is no style sheet: {stderr}");
    for request in manager.upstream.requests().iter().take(2) {
        assert_eq!(request.header("authorization"), Some("Bearer s3cr3t-token"));
        assert_eq!(request.header("private-token"), Some("s3cr3t-header"));
        assert_eq!(request.header("accept"), Some("application/x-site"));
    }
    assert!(!other.asked().is_empty());
    for request in other.upstream.requests() {
        for name in ["authorization", "private-token", "cookie", "referer"] {
            assert_eq!(request.header(name), None, "{name}");
        }
        assert_ne!(request.header("accept"), Some("application/x-site"));
    }
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
}

#[test]
fn header_file_is_read_again_at_each_sync() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let wants = |token: &'static str| {
        move |request: &Message, _: &Site| {
            // As GitLab answers whoever may not see a project.
            (request.header("private-token") != Some(token)).then(|| Answer::new(404, "not found"))
        }
    };
    manager.fault(wants("first"));
    let headers = file(&volume, "headers", "PRIVATE-TOKEN: first\n");
    let process = start_in_step(&manager, &volume, &["--header-file", &headers]);
    manager.fault(wants("second"));
    manager.put("index.html", "new");
    assert_eq!(try_sync(&process).json()["reason"], "status");
    file(&volume, "headers", "PRIVATE-TOKEN: second\n");
    publishes(&process, &volume, &manager);
    file(&volume, "headers", "Host: evil.example\n");
    let answer = try_sync(&process).json();
    assert_eq!(answer["reason"], "credential");
    assert!(
        answer["error"].as_str().is_some_and(|error| error.contains(&headers) && error.contains("Host")),
        "{answer}"
    );
}

/// A download that broke is taken up where it was asked for, not where it was redirected to: such places are signed for minutes.
#[test]
fn a_broken_download_is_redirected_again() {
    let (other, manager, volume) = (ContentManager::start(SITE), ContentManager::start(SITE), Volume::new());
    manager.put("large.bin", vec![b'x'; 100_000]);
    other.site().files = manager.site().files.clone();
    let target = elsewhere(&other.upstream, "/site/large.bin");
    manager.fault(move |request, _| request.target().ends_with("large.bin").then(|| to(&target)));
    other.fault(|request, site| {
        let body = &site.files["large.bin"].1;
        if let Some(range) = request.header("range") {
            let from: usize = range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            return Some(Answer::new(206, body[from..].to_vec()).with("Content-Range", &range));
        }
        let half = body[..50_000].to_vec();
        Some(Answer::raw(move |stream| {
            use std::io::Write as _;
            let head = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 100000\r\n\r\n";
            drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&half)));
        }))
    });
    let process = start(&manager, &volume, &["--redirect-to", "localhost"]);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(volume.tree(), manager.site().files);
    let asked = manager.asked();
    assert_eq!(asked.iter().filter(|path| path.ends_with("large.bin")).count(), 2, "{asked:?}");
}
