//! Against the real nginx. `file-puller/tests/nginx/run.sh` installs it and runs these; `cargo test` alone needs only Rust.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::process::run;
use testkit::{Process, http, wait_until};

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume, metric, once, start_from, start_when_asked, sync, tree};
use crate::tarball::{gzip, tar};

/// nginx with a configuration of the test's own, over a directory.
struct Nginx {
    child: Child,
    port: u16,
    directory: PathBuf,
}

impl Nginx {
    /// `server` is what stands in the server's block, beside where it listens.
    fn start(directory: &Path, server: &str) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a free port").port();
        let directory = directory.to_owned();
        fs::create_dir_all(directory.join("site")).expect("a directory");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};", directory.display()))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; events {{}}
             http {{ {temporary} access_log {0}/access.log; types {{ text/html html; application/json json; }}
             server {{ listen 127.0.0.1:{port}; root {0}; {server} }} }}",
            directory.display()
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration).expect("a file");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is there: tests/nginx/run.sh installs it");
        wait_until("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, directory }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn site(&self) -> PathBuf {
        self.directory.join("site")
    }

    /// Writes files, and then their manifest, as the recipe says.
    fn publish(&self, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = self.site().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            fs::write(path, content).expect("a file");
        }
        let (site, output) = (self.site(), self.site().join("manifest.json"));
        let command = ["manifest".as_ref(), site.as_os_str(), "--output".as_ref(), output.as_os_str()];
        assert_eq!(run(BINARY, command), (0, String::new(), String::new()));
    }

    /// Statuses of the requests for a path so far.
    fn statuses(&self, path: &str) -> Vec<String> {
        let log = fs::read_to_string(self.directory.join("access.log")).expect("it logs");
        let of = |line: &str| {
            line.contains(&format!("GET {path} ")).then(|| line.split('"').nth(2).map(str::to_owned))
        };
        log.lines()
            .filter_map(of)
            .flatten()
            .filter_map(|rest| rest.split_whitespace().next().map(str::to_owned))
            .collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn follow(nginx: &Nginx, volume: &Volume, path: &str) -> Process {
    start_when_asked(&nginx.url(path), volume, &[])
}

#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_serves_a_site() {
    let volume = Volume::new();
    let nginx = Nginx::start(volume.above(), "");
    nginx.publish(&[("index.html", "one"), ("css/site.css", "a{}")]);
    let process = follow(&nginx, &volume, "/site/manifest.json");
    sync(&process);
    assert_eq!(volume.tree()["index.html"].1, b"one");
    // As soon as the manifest is older than a second or two, it costs a 304.
    wait_until("not modified", || {
        sync(&process);
        nginx.statuses("/site/manifest.json").last().is_some_and(|status| status == "304")
    });
    nginx.publish(&[("index.html", "two")]);
    wait_until("the next release", || {
        sync(&process);
        volume.tree()["index.html"].1 == b"two"
    });
}

/// Two manifests of the same size within a second have the same tag: nobody who goes by it alone ever sees the second.
#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_two_changes_within_a_second() {
    for round in 0..3 {
        let volume = Volume::new();
        let nginx = Nginx::start(volume.above(), "");
        // At the beginning of a second, so that both fall into it.
        wait_until("a new second", || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            now.subsec_millis() < 100
        });
        nginx.publish(&[("index.html", "one")]);
        let process = follow(&nginx, &volume, "/site/manifest.json");
        sync(&process);
        nginx.publish(&[("index.html", "two")]);
        wait_until("the second is seen", || {
            sync(&process);
            volume.tree()["index.html"].1 == b"two"
        });
        assert!(round < 3);
    }
}

#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_without_tags() {
    let volume = Volume::new();
    let nginx = Nginx::start(volume.above(), "etag off;");
    nginx.publish(&[("index.html", "one")]);
    let process = follow(&nginx, &volume, "/site/manifest.json");
    wait_until("not modified", || {
        sync(&process);
        nginx.statuses("/site/manifest.json").last().is_some_and(|status| status == "304")
    });
    nginx.publish(&[("index.html", "two")]);
    wait_until("the next release", || {
        sync(&process);
        volume.tree()["index.html"].1 == b"two"
    });
}

/// An archive, a redirect to it, and nginx compressing on the way.
#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_serves_an_archive() {
    let volume = Volume::new();
    let server = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; location = /latest { return 302 /site/site.tar.gz; }";
    let nginx = Nginx::start(volume.above(), server);
    let files = [("index.html".to_owned(), (0o644, b"hello".to_vec()))].into();
    fs::write(nginx.site().join("site.tar.gz"), gzip(&tar(&files))).expect("a file");
    for path in ["/site/site.tar.gz", "/latest"] {
        let volume = Volume::new();
        let (code, stderr) = once(&nginx.url(path), &volume.path(), &[]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(tree(&volume.join("current")), files);
    }
}

/// A page of errors that is sent with status 200, as some single-page sites do.
#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_falls_back_to_a_page() {
    let volume = Volume::new();
    let nginx = Nginx::start(volume.above(), "location / { try_files $uri /index.html; }");
    fs::write(nginx.directory.join("index.html"), "<!doctype html><title>App</title>").expect("a file");
    let (code, stderr) = once(&nginx.url("/site/manifest.json"), &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(stderr.contains("text/html") && stderr.contains("<!doctype html>"), "{stderr}");
}

/// nginx closes connections that were quiet for longer than it keeps them: no sync may fail because of that.
#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_closes_idle_connections() {
    let volume = Volume::new();
    let nginx = Nginx::start(volume.above(), "keepalive_timeout 50ms;");
    nginx.publish(&[("index.html", "one")]);
    let process = start_from(
        &nginx.url("/site/manifest.json"),
        &volume,
        &["--period", "50ms", "--max-backoff", "50ms"],
    );
    wait_until("many syncs", || metric(&process, "file_puller_syncs_total{result=\"unchanged\"}") >= 30.0);
    let failed = metric(&process, "file_puller_syncs_total{result=\"failed\"}");
    assert!(failed < 0.5, "{}", process.stderr());
}

/// A name that leads elsewhere is followed, although the connection to where it led before still works.
#[test]
#[ignore = "needs nginx, and its own /etc/hosts: file-puller/tests/nginx/run.sh"]
fn nginx_moves_to_another_address() {
    let hosts = Path::new("/etc/hosts");
    assert!(
        std::env::var_os("OWN_HOSTS").is_some(),
        "run.sh makes a mount namespace with an /etc/hosts of its own"
    );
    let name = |address: &str| fs::write(hosts, format!("{address} moving.test\n")).expect("it is our own");
    let (volume, other) = (Volume::new(), Volume::new());
    let old = Nginx::start(volume.above(), "");
    old.publish(&[("index.html", "old")]);
    // On the same port of another address.
    let server = format!("listen 127.0.0.2:{};", old.port);
    let new = Nginx::start(other.above(), &server);
    // Its manifest has another size: two nginx whose files are of the same second have the same tags otherwise.
    new.publish(&[("index.html", "much newer")]);
    name("127.0.0.1");
    let url = format!("http://moving.test:{}/site/manifest.json", old.port);
    let flags = ["--period", "100ms", "--max-connection-age", "2s"];
    let process = start_from(&url, &volume, &flags);
    wait_until("published", || volume.current().is_some());
    assert_eq!(volume.tree()["index.html"].1, b"old");
    name("127.0.0.2");
    wait_until("followed", || volume.tree()["index.html"].1 == b"much newer");
    drop(process);
}

/// nginx in front of a content manager that can wait. The site's path is the manager's own.
fn proxy(manager: &ContentManager, volume: &Volume, server: &str) -> Nginx {
    let location = format!("location /site/ {{ proxy_pass http://{}; {server} }}", manager.upstream.addr());
    Nginx::start(volume.above(), &location)
}

fn waits(process: &Process) {
    wait_until("a question is held", || {
        http::get(process.addr("admin"), "/status").json()["waiting"] == true
    });
}

/// With its defaults nginx lets a question wait: it is held for less than the 60 s of `proxy_read_timeout`.
#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_lets_a_question_wait() {
    let (manager, volume) = (ContentManager::start(&[("index.html", "one")]), Volume::new());
    manager.waits(|answer| answer);
    let nginx = proxy(&manager, &volume, "");
    let process = start_from(&nginx.url("/site/manifest.json"), &volume, &["--period", "1h"]);
    for content in ["two", "three"] {
        waits(&process);
        manager.put("index.html", content);
        wait_until("it is published", || volume.current().is_some() && volume.tree() == manager.site().files);
    }
    let held: Vec<_> = manager.upstream.requests().into_iter().filter(ContentManager::is_held).collect();
    assert!(held.iter().all(|request| request.header("prefer") == Some("wait=50")), "{held:?}");
    drop(process);
    // To its end, and again.
    let process = start_from(&nginx.url("/site/manifest.json"), &volume, &["--period", "1h", "--wait", "1s"]);
    let unchanged = || metric(&process, "file_puller_waits_total{result=\"unchanged\"}");
    wait_until("it has waited in vain", || unchanged() >= 3.0);
    assert!(metric(&process, "file_puller_waits_total{result=\"cut\"}") < 0.5, "{}", process.stderr());
}

/// A proxy that cuts a question off costs no failure, and an edit still arrives.
#[test]
#[ignore = "needs nginx: file-puller/tests/nginx/run.sh"]
fn nginx_cuts_a_question_off() {
    for (after, times) in [("1s", 3.0), ("10s", 1.0)] {
        let (manager, volume) = (ContentManager::start(&[("index.html", "one")]), Volume::new());
        manager.waits(|answer| answer);
        let nginx = proxy(&manager, &volume, &format!("proxy_read_timeout {after};"));
        let process = start_from(&nginx.url("/site/manifest.json"), &volume, &["--period", "500ms"]);
        let cut = || metric(&process, "file_puller_waits_total{result=\"cut\"}");
        wait_until("it was cut off", || cut() >= times);
        assert!(nginx.statuses("/site/manifest.json").iter().any(|status| status == "504"));
        manager.put("index.html", "two");
        wait_until("it arrives all the same", || volume.tree() == manager.site().files);
        let failed = metric(&process, "file_puller_syncs_total{result=\"failed\"}");
        assert!(failed < 0.5, "{}", process.stderr());
    }
}
