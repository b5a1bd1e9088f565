//! One whole line per response, wherever the file goes.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{Connection, get};
use testkit::{Process, wait_until};

use crate::support::{BINARY, Server, Volume};

pub(crate) struct Logged {
    pub(crate) server: Server,
    logs: TempDir,
    _volume: Volume,
}

impl Logged {
    pub(crate) fn start(args: &[&str]) -> Self {
        let volume = Volume::with(&[("index.html", "hello"), ("page.html", &"x".repeat(1000))]);
        let logs = tempfile::tempdir().unwrap();
        let path = logs.path().join("access.log");
        let mut all = vec!["--access-log", path.to_str().unwrap()];
        all.extend(args);
        let server = Server::start(&volume.root(), &all);
        Self { server, logs, _volume: volume }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.logs.path().join("access.log")
    }

    /// Requests with these ids, on one connection.
    pub(crate) fn ask(&self, ids: impl IntoIterator<Item = usize>) {
        let mut connection = Connection::open(self.server.addr);
        for id in ids {
            connection.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: {id}\r\n\r\n")).unwrap();
            assert_eq!(connection.receive("GET").unwrap().status(), 200);
        }
    }

    pub(crate) fn written(&self) -> u64 {
        get(self.server.admin, "/status").json()["access_log"]["lines"].as_u64().unwrap()
    }

    pub(crate) fn dropped(&self) -> u64 {
        get(self.server.admin, "/status").json()["access_log"]["dropped"].as_u64().unwrap()
    }
}

/// Every line of a file has to be whole.
pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "half a line in {}: {text}", path.display());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

pub(crate) fn wait_for_lines(path: &Path, count: usize) -> Vec<Value> {
    let written = || std::fs::read_to_string(path).unwrap_or_default().matches('\n').count();
    wait_until(&format!("{count} lines in {}", path.display()), || written() >= count);
    lines(path)
}

pub(crate) fn ids(lines: &[Value]) -> Vec<usize> {
    lines.iter().map(|line| line["request.id"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn access_log_json() {
    let logged = Logged::start(&[]);
    let server = &logged.server;
    let headers = [("User-Agent", "test/1"), ("Referer", "http://from/"), ("X-Request-Id", "abc")];
    server.request("GET", "/page.html?a=b%20c", &headers);
    server.request("GET", "/page.html", &[("Range", "bytes=0-9")]);
    server.request("HEAD", "/page.html", &[]);
    server.request("GET", "/page.html", &[("If-None-Match", "*")]);
    server.get("/absent");
    server.request("POST", "/", &[]);
    let lines = wait_for_lines(&logged.path(), 6);

    let text = std::fs::read_to_string(logged.path()).unwrap();
    let first = text.lines().next().unwrap();
    // The order is the contract's, too.
    let names = [
        "timestamp",
        "client.address",
        "http.request.method",
        "url.path",
        "url.query",
        "http.response.status_code",
        "http.response.body.size",
        "http.server.request.duration",
        "network.protocol.version",
        "server.address",
        "user_agent.original",
        "http.request.header.referer",
        "request.id",
        "release.id",
    ];
    let positions: Vec<_> = names.iter().map(|name| first.find(&format!("\"{name}\":"))).collect();
    assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{first}");
    assert_eq!(lines[0].as_object().unwrap().len(), names.len());

    assert_eq!(lines[0]["client.address"], "127.0.0.1");
    assert_eq!(lines[0]["http.request.method"], "GET");
    assert_eq!(lines[0]["url.path"], "/page.html");
    assert_eq!(lines[0]["url.query"], "a=b%20c");
    assert_eq!(lines[0]["network.protocol.version"], "1.1");
    assert_eq!(lines[0]["server.address"], server.addr.to_string());
    assert_eq!(lines[0]["user_agent.original"], "test/1");
    assert_eq!(lines[0]["http.request.header.referer"], "http://from/");
    assert_eq!(lines[0]["request.id"], "abc");
    assert_eq!(lines[0]["release.id"], "one");
    assert!(lines[0]["http.server.request.duration"].as_f64().unwrap() < 10.0);
    let timestamp = lines[0]["timestamp"].as_str().unwrap();
    assert!(
        timestamp.len() == "2026-11-23T18:02:03.123456Z".len() && timestamp.ends_with('Z'),
        "{timestamp}"
    );

    let sizes: Vec<_> = lines
        .iter()
        .map(|line| {
            let number = |name: &str| line[name].as_u64().unwrap();
            (number("http.response.status_code"), number("http.response.body.size"))
        })
        .collect();
    assert_eq!(sizes[..5], [(200, 1000), (206, 10), (200, 0), (304, 0), (404, 10)]);
    assert_eq!(sizes[5].0, 405);
}

#[test]
fn access_log_combined() {
    let logged = Logged::start(&["--access-log-format", "combined"]);
    let headers = [("User-Agent", "a \"b\" \\"), ("Referer", "http://from/")];
    logged.server.request("GET", "/page.html?a=b", &headers);
    logged.server.request("HEAD", "/absent", &[]);
    wait_until("two lines", || {
        std::fs::read_to_string(logged.path()).is_ok_and(|text| text.matches('\n').count() == 2)
    });
    let text = std::fs::read_to_string(logged.path()).unwrap();
    let lines: Vec<(&str, &str)> = text
        .lines()
        .map(|line| {
            let (before, rest) = line.split_once('[').unwrap();
            let (time, after) = rest.split_once(']').unwrap();
            assert_eq!(
                (before, time.len()),
                ("127.0.0.1 - - ", "23/Nov/2026:18:02:03 +0000".len()),
                "{line}"
            );
            (time, after)
        })
        .collect();
    assert_eq!(lines[0].1, r#" "GET /page.html?a=b HTTP/1.1" 200 1000 "http://from/" "a \x22b\x22 \x5C""#);
    assert_eq!(lines[1].1, r#" "HEAD /absent HTTP/1.1" 404 0 "-" "-""#);
}

#[test]
fn access_log_common() {
    let logged = Logged::start(&["--access-log-format", "common"]);
    logged.server.get("/page.html");
    wait_until("a line", || std::fs::read_to_string(logged.path()).is_ok_and(|text| text.ends_with('\n')));
    let text = std::fs::read_to_string(logged.path()).unwrap();
    assert!(text.ends_with("] \"GET /page.html HTTP/1.1\" 200 1000\n"), "{text}");
}

#[test]
fn access_log_escaping() {
    let logged = Logged::start(&[]);
    let mut connection = Connection::open(logged.server.addr);
    let request = b"GET /\"},{%0A?\\{ HTTP/1.1\r\nHost: h\r\nUser-Agent: a\tb\"}\\\xff\xc3\xa9\r\nReferer: \x80\r\n\r\n";
    connection.send(request).unwrap();
    connection.receive("GET").unwrap();
    let lines = wait_for_lines(&logged.path(), 1);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["url.path"], "/\"},{%0A");
    assert_eq!(lines[0]["url.query"], "\\{");
    assert_eq!(lines[0]["user_agent.original"], "a\tb\"}\\\u{fffd}é");
}

#[test]
fn access_log_counts_what_was_sent_before_the_client_left() {
    let body = "x".repeat(32 * 1024 * 1024);
    let volume = Volume::with(&[("large.bin", &body)]);
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("access.log");
    let server = Server::start(&volume.root(), &["--access-log", path.to_str().unwrap()]);
    let mut connection = Connection::open(server.addr);
    connection.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut first = [0];
    assert_eq!(connection.stream().peek(&mut first).unwrap(), 1);
    drop(connection);
    let lines = wait_for_lines(&path, 1);
    let sent = usize::try_from(lines[0]["http.response.body.size"].as_u64().unwrap()).unwrap();
    assert!(sent > 0 && sent < body.len(), "{sent}");
}

#[test]
fn access_log_on_stdout() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--access-log", "-"]);
    server.get("/");
    wait_until("the line is there", || server.process.stdout_lines().len() == 1);
    assert!(server.process.stdout_lines()[0].contains("\"url.path\":\"/\""));
}

#[test]
fn access_log_dir_removed() {
    let logged = Logged::start(&[]);
    logged.ask(0..5);
    wait_for_lines(&logged.path(), 5);
    std::fs::remove_file(logged.path()).unwrap();
    std::fs::remove_dir(logged.logs.path()).unwrap();
    logged.ask(5..15);
    wait_until("ten are dropped", || logged.dropped() == 10);
    let complaints =
        || logged.server.process.events().iter().filter(|event| event["level"] == "ERROR").count();
    // They are counted before it is said.
    wait_until("it is said", || complaints() > 0);
    assert_eq!(complaints(), 1, "{}", logged.server.process.stderr());

    std::fs::create_dir(logged.logs.path()).unwrap();
    logged.ask(15..20);
    assert_eq!(ids(&wait_for_lines(&logged.path(), 5)), (15..20).collect::<Vec<_>>());
    assert_eq!(logged.dropped(), 10);
}

#[test]
fn access_log_disk_full() {
    // A limit on the size of files stands in for a full disk: the kernel takes what fits, half a line included.
    let volume = Volume::with(&[("index.html", "hello")]);
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("access.log");
    let mut command = std::process::Command::new("/bin/sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -S -f 4; exec \"$0\" \"$@\"", BINARY, "--listen", "127.0.0.1:0"])
        .arg("--root")
        .arg(volume.root())
        .arg("--access-log")
        .arg(&path);
    let server = Server::of(Process::start_command(command));
    let logged = Logged { server, logs, _volume: volume };
    logged.ask(0..50);
    // One line was begun and waits for its end: it is neither written nor dropped.
    wait_until("every other line is accounted for", || logged.written() + logged.dropped() == 49);
    let dropped = logged.dropped();
    assert!(dropped > 0 && !std::fs::read_to_string(&path).unwrap().ends_with('\n'));

    // Somebody makes room.
    let pid = i32::try_from(logged.server.process.id()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    logged.ask(50..55);
    wait_until("the line that was begun is written, and the new ones", || logged.written() + dropped == 55);
    assert_eq!(logged.dropped(), dropped);
    let lines = lines(&path);
    assert_eq!(lines.len() as u64, logged.written());
    assert_eq!(ids(&lines)[lines.len() - 5..], [50, 51, 52, 53, 54]);
}

#[test]
fn the_last_lines_are_written_before_the_process_ends() {
    // Nobody reads the pipe, so its writer stands still, as it would on a slow disk.
    let volume = Volume::with(&[("index.html", "hello")]);
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("access.log");
    mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let server = Server::start(&volume.root(), &["--access-log", path.to_str().unwrap()]);
    let mut logged = Logged { server, logs, _volume: volume };
    logged.ask(0..400);
    let mut pipe = std::io::BufReader::new(std::fs::File::open(&path).unwrap()).lines();
    logged.server.process.signal(Signal::TERM);
    wait_until("only the log is left to finish", || Connection::try_open(logged.server.addr).is_err());
    for id in 0..400 {
        let line: Value = serde_json::from_str(&pipe.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["request.id"], id.to_string());
    }
    assert_eq!(logged.server.process.wait().code(), Some(0));
}
