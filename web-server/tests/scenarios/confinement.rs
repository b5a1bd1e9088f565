//! Nothing but the content is ever given out.

use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use testkit::http::Connection;

use crate::support::{Server, Volume, write_tree};

const SECRET: &str = "not for the world";

/// Runs a check against a release, and against a plain directory with the same files.
fn both(prepare: impl Fn(&Path), check: impl Fn(&Server)) {
    let volume = Volume::new();
    std::fs::write(volume.root().with_file_name("secret"), SECRET).unwrap();
    volume.stage("one", &[("index.html", "top"), ("a/b.html", "b")]);
    prepare(&volume.release("one"));
    volume.swap("one");
    check(&Server::start(&volume.root(), &[]));
    check(&Server::start(&volume.release("one"), &[]));
}

#[track_caller]
fn refused(server: &Server, target: &str) {
    let mut connection = Connection::open(server.addr);
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
    let answer = connection.receive("GET").unwrap();
    assert!(matches!(answer.status(), 400 | 404), "{target}: {}", answer.start);
    assert!(!answer.text().contains(SECRET), "{target}");
}

#[test]
fn path_traversal() {
    both(
        |_| {},
        |server| {
            for up in ["..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "..%00", "..;", "...", "%c0%ae%c0%ae"] {
                for slash in ["/", "%2f", "%2F", "%5c", "\\", "%252f", "//"] {
                    for lead in ["/", "/a/../../", "/a/"] {
                        let climb = format!("{up}{slash}").repeat(3);
                        refused(server, &format!("{lead}{climb}secret"));
                    }
                }
            }
            for target in ["/%", "/%2", "/%zz", "/index.html%00", "/index.html%00.png", "/a%2fb.html"] {
                refused(server, target);
            }
        },
    );
}

#[test]
fn symlink_out_of_root() {
    both(
        |release| {
            symlink("../../secret", release.join("file.html")).unwrap();
            symlink(release.join("../../secret"), release.join("absolute.html")).unwrap();
            symlink("../..", release.join("directory")).unwrap();
            symlink("/proc/self/cwd", release.join("magic")).unwrap();
            symlink("loop", release.join("loop")).unwrap();
            symlink("a/b.html", release.join("inside.html")).unwrap();
            symlink("a", release.join("inside")).unwrap();
        },
        |server| {
            for target in
                ["/file.html", "/absolute.html", "/directory/secret", "/directory/", "/magic/", "/loop"]
            {
                refused(server, target);
            }
            assert_eq!(server.get("/inside.html").text(), "b");
            assert_eq!(server.get("/inside/b.html").text(), "b");
        },
    );
}

#[test]
fn fifo_in_root() {
    both(
        |release| mknodat(CWD, release.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap(),
        |server| {
            refused(server, "/fifo");
            assert_eq!(server.get("/a/b.html").text(), "b");
        },
    );
}

#[test]
fn dotfile() {
    both(
        |release| {
            let hidden = [(".git/config", SECRET), (".env", SECRET), ("a/.htpasswd", SECRET)];
            write_tree(release, &hidden);
            write_tree(release, &[(".well-known/security.txt", "for the world")]);
        },
        |server| {
            for target in ["/.git/config", "/.env", "/a/.htpasswd", "/%2eenv", "/.git", "/.git/"] {
                refused(server, target);
            }
            assert_eq!(server.get("/.well-known/security.txt").text(), "for the world");
        },
    );
}
