//! Manifest or archive: how it is told, and that it stays what it was.

use std::fs;
use std::sync::{Arc, Mutex};

use testkit::http::Message;
use testkit::{Answer, Upstream};

use crate::content::{ContentManager, Tree, sha256};
use crate::puller::{Volume, once, start_when_asked, sync, try_sync};
use crate::tarball::{gzip, tar, zstd};

fn site() -> Tree {
    [("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")]
        .map(|(path, text)| (path.to_owned(), (0o644, text.into())))
        .into()
}

/// The same bytes at every path.
struct Same {
    upstream: Upstream,
    body: Arc<Mutex<(&'static str, Vec<u8>)>>,
}

impl Same {
    fn start(kind: &'static str, body: Vec<u8>) -> Self {
        let body = Arc::new(Mutex::new((kind, body)));
        let serving = Arc::clone(&body);
        let upstream = Upstream::start(move |_| {
            let (kind, body) = serving.lock().expect("no holder panics").clone();
            Answer::new(200, body).with("Content-Type", kind)
        });
        Self { upstream, body }
    }

    fn put(&self, kind: &'static str, body: Vec<u8>) {
        *self.body.lock().expect("no holder panics") = (kind, body);
    }
}

#[test]
fn kind_is_told_by_the_first_bytes() {
    for archive in [tar(&site()), gzip(&tar(&site())), zstd(&tar(&site()))] {
        // No ending, an ending that says nothing, and one that is wrong about the compression.
        for path in ["/repos/o/r/tarball/main", "/download?name=site", "/site.tar.gz", "/site.tar"] {
            let (same, volume) = (Same::start("application/octet-stream", archive.clone()), Volume::new());
            let (code, stderr) = once(&same.upstream.url(path), &volume.path(), &[]);
            assert_eq!(code, 0, "{path}: {stderr}");
            assert_eq!(volume.tree(), site());
        }
    }
    let (manager, volume) = (ContentManager::start(&[("index.html", "1")]), Volume::new());
    manager.fault(|request, site| (request.target() == "/site/").then(|| Answer::new(200, site.manifest())));
    let (code, stderr) = once(&manager.upstream.url("/site/"), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn kind_can_be_said() {
    let (same, volume) = (Same::start("application/octet-stream", tar(&site())), Volume::new());
    let url = same.upstream.url("/content.json");
    let (code, stderr) = once(&url, &volume.path(), &[]);
    assert_eq!(code, 78, "{stderr}");
    let (code, stderr) = once(&url, &volume.path(), &["--kind", "archive"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), site());
    let (code, stderr) = once(&url, &volume.path(), &["--kind", "folder"]);
    assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
}

/// SECURITY: a signature is of a manifest, and a digest of an archive. Whoever demands one must not be given the other.
#[test]
fn kind_is_bound_by_what_is_demanded() {
    let (volume, archive) = (Volume::new(), tar(&site()));
    let key = volume.above().join("key.pub");
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEACbxpJ8dHWUjor/rTbu7ENonmwb5H9gG3k76XY2Vw8u4=\n-----END PUBLIC KEY-----\n";
    fs::write(&key, pem).expect("a file");
    let key = ["--public-key", key.to_str().expect("UTF-8"), "--log-level", "error"];
    let digest = format!("sha256:{}", sha256(&archive));
    let digest = ["--digest", &digest, "--log-level", "error"];
    let archives = Same::start("application/octet-stream", archive);
    let manager = ContentManager::start(&[("index.html", "1")]);
    manager.fault(|request, site| (request.target() == "/site/").then(|| Answer::new(200, site.manifest())));
    for (url, flags, why) in [
        (archives.upstream.url("/content"), &key[..], "--public-key"),
        (manager.upstream.url("/site/"), &digest[..], "--digest"),
    ] {
        let (code, stderr) = once(&url, &volume.path(), flags);
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        volume_is_empty(&volume);
    }
    let (code, stderr) = once(&archives.upstream.url("/content"), &volume.path(), &digest);
    assert_eq!((code, stderr.as_str()), (0, ""));
    // At the start, where the two contradict each other already.
    for (url, flags) in [
        (archives.upstream.url("/site.tar"), &key[..2]),
        (manager.url(), &digest[..2]),
        (archives.upstream.url("/x"), &[&key[..2], &["--kind", "archive"]].concat()[..]),
        (archives.upstream.url("/x"), &[&digest[..2], &["--kind", "manifest"]].concat()[..]),
        (archives.upstream.url("/x"), &[&digest[..2], &key[..2]].concat()[..]),
    ] {
        let (code, stderr) = once(&url, &Volume::new().path(), flags);
        assert_eq!((code, stderr.lines().count()), (64, 1), "{flags:?}: {stderr}");
    }
}

#[track_caller]
fn volume_is_empty(volume: &Volume) {
    assert!(volume.current().is_none());
    assert_eq!(volume.staging(), [] as [&str; 0]);
}

/// SECURITY: rules that an operator thinks of for one kind are not gone around by sending the other.
#[test]
fn kind_that_was_seen_first_stays() {
    let (same, volume) = (Same::start("application/octet-stream", tar(&site())), Volume::new());
    let url = same.upstream.url("/content");
    let process = start_when_asked(&url, &volume, &[]);
    assert_eq!(sync(&process)["result"], "unchanged");
    let manifest = ContentManager::start(&[("evil.html", "1")]).site().manifest();
    same.put("application/json", manifest.into_bytes());
    let answer = try_sync(&process).json();
    let error = answer["error"].as_str().expect("an error").to_owned();
    assert!(
        error.contains("an archive") && error.contains("a manifest") && error.contains("--kind"),
        "{error}"
    );
    assert_eq!(volume.tree(), site());
    drop(process);
    // A restart forgets nothing.
    let (code, stderr) = once(&url, &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(stderr.contains("--kind manifest"), "{stderr}");
    assert_eq!(volume.tree(), site());
}

/// Some servers compress what they send, whatever is asked for; others say so of an archive that they only keep.
#[test]
fn a_compressed_page_is_told_from_an_archive() {
    let page = b"<!doctype html><title>Sign in</title>".repeat(20);
    let encoded = |kind: &'static str, encoding: &'static str, body: Vec<u8>| {
        move |_: &Message| {
            Answer::new(200, body.clone()).with("Content-Type", kind).with("Content-Encoding", encoding)
        }
    };
    for (encoding, body) in
        [("gzip", gzip(&page)), ("zstd", zstd(&page)), ("gzip", gzip(&gzip(&tar(&site()))))]
    {
        for (path, what) in
            [("/manifest.json", "manifest"), ("/site.tar.gz", "archive"), ("/content", "archive")]
        {
            let volume = Volume::new();
            let upstream = Upstream::start(encoded("text/html", encoding, body.clone()));
            let (code, stderr) = once(&upstream.url(path), &volume.path(), &["--log-level", "error"]);
            assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
            let (refused, header) = (format!("{what} refused"), format!("Content-Encoding {encoding}"));
            for said in [&refused, path, "200 OK", "Content-Type text/html", &header, "and begins "] {
                assert!(stderr.contains(said), "{said}: {stderr}");
            }
            assert!(!stderr.contains("--kind"), "{stderr}");
            volume.assert_nothing_written();
        }
    }
    // What was published decides what the source is.
    let (manager, volume) = (ContentManager::start(&[("index.html", "1")]), Volume::new());
    let upstream = Upstream::start(encoded("application/x-tar", "x-gzip", gzip(&tar(&site()))));
    let process = start_when_asked(&upstream.url("/content"), &volume, &[]);
    assert_eq!(sync(&process)["result"], "unchanged", "the first sync had published");
    assert_eq!(volume.tree(), site());
    let json = manager.site().manifest();
    upstream.answer(move |_| Answer::new(200, json.clone()));
    let error = try_sync(&process).json()["error"].to_string();
    assert!(error.contains("it was an archive before"), "{error}");
}

#[test]
fn an_html_page_is_told_from_content() {
    let page = b"\n<!doctype html>\n<title>Sign in \xe2\x80\xae</title>".to_vec();
    for (path, what) in [("/manifest.json", "manifest"), ("/site.tar.gz", "archive"), ("/content", "")] {
        let (same, volume) = (Same::start("text/html; charset=utf-8", page.clone()), Volume::new());
        same.upstream.answer({
            let page = page.clone();
            move |_| {
                Answer::new(200, page.clone())
                    .with("Content-Type", "text/html; charset=utf-8")
                    .with("Content-Encoding", "br")
            }
        });
        let (code, stderr) = once(&same.upstream.url(path), &volume.path(), &["--log-level", "error"]);
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        let refused = format!("{what} refused");
        for said in [refused.as_str(), path, "200 OK", "text/html", "br", "<!doctype html>"] {
            assert!(stderr.contains(said), "{said}: {stderr}");
        }
        assert!(!stderr.contains('\u{202e}'), "{stderr:?}");
        volume.assert_nothing_written();
    }
}
