//! Messages that say what is wrong, and what to do: exact where an operator needs it, and safe to print.

use serde_json::json;
use testkit::{Answer, Upstream};

use crate::content::{ContentManager, sha256};
use crate::puller::{Volume, once};

#[test]
fn paths_with_control_characters_are_refused_and_not_printed() {
    // A C1 control, a bidirectional override, an isolate, a line separator.
    for character in ['\u{9b}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{7f}', '\u{1b}'] {
        let path = format!("a{character}gpj.exe");
        let file = json!({"path": path, "size": 4, "sha256": sha256(b"test"), "mode": "0644"});
        let manifest =
            json!({"format": "sidecar-manifest/1", "created": "2026-11-23T18:00:00Z", "files": [file]});
        let manifest = manifest.to_string();
        let (upstream, volume) =
            (Upstream::start(move |_| Answer::new(200, manifest.clone())), Volume::new());
        let (code, stderr) = once(&upstream.url("/manifest.json"), &volume.path(), &["--log-level", "error"]);
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        assert!(stderr.contains("files[0].path") && stderr.contains("control character"), "{stderr}");
        assert!(!stderr.contains(character), "{stderr:?}");
        volume.assert_nothing_written();
    }
}

#[test]
fn text_of_others_is_escaped() {
    let (manager, volume) = (ContentManager::start(&[("index.html", "1")]), Volume::new());
    for fault in [
        |_: &testkit::http::Message| {
            Answer::new(302, "").with("Location", "http://a\u{202e}b.example/\u{9b}")
        },
        |_: &testkit::http::Message| Answer::new(200, "\u{9b}\u{202e}").with("Content-Type", "x/\u{9b}"),
        |_: &testkit::http::Message| {
            let url = "../\u{202e}/x";
            let file = json!({"path": "a", "size": 0, "sha256": sha256(b""), "mode": "0644", "url": url});
            let files =
                json!({"format": "sidecar-manifest/1", "created": "2026-11-23T18:00:00Z", "files": [file]});
            Answer::new(200, files.to_string())
        },
        |_: &testkit::http::Message| Answer::new(200, json!({"format": "\u{202e}\u{9b}"}).to_string()),
    ] {
        manager.fault(move |request, _| Some(fault(request)));
        let (code, stderr) = once(&manager.url(), &volume.path(), &["--log-level", "error"]);
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        assert!(!stderr.contains(['\u{9b}', '\u{202e}']), "{stderr:?}");
    }
}

#[test]
fn zstd_window_says_which_level() {
    // A frame header that asks for a window of 128 MiB (2^27): RFC 8878, section 3.1.1.1.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x01, 0, 0];
    let (upstream, volume) = (Upstream::start(move |_| Answer::new(200, frame)), Volume::new());
    let (code, stderr) = once(&upstream.url("/site.tar.zst"), &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    for said in ["128.0 MiB", "8.0 MiB", "zstd -19", "--long", "--ultra"] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
}

#[test]
fn dns_failure_is_called_that_once() {
    let (code, stderr) =
        once("http://no-such-host.invalid/manifest.json", &Volume::new().path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (69, 1), "{stderr}");
    assert_eq!(stderr.matches("DNS").count(), 1, "{stderr}");
    assert!(!stderr.contains("error sending") && !stderr.contains("dns error"), "{stderr}");
}

#[test]
fn min_free_beyond_the_volume_is_said_at_the_start() {
    let (manager, volume) = (ContentManager::start(&[("index.html", "1")]), Volume::new());
    manager.fault(|_, _| Some(Answer::new(503, "")));
    // Before the source is asked, and whatever it answers.
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--min-free", "1000000TiB"]);
    assert_eq!(code, 69, "{stderr}");
    let warning = stderr.lines().find(|line| line.contains("WARN") && line.contains("--min-free"));
    assert!(warning.is_some_and(|line| line.contains("in all")), "{stderr}");
}
