//! What is served follows the link, one whole release at a time.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Over, Server, Volume, write_tree};

#[test]
fn etag_is_content() {
    let volume = Volume::with(&[("same.html", "same"), ("other.html", "one"), ("copy.html", "same")]);
    let server = Server::start(&volume.root(), &[]);
    let tag = |path: &str| server.get(path).header("etag").unwrap().to_owned();
    let (same, other) = (tag("/same.html"), tag("/other.html"));
    assert_eq!(tag("/copy.html"), same);
    assert!(same.starts_with('"') && same.ends_with('"') && same.len() == 34, "{same}");

    volume.publish("two", &[("same.html", "same"), ("other.html", "two")]);
    server.wait_for("/other.html", "two");
    assert_eq!(tag("/same.html"), same);
    assert_ne!(tag("/other.html"), other);

    let elsewhere = Volume::with(&[("x.html", "one")]);
    let again = Server::start(&elsewhere.release("one"), &[]);
    assert_eq!(again.get("/x.html").header("etag"), Some(other.as_str()));
}

#[test]
fn a_publishers_manifest_saves_hashing_and_reading() {
    // The digest of "hello", stated for a release whose file is larger than what is held in memory.
    let stated = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let body = "x".repeat(2 * 1024 * 1024);
    let volume = Volume::new();
    volume.stage("one", &[("large.bin", &body), ("small.txt", "hello")]);
    let manifest = |size: usize| {
        format!(
            r#"{{"format": "sidecar-manifest/1", "created": "2026-11-23T18:00:00Z", "files": [
                {{"path": "large.bin", "size": {size}, "sha256": "{stated}", "mode": "0644"}}]}}"#
        )
    };
    std::fs::write(volume.release("one.json"), manifest(body.len())).unwrap();
    volume.swap("one");
    let server = Server::start(&volume.root(), &["--stale-assets-for", "0s"]);
    let tag = |server: &Server| server.request("HEAD", "/large.bin", &[]).header("etag").unwrap().to_owned();
    assert_eq!(tag(&server), format!("\"{}\"", &stated[..32]));
    assert_eq!(server.get("/small.txt").text(), "hello");

    // The next release says that the small file is the same, and it is: of equal digest, and so not read.
    volume.stage("two", &[("small.txt", "HELLO")]);
    let same = r#"{"format": "sidecar-manifest/1", "created": "2026-11-23T18:00:00Z", "files": [
        {"path": "small.txt", "size": 5, "sha256": "DIGEST", "mode": "0644"}]}"#;
    std::fs::write(volume.release("two.json"), same.replace("DIGEST", stated)).unwrap();
    volume.swap("two");
    wait_until("the second release is served", || server.get("/large.bin").status() == 404);
    assert_eq!(server.get("/small.txt").text(), "hello");
    // And the third that it is another.
    volume.stage("three", &[("small.txt", "HELLO"), ("three", "")]);
    let other = "3733cd977ff8eb18b987357e22ced99f46097f31ecb239e878ae63760e83e4d5";
    std::fs::write(volume.release("three.json"), same.replace("DIGEST", other)).unwrap();
    volume.swap("three");
    wait_until("the third release is served", || server.get("/three").status() == 200);
    assert_eq!(server.get("/small.txt").text(), "HELLO");
    volume.swap("one");

    // A manifest that disagrees about the size is about another file.
    std::fs::write(volume.release("one.json"), manifest(5)).unwrap();
    assert_ne!(tag(&Server::start(&volume.root(), &[])), format!("\"{}\"", &stated[..32]));
}

#[test]
fn last_modified_never_goes_back() {
    let publish = |volume: &Volume, id: &str, page: Option<&str>, published: SystemTime| {
        let files = page.map(|text| ("page.html", text)).into_iter().chain([("same.html", "same")]);
        volume.stage(id, &files.collect::<Vec<_>>());
        // What the link says is all that a release has for a date.
        let next = volume.release(&format!("{id}.link"));
        symlink(volume.release(id), &next).unwrap();
        let since = published.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let published = Timespec { tv_sec: since.try_into().unwrap(), tv_nsec: 0 };
        let times = Timestamps { last_access: published, last_modification: published };
        utimensat(CWD, &next, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        std::fs::rename(&next, volume.root()).unwrap();
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now();
    let volume = Volume::new();
    publish(&volume, "one", Some("one"), now - 5 * day);
    let server = Server::start(&volume.root(), &["--stale-assets-for", "0s"]);
    let date = |path: &str| {
        let answer = server.get(path);
        httpdate::parse_http_date(answer.header("last-modified").unwrap()).unwrap()
    };
    let (mut page, same) = (date("/page.html"), date("/same.html"));
    // Forward, a rollback whose link is older, the former release once more, one whose link was never touched since, one without
    // the page, and one that has it again.
    for (id, text, published) in [
        ("two", Some("two"), now - 2 * day),
        ("three", Some("one"), now - 4 * day),
        ("four", Some("four"), now - 3 * day),
        ("five", Some("five"), now - 2 * day),
        ("six", Some("six"), SystemTime::UNIX_EPOCH + day),
        ("seven", None, SystemTime::UNIX_EPOCH + day),
        ("eight", Some("eight"), now - 2 * day),
    ] {
        publish(&volume, id, text, published);
        let Some(text) = text else {
            wait_until("the page is gone", || server.get("/page.html").status() == 404);
            continue;
        };
        server.wait_for("/page.html", text);
        let next = date("/page.html");
        assert!(next > page, "{id}: other bytes, and {next:?} after {page:?}");
        assert_eq!(date("/same.html"), same, "{id}: the same bytes");
        page = next;
    }
}

#[test]
fn a_few_large_files_are_loaded_at_a_low_priority() {
    let volume = Volume::with(&[("index.html", "one")]);
    let server = Server::start(&volume.root(), &[]);
    let loads_at = || -> Option<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process.id())).unwrap();
        // A thread may have ended by now.
        let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
        let stats: Vec<String> = tasks.flatten().filter_map(stat).collect();
        let loads = stats.iter().find(|stat| stat.contains("(load)"))?;
        // See proc_pid_stat(5): the 19th field, counted from the third on.
        loads.rsplit_once(") ")?.1.split(' ').nth(16).map(str::to_owned)
    };
    volume.stage("two", &[("index.html", "two")]);
    for number in 0..4 {
        // Without blocks on the disk, and hashed all the same.
        let file = std::fs::File::create(volume.release("two").join(format!("{number}.bin"))).unwrap();
        file.set_len(64 << 20).unwrap();
    }
    volume.swap("two");
    wait_until("it is loaded at a low priority", || loads_at().as_deref() == Some("10"));
    server.wait_for("/", "two");
}

#[test]
fn swap_under_load() {
    const SWAPS: usize = 10_000;
    const CLIENTS: usize = 4;
    let body = |release: usize, page: &str| format!("{release} {page} {}", "x".repeat(release * 37));
    let volume = Volume::new();
    for release in 0..4 {
        let (index, asset) = (body(release, "index"), body(release, "asset"));
        volume.stage(&release.to_string(), &[("index.html", &index), ("asset.js", &asset)]);
    }
    volume.swap("0");
    let server = Server::start(&volume.root(), &[]);
    let tags: HashMap<String, String> = (0..4)
        .flat_map(|release| {
            volume.swap(&release.to_string());
            server.wait_for("/", &body(release, "index"));
            [("/", "index"), ("/asset.js", "asset")].map(|(path, page)| {
                let answer = server.get(path);
                assert_eq!(answer.text(), body(release, page));
                (answer.text().to_owned(), answer.header("etag").unwrap().to_owned())
            })
        })
        .collect();
    assert_eq!(tags.values().collect::<std::collections::HashSet<_>>().len(), 8);

    let (done, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (done, answers, tags, addr) = (&done, &answers, &tags, server.addr);
            scope.spawn(move || {
                let mut connection = Connection::open(addr);
                let paths = ["/", "/asset.js"];
                for path in paths.iter().cycle().skip(client) {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    connection.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
                    let answer = connection.receive("GET").unwrap();
                    assert_eq!(answer.status(), 200);
                    // Body, length and tag of one release; a mix would be in none of them.
                    let tag = tags.get(answer.text()).map(String::as_str);
                    assert!(tag.is_some() && tag == answer.header("etag"), "{path}: {answer:?}");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _over = Over(&done);
        let mut swaps = 0..;
        let mut swap = |count: usize| {
            for swap in swaps.by_ref().take(count) {
                volume.swap(&(swap % 4).to_string());
                if swap % 10 == 0 {
                    std::thread::yield_now();
                }
            }
        };
        swap(SWAPS);
        // Swaps that come faster than they can be loaded are passed over, but a good many are served.
        wait_until("a good many releases were served", || {
            swap(10);
            get(server.admin, "/status").json()["swaps"].as_u64().unwrap() >= 100
        });
        wait_until("the clients saw a good deal of it", || answers.load(Ordering::Relaxed) > 1000);
    });
    volume.swap("2");
    server.wait_for("/", &body(2, "index"));
}

#[test]
fn a_swap_is_seen_by_its_event() {
    let volume = Volume::with(&[("index.html", "0")]);
    let server = Server::start(&volume.root(), &[]);
    let begin = Instant::now();
    for swap in 1..=10 {
        let text = swap.to_string();
        volume.publish(&text, &[("index.html", &text)]);
        server.wait_for("/", &text);
    }
    // The poll alone would take two seconds for each.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn loading_a_release_holds_up_no_request() {
    let volume = Volume::with(&[("index.html", "one")]);
    let server = Server::start(&volume.root(), &[]);
    volume.stage("two", &[("index.html", "two")]);
    // Sparse, and without a stated digest: it takes a while to hash, and nothing to store.
    let large = std::fs::File::create(volume.release("two").join("large.bin")).unwrap();
    large.set_len(512 * 1024 * 1024).unwrap();
    volume.swap("two");
    let mut connection = Connection::open(server.addr);
    let mut meanwhile = 0;
    loop {
        connection.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        match connection.receive("GET").unwrap().text() {
            "one" => meanwhile += 1,
            "two" => break,
            other => panic!("{other}"),
        }
    }
    assert!(meanwhile >= 20, "{meanwhile} requests were answered while the release was loaded");
}

#[test]
fn release_removed_while_reading() {
    let body = "0123456789abcdef".repeat(1024 * 1024);
    let volume = Volume::with(&[("large.bin", &body)]);
    let server = Server::start(&volume.root(), &[]);
    let mut connection = Connection::open(server.addr);
    connection.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    // The response has begun, and is far larger than what the sockets hold.
    let mut first = [0];
    assert_eq!(connection.stream().peek(&mut first).unwrap(), 1);
    volume.publish("two", &[("large.bin", "two")]);
    server.wait_for("/large.bin", "two");
    std::fs::remove_dir_all(volume.release("one")).unwrap();
    let answer = connection.receive("GET").unwrap();
    assert_eq!(answer.body.len(), body.len());
    assert!(answer.body == body.as_bytes());
}

#[test]
fn a_release_that_was_removed_is_served_from_memory_until_the_next() {
    let volume = Volume::with(&[("index.html", "one")]);
    let server = Server::start(&volume.root(), &[]);
    std::fs::remove_dir_all(volume.release("one")).unwrap();
    std::fs::remove_file(volume.root()).unwrap();
    server.process.event("it says that the link is gone", |event| {
        event["message"].as_str().is_some_and(|message| message.contains("what was served before stays"))
    });
    assert_eq!(server.get("/").text(), "one");
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    volume.publish("two", &[("index.html", "two")]);
    server.wait_for("/", "two");
}

#[test]
fn hard_links_into_the_next_release_do_not_disturb() {
    let body = "x".repeat(2 * 1024 * 1024);
    let volume = Volume::with(&[("large.bin", &body)]);
    let server = Server::start(&volume.root(), &[]);
    // This moves the file's change time, as every pull of a publisher that hard-links does.
    std::fs::create_dir(volume.release("two")).unwrap();
    std::fs::hard_link(volume.release("one").join("large.bin"), volume.release("two").join("large.bin"))
        .unwrap();
    let answer = server.get("/large.bin");
    assert_eq!((answer.status(), answer.body.len()), (200, body.len()));
}

#[test]
fn git_sync_volume() {
    let dir = tempfile::tempdir().unwrap();
    let publish = |hash: &str, text: &str| {
        let tree = dir.path().join(".worktrees").join(hash);
        write_tree(&tree, &[("index.html", text), (".git", "gitdir: elsewhere"), ("css/site.css", text)]);
        symlink("css", tree.join("styles")).unwrap();
        let link = dir.path().join("tmp-link");
        symlink(format!(".worktrees/{hash}"), &link).unwrap();
        std::fs::rename(link, dir.path().join("site")).unwrap();
    };
    publish("aaaa", "one");
    let server = Server::start(&dir.path().join("site"), &[]);
    assert_eq!(server.get("/styles/site.css").text(), "one");
    assert_eq!(server.get("/.git").status(), 404);
    publish("bbbb", "two");
    server.wait_for("/styles/site.css", "two");
    assert_eq!(get(server.admin, "/status").json()["content"]["release"], "bbbb");
}

#[test]
fn configmap_volume() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("config");
    // What the kubelet does: a new directory, a new link beside the old one, a rename over it.
    let publish = |stamp: &str, text: &str| {
        write_tree(&root.join(stamp), &[("index.html", text)]);
        let link = root.join("..data_tmp");
        symlink(stamp, &link).unwrap();
        std::fs::rename(link, root.join("..data")).unwrap();
    };
    publish("..2026_11_23_18_00", "one");
    symlink("..data/index.html", root.join("index.html")).unwrap();
    let server = Server::start(&root, &[]);
    assert_eq!(server.get("/").text(), "one");
    for hidden in ["/..data/index.html", "/..2026_11_23_18_00/index.html"] {
        assert_eq!(server.get(hidden).status(), 404, "{hidden}");
    }
    publish("..2026_11_23_18_01", "two");
    server.wait_for("/", "two");
}

#[test]
fn no_content_yet() {
    let volume = Volume::new();
    let server = Server::start(&volume.root(), &[]);
    for path in ["/", "/absent", "/..", "/x/"] {
        let answer = server.get(path);
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{path}");
    }
    assert_eq!(server.get("/info").status(), 200);
    let readiness = get(server.admin, "/readyz");
    let reason = format!("no content yet: {} does not exist\n", volume.root().display());
    assert_eq!((readiness.status(), readiness.text()), (503, reason.as_str()));
    assert_eq!(get(server.admin, "/livez").status(), 200);

    volume.publish("one", &[("index.html", "one")]);
    server.wait_for("/", "one");
    assert_eq!(get(server.admin, "/readyz").status(), 200);
}

#[test]
fn no_volume_yet() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("volume/current"), &[]);
    assert_eq!(server.get("/").status(), 503);
    write_tree(&dir.path().join("volume/releases/one"), &[("index.html", "one")]);
    symlink("releases/one", dir.path().join("volume/current")).unwrap();
    server.wait_for("/", "one");
}

#[test]
fn a_link_to_nothing_is_no_content_yet() {
    let volume = Volume::new();
    volume.swap("one");
    let server = Server::start(&volume.root(), &[]);
    assert_eq!(server.get("/").status(), 503);
    // The link stays as it is: only the poll can see this.
    volume.stage("one", &[("index.html", "one")]);
    server.wait_for("/", "one");
}
