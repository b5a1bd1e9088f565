//! A publisher that removes the old release as soon as the link names the next one, as git-sync does.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Over, Server, Volume};

/// How many times how much is published.
#[derive(Clone, Copy)]
struct Load {
    swaps: usize,
    files: usize,
    size: usize,
}

const SMALL: Load = Load { swaps: 30, files: 40, size: 300 * 1024 };
/// For `cargo test --release -p web-server --test scenarios -- --ignored --test-threads 1 removal::`; needs 1 GiB in /dev/shm, and
/// some minutes for each layout: 90 GiB are written, and hashed.
const FULL: Load = Load { swaps: 300, files: 300, size: 1024 * 1024 };

fn directory(load: Load) -> tempfile::TempDir {
    if load.swaps > SMALL.swaps {
        tempfile::tempdir_in("/dev/shm").unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Swaps again and again while clients ask for files that are not held in memory; each swap removes the tree before.
fn remove_at_once(load: Load, root: &Path, link: &Path, tree: impl Fn(usize) -> (PathBuf, PathBuf)) {
    let Load { swaps, files, size } = load;
    let publish = |number: usize| {
        let (directory, target) = tree(number);
        std::fs::create_dir_all(&directory).unwrap();
        let body = format!("{number:08}").repeat(size / 8);
        for file in 0..files {
            std::fs::write(directory.join(format!("f{file}.bin")), &body).unwrap();
        }
        let next = link.with_file_name("..next");
        symlink(target, &next).unwrap();
        std::fs::rename(next, link).unwrap();
        if number > 0 {
            std::fs::remove_dir_all(tree(number - 1).0).unwrap();
        }
    };
    publish(0);
    let server = Server::start(root, &["--cache-size", "1MiB", "--stale-assets-for", "0s"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut connection = Connection::open(server.addr);
                    let mut answers = 0;
                    for number in (client..).step_by(3) {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let target = format!("/f{}.bin", number % files);
                        connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
                        let answer = connection.receive("GET").unwrap();
                        assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
                        let first = &answer.body[..8];
                        assert!(answer.body.chunks(8).all(|piece| piece == first), "{target} is mixed");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        let over = Over(&over);
        for number in 1..=swaps {
            assert!(!clients.iter().any(ScopedJoinHandle::is_finished), "a client has failed");
            publish(number);
        }
        wait_until("the last is served", || {
            get(server.addr, "/f0.bin").text().starts_with(&format!("{swaps:08}"))
        });
        drop(over);
        let answers: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answers > swaps, "only {answers} answers");
    });
}

fn git_sync(load: Load) {
    let dir = directory(load);
    let link = dir.path().join("site");
    remove_at_once(load, &link, &link, |number| {
        let target = PathBuf::from(format!(".worktrees/{number}"));
        (dir.path().join(&target), target)
    });
}

fn release(load: Load) {
    let dir = directory(load);
    let link = dir.path().join("current");
    remove_at_once(load, &link, &link, |number| {
        let target = PathBuf::from(format!("releases/{number}"));
        (dir.path().join(&target), target)
    });
}

fn configmap(load: Load) {
    let dir = directory(load);
    let root = dir.path().join("config");
    remove_at_once(load, &root, &root.join("..data"), |number| {
        let target = PathBuf::from(format!("..{number}"));
        (root.join(&target), target)
    });
}

#[test]
fn git_sync_removes_the_old_tree_at_once() {
    git_sync(SMALL);
}

#[test]
fn a_release_is_removed_at_once() {
    release(SMALL);
}

#[test]
fn a_configmap_is_removed_at_once() {
    configmap(SMALL);
}

/// Files of a release that are not kept open, because so many smaller ones are.
fn with_small_files<'t>(files: &[(&'t str, &'t str)], small: &'t [String]) -> Vec<(&'t str, &'t str)> {
    small.iter().map(|path| (path.as_str(), "x")).chain(files.iter().copied()).collect()
}

fn small_files() -> Vec<String> {
    (0..1024).map(|number| format!("small/{number}")).collect()
}

#[test]
fn a_page_that_stands_in_for_another_is_taken_from_the_next_release_where_its_own_is_removed() {
    let small = small_files();
    let files = |text: &'static str| {
        let rules = ("_redirects", "/old /new.html 200");
        with_small_files(
            &[("404.html", text), ("app.html", text), ("new.html", text), ("page.html", text), rules],
            &small,
        )
    };
    let volume = Volume::new();
    volume.publish("one", &files("one"));
    let flags = ["--cache-size", "0", "--redirects", "--clean-urls", "--fallback", "/app.html"];
    let server = Server::start(&volume.root(), &flags);
    assert_eq!(server.get("/old").text(), "one", "the rules are known");
    volume.stage("two", &files("two"));
    std::fs::remove_dir_all(volume.release("one")).unwrap();
    let requests = [("/absent.css", 404), ("/route", 200), ("/old", 200), ("/page", 200)];
    let waiting = requests.map(|(path, status)| {
        let mut connection = Connection::open(server.addr);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n")).unwrap();
        (path, status, connection)
    });
    volume.swap("two");
    for (path, status, mut connection) in waiting {
        let answer = connection.receive("GET").unwrap();
        assert_eq!((answer.status(), answer.text()), (status, "two"), "{path}");
    }
}

#[test]
fn rules_that_could_not_be_read_once_are_read_again() {
    let small = small_files();
    let volume = Volume::new();
    volume.publish("one", &with_small_files(&[("_redirects", "/old /new")], &small));
    let server = Server::start(&volume.root(), &["--cache-size", "0", "--redirects"]);
    let (rules, aside) = (volume.release("one").join("_redirects"), volume.release("one").join("aside"));
    std::fs::rename(&rules, &aside).unwrap();
    std::fs::write(&rules, "/old /forged").unwrap();
    assert_eq!(server.get("/old").status(), 404);
    std::fs::rename(&aside, &rules).unwrap();
    assert_eq!(server.get("/old").header("location"), Some("./new"));
}

#[test]
#[ignore = "takes minutes"]
fn three_hundred_trees_of_git_sync_are_removed_at_once() {
    git_sync(FULL);
}

#[test]
#[ignore = "takes minutes"]
fn three_hundred_releases_are_removed_at_once() {
    release(FULL);
}

#[test]
#[ignore = "takes minutes"]
fn three_hundred_configmaps_are_removed_at_once() {
    configmap(FULL);
}
