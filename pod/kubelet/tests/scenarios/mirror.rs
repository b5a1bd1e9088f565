//! Any Pod is a content manager for others: origin, mirror, leaves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use testkit::http::{Message, get, request, try_get};
use testkit::process::run;
use testkit::{Answer, Process, Upstream, wait_until};

use crate::processes::binaries;

/// Far more than any edit may take here, and far less than `--period`.
const PERIOD: &str = "1h";

/// A puller and a server on a volume of their own, as in a Pod.
struct Pod {
    volume: TempDir,
    puller: Process,
    server: Process,
}

impl Pod {
    /// A Pod that follows `source`; `serving` are its server's flags.
    fn follow(source: &str, pulling: &[&str], serving: &[&str]) -> Self {
        let volume = tempfile::tempdir().unwrap();
        let path = volume.path().to_str().unwrap();
        let pulling = [&["--source", source, "--volume", path, "--wait", "20s"], pulling].concat();
        let puller = Process::start(binaries().join("file-puller"), pulling);
        let root = format!("{path}/current");
        let server = start_server(&root, serving);
        Self { volume, puller, server }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr("content")
    }

    fn manifest_url(&self) -> String {
        format!("http://{}/manifest.json", self.addr())
    }

    fn serves(&self, path: &str, text: &str) -> bool {
        try_get(self.addr(), path).is_ok_and(|page| page.status() == 200 && page.text() == text)
    }

    fn waits(&self) -> bool {
        get(self.puller.addr("admin"), "/status").json()["waiting"] == true
    }

    /// Where the current release's manifest is.
    fn manifest(&self) -> PathBuf {
        let current = std::fs::read_link(self.volume.path().join("current")).unwrap();
        self.volume.path().join(current).with_extension("json")
    }

    /// The current release's manifest and signature.
    fn recorded(&self) -> [Option<String>; 2] {
        let manifest = self.manifest();
        [manifest.clone(), manifest.with_extension("json.sig")].map(|path| std::fs::read_to_string(path).ok())
    }
}

fn start_server(root: &str, flags: &[&str]) -> Process {
    let flags = [&["--root", root, "--listen", "127.0.0.1:0"], flags].concat();
    Process::start(binaries().join("web-server"), flags)
}

/// What a publisher has: a directory, a key, and a manifest that is signed with it.
struct Publisher(TempDir);

impl Publisher {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("site")).unwrap();
        for arguments in [
            &["genpkey", "-algorithm", "ed25519", "-out", "key"][..],
            &["pkey", "-in", "key", "-pubout", "-out", "key.pub"],
        ] {
            let status = Command::new("openssl").args(arguments).current_dir(dir.path()).status();
            assert!(status.unwrap().success());
        }
        Self(dir)
    }

    fn site(&self) -> PathBuf {
        self.0.path().join("site")
    }

    fn key(&self) -> String {
        self.0.path().join("key.pub").to_str().unwrap().to_owned()
    }

    /// Puts a page there, and signs. A puller that asks in between finds that these do not belong together, and asks again.
    fn put(&self, text: &str) {
        std::fs::write(self.site().join("index.html"), text).unwrap();
        let (site, output, key) = (self.site(), self.site().join("manifest.json"), self.0.path().join("key"));
        let flags = ["manifest".as_ref(), site.as_path(), "--output".as_ref(), &output];
        let (code, _, stderr) =
            run(binaries().join("file-puller"), [&flags[..], &["--sign".as_ref(), &key]].concat());
        assert_eq!(code, 0, "{stderr}");
    }

    fn signed(&self) -> [Option<String>; 2] {
        ["manifest.json", "manifest.json.sig"]
            .map(|name| std::fs::read_to_string(self.site().join(name)).ok())
    }
}

fn all_wait(pods: &[&Pod]) {
    wait_until("all wait", || pods.iter().all(|pod| pod.waits()));
}

#[test]
fn an_edit_arrives_at_the_leaves_of_a_mirror() {
    let site = tempfile::tempdir().unwrap();
    let edit = |text: &str| std::fs::write(site.path().join("index.html"), text).unwrap();
    edit("one");
    let origin = start_server(site.path().to_str().unwrap(), &["--manifest", "--rescan", "1h"]);
    let source = format!("http://{}/manifest.json", origin.addr("content"));
    let follow = |source: &str, serving: &[&str]| Pod::follow(source, &["--period", PERIOD], serving);
    let mirror = follow(&source, &["--manifest"]);
    wait_until("the mirror serves", || mirror.serves("/index.html", "one"));
    let leaves = [(); 3].map(|()| follow(&mirror.manifest_url(), &[]));
    for text in ["one", "two", "three"] {
        edit(text);
        wait_until("the leaves serve it", || leaves.iter().all(|leaf| leaf.serves("/index.html", text)));
        all_wait(&[&mirror, &leaves[0], &leaves[1], &leaves[2]]);
    }
    // It is unsigned, and each level's manifest is the mirror's.
    assert_eq!(leaves[0].recorded(), mirror.recorded());
    // A dead mirror leaves its leaves serving.
    drop(mirror);
    edit("four");
    wait_until("the leaves have noticed", || {
        leaves.iter().all(|leaf| {
            let status = get(leaf.puller.addr("admin"), "/status").json();
            status["failures_in_a_row"].as_u64().is_some_and(|failures| failures > 0)
        })
    });
    assert!(leaves.iter().all(|leaf| leaf.serves("/index.html", "three")));
}

#[test]
fn what_is_signed_stays_signed_through_two_mirrors() {
    let publisher = Publisher::new();
    publisher.put("one");
    // A plain server, which cannot wait: the first mirror asks it again and again.
    let origin = start_server(publisher.site().to_str().unwrap(), &[]);
    let source = format!("http://{}/manifest.json", origin.addr("content"));
    let key = publisher.key();
    let signed = |period| ["--public-key", &*key, "--period", period];
    let serving = ["--manifest", "--rescan", "100ms"];
    let mut first = Pod::follow(&source, &signed("100ms"), &serving);
    wait_until("the first mirror serves", || first.serves("/index.html", "one"));
    let second = Pod::follow(&first.manifest_url(), &signed(PERIOD), &serving);
    wait_until("the second mirror serves", || second.serves("/index.html", "one"));
    let leaf = Pod::follow(&second.manifest_url(), &signed(PERIOD), &[]);
    // The last time it is the same content, signed again: a newer signature that the leaf has to know of, too.
    for text in ["one", "two", "three", "three"] {
        publisher.put(text);
        wait_until("the leaf has what was signed", || {
            leaf.serves("/index.html", text) && leaf.recorded() == publisher.signed()
        });
        all_wait(&[&second, &leaf]);
    }
    // A mirror that gives out an unsigned manifest: no level beneath it takes that. Its own puller would put the signed one back.
    first.puller.kill();
    let manifest = first.manifest();
    let forged = std::fs::read_to_string(&manifest).unwrap().replace("0644", "0755");
    std::fs::write(manifest.with_extension("forged"), forged).unwrap();
    std::fs::rename(manifest.with_extension("forged"), &manifest).unwrap();
    wait_until("the second mirror refuses it", || second.puller.stderr().contains("is not its signature"));
    assert!(leaf.serves("/index.html", "three"));
    assert_eq!(leaf.recorded(), publisher.signed());
}

/// The mirror's release is replaced while a leaf is fetching it, through a proxy that is slow.
#[test]
fn a_leaf_in_mid_sync_finishes_with_the_release_that_it_began() {
    let site = tempfile::tempdir().unwrap();
    let edit = |text: &str| {
        for page in ["index.html", "other.html"] {
            std::fs::write(site.path().join(page), text).unwrap();
        }
    };
    edit("one");
    let origin = start_server(site.path().to_str().unwrap(), &["--manifest", "--rescan", "1h"]);
    let source = format!("http://{}/manifest.json", origin.addr("content"));
    let mirror = Pod::follow(&source, &["--period", PERIOD], &["--manifest"]);
    wait_until("the mirror serves", || mirror.serves("/index.html", "one"));
    let begun = mirror.recorded();
    let (addr, open) = (mirror.addr(), Arc::new(AtomicBool::new(false)));
    let is_open = Arc::clone(&open);
    let is_file = |asked: &Message| !asked.target().starts_with("/manifest.json");
    let proxy = Upstream::start(move |asked| {
        if is_file(asked) {
            wait_until("the proxy is slow no more", || is_open.load(Ordering::Relaxed));
        }
        let headers = asked.header("sync-manifest").map(|manifest| ("Sync-Manifest", manifest));
        let answer = request(addr, "GET", asked.target(), headers.as_slice());
        let passed = answer.headers.iter().filter(|(name, _)| name == "etag");
        passed.fold(Answer::new(answer.status(), answer.body.clone()), |passed, (name, value)| {
            passed.with(name, value)
        })
    });
    let volume = tempfile::tempdir().unwrap();
    let path = volume.path().to_str().unwrap();
    let flags = ["--source", &proxy.url("/manifest.json"), "--volume", path, "--once"];
    let mut leaf = Process::start(binaries().join("file-puller"), flags);
    wait_until("the leaf asks for files", || proxy.requests().iter().any(is_file));
    edit("two");
    wait_until("the mirror has swapped", || {
        mirror.serves("/index.html", "two") && mirror.recorded() != begun
    });
    wait_until("it gives out the next manifest", || {
        Some(get(addr, "/manifest.json").text()) == mirror.recorded()[0].as_deref()
    });
    open.store(true, Ordering::Relaxed);
    assert_eq!(leaf.wait().code(), Some(0), "{}", leaf.stderr());
    let current = volume.path().join("current");
    for page in ["index.html", "other.html"] {
        assert_eq!(std::fs::read_to_string(current.join(page)).unwrap(), "one");
    }
}

/// Of a source that has no manifest, a mirror gives out its own.
#[test]
fn a_mirror_of_an_archive_has_a_manifest_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let pack = |text: &str| {
        std::fs::write(dir.path().join("index.html"), text).unwrap();
        let status = Command::new("tar").args(["-cf", "next", "index.html"]).current_dir(dir.path()).status();
        assert!(status.unwrap().success());
        std::fs::rename(dir.path().join("next"), dir.path().join("site.tar")).unwrap();
    };
    pack("one");
    let origin = start_server(dir.path().to_str().unwrap(), &[]);
    let source = format!("http://{}/site.tar", origin.addr("content"));
    let mirror = Pod::follow(&source, &["--period", "100ms"], &["--manifest"]);
    wait_until("the mirror serves", || mirror.serves("/index.html", "one"));
    let leaf = Pod::follow(&mirror.manifest_url(), &["--period", PERIOD], &[]);
    for text in ["one", "two"] {
        pack(text);
        wait_until("the leaf serves it", || leaf.serves("/index.html", text));
    }
    assert_eq!(leaf.recorded()[0].as_deref(), Some(get(mirror.addr(), "/manifest.json").text()));
}
