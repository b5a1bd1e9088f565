//! The server as content manager of many Pods: waiting, mirrors, and no stampede.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;
use serde_json::Value;
use testkit::http::{Connection, Message, get};
use testkit::wait_until;

use crate::support::{Server, Volume, write_tree};

/// A waiter: a conditional request that is held.
struct Waiter {
    connection: Connection,
    since: Instant,
}

impl Waiter {
    fn ask(server: &Server, etag: &str, seconds: u64) -> Self {
        let mut connection = Connection::open(server.addr);
        let request = format!(
            "GET /manifest.json HTTP/1.1\r\nHost: h\r\nIf-None-Match: {etag}\r\nPrefer: wait={seconds}\r\n\r\n"
        );
        connection.send(request).unwrap();
        Self { connection, since: Instant::now() }
    }

    fn answer(&mut self) -> Message {
        self.connection.receive("GET").unwrap()
    }
}

fn waiters(server: &Server) -> u64 {
    get(server.admin, "/status").json()["manifest_waiters"].as_u64().unwrap()
}

#[track_caller]
fn wait_for_waiters(server: &Server, count: u64) {
    wait_until(&format!("{count} wait"), || waiters(server) == count);
}

fn etag(server: &Server) -> String {
    server.get("/manifest.json").header("etag").unwrap().to_owned()
}

fn paths(manifest: &Value) -> Vec<&str> {
    manifest["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect()
}

#[test]
fn a_held_request_is_charged_for_its_head_and_is_answered_from_it() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest", "--memory-limit", "64MiB"]);
    let etag = etag(&server);
    let charged = || server.metric("memory_used_bytes{use=\"connections\"}");
    let before = charged();
    let mut connection = Connection::open(server.addr);
    let fields = "x".repeat(30_000);
    let request = format!(
        "GET /manifest.json HTTP/1.1\r\nHost: h\r\nX: {fields}\r\nIf-None-Match: {etag}\r\nPrefer: wait=50\r\n\r\n"
    );
    connection.send(request).unwrap();
    wait_for_waiters(&server, 1);
    wait_until("it rests", || server.metric("memory_used_bytes{use=\"long_heads\"}") == 0);
    let held = charged() - before;
    assert!(held >= 30_000 + 16 * 1024, "{held} bytes");
    std::fs::write(dir.path().join("index.html"), "two").unwrap();
    let answer = connection.receive("GET").unwrap();
    assert_eq!((answer.status(), answer.header("preference-applied")), (200, Some("wait")));
}

/// They cannot be closed for others.
#[test]
fn held_requests_leave_room_for_others() {
    const ASKED: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest", "--memory-limit", "16MiB", "--cache-size", "0"]);
    let etag = etag(&server);
    let mut asked: Vec<_> = (0..ASKED).map(|_| Waiter::ask(&server, &etag, 50)).collect();
    // The last is answered as if it had not preferred to wait.
    let answer = asked.pop().unwrap().answer();
    assert_eq!((answer.status(), answer.header("preference-applied")), (304, None));
    let held = waiters(&server);
    assert!(held > 50 && held < 300, "{held} are held");
    assert_eq!(server.get("/").text(), "one");
}

#[test]
fn a_waiter_is_told_of_an_edit() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one"), ("css/site.css", "body {}")]);
    // Rescans are far away: what is told comes from the watch.
    let server = Server::start(dir.path(), &["--manifest", "--rescan", "1h"]);
    let mut etag = etag(&server);
    for round in 0..5 {
        let mut waiter = Waiter::ask(&server, &etag, 50);
        wait_for_waiters(&server, 1);
        std::fs::write(dir.path().join("index.html"), format!("round {round}")).unwrap();
        let answer = waiter.answer();
        assert_eq!((answer.status(), answer.header("preference-applied")), (200, Some("wait")));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.headers.iter().any(|(name, value)| name == "vary" && value == "prefer"), "{answer:?}");
        // A single waiter has nobody to make room for.
        assert_eq!(answer.header("sync-spread"), None);
        let new = answer.header("etag").unwrap().to_owned();
        assert_ne!(new, etag);
        etag = new;
    }
    // New files, new directories, renames, removals.
    let mut waiter = Waiter::ask(&server, &etag, 50);
    wait_for_waiters(&server, 1);
    write_tree(dir.path(), &[("deep/er/new.html", "new")]);
    std::fs::rename(dir.path().join("css"), dir.path().join("style")).unwrap();
    std::fs::remove_file(dir.path().join("index.html")).unwrap();
    let first = waiter.answer();
    assert_eq!(first.status(), 200);
    wait_until("all of it is listed", || {
        paths(&server.get("/manifest.json").json()) == ["deep/er/new.html", "style/site.css"]
    });
}

#[test]
fn a_waiter_without_a_change_gets_304() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest", "--max-wait", "1s"]);
    let tag = etag(&server);
    for seconds in [1, 600] {
        let mut waiter = Waiter::ask(&server, &tag, seconds);
        let answer = waiter.answer();
        assert_eq!((answer.status(), answer.header("preference-applied")), (304, Some("wait")));
        assert!(waiter.since.elapsed() >= Duration::from_millis(900), "{:?}", waiter.since.elapsed());
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    // What has nothing to wait for is answered at once.
    let unconditional = server.request("GET", "/manifest.json", &[("Prefer", "wait=50")]);
    assert_eq!((unconditional.status(), unconditional.header("preference-applied")), (200, Some("wait")));
    let other = [("Prefer", "wait=50"), ("If-None-Match", "\"other\"")];
    assert_eq!(server.request("GET", "/manifest.json", &other).status(), 200);
    // Without the preference nothing is different.
    let plain = server.request("GET", "/manifest.json", &[("If-None-Match", &tag)]);
    assert_eq!((plain.status(), plain.header("preference-applied")), (304, None));
    assert_eq!(plain.header("cache-control"), Some("no-cache"));
}

#[test]
fn a_drain_answers_all_waiters_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let mut server = Server::start(dir.path(), &["--manifest", "--shutdown-timeout", "30s"]);
    let tag = etag(&server);
    let mut all: Vec<_> = (0..20).map(|_| Waiter::ask(&server, &tag, 50)).collect();
    wait_for_waiters(&server, 20);
    assert_eq!(get(server.admin, "/status").json()["requests_in_flight"], 20);
    let began = Instant::now();
    assert_eq!(server.process.terminate().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for waiter in &mut all {
        let answer = waiter.answer();
        // Not applied: who asked again at once would find nobody.
        assert_eq!((answer.status(), answer.header("preference-applied")), (304, None));
    }
}

#[test]
fn one_waiter_too_many_is_not_held() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest", "--max-connections", "16"]);
    let tag = etag(&server);
    let mut all: Vec<_> = (0..14).map(|_| Waiter::ask(&server, &tag, 50)).collect();
    wait_for_waiters(&server, 14);
    let answer = Waiter::ask(&server, &tag, 50).answer();
    assert_eq!((answer.status(), answer.header("preference-applied")), (304, None));
    // And there is room for others.
    assert_eq!(server.get("/").text(), "one");
    std::fs::write(dir.path().join("index.html"), "two").unwrap();
    for waiter in &mut all {
        assert_eq!(waiter.answer().status(), 200);
    }
}

#[test]
fn a_waiter_is_never_closed_for_others() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let volume = mirror_volume("one", "one");
    for root in [dir.path(), &volume.root()] {
        let server = Server::start(root, &["--manifest", "--max-connections", "4"]);
        let tag = etag(&server);
        let mut all: Vec<_> = (0..3).map(|_| Waiter::ask(&server, &tag, 50)).collect();
        wait_for_waiters(&server, 3);
        // Of these, one at a time has a place: those that were answered and rest, and those that have asked for nothing.
        let mut others: Vec<_> = (0..20).map(|_| Connection::open(server.addr)).collect();
        for other in others.iter_mut().step_by(2) {
            // The connection may be closed for the next one by now.
            other.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").ignore();
        }
        wait_until("the others had to make room", || server.metric("connections_evicted_total") >= 19);
        assert_eq!(waiters(&server), 3);
        if root == dir.path() {
            std::fs::write(root.join("index.html"), "two").unwrap();
        } else {
            publish_signed(&volume, "two", "two");
        }
        for waiter in &mut all {
            assert_eq!(waiter.answer().status(), 200);
        }
    }
}

#[test]
fn many_waiters_are_told_to_spread() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest"]);
    let tag = etag(&server);
    let mut all: Vec<_> = (0..50).map(|_| Waiter::ask(&server, &tag, 50)).collect();
    wait_for_waiters(&server, 50);
    std::fs::write(dir.path().join("index.html"), "two").unwrap();
    for waiter in &mut all {
        let answer = waiter.answer();
        assert_eq!((answer.status(), answer.header("sync-spread")), (200, Some("0.025")));
    }
    wait_for_waiters(&server, 0);
}

#[test]
fn files_that_are_saved_together_become_one_edition() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("a", "0"), ("b", "0")]);
    let server = Server::start(dir.path(), &["--manifest", "--quiet-period", "500ms", "--rescan", "1h"]);
    let mut tag = etag(&server);
    for round in 1..4 {
        let mut waiter = Waiter::ask(&server, &tag, 50);
        wait_for_waiters(&server, 1);
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), "x".repeat(round)).unwrap();
        }
        let answer = waiter.answer();
        let sizes: Vec<_> =
            answer.json()["files"].as_array().unwrap().iter().map(|file| file["size"].clone()).collect();
        assert_eq!(sizes, [round, round]);
        tag = answer.header("etag").unwrap().to_owned();
    }
}

#[test]
fn a_directory_that_is_never_quiet_is_taken_in_nevertheless() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one"), ("busy", "")]);
    let server = Server::start(dir.path(), &["--manifest", "--rescan", "1h"]);
    let tag = etag(&server);
    let mut waiter = Waiter::ask(&server, &tag, 50);
    wait_for_waiters(&server, 1);
    let busy = dir.path().join("busy");
    let over = std::sync::atomic::AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::write(&busy, format!("{:?}", Instant::now())).unwrap();
            }
        });
        let answer = waiter.answer();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        answer
    });
    assert_eq!(answer.status(), 200);
    assert!(waiter.since.elapsed() < Duration::from_secs(20), "{:?}", waiter.since.elapsed());
}

#[test]
fn a_walk_sees_what_the_watch_does_not() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let other = tempfile::tempdir().unwrap();
    write_tree(other.path(), &[("page.html", "page")]);
    let server = Server::start(dir.path(), &["--manifest", "--rescan", "100ms"]);
    let tag = etag(&server);
    // A hard link: an edit by its other name is no event in this directory.
    let elsewhere = other.path().join("page.html");
    std::fs::hard_link(&elsewhere, dir.path().join("page.html")).unwrap();
    wait_until("the link is listed", || etag(&server) != tag);
    let tag = etag(&server);
    assert_eq!(elsewhere.metadata().unwrap().nlink(), 2);
    std::fs::write(&elsewhere, "edited").unwrap();
    wait_until("the edit is listed", || etag(&server) != tag);
}

#[test]
fn a_walk_that_fails_takes_no_file_out_of_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let (root, aside) = (dir.path().join("root"), dir.path().join("aside"));
    write_tree(&root, &[("index.html", "one"), ("new.html", "one")]);
    let server = Server::start(&root, &["--manifest", "--rescan", "1h"]);
    assert_eq!(paths(&server.get("/manifest.json").json()), ["index.html", "new.html"]);
    // Deeper than is walked.
    std::fs::create_dir_all(aside.join("d/".repeat(70))).unwrap();
    std::fs::rename(&aside, root.join("deep")).unwrap();
    for round in 0..10 {
        std::fs::write(root.join("new.html"), format!("round {round}")).unwrap();
        let manifest = server.get("/manifest.json").json();
        assert_eq!(paths(&manifest), ["index.html", "new.html"], "in round {round}");
    }
    std::fs::remove_dir_all(root.join("deep")).unwrap();
    wait_until("the edit is listed", || {
        let manifest = server.get("/manifest.json").json();
        manifest["files"].as_array().unwrap().iter().any(|file| file["sha256"] == sha256("round 9"))
    });
}

/// A release as a puller writes it, signed upstream.
fn mirror_volume(id: &str, style: &str) -> Volume {
    let volume = Volume::new();
    publish_signed(&volume, id, style);
    volume
}

fn publish_signed(volume: &Volume, id: &str, style: &str) {
    let files = [("index.html", "<link href=site.css>"), ("site.css", style), (".nojekyll", "")];
    volume.stage(id, &files);
    let entry = |path: &str, text: &str, more: &str| {
        let digest = sha256(text);
        format!(r#"{{"path":"{path}","size":{},"sha256":"{digest}","mode":"0644"{more}}}"#, text.len())
    };
    // Not as this server would write it, to the byte.
    let manifest = format!(
        "{{\"created\":\"2026-11-23T18:00:00Z\",   \"format\":\"sidecar-manifest/1\",\n\"files\":[{},{},{}]}}\n\n",
        entry("index.html", files[0].1, ""),
        entry("site.css", style, &format!(r#","url":"blobs/{}?v=1""#, &sha256(style)[..8])),
        entry(".nojekyll", "", "")
    );
    std::fs::write(volume.release(&format!("{id}.json")), manifest).unwrap();
    std::fs::write(volume.release(&format!("{id}.json.sig")), format!("signature of {id}\n")).unwrap();
    volume.swap(id);
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    let digits: Vec<_> = sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

#[test]
fn a_mirror_gives_out_the_publishers_manifest_byte_for_byte() {
    let volume = mirror_volume("one", "one");
    let server = Server::start(&volume.root(), &["--manifest"]);
    let answer = server.get("/manifest.json");
    assert_eq!(answer.body, std::fs::read(volume.release("one.json")).unwrap());
    let digest = sha256(answer.text());
    assert_eq!(answer.header("etag"), Some(format!("\"{}\"", &digest[..32]).as_str()));
    assert_eq!(server.get("/manifest.json.sig").text(), "signature of one\n");
    // Each file as the manifest names it, hidden ones too.
    assert_eq!(server.get("/index.html").text(), "<link href=site.css>");
    assert_eq!(server.get(&format!("/blobs/{}?v=1", &sha256("one")[..8])).text(), "one");
    assert_eq!(server.get("/.nojekyll").status(), 200);
    assert_eq!(server.get("/.other").status(), 404);
    // Without the flag none of this is there.
    let plain = Server::start(&volume.root(), &[]);
    for path in ["/manifest.json", "/manifest.json.sig", "/.nojekyll"] {
        assert_eq!(plain.get(path).status(), 404, "{path}");
    }
}

/// What file-puller leaves of a source without a manifest: its own manifest, without a signature, and what is private.
#[test]
fn a_mirror_of_a_repository_or_an_image_gives_out_our_own_manifest_and_nothing_private() {
    for private in [".git-objects/pack", ".source.json"] {
        let volume = mirror_volume("one", "one");
        std::fs::remove_file(volume.release("one.json.sig")).unwrap();
        write_tree(volume.root().parent().unwrap(), &[(private, "private")]);
        let server = Server::start(&volume.root(), &["--manifest"]);
        assert_eq!(server.get("/manifest.json").body, std::fs::read(volume.release("one.json")).unwrap());
        for path in ["manifest.json.sig", private, "../.source.json"] {
            assert_eq!(server.get(&format!("/{path}")).status(), 404, "{path}");
        }
    }
}

#[test]
fn a_mirrors_waiters_are_told_of_a_release() {
    let volume = mirror_volume("one", "one");
    let server = Server::start(&volume.root(), &["--manifest"]);
    let mut waiter = Waiter::ask(&server, &etag(&server), 50);
    wait_for_waiters(&server, 1);
    publish_signed(&volume, "two", "two");
    let answer = waiter.answer();
    assert_eq!(answer.body, std::fs::read(volume.release("two.json")).unwrap());
    assert_eq!(server.get("/manifest.json.sig").text(), "signature of two\n");
    // The same content, signed again.
    let tag = etag(&server);
    let newer = std::fs::read_to_string(volume.release("two.json")).unwrap().replace("18:00", "19:00");
    let server = Server::start(&volume.root(), &["--manifest", "--rescan", "50ms"]);
    let mut waiter = Waiter::ask(&server, &tag, 50);
    wait_for_waiters(&server, 1);
    let temporary = volume.release("two.json.tmp");
    std::fs::write(&temporary, &newer).unwrap();
    std::fs::rename(&temporary, volume.release("two.json")).unwrap();
    assert_eq!(waiter.answer().text(), newer);
}

#[test]
fn a_leaf_finishes_with_the_release_it_began() {
    let volume = mirror_volume("one", "one");
    let server = Server::start(&volume.root(), &["--manifest"]);
    let first = etag(&server);
    publish_signed(&volume, "two", "two");
    wait_until("the mirror has swapped", || etag(&server) != first);
    let second = etag(&server);
    let as_of = |tag: &str, path: &str| server.request("GET", path, &[("Sync-Manifest", tag)]);
    assert_eq!(as_of(&first, "/site.css").text(), "one");
    assert_eq!(as_of(&first, "/manifest.json.sig").text(), "signature of one\n");
    assert_eq!(as_of(&first, &format!("/blobs/{}?v=1", &sha256("one")[..8])).text(), "one");
    assert_eq!(as_of(&second, "/site.css").text(), "two");
    assert_eq!(as_of("\"unheard of\"", "/site.css").text(), "two");
    assert_eq!(server.get("/site.css").text(), "two");
}

#[test]
fn a_mirror_lets_go_of_earlier_releases_for_one_that_does_not_fit_beside_them() {
    let volume = Volume::new();
    // Of these, the budget below has room for two, with their manifests.
    let publish = |id: &str| {
        let names: Vec<String> =
            (0..5_000).map(|number| format!("{number}-{id}-{}", "n".repeat(180))).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        volume.publish(id, &files);
    };
    publish("one");
    let flags = ["--manifest", "--rescan", "1s", "--stale-assets-for", "0s", "--cache-size", "0"];
    let server = Server::start(&volume.root(), &[&flags[..], &["--memory-limit", "20MiB"]].concat());
    let mut before = String::new();
    for id in ["two", "three"] {
        wait_until("the manifest is another one", || {
            let answer = server.get("/manifest.json");
            answer.status() == 200 && answer.header("etag") != Some(&before)
        });
        before = etag(&server);
        publish(id);
    }
    wait_until("the third is served", || {
        get(server.admin, "/status").json()["content"]["release"] == "three"
    });
}

#[track_caller]
fn wait_until_refused(server: &Server, of: &str) {
    let status = || get(server.admin, "/status").json();
    wait_until("the manifest is refused", || status()["manifest_refused"].is_string());
    let reason = status()["manifest_refused"].as_str().unwrap().to_owned();
    assert!(reason.contains(of) && reason.contains("--memory-limit"), "{reason}");
    assert!(get(server.admin, "/metrics").text().contains("web_server_manifest_refused 1"));
    // Content is served all the same.
    assert_eq!(get(server.admin, "/readyz").status(), 200);
}

#[test]
fn a_live_manifest_that_does_not_fit_into_memory_is_refused_and_the_one_before_it_stays() {
    let (dir, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest", "--memory-limit", "16MiB", "--cache-size", "0"]);
    let before = etag(&server);
    let many: Vec<String> = (0..8_000).map(|number| format!("{number}-{}", "n".repeat(180))).collect();
    write_tree(aside.path(), &many.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>());
    std::fs::rename(aside.path(), dir.path().join("many")).unwrap();
    wait_until_refused(&server, "the directory");
    assert_eq!(etag(&server), before);
    let status = get(server.admin, "/status").json();
    assert!(status["memory"]["manifest_bytes"].as_u64().unwrap() < 4 << 20, "{status}");
    std::fs::remove_dir_all(dir.path().join("many")).unwrap();
    write_tree(dir.path(), &[("index.html", "two")]);
    wait_until("the manifest is up to date", || etag(&server) != before);
    assert!(get(server.admin, "/status").json()["manifest_refused"].is_null());
    assert!(get(server.admin, "/metrics").text().contains("web_server_manifest_refused 0"));
}

#[test]
fn a_mirrored_manifest_that_does_not_fit_into_memory_is_refused_and_the_one_before_it_stays() {
    let volume = mirror_volume("one", "one");
    let flags = ["--manifest", "--memory-limit", "16MiB", "--cache-size", "0", "--rescan", "1s"];
    let server = Server::start(&volume.root(), &flags);
    let before = etag(&server);
    volume.stage("two", &[("index.html", "two")]);
    let manifest = std::fs::read_to_string(volume.release("one.json")).unwrap();
    std::fs::write(volume.release("two.json"), manifest + &" ".repeat(8 << 20)).unwrap();
    volume.swap("two");
    wait_until_refused(&server, "release two");
    assert_eq!(etag(&server), before);
    // So do its files.
    assert_eq!(server.get("/index.html").text(), "<link href=site.css>");
    publish_signed(&volume, "three", "three");
    wait_until("the manifest is up to date", || etag(&server) != before);
    assert!(get(server.admin, "/status").json()["manifest_refused"].is_null());
}

#[test]
fn a_question_costs_the_same_whatever_the_number_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<_> = (0..5_000).map(|n| (format!("{}/{n}.txt", n % 50), n.to_string())).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    write_tree(dir.path(), &files);
    let server = Server::start(dir.path(), &["--manifest", "--rescan", "1h"]);
    wait_until("the manifest is made", || server.get("/manifest.json").status() == 200);
    let tag = etag(&server);
    let mut connection = Connection::open(server.addr);
    let before = server.process.cpu_ticks();
    for _ in 0..1_000 {
        let request = format!("GET /manifest.json HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\n\r\n");
        connection.send(request).unwrap();
        assert_eq!(connection.receive("GET").unwrap().status(), 304);
    }
    // A walk of 5,000 files takes some 30 ms, that is, three ticks. A thousand questions take less than a hundred.
    let ticks = server.process.cpu_ticks() - before;
    assert!(ticks < 200, "{ticks} ticks of CPU for 1,000 questions");
}

#[test]
fn a_held_request_is_logged_once_and_with_all_of_its_time() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let server = Server::start(dir.path(), &["--manifest", "--access-log", log.to_str().unwrap()]);
    let tag = etag(&server);
    let mut waiter = Waiter::ask(&server, &tag, 1);
    wait_for_waiters(&server, 1);
    assert_eq!(waiter.answer().status(), 304);
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    wait_until("both requests are logged", || lines().len() == 2);
    let [_, held] = &lines()[..] else { panic!("{:?}", lines()) };
    assert_eq!(held["http.response.status_code"], 304, "{held}");
    assert!(held["http.server.request.duration"].as_f64().unwrap() >= 0.9, "{held}");
    assert_eq!(get(server.admin, "/status").json()["requests_in_flight"], 0);
}

#[test]
fn what_a_client_sends_after_a_held_request_is_answered_after_it() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest"]);
    let tag = etag(&server);
    let mut connection = Connection::open(server.addr);
    let held =
        format!("GET /manifest.json HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\nPrefer: wait=50\r\n\r\n");
    connection.send(held + "GET /index.html HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    wait_for_waiters(&server, 1);
    // And what comes while it is held.
    connection.send("GET /?later HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    std::fs::write(dir.path().join("index.html"), "two").unwrap();
    let manifest = connection.receive("GET").unwrap();
    assert_eq!((manifest.status(), paths(&manifest.json())), (200, vec!["index.html"]));
    for _ in 0..2 {
        assert_eq!(connection.receive("GET").unwrap().text(), "two");
    }
    // A client that goes away gives its place back once the wait is over.
    let mut waiter = Waiter::ask(&server, manifest.header("etag").unwrap(), 1);
    wait_for_waiters(&server, 1);
    assert_eq!(waiter.answer().status(), 304);
    wait_for_waiters(&server, 0);
}

/// More of them than are read at once. As they are kept, with a space after each colon, they are longer than they were.
#[test]
fn held_requests_that_come_together_are_answered_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "one")]);
    let server = Server::start(dir.path(), &["--manifest"]);
    let tag = etag(&server);
    let fields = (0..20).map(|number| format!("X-{number}:x\r\n")).collect::<Vec<_>>().concat();
    let held = format!(
        "GET /manifest.json HTTP/1.1\r\nHost:h\r\n{fields}If-None-Match:{tag}\r\nPrefer:wait=0\r\n\r\n"
    );
    let mut connection = Connection::open(server.addr);
    connection.send(held.repeat(100) + "GET /index.html HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    for _ in 0..100 {
        assert_eq!(connection.receive("GET").unwrap().status(), 304);
    }
    assert_eq!(connection.receive("GET").unwrap().text(), "one");
}
