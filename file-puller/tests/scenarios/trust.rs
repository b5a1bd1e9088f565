//! How far a signature reaches: until when, since when, and for which site. And what a manifest's time may look like.

use std::fs;

use serde_json::json;
use testkit::process::run;
use testkit::{Answer, Upstream};

use crate::content::sha256;
use crate::puller::{BINARY, Volume, once};
use crate::signatures::openssl;

const DAY: u64 = 24 * 3600;

/// A manifest of one file, signed as a publisher with tools of his own does it.
struct Publisher {
    volume: Volume,
    upstream: Upstream,
}

impl Publisher {
    fn start() -> Self {
        let volume = Volume::new();
        openssl(volume.above(), &["genpkey", "-algorithm", "ed25519", "-out", "key"]);
        openssl(volume.above(), &["pkey", "-in", "key", "-pubout", "-out", "key.pub"]);
        let site = volume.above().to_owned();
        let upstream = Upstream::start(move |request| match request.target() {
            "/index.html" => Answer::new(200, "hello"),
            path => fs::read(site.join(path.trim_start_matches('/')))
                .map_or_else(|_| Answer::new(404, ""), |body| Answer::new(200, body)),
        });
        Self { volume, upstream }
    }

    fn publish(&self, created: &str, site: Option<&str>) {
        let file = json!({"path": "index.html", "size": 5, "sha256": sha256(b"hello"), "mode": "0644"});
        let mut manifest = json!({"format": "sidecar-manifest/1", "created": created, "files": [file]});
        if let Some(site) = site {
            manifest["site"] = site.into();
        }
        let above = self.volume.above();
        fs::write(above.join("manifest.json"), manifest.to_string()).expect("a file");
        openssl(
            above,
            &["pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "manifest.json", "-out", "raw"],
        );
        openssl(above, &["base64", "-A", "-in", "raw", "-out", "manifest.json.sig"]);
    }

    fn pull(&self, flags: &[&str]) -> (i32, String) {
        let key = self.volume.above().join("key.pub");
        let signed = ["--public-key", key.to_str().expect("UTF-8"), "--log-level", "error"];
        once(&self.upstream.url("/manifest.json"), &self.volume.path(), &[&signed[..], flags].concat())
    }

    #[track_caller]
    fn refuses(&self, flags: &[&str], why: &str) {
        let (code, stderr) = self.pull(flags);
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        assert!(stderr.contains(why), "{stderr} should say {why}");
    }

    #[track_caller]
    fn publishes(&self, flags: &[&str]) {
        assert_eq!(self.pull(flags), (0, String::new()));
    }
}

fn in_seconds(seconds: u64) -> String {
    let then = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(then).to_string()
}

/// One manifest signed under a clock that is ahead would make everything after it look like an attempt to roll back.
#[test]
fn signed_for_a_day_ahead_at_most() {
    let publisher = Publisher::start();
    publisher.publish(&in_seconds(DAY + 60), None);
    publisher.refuses(&[], "more than a day ahead");
    assert_eq!(publisher.volume.current(), None);
    publisher.publish(&in_seconds(DAY - 60), None);
    publisher.publishes(&[]);
    // Unsigned, the time decides nothing.
    publisher.publish("9999-01-01T00:00:00Z", None);
    let url = publisher.upstream.url("/manifest.json");
    let (code, stderr) = once(&url, &publisher.volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
}

/// What a fresh volume cannot know: which manifests it would have seen.
#[test]
fn nothing_before_the_operators_own_limit() {
    let publisher = Publisher::start();
    publisher.publish("2026-11-23T18:00:00Z", None);
    publisher.refuses(&["--not-before", "2026-11-23T19:00:01+01:00"], "--not-before");
    publisher.publishes(&["--not-before", "2026-11-23T19:00:00+01:00"]);
    for (flags, why) in [
        (&["--not-before", "yesterday"][..], "2026-11-23T18:00:00Z"),
        (&["--not-before", "2026-11-23"][..], "2026-11-23T18:00:00Z"),
    ] {
        let (code, stderr) = publisher.pull(flags);
        assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
    // Without a signature anybody could write any time.
    let (code, stderr) = once(
        &publisher.upstream.url("/manifest.json"),
        &publisher.volume.path(),
        &["--not-before", "2026-11-23T18:00:00Z"],
    );
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("--public-key"), "{stderr}");
}

/// A key that signs for several sites: what is signed for one of them is no content of another.
#[test]
fn signed_for_a_site() {
    let publisher = Publisher::start();
    publisher.publish("2026-11-23T18:00:00Z", None);
    publisher.refuses(&["--site", "shop"], "--site shop");
    publisher.publish("2026-11-23T18:00:00Z", Some("blog"));
    publisher.refuses(&["--site", "shop"], "\"blog\"");
    publisher.publish("2026-11-23T18:00:00Z", Some("shop"));
    publisher.publishes(&["--site", "shop"]);
    // A puller that does not ask does not mind.
    publisher.publishes(&[]);
    let stored = publisher
        .volume
        .join("releases")
        .join(format!("{}.json", publisher.volume.current().expect("published")));
    // Byte for byte, as it was signed.
    let signed = fs::read(publisher.volume.above().join("manifest.json")).expect("it is there");
    assert!(String::from_utf8_lossy(&signed).contains("\"shop\""));
    assert_eq!(fs::read(stored).expect("it is there"), signed);
    // It is part of what is signed.
    let path = publisher.volume.above().join("manifest.json");
    let manifest = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, manifest.replace("shop", "blog")).expect("a file");
    publisher.refuses(&["--site", "blog"], "is not its signature");
    let url = publisher.upstream.url("/manifest.json");
    let (code, stderr) = once(&url, &publisher.volume.path(), &["--site", "shop"]);
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("--public-key"), "{stderr}");
}

#[test]
fn manifest_command_signs_for_a_site() {
    let publisher = Publisher::start();
    let site = publisher.volume.above().join("site");
    fs::create_dir(&site).expect("a directory");
    fs::write(site.join("index.html"), "hello").expect("a file");
    let (output, key) =
        (publisher.volume.above().join("manifest.json"), publisher.volume.above().join("key"));
    let command = |name: &str| {
        run(
            BINARY,
            [
                "manifest",
                site.to_str().expect("UTF-8"),
                "--output",
                output.to_str().expect("UTF-8"),
                "--sign",
                key.to_str().expect("UTF-8"),
                "--site",
                name,
            ],
        )
    };
    assert_eq!(command("shop.example/café"), (0, String::new(), String::new()));
    publisher.publishes(&["--site", "shop.example/café"]);
    publisher.refuses(&["--site", "shop"], "--site shop");
    for wrong in ["", "a\u{202e}b", "a\nb"] {
        assert_eq!(command(wrong).0, 64);
    }
}

#[test]
fn created_is_any_rfc_3339_time() {
    let publisher = Publisher::start();
    let url = publisher.upstream.url("/manifest.json");
    for created in [
        "2026-11-23T18:00:00Z",
        "2026-11-23t19:00:00.5+01:00",
        "2026-11-23T12:30:00.123456789-05:30",
        "2026-11-23T18:00:00-00:00",
        "2016-12-31T23:59:60Z",
    ] {
        publisher.publish(created, None);
        let (code, stderr) = once(&url, &publisher.volume.path(), &[]);
        assert_eq!(code, 0, "{created}: {stderr}");
    }
    for created in ["2026-11-23T18:00:00", "2026-11-23T18:00:00+0100", "2026-13-23T18:00:00Z", "now\u{9b}"] {
        publisher.publish(created, None);
        let (code, stderr) = once(&url, &publisher.volume.path(), &["--log-level", "error"]);
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        assert!(stderr.contains("created: ") && stderr.contains("RFC 3339"), "{stderr}");
        assert!(!stderr.contains('\u{9b}'), "{stderr:?}");
    }
    // Compared as moments, not as text.
    publisher.publish("2026-11-23T18:00:00Z", None);
    fs::remove_dir_all(publisher.volume.path()).expect("it was there");
    publisher.publishes(&[]);
    publisher.publish("2026-11-23T18:59:59+01:00", None);
    publisher.refuses(&[], "roll back");
    publisher.publish("2026-11-23T17:00:01-01:00", None);
    publisher.publishes(&[]);
}
