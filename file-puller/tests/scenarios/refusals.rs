//! Content that must not be published: refused whole, with a reason that names what is wrong.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use testkit::http::Message;
use testkit::{Answer, Upstream};

use crate::content::{ContentManager, sha256};
use crate::puller::{Volume, metric, once, publishes, start, start_in_step, try_sync};

/// Serves one manifest, and `test` for everything else.
fn manifest(manifest: impl Into<Vec<u8>>) -> Upstream {
    let manifest = manifest.into();
    Upstream::start(move |request| match request.target() {
        "/manifest.json" => Answer::new(200, manifest.clone()),
        _ => Answer::new(200, "test"),
    })
}

fn with_files(files: &Value) -> String {
    json!({"format": "sidecar-manifest/1", "created": "2026-11-23T18:00:00Z", "files": files}).to_string()
}

fn file(path: &str) -> Value {
    json!({"path": path, "size": 4, "sha256": sha256(b"test"), "mode": "0644"})
}

/// Exit code 78, one line with this in it, and nothing on the volume.
#[track_caller]
fn refused_once(body: impl Into<Vec<u8>>, reason: &str) {
    let (upstream, volume) = (manifest(body), Volume::new());
    let (code, stderr) = once(&upstream.url("/manifest.json"), &volume.path(), &["--log-level", "error"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains(reason), "{stderr:?} should say {reason:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    volume.assert_nothing_written();
}

#[test]
fn manifest_truncated() {
    let whole = with_files(&json!([file("a")]));
    refused_once(&whole[..whole.len() - 30], "EOF while parsing");
}

#[test]
fn manifest_not_json() {
    refused_once("<html>Welcome to nginx!</html>", "manifest refused: expected value");
}

#[test]
fn manifest_wrong_format() {
    let other = with_files(&json!([file("a")])).replace("manifest/1", "manifest/2");
    refused_once(
        other,
        "format: it is \"sidecar-manifest/2\", and this version reads \"sidecar-manifest/1\"",
    );
}

#[test]
fn manifest_without_files() {
    refused_once(with_files(&json!([])), "files: it is empty");
}

#[test]
fn manifest_huge() {
    let (upstream, volume) = (manifest(vec![b' '; 200_000]), Volume::new());
    let (code, stderr) =
        once(&upstream.url("/manifest.json"), &volume.path(), &["--max-manifest-size", "100KiB"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("is larger than --max-manifest-size"), "{stderr}");
    volume.assert_nothing_written();
}

#[test]
fn manifest_lies_about_size() {
    for size in [3, 5] {
        let mut lie = file("a");
        lie["size"] = size.into();
        refused_once(
            with_files(&json!([lie])),
            &format!("a is not what the manifest promises: 4 bytes instead of {size}"),
        );
    }
}

#[test]
fn manifest_names_a_url_elsewhere() {
    let mut elsewhere = file("a");
    elsewhere["url"] = "//127.0.0.1:1/secret".into();
    refused_once(with_files(&json!([elsewhere])), "url \"//127.0.0.1:1/secret\" of a does not lie beneath");
}

#[test]
fn files_may_have_urls_of_their_own() {
    let mut blob = file("css/site.css");
    blob["url"] = "blobs/9f86d081".into();
    let (upstream, volume) = (manifest(with_files(&json!([blob]))), Volume::new());
    let (code, stderr) = once(&upstream.url("/manifest.json"), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree()["css/site.css"].1, b"test");
    assert_eq!(upstream.requests()[1].target(), "/blobs/9f86d081");
}

#[test]
fn release_beyond_a_limit() {
    for (flag, limit, field) in [
        ("--max-files", "1", "files: 2 are more than --max-files 1"),
        ("--max-file-size", "3", "files[0].size: a has 4 bytes, more than --max-file-size 3"),
        ("--max-size", "7", "files: 8 bytes together are more than --max-size 7"),
    ] {
        let (upstream, volume) = (manifest(with_files(&json!([file("a"), file("b")]))), Volume::new());
        let (code, stderr) = once(&upstream.url("/manifest.json"), &volume.path(), &[flag, limit]);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(field), "{stderr}");
        volume.assert_nothing_written();
    }
}

#[test]
fn path_dotdot() {
    for path in ["../outside", "a/../../../outside", "..", "a/./b"] {
        refused_once(with_files(&json!([file("good"), file(path)])), "files[1].path: ");
    }
}

#[test]
fn path_absolute() {
    refused_once(
        with_files(&json!([file("/tmp/outside")])),
        "files[0].path: \"/tmp/outside\" is refused: it is absolute",
    );
}

#[test]
fn path_nul() {
    refused_once(with_files(&json!([file("a\0b")])), "it has a control character");
}

#[test]
fn path_backslash() {
    refused_once(with_files(&json!([file("a\\..\\b")])), "it has a backslash");
}

#[test]
fn path_duplicate() {
    refused_once(with_files(&json!([file("a"), file("b"), file("a")])), "files[2].path: a is listed twice");
}

#[test]
fn path_file_under_file() {
    refused_once(
        with_files(&json!([file("a"), file("a-b"), file("a/b")])),
        "files[2].path: a/b lies beneath a path that is a file",
    );
}

#[test]
fn path_too_long() {
    let long = "a/".repeat(512) + "a";
    refused_once(with_files(&json!([file(&long)])), "it is longer than 1024 bytes");
    refused_once(with_files(&json!([file(&["a"; 65].join("/"))])), "it is deeper than 64 segments");
}

/// The content manager changes a file between its manifest and the file: what was fetched is of neither release.
#[test]
fn hash_mismatch_once() {
    let (manager, volume) = (ContentManager::start(&[("a", "first"), ("b", "b")]), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    manager.put("a", "later");
    let stale = manager.site().clone();
    manager.put("a", "last!");
    let manifests = AtomicUsize::new(0);
    manager.fault(move |request, _| {
        let is_manifest = request.target().ends_with("manifest.json");
        (is_manifest && manifests.fetch_add(1, Ordering::Relaxed) == 0).then(|| stale.answer(request))
    });
    publishes(&process, &volume, &manager);
    assert_eq!(manager.asked(), ["/site/manifest.json", "/site/a", "/site/manifest.json", "/site/a"]);
    let cache_control = |request: &Message| request.header("cache-control").map(str::to_owned);
    let sent: Vec<_> = manager.upstream.requests().iter().map(cache_control).collect();
    assert_eq!(sent, [None, None, Some("no-cache".to_owned()), Some("no-cache".to_owned())]);
}

#[test]
fn hash_mismatch_forever() {
    let (manager, volume) = (ContentManager::start(&[("a", "first")]), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let (tree, release) = (volume.tree(), volume.current());
    manager.put("a", "later");
    manager.fault(|request, _| request.target().ends_with("/a").then(|| Answer::new(200, "wrong")));
    for failures in 1..=3 {
        let answer = try_sync(&process);
        assert_eq!(answer.status(), 502);
        assert_eq!(
            (answer.json()["result"].as_str(), answer.json()["reason"].as_str()),
            (Some("failed"), Some("mismatch"))
        );
        assert_eq!(answer.json()["release"].as_str(), release.as_deref());
        assert!(
            metric(&process, "file_puller_sync_failures_total{reason=\"mismatch\"}") >= f64::from(failures)
        );
    }
    assert_eq!((volume.tree(), volume.current()), (tree, release));
    assert_eq!(volume.staging(), [] as [&str; 0]);
    manager.recover();
    publishes(&process, &volume, &manager);
}

/// A file that never ends is read no further than the manifest says that it goes.
#[test]
fn endless_body() {
    let (manager, volume) = (ContentManager::start(&[("a", "first")]), Volume::new());
    manager.fault(|request, _| {
        request.target().ends_with("/a").then(|| {
            Answer::raw(|stream| {
                use std::io::Write as _;
                let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while sent.is_ok() {
                    sent = stream.write_all(&[b'x'; 8192]);
                }
            })
        })
    });
    let process = start(&manager, &volume, &[]);
    let error = try_sync(&process).json()["error"].as_str().expect("an error").to_owned();
    assert_eq!(error, "a is not what the manifest promises: more than its 5 bytes");
    assert!(process.resident_bytes() < 40 << 20);
}

/// What a fuzzer would try first, as tests that everybody runs: `fuzz/` has the targets.
#[test]
fn manifest_of_a_fuzzer() {
    let good = with_files(&serde_json::json!([file("a")]));
    for (from, to, reason) in [
        ("\"a\"", "\"\\u0000\"", "files[0].path"),
        ("\"a\"", "\"a\\u002f..\"", "files[0].path"),
        ("\"a\"", "\"\\ud800\"", "files[0].path"),
        ("\"a\"", "[\"a\"]", "files[0].path"),
        ("\"a\"", "null", "files[0].path"),
        ("\"path\"", "\"path\":\"b\",\"path\"", "duplicate field"),
        ("\"files\"", "\"files\":[],\"files\"", "duplicate field"),
        ("\"0644\"", "\"+644\"", "files[0].mode"),
        ("\"0644\"", "\"0044\"", "files[0].mode"),
        ("\"0644\"", "420", "files[0].mode"),
    ] {
        assert!(good.contains(from), "{good} has {from}");
        refused_once(good.replacen(from, to, 1), reason);
    }
    refused_once("[".repeat(100_000), "manifest refused");
    refused_once([b"{\"format\":\"".as_slice(), &[0xff; 8], b"\"}"].concat(), "manifest refused");
}
