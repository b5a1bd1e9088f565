//! A plain directory, edited while it is served, and the manifest of it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use testkit::http::{Connection, get};
use testkit::{Process, eventually, wait_until};

use crate::support::{BINARY, Server, Volume, write_tree};

#[test]
fn plain_directory() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("index.html", "top"), ("docs/index.html", "docs")]);
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/").text(), "top");
    assert_eq!(server.get("/docs").header("location"), Some("./docs/"));
    assert_eq!(server.get("/docs/").text(), "docs");
    assert_eq!(server.get("/new.html").status(), 404);

    write_tree(dir.path(), &[("new.html", "new")]);
    assert_eq!(server.get("/new.html").text(), "new");
    std::fs::remove_file(dir.path().join("new.html")).unwrap();
    assert_eq!(server.get("/new.html").status(), 404);
    let etag = server.get("/").header("etag").unwrap().to_owned();
    assert_eq!(server.request("GET", "/", &[("If-None-Match", &etag)]).status(), 304);
}

#[test]
fn a_directory_that_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("site");
    let server = Server::start(&root, &[]);
    assert_eq!(server.get("/").status(), 503);
    write_tree(&root, &[("index.html", "one")]);
    server.wait_for("/", "one");
    std::fs::remove_dir_all(&root).unwrap();
    wait_until("it is gone", || get(server.admin, "/readyz").status() == 503);
    write_tree(&root, &[("index.html", "two")]);
    server.wait_for("/", "two");
}

#[test]
fn file_changed_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.html");
    std::fs::write(&path, "start").unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut connection = Connection::open(server.addr);
    let mut tags = std::collections::HashMap::new();
    for round in 0..300 {
        // Of equal length and within one tick of the clock as often as not: neither size nor time tells them apart.
        let text = format!("round {:03}", round % 100);
        std::fs::write(&path, &text).unwrap();
        connection.send("GET /page.html HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let answer = connection.receive("GET").unwrap();
        assert_eq!((answer.status(), answer.text()), (200, text.as_str()));
        let tag = answer.header("etag").unwrap().to_owned();
        assert_eq!(*tags.entry(text).or_insert_with(|| tag.clone()), tag);
    }
    assert_eq!(tags.values().collect::<std::collections::HashSet<_>>().len(), 100);
}

#[test]
fn file_truncated_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.bin");
    std::fs::write(&path, vec![b'x'; 32 * 1024 * 1024]).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut connection = Connection::open(server.addr);
    connection.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut first = [0];
    assert_eq!(connection.stream().peek(&mut first).unwrap(), 1);
    std::fs::write(&path, "short now").unwrap();
    // What cannot be sent as it was promised is cut, so that the client can tell.
    connection.receive("GET").unwrap_err();
    assert_eq!(server.get("/large.bin").text(), "short now");
}

#[test]
fn file_rewritten_in_place_while_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.bin");
    let size = 32 * 1024 * 1024;
    std::fs::write(&path, vec![b'x'; size]).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut connection = Connection::open(server.addr);
    connection.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(connection.stream().peek(&mut [0]).unwrap(), 1);
    // The length stays, so that only the time stamp tells.
    std::fs::write(&path, vec![b'y'; size]).unwrap();
    connection.receive("GET").unwrap_err();
    assert!(server.get("/large.bin").body.iter().all(|byte| *byte == b'y'));
}

#[test]
fn a_file_is_hashed_once_for_all_who_ask() {
    const CLIENTS: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let size = 8 * 1024 * 1024;
    std::fs::write(dir.path().join("large.bin"), vec![b'x'; size]).unwrap();
    let server = Server::start(dir.path(), &[]);
    // Until then what is found is not remembered, because a change might not show in the file's time.
    let written = dir.path().join("large.bin").metadata().unwrap().modified().unwrap();
    wait_until("the file was written long enough ago", || written.elapsed().unwrap().as_millis() > 200);
    let before = bytes_read(server.process.id());
    let tags: std::collections::HashSet<_> = std::thread::scope(|scope| {
        let head = || server.request("HEAD", "/large.bin", &[]).header("etag").map(str::to_owned);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(head)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(tags.len(), 1);
    let read = bytes_read(server.process.id()) - before;
    assert!(read < 2 * size as u64, "{read} bytes were read for a file of {size}");
}

#[test]
fn the_first_byte_of_a_large_file_does_not_wait_for_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.bin");
    let size = 3 * 512 * 1024 * 1024;
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let server = Server::start(dir.path(), &[]);
    let before = bytes_read(server.process.id());
    let ask = |tag: &str| {
        server.request("GET", "/film.bin", &[("Range", "bytes=1000000000-1000000000"), ("If-Range", tag)])
    };
    let tag = server.request("HEAD", "/film.bin", &[]).header("etag").unwrap().to_owned();
    let part = ask(&tag);
    assert_eq!((part.status(), part.body.as_slice()), (206, &[0][..]));
    assert_eq!(part.header("etag"), Some(tag.as_str()));
    // Not a matter of time: of the file only what is sent is read.
    let read = bytes_read(server.process.id()) - before;
    assert!(read < 1024 * 1024, "{read} bytes were read for one");
    // The tag is one of these bytes alone: a change of equal length has another.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"changed").unwrap();
    assert_ne!(server.request("HEAD", "/film.bin", &[]).header("etag"), Some(tag.as_str()));
}

/// By a process, from files and sockets, since it began.
pub(crate) fn bytes_read(pid: u32) -> u64 {
    let counters = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    counters.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn one_file_changed_is_not_paid_for_by_hashing_the_others() {
    const MIB: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    for number in 0..50 {
        std::fs::write(dir.path().join(format!("{number}.bin")), vec![b'x'; MIB]).unwrap();
    }
    let server = Server::start(dir.path(), &["--manifest", "--rescan", "1h"]);
    // A file that was written right before it is listed is read once more when it is next looked at.
    wait_until("all are listed and settled", || {
        let before = bytes_read(server.process.id());
        std::fs::write(dir.path().join("0.bin"), vec![b'y'; MIB]).unwrap();
        let listed = server.get("/manifest.json").json();
        files(&listed).len() == 50 && bytes_read(server.process.id()) - before < 3 * MIB as u64
    });
    for round in 0..5 {
        let before = bytes_read(server.process.id());
        let tag = server.get("/manifest.json").header("etag").unwrap().to_owned();
        std::fs::write(dir.path().join("7.bin"), vec![b'0' + round; MIB]).unwrap();
        wait_until("the edit is listed", || {
            server.get("/manifest.json").header("etag") != Some(tag.as_str())
        });
        let read = bytes_read(server.process.id()) - before;
        assert!(read < 3 * MIB as u64, "{read} bytes were read for 1 MiB in round {round}");
    }
}

#[test]
fn manifest_live() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[
            ("index.html", "hello"),
            ("css/site.css", "body {}"),
            (".git/config", "hidden"),
            ("css/.site.css.swp", "hidden"),
            ("info", "shadowed"),
            ("manifest.json", "shadowed"),
        ],
    );
    let script = dir.path().join("run.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::set_permissions(dir.path().join("index.html"), PermissionsExt::from_mode(0o600)).unwrap();

    let server = Server::start(dir.path(), &["--manifest"]);
    let answer = server.get("/manifest.json");
    assert_eq!((answer.status(), answer.header("content-type")), (200, Some("application/json")));
    let manifest = answer.json();
    assert_eq!(manifest["format"], "sidecar-manifest/1");
    let paths: Vec<_> = files(&manifest).iter().map(|file| file["path"].clone()).collect();
    assert_eq!(paths, ["css/site.css", "index.html", "run.sh"]);
    assert_eq!(
        files(&manifest)[1],
        json!({
            "path": "index.html", "size": 5, "mode": "0644",
            "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        })
    );
    assert_eq!(files(&manifest)[2]["mode"], "0755");

    let etag = answer.header("etag").unwrap().to_owned();
    assert!(etag.starts_with('"'), "{etag}");
    let again = |etag: &str| server.request("GET", "/manifest.json", &[("If-None-Match", etag)]).status();
    assert_eq!(again(&etag), 304);
    // Another server on the same directory says the same, byte for byte.
    let other = Server::start(dir.path(), &["--manifest"]);
    assert_eq!(other.get("/manifest.json").body, answer.body);

    std::fs::write(dir.path().join("index.html"), "HELLO").unwrap();
    // The edit is taken in once the directory has been quiet for a moment.
    wait_until("the edit is listed", || again(&etag) == 200);
    write_tree(dir.path(), &[("new.html", "new")]);
    std::fs::remove_file(dir.path().join("css/site.css")).unwrap();
    wait_until("both edits are listed", || {
        let manifest = server.get("/manifest.json").json();
        let paths: Vec<_> = files(&manifest).iter().map(|file| file["path"].clone()).collect();
        paths == ["index.html", "new.html", "run.sh"]
    });
}

/// A clone under umask 077, served by a container's user: what cannot be read, for whom, and the way out, in the log and in the answer.
#[test]
fn content_that_may_not_be_read_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("content");
    write_tree(&root, &[("index.html", "hello"), ("css/site.css", "body {}")]);
    // Root may read everything until it gives its capabilities away.
    let without_capabilities = || {
        let mut command = Command::new("env");
        if rustix::process::geteuid().is_root() {
            command = Command::new("setpriv");
            command.args(["--inh-caps=-all", "--bounding-set=-all"]);
        }
        command.arg(BINARY).arg("--root").arg(&root).args(["--listen", "127.0.0.1:0", "--manifest"]);
        Server::of(Process::start_command(command))
    };
    for (path, named) in [("index.html", "index.html: "), ("css", "css: "), ("", "the directory: ")] {
        let locked = root.join(path);
        let mode = std::fs::metadata(&locked).unwrap().permissions().mode();
        std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).unwrap();
        let server = without_capabilities();
        let answer = eventually("the answer names it", || {
            let answer = server.get("/manifest.json");
            answer.text().contains(named).then_some(answer)
        });
        assert_eq!(answer.status(), 503);
        assert!(answer.text().contains("Permission denied"), "{}", answer.text());
        assert!(
            answer.text().contains("must be able to read it, for example after `chmod -R a+rX`"),
            "{}",
            answer.text()
        );
        let said = || server.process.stderr().matches("chmod -R a+rX").count();
        wait_until("the log says it", || said() > 0);
        assert_eq!(said(), 1, "{}", server.process.stderr());

        std::fs::set_permissions(&locked, PermissionsExt::from_mode(mode)).unwrap();
        wait_until("the manifest is there once it can be read", || {
            server.get("/manifest.json").status() == 200
        });
    }
}

#[test]
fn manifest_only_when_asked_for() {
    let volume = Volume::with(&[("index.html", "hello")]);
    assert_eq!(Server::start(&volume.root(), &[]).get("/manifest.json").status(), 404);
    let server = Server::start(&volume.root(), &["--manifest"]);
    let manifest = server.get("/manifest.json").json();
    assert_eq!(files(&manifest)[0]["path"], "index.html");
    let nothing = Server::start(&Volume::new().root(), &["--manifest"]);
    assert_eq!(nothing.get("/manifest.json").status(), 503);
}

fn files(manifest: &Value) -> &Vec<Value> {
    manifest["files"].as_array().unwrap()
}
